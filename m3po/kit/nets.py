"""Networks that more than one agent builds from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from m3po.kit.seeding import generator

__all__ = ["MLP", "NormedLinear", "SimNorm", "TaskEmbedding", "last_linear", "orthogonal_", "sim_norm"]


def orthogonal_(layer: nn.Linear, gain: float) -> nn.Linear:
    """Orthogonal weights, zero bias (usual for PPO); returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def sim_norm(x: Tensor, group: int = 8) -> Tensor:
    """Softmax over consecutive groups of ``group`` entries of the last axis (TD-MPC2, arXiv 2310.16828, eq. 5).

    Written as exp and a grouped sum: softmax over a last axis of 8 runs nine times slower on a CPU.
    """
    if x.shape[-1] % group:
        raise ValueError(f"the last axis ({x.shape[-1]}) must be a multiple of the group size ({group})")
    grouped = x.reshape(*x.shape[:-1], -1, group)
    weights = torch.exp(grouped - grouped.detach().amax(-1, keepdim=True))
    return (weights / weights.sum(-1, keepdim=True)).flatten(-2)


class SimNorm(nn.Module):
    """:func:`sim_norm` as a layer."""

    def __init__(self, group: int = 8) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return sim_norm(x, self.group)


class NormedLinear(nn.Sequential):
    """Linear → LayerNorm → activation."""

    def __init__(self, inputs: int, outputs: int, activation: nn.Module | None = None) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), activation or nn.SiLU())


class MLP(nn.Sequential):
    """Normed SiLU layers of sizes ``hidden``, then a plain linear layer, or LayerNorm and ``last`` behind it.

    SiLU instead of TD-MPC2's Mish: nine times cheaper on a CPU.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, *, last: nn.Module | None = None) -> None:
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = [NormedLinear(a, b) for a, b in itertools.pairwise(sizes)]
        layers.append(nn.Linear(sizes[-1], outputs) if last is None else NormedLinear(sizes[-1], outputs, last))
        super().__init__(*layers)

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., inputs]`` → ``[..., outputs]``."""
        y: Tensor = super().__call__(x)
        return y


def last_linear(module: nn.Module) -> nn.Linear:
    """The last linear layer of a network, to initialise it apart from the others."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]


class TaskEmbedding(nn.Module):
    """Learned embedding ``[B, E]`` of task indices ``[B]``, of length at most one; ``size`` 0 means none.

    A task's first embedding follows from its name (and torch's global generator), whatever place it has in a suite.
    """

    def __init__(self, names: Sequence[str], size: int) -> None:
        super().__init__()
        self.size = size
        base = int(torch.randint(2**62, ())) if size else 0
        rows = [torch.randn(size, generator=generator(base, name)) for name in names]
        self.weight = nn.Parameter(torch.stack(rows) / max(1, size) ** 0.5)

    def forward(self, task: Tensor) -> Tensor:
        rows = self.weight[task]
        return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1.0) if self.size else rows

"""Networks that more than one agent builds from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3po.kit.seeding import generator

__all__ = [
    "MLP",
    "Mish",
    "NormedLinear",
    "SimNorm",
    "TaskEmbedding",
    "dropout",
    "last_linear",
    "mish",
    "orthogonal_",
    "sim_norm",
]


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
    grouped = x.reshape(*x.shape[:-1], x.shape[-1] // group, group)
    weights = torch.exp(grouped - grouped.detach().amax(-1, keepdim=True))
    return (weights / weights.sum(-1, keepdim=True)).flatten(-2)


class SimNorm(nn.Module):
    """:func:`sim_norm` as a layer."""

    def __init__(self, group: int = 8) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return sim_norm(x, self.group)


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + eˣ)), any shape (Misra 2020, arXiv 1908.08681, eq. 1).

    On a CPU it is written with one transcendental function instead of three, x − 2x/((1 + eˣ)² + 1), which is six
    times as fast; an overflowing square gives x, as it should.
    """
    if x.is_cuda:
        return F.mish(x)
    if torch.is_grad_enabled() and x.requires_grad:
        y: Tensor = _MishWithSlope.apply(x)  # type: ignore[no-untyped-call]
        return y
    f = torch.exp(x).add_(1)
    w = torch.addcmul(x.new_ones(()), f, f, out=f)
    return torch.addcdiv(x, x, w, value=-2, out=w)


class _MishWithSlope(torch.autograd.Function):
    """Mish that keeps its slope, so that the way back is one product.

    With e = eˣ, g = e + 2 and r = 1/((1 + e)² + 1) = 1/(ge + 2): y = x − 2xr, y' = 1 − 2r (1 − 2x (1 − rg)).
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        one = x.new_ones(())
        # From 20 on the slope is 1 in float32; beyond 44 the square would be infinite.
        e = x.clamp(max=20).exp_()
        slope = e + 2
        r = torch.addcmul(2 * one, slope, e, out=e).reciprocal_()
        y = torch.addcmul(x, x, r, value=-2)
        torch.addcmul(one, slope, r, value=-1, out=slope)
        torch.addcmul(one, slope, x, value=-2, out=slope)
        torch.addcmul(one, slope, r, value=-2, out=slope)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        product: Tensor = gradient * slope
        return product


class Mish(nn.Module):
    """:func:`mish` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return mish(x)


def dropout(x: Tensor, share: float, stream: torch.Generator) -> Tensor:
    """``x`` without a ``share`` of its entries, the others divided by 1 − ``share`` (Srivastava et al. 2014).

    Each entry is dropped independently, as ever, but what is drawn are the geometric distances from one dropped entry
    to the next: for one percent of the entries a hundredth of the random numbers.
    """
    if not share:
        return x
    expected = x.numel() * share
    # So many reach beyond the end, except with a probability of about 1e-15.
    gaps = torch.empty(int(expected + 8 * expected**0.5 + 32), dtype=torch.int64, device=x.device)
    dropped = gaps.geometric_(share, generator=stream).cumsum(0) - 1
    factor = x.new_full((x.numel() + 1,), 1 / (1 - share))
    factor[dropped.clamp(max=x.numel())] = 0.0
    return x * factor[:-1].view_as(x)


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

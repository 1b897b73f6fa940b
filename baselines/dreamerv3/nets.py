"""Layers of DreamerV3: truncated-normal linear layers, RMSNorm with SiLU, block-diagonal layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BlockLinear", "activated", "linear", "mlp", "normed"]


def _truncated_normal_(weight: Tensor, fan_in: int, scale: float) -> None:
    """Variance scale²/fan_in, cut at two standard deviations; 1.1368 undoes the loss of variance by the cut."""
    std = 1.1368 * scale / fan_in**0.5
    if std > 0:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    else:
        nn.init.zeros_(weight)


def linear(inputs: int, outputs: int, scale: float = 1.0) -> nn.Linear:
    """Linear layer with truncated-normal weights times ``scale`` and zero bias."""
    layer = nn.Linear(inputs, outputs)
    _truncated_normal_(layer.weight, inputs, scale)
    nn.init.zeros_(layer.bias)
    return layer


def activated(size: int) -> nn.Sequential:
    """RMSNorm → SiLU."""
    return nn.Sequential(nn.RMSNorm(size, eps=1e-4), nn.SiLU())


def normed(inputs: int, outputs: int) -> nn.Sequential:
    """Linear → RMSNorm → SiLU."""
    return nn.Sequential(linear(inputs, outputs), *activated(outputs))


def mlp(inputs: int, units: int, layers: int, outputs: int | None = None, scale: float = 1.0) -> nn.Sequential:
    """``layers`` normed layers of width ``units``, then a linear layer to ``outputs`` unless that is ``None``."""
    blocks: list[nn.Module] = [normed(inputs if i == 0 else units, units) for i in range(layers)]
    if outputs is not None:
        blocks.append(linear(units, outputs, scale))
    return nn.Sequential(*blocks)


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal: ``blocks`` groups of inputs each feed their group of outputs.

    ``inputs`` and ``outputs`` are totals over all groups; weight ``[G, inputs/G, outputs/G]``, bias ``[outputs]``.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # The original counts the inputs of all blocks as fan-in, so weights are √G smaller than usual.
        _truncated_normal_(self.weight.data, inputs, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, G, inputs/G]`` → ``[B, G, outputs/G]``."""
        blocks, _, size = self.weight.shape
        return torch.baddbmm(self.bias.view(blocks, 1, size), x.transpose(0, 1), self.weight).transpose(0, 1)

"""Layers of DreamerV3: truncated-normal linear layers, RMSNorm with SiLU, block-diagonal layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EPS", "Activated", "BlockLinear", "linear", "mlp", "normed", "rms_silu", "truncated_normal_"]

EPS = 1e-4
"""Added to the mean square in every RMSNorm (original)."""


def truncated_normal_(weight: Tensor, fan_in: int, scale: float = 1.0) -> None:
    """Variance scale²/fan_in, cut at two standard deviations; 1.1368 undoes the loss of variance by the cut."""
    std = 1.1368 * scale / fan_in**0.5
    if std > 0:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    else:
        nn.init.zeros_(weight)


def linear(inputs: int, outputs: int, scale: float = 1.0) -> nn.Linear:
    """Linear layer with truncated-normal weights times ``scale`` and zero bias."""
    layer = nn.Linear(inputs, outputs)
    truncated_normal_(layer.weight, inputs, scale)
    nn.init.zeros_(layer.bias)
    return layer


def rms_silu(x: Tensor, scale: Tensor) -> Tensor:
    """silu(scale · x/√(mean x² + ε)) of ``x [..., n]``, the mean over its last axis; ``scale [n]`` or ``[..., n]``."""
    if torch.is_grad_enabled():
        y: Tensor = _RMSSiLU.apply(x, scale)  # type: ignore[no-untyped-call]
        return y
    return F.silu(_normalise(x)[0].mul_(scale), inplace=True)


def _normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x/√(mean x² + ε) and the factor ``[..., 1]`` that made it."""
    factor = torch.square(x).mean(-1, keepdim=True).add_(EPS).rsqrt_()
    return x * factor, factor


class _RMSSiLU(torch.autograd.Function):
    """:func:`rms_silu` with its way back in one piece: half the time of what autograd strings together.

    With n = f x, f = (mean x² + ε)^−½: dx = f (dn − n mean(n dn)).
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: Tensor) -> Tensor:
        normal, factor = _normalise(x)
        scaled = normal * scale
        ctx.save_for_backward(normal, factor, scaled, scale)
        return F.silu(scaled)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        normal, factor, scaled, scale = ctx.saved_tensors
        d_scaled = torch.ops.aten.silu_backward(gradient, scaled)
        d_scale = (d_scaled * normal).sum_to_size(scale.shape)
        d_normal = d_scaled.mul_(scale)
        share = (d_normal * normal).mean(-1, keepdim=True)
        return d_normal.addcmul_(normal, share, value=-1).mul_(factor), d_scale


class Activated(nn.Module):
    """RMSNorm → SiLU over the last axis, of ``size`` entries."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_silu(x, self.scale)


def normed(inputs: int, outputs: int) -> nn.Sequential:
    """Linear → RMSNorm → SiLU."""
    return nn.Sequential(linear(inputs, outputs), Activated(outputs))


def mlp(inputs: int, units: int, layers: int, outputs: int | None = None, scale: float = 1.0) -> nn.Sequential:
    """``layers`` normed layers of width ``units``, then a linear layer to ``outputs`` unless that is ``None``."""
    blocks: list[nn.Module] = [normed(inputs if i == 0 else units, units) for i in range(layers)]
    if outputs is not None:
        blocks.append(linear(units, outputs, scale))
    return nn.Sequential(*blocks)


class BlockLinear(nn.Module):
    """A linear layer whose weight is block-diagonal: ``blocks`` groups of inputs each feed their group of outputs.

    ``inputs`` and ``outputs`` are totals over all groups; weight ``[inputs/G, G, outputs/G]``, bias ``[outputs]``.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        # With the groups in the middle, the rows of inputs that all groups share are one dense matrix.
        self.weight = nn.Parameter(torch.empty(inputs // blocks, blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # The original counts the inputs of all blocks as fan-in, so weights are √G smaller than usual.
        truncated_normal_(self.weight.data, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """``x [B, G, inputs/G]`` → ``[B, G, outputs/G]``."""
        y = torch.bmm(x.transpose(0, 1), self.weight.transpose(0, 1))
        return y.add_(self.bias.view(y.shape[0], 1, -1)).transpose(0, 1)

"""The optimiser: adaptive gradient clipping, then LaProp (momentum behind the normalisation)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LaProp", "clip_adaptively_"]

SMALLEST_NORM = 1e-3
"""A parameter counts as at least this long, so that zero-initialised tensors can move."""


@torch.no_grad()
def clip_adaptively_(gradients: list[Tensor], parameters: list[Tensor], clip: float) -> None:
    """Shorten each gradient in place to ``clip`` · max(1e-3, ‖parameter‖), norms over whole tensors.

    (Adaptive gradient clipping, Brock et al. 2021, arXiv 2102.06171, per tensor as in DreamerV3.)
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    limits = clip * torch.stack(torch._foreach_norm(parameters)).clamp(min=SMALLEST_NORM)
    torch._foreach_div_(gradients, list((norms / limits).clamp(min=1.0).unbind()))


class LaProp:
    """LaProp (Ziyin et al. 2020, arXiv 2002.04839) over one list of parameters, with warm-up and clipping.

    v ← β₂ v + (1 − β₂) g²;  m ← β₁ m + (1 − β₁) g/(√v̂ + ε);  θ ← θ − lr m̂, hats being bias corrections. The step
    size of step k (from 0) is lr · min(1, k/warmup).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        warmup: int,
        agc: float,
        beta1: float,
        beta2: float,
        eps: float,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.warmup, self.agc = learning_rate, warmup, agc
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.steps = 0
        self.momentum = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """Move every parameter once down the gradient of the scalar ``loss``."""
        gradients = list(torch.autograd.grad(loss, self.parameters))
        parameters: list[Tensor] = list(self.parameters)
        clip_adaptively_(gradients, parameters, self.agc)
        rate = self.learning_rate * min(1.0, self.steps / self.warmup if self.warmup else 1.0)
        self.steps += 1
        torch._foreach_mul_(self.square, self.beta2)
        torch._foreach_addcmul_(self.square, gradients, gradients, 1 - self.beta2)
        root = torch._foreach_sqrt(torch._foreach_div(self.square, 1 - self.beta2**self.steps))
        torch._foreach_add_(root, self.eps)
        torch._foreach_mul_(self.momentum, self.beta1)
        torch._foreach_addcdiv_(self.momentum, gradients, root, 1 - self.beta1)
        torch._foreach_add_(parameters, self.momentum, alpha=-rate / (1 - self.beta1**self.steps))

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {"steps": self.steps, "momentum": self.momentum, "square": self.square}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state` described."""
        self.steps = int(state["steps"])
        for name, own in (("momentum", self.momentum), ("square", self.square)):
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)

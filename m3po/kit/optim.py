"""Moving parameters: Adam for small networks, where the work per tensor costs more than the mathematics; targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FlatAdam", "clip_grad_norm", "descend", "follow"]


class FlatAdam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1) on all parameters of a module as one vector ``[P]``.

    The module's parameters and gradients become views of ``parameters`` and ``gradient``, so that a step is one pass
    over them instead of some operations for each tensor. Load weights with ``load_state_dict``, which writes into the
    views, and do not move the module to another device afterwards. ``torch.optim`` would also import its compiler,
    which takes seconds; this does not.
    """

    def __init__(
        self,
        module: nn.Module,
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.learning_rate = learning_rate
        self.betas = betas
        self.eps = eps
        self.steps = 0
        self.leaves = tuple(module.parameters())
        self.parameters = torch.cat([p.detach().flatten() for p in self.leaves])
        self.gradient = torch.zeros_like(self.parameters)
        self.first_moment = torch.zeros_like(self.parameters)
        self.second_moment = torch.zeros_like(self.parameters)
        self._steps = torch.zeros((), device=self.parameters.device)
        start = 0
        for p in self.leaves:
            end = start + p.numel()
            p.data = self.parameters[start:end].view_as(p)
            p.grad = self.gradient[start:end].view_as(p)
            start = end

    def zero_grad(self) -> None:
        """Clear the gradient, keeping its memory."""
        self.gradient.zero_()

    def clip_grad_norm(self, limit: float) -> Tensor:
        """Shorten the gradient to length ``limit`` if it is longer; returns its length before."""
        return clip_grad_norm([self], limit)

    def step(self) -> None:
        """θ ← θ − α m̂ / (√v̂ + ε) with the bias-corrected moving means m̂ of g and v̂ of g²."""
        self.steps += 1
        self._steps.fill_(self.steps)
        # What torch.optim.Adam(fused=True) calls: it touches each number once, where its formula in torch's operations
        # would do so six times.
        torch._fused_adam_(
            [self.parameters],
            [self.gradient],
            [self.first_moment],
            [self.second_moment],
            [],
            [self._steps],
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Any]:
        """Moments, number of steps and learning rate, for :meth:`restore`; the parameters are the module's to save."""
        return {
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state` described."""
        self.first_moment.copy_(state["first_moment"])
        self.second_moment.copy_(state["second_moment"])
        self.steps = state["steps"]
        self.learning_rate = state["learning_rate"]


def clip_grad_norm(optimizers: Sequence[FlatAdam], limit: float) -> Tensor:
    """Shorten the gradients of several optimisers together to length ``limit``; returns their length before.

    An infinite limit leaves them as they are.
    """
    norms = [torch.linalg.vector_norm(optimizer.gradient) for optimizer in optimizers]
    norm: Tensor = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if limit < math.inf:
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for optimizer in optimizers:
            optimizer.gradient.mul_(factor)
    return norm


def descend(loss: Tensor, *optimizers: FlatAdam, limit: float) -> Tensor:
    """One step of ``optimizers`` down the gradient of the scalar ``loss``, shortened by :func:`clip_grad_norm`.

    Returns the gradient's length before. Only what they train gets one, not what the loss passed through on its way.
    """
    for optimizer in optimizers:
        optimizer.zero_grad()
    torch.autograd.backward(loss, inputs=[p for optimizer in optimizers for p in optimizer.leaves])
    norm = clip_grad_norm(optimizers, limit)
    for optimizer in optimizers:
        optimizer.step()
    return norm


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """θ̄ ← (1 − rate) θ̄ + rate θ, for all parameters θ̄ of ``slow`` and θ of ``fast``, which is of the same form."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), rate)

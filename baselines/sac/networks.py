"""SAC's networks in torch, which learn, and the actor once more in numpy, which acts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m3po.kit.distributions import Gaussian

__all__ = ["Actor", "NumpyActor", "ReluNets", "Temperature"]

_LOG_STD = (-20.0, 2.0)
"""Limits of log σ, as in the authors' code, in Stable-Baselines3 and in Meta-World+."""


class ReluNets(nn.Module):
    """E ReLU networks that see the same input, worked out side by side.

    The last layer has ``heads`` · ``outputs`` outputs: with more heads than one, task k reads the k-th part of it.
    ``last_bound`` limits its first weights and biases, and then the other layers are He-uniform with zero biases;
    without it, all are within ±1/√inputs.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        heads: int = 1,
        last_bound: float | None = None,
    ) -> None:
        super().__init__()
        self.members, self.heads = members, heads
        sizes = list(itertools.pairwise([inputs, *hidden, heads * outputs]))
        self.weights = nn.ParameterList(torch.empty(members, a, b) for a, b in sizes)
        self.biases = nn.ParameterList(torch.empty(members, 1, b) for _, b in sizes)
        for (a, _), weight, bias in zip(sizes, self.weights, self.biases, strict=True):
            weight_bound = bias_bound = a**-0.5
            if last_bound is not None:
                weight_bound, bias_bound = math.sqrt(6 / a), 0.0
            nn.init.uniform_(weight, -weight_bound, weight_bound)
            nn.init.uniform_(bias, -bias_bound, bias_bound)
        if last_bound is not None:
            nn.init.uniform_(self.weights[-1], -last_bound, last_bound)
            nn.init.uniform_(self.biases[-1], -last_bound, last_bound)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        """``[E, B, outputs]`` for inputs ``x [B, inputs]`` of tasks ``task [B]``."""
        y = x.expand(self.members, *x.shape)
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for hidden_weight, hidden_bias in hidden:
            y = torch.baddbmm(hidden_bias, y, hidden_weight).relu_()
        y = torch.baddbmm(bias, y, weight)
        if self.heads == 1:
            return y
        of_each_task = y.view(self.members, len(task), self.heads, -1)
        return of_each_task.take_along_dim(task.view(1, -1, 1, 1), dim=2).squeeze(2)


class Actor(ReluNets):
    """One network with a mean and a log σ for each of ``action_dim`` entries: a Gaussian over actions before tanh."""

    def __init__(
        self, inputs: int, hidden: Sequence[int], action_dim: int, *, heads: int, last_bound: float | None
    ) -> None:
        super().__init__(1, inputs, hidden, 2 * action_dim, heads=heads, last_bound=last_bound)

    def policy(self, x: Tensor, task: Tensor) -> Gaussian:
        """Distribution over ``[B, A]`` for inputs ``x [B, inputs]`` of tasks ``task [B]``."""
        mean, log_std = self(x, task)[0].chunk(2, dim=-1)
        return Gaussian(mean, log_std.clamp(*_LOG_STD).exp())


class Temperature(nn.Module):
    """log α, one for all K tasks or one for each (``size`` 1 or K)."""

    def __init__(self, size: int, num_tasks: int, initial: float) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.log = nn.Parameter(torch.full((size,), math.log(initial)))

    def forward(self, task: Tensor) -> Tensor:
        """log α ``[B]`` of ``task [B]``."""
        return self.log.expand(self.num_tasks)[task]


class NumpyActor:
    """The actor as it stood when this was made, on the host whatever device trains it.

    One row per environment is little work: a call of torch costs many times the arithmetic. On a CPU the arrays are
    views of the parameters and follow them.

    ``observation_mask`` ``[K, D]`` takes padding out; ``code`` ``[K, C]`` is appended; ``action_mask`` ``[K, A]``.
    """

    def __init__(
        self, actor: Actor, observation_mask: NDArray[np.bool_], code: Tensor, action_mask: NDArray[np.bool_]
    ) -> None:
        self._layers = [(_array(w)[0], _array(b)[0]) for w, b in zip(actor.weights, actor.biases, strict=True)]
        self._heads = actor.heads
        self._tables = observation_mask, _array(code), action_mask

    def __call__(
        self, observation: NDArray[np.float32], task: NDArray[np.int64], noise: torch.Generator | None
    ) -> NDArray[np.float32]:
        """Actions ``[N, A]`` for ``observation [N, D]`` of ``task [N]``: drawn, or without noise tanh of the mean."""
        observation_mask, code, action_mask = (table[task] for table in self._tables)
        x = np.concatenate([observation * observation_mask, code], axis=1)
        *hidden, (weight, bias) = self._layers
        for hidden_weight, hidden_bias in hidden:
            x = np.maximum(x @ hidden_weight + hidden_bias, 0)
        heads = (x @ weight + bias).reshape(len(task), self._heads, -1)
        mean, log_std = np.split(heads[np.arange(len(task)), task if self._heads > 1 else 0], 2, axis=1)
        if noise is not None:
            mean = mean + np.exp(log_std.clip(*_LOG_STD)) * torch.randn(mean.shape, generator=noise).numpy()
        action: NDArray[np.float32] = np.tanh(mean) * action_mask
        return action


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array

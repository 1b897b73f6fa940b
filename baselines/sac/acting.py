"""SAC's policy in numpy, for acting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.sac.networks import LOG_STD, Actor

__all__ = ["NumpyActor"]


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
            mean = mean + np.exp(log_std.clip(*LOG_STD)) * torch.randn(mean.shape, generator=noise).numpy()
        action: NDArray[np.float32] = np.tanh(mean) * action_mask
        return action


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array

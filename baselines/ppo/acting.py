"""PPO's policy in numpy, for acting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["NumpyPolicy"]


class NumpyPolicy:
    """The policy over K tasks as it stood when this was made, on the host whatever device trains it.

    One row per environment is little work: a call of torch costs many times the arithmetic, and evicts from the caches
    what the simulators need next. On a CPU weights and biases are views of the parameters and follow them.

    ``center, scale`` ``[K, D]`` normalise observations, clipped to ±``limit``; ``code`` ``[K, C]`` is appended to them;
    ``log_std, action_mask`` ``[K, A]``.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        log_std: Tensor,
        center: Tensor,
        scale: Tensor,
        code: Tensor,
        action_mask: Tensor,
        limit: float,
    ) -> None:
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._weights = [(_array(layer.weight).T, _array(layer.bias)) for layer in linear]
        self._tables = [_array(table) for table in (center, scale, code, action_mask)] + [np.exp(_array(log_std))]
        self._limit = limit
        self._played: NDArray[np.int64] | None = None
        self._rows = self._tables

    def __call__(
        self, observation: NDArray[np.float32], task: NDArray[np.int64], noise: torch.Generator | None
    ) -> NDArray[np.float32]:
        """Unbounded actions ``[N, A]`` for ``observation [N, D]`` of ``task [N]``: drawn, or without noise the mean."""
        if self._played is None or not np.array_equal(self._played, task):
            self._played = task.copy()
            self._rows = [table[task] for table in self._tables]
        center, scale, code, action_mask, std = self._rows
        x = np.concatenate([((observation - center) * scale).clip(-self._limit, self._limit), code], axis=1)
        *hidden, (weight, bias) = self._weights
        for hidden_weight, hidden_bias in hidden:
            x = np.tanh(x @ hidden_weight + hidden_bias)
        action: NDArray[np.float32] = x @ weight + bias
        if noise is not None:
            action += std * torch.randn(action.shape, generator=noise).numpy()
        action *= action_mask
        return action


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array

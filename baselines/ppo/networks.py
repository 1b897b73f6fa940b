"""PPO's networks: π and V in torch, which learn, and π once more in numpy, which acts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from m3po.kit.distributions import Gaussian
from m3po.kit.nets import orthogonal_

__all__ = ["ActorCritic", "NumpyPolicy", "TanhMLP"]


class TanhMLP(nn.Sequential):
    """Tanh layers with orthogonal weights of gain √2 and an output layer of gain ``gain``."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, gain: float) -> None:
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [orthogonal_(nn.Linear(a, b), math.sqrt(2)), nn.Tanh()]
        super().__init__(*layers, orthogonal_(nn.Linear(sizes[-1], outputs), gain))

    def outputs(self, x: Tensor) -> list[Tensor]:
        """What goes into each linear layer for ``x [B, D]``, and what comes out of the last: for the way back."""
        found = [x]
        *hidden, last = self._linear
        for layer in hidden:
            found.append(F.linear(found[-1], layer.weight, layer.bias).tanh_())
        return [*found, F.linear(found[-1], last.weight, last.bias)]

    def backpropagate(self, outputs: list[Tensor], gradient: Tensor) -> None:
        """Set the parameters' ``grad`` from the loss's ``gradient [B, outputs]`` with respect to the last output.

        ``grad`` must be there: its memory is kept.
        """
        for index, layer in reversed(list(enumerate(self._linear))):
            weight, bias = layer.weight, layer.bias
            torch.mm(gradient.t(), outputs[index], out=weight.grad)
            torch.sum(gradient, 0, out=bias.grad)
            if index:
                gradient = torch.ops.aten.tanh_backward(gradient @ weight, outputs[index])

    @property
    def _linear(self) -> list[nn.Linear]:
        return [layer for layer in self if isinstance(layer, nn.Linear)]


class ActorCritic(nn.Module):
    """A Gaussian policy whose deviation depends on the task alone, and a value, in two separate networks.

    ``log_std`` ``[K, A]``: tasks that are solved and tasks that are not need not explore alike.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], action_dim: int, initial_std: float, num_tasks: int = 1
    ) -> None:
        super().__init__()
        # A small last layer makes the first policy the same in every state.
        self.actor = TanhMLP(inputs, hidden, action_dim, gain=0.01)
        self.critic = TanhMLP(inputs, hidden, 1, gain=1.0)
        self.log_std = nn.Parameter(torch.full((num_tasks, action_dim), math.log(initial_std)))

    def policy(self, features: Tensor, task: Tensor) -> Gaussian:
        """Distribution over actions ``[..., A]`` for ``features [..., D]`` of ``task [...]``."""
        return Gaussian(self.actor(features), self.log_std[task].exp())

    def value(self, features: Tensor) -> Tensor:
        """Values ``[...]`` of ``features [..., D]``."""
        value: Tensor = self.critic(features).squeeze(-1)
        return value


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

"""Networks of PPO."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from m3po.kit.distributions import Gaussian
from m3po.kit.nets import orthogonal_

__all__ = ["ActorCritic"]


def _tanh_mlp(inputs: int, hidden: Sequence[int], outputs: int, gain: float) -> nn.Sequential:
    """Tanh layers with orthogonal weights of gain √2 and an output layer of gain ``gain``."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [orthogonal_(nn.Linear(a, b), math.sqrt(2)), nn.Tanh()]
    return nn.Sequential(*layers, orthogonal_(nn.Linear(sizes[-1], outputs), gain))


class ActorCritic(nn.Module):
    """A Gaussian policy whose deviation does not depend on the state, and a value, in two separate networks."""

    def __init__(self, inputs: int, hidden: Sequence[int], action_dim: int, initial_std: float) -> None:
        super().__init__()
        # A small last layer makes the first policy the same in every state.
        self.actor = _tanh_mlp(inputs, hidden, action_dim, gain=0.01)
        self.critic = _tanh_mlp(inputs, hidden, 1, gain=1.0)
        self.log_std = nn.Parameter(torch.full((action_dim,), math.log(initial_std)))

    def policy(self, features: Tensor) -> Gaussian:
        """Distribution over actions ``[B, A]`` for ``features [B, D]``."""
        mean = self.actor(features)
        return Gaussian(mean, self.log_std.exp().expand_as(mean))

    def value(self, features: Tensor) -> Tensor:
        """Values ``[...]`` of ``features [..., D]``."""
        value: Tensor = self.critic(features).squeeze(-1)
        return value

"""Replay of what arrived: per environment, a stream of observations with what led to them.

A row is (action, observation, reward, first, terminal, last, task): ``action`` led to ``observation`` and earned
``reward``. An episode of n decisions is n + 1 rows: its first observation (no action, no reward) and one row per
decision, so that the true successor of its last decision is there too. Environments end episodes at different times,
hence one stream each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3po.api import Transition
from m3po.kit.replay import SequenceReplay

__all__ = ["ArrivalReplay"]


class ArrivalReplay:
    """The last ``capacity`` observations over N environments."""

    def __init__(self, capacity: int, num_envs: int) -> None:
        self.streams = [SequenceReplay(max(1, capacity // num_envs), num_envs=1) for _ in range(num_envs)]

    def __len__(self) -> int:
        return sum(len(stream) for stream in self.streams)

    def add(self, transition: Transition) -> None:
        """Append one decision of every environment."""
        t = transition
        arrivals: dict[str, NDArray[Any]] = {
            "action": t.action,
            "observation": t.next_observation,
            "reward": t.reward,
            "first": np.zeros_like(t.first),
            "terminal": t.terminated,
            "last": t.terminated | t.truncated,
            "task": t.task,
        }
        beginnings = {name: np.zeros_like(array) for name, array in arrivals.items()}
        beginnings |= {"observation": t.observation, "first": t.first, "task": t.task}
        for env, stream in enumerate(self.streams):
            if t.first[env]:
                stream.add({name: array[env : env + 1] for name, array in beginnings.items()})
            stream.add({name: array[env : env + 1] for name, array in arrivals.items()})

    def can_sample(self, length: int) -> bool:
        """Whether every environment has ``length`` consecutive observations."""
        return all(stream.can_sample(length) for stream in self.streams)

    def sample(
        self, batch: int, length: int, generator: np.random.Generator, device: str | torch.device = "cpu"
    ) -> dict[str, Tensor]:
        """``batch`` subsequences ``{name: [length, batch, ...]}``; environments and starts are uniform."""
        chosen = np.bincount(generator.integers(0, len(self.streams), size=batch), minlength=len(self.streams))
        parts = [
            stream.sample(int(count), length, generator, device)
            for stream, count in zip(self.streams, chosen, strict=True)
            if count
        ]
        return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}

    def state(self) -> list[dict[str, Any]]:
        """What :meth:`restore` needs."""
        return [stream.state() for stream in self.streams]

    def restore(self, states: list[Mapping[str, Any]]) -> None:
        """Become what :meth:`state` described; the number of environments must be the same."""
        for stream, state in zip(self.streams, states, strict=True):
            stream.restore(state)

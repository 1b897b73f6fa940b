"""Replay of subsequences from parallel environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3po.api import Transition

__all__ = ["SequenceReplay", "transition_rows"]


def transition_rows(transition: Transition) -> dict[str, NDArray[Any]]:
    """The fields of a transition that replay keeps, each ``[N, ...]``."""
    return {
        "observation": transition.observation,
        "action": transition.action,
        "reward": transition.reward,
        "next_observation": transition.next_observation,
        "terminated": transition.terminated,
        "truncated": transition.truncated,
        "first": transition.first,
        "task": transition.task,
    }


class SequenceReplay:
    """A ring of the last ``capacity`` rows over N environments, from which subsequences are drawn uniformly.

    A subsequence lies within one environment and never crosses the ring's seam; it may cross the end of an episode,
    which its ``terminated``, ``truncated`` and ``first`` rows show. Fields and shapes are those of the first
    :meth:`add`. ``rows`` counts time steps kept per environment.
    """

    def __init__(self, capacity: int, num_envs: int) -> None:
        """``capacity`` in transitions over all environments, at least one row of ``num_envs``."""
        self.num_envs = num_envs
        self.length = max(1, capacity // num_envs)
        self.rows = 0
        self.head = 0
        self.storage: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self.rows * self.num_envs

    def add(self, fields: Mapping[str, NDArray[Any]]) -> None:
        """Append one row ``{name: [N, ...]}``."""
        if not self.storage:
            # Zero pages are handed out by the system as they are touched, so a large ring costs nothing yet.
            self.storage = {k: np.zeros((self.length, *v.shape), v.dtype) for k, v in fields.items()}
        for name, store in self.storage.items():
            store[self.head] = fields[name]
        self.head = (self.head + 1) % self.length
        self.rows = min(self.rows + 1, self.length)

    def can_sample(self, length: int) -> bool:
        """Whether a subsequence of ``length`` rows exists."""
        return self.rows >= length

    def sample(
        self, batch: int, length: int, generator: np.random.Generator, device: str | torch.device = "cpu"
    ) -> dict[str, Tensor]:
        """``batch`` subsequences as tensors ``{name: [length, batch, ...]}``, starts uniform over what is kept."""
        if not self.can_sample(length):
            raise ValueError(f"replay keeps {self.rows} rows per environment; a subsequence needs {length}")
        start = generator.integers(0, self.rows - length + 1, size=batch)
        env = generator.integers(0, self.num_envs, size=batch)
        oldest = (self.head - self.rows) % self.length
        row = (oldest + start[None, :] + np.arange(length)[:, None]) % self.length
        return {k: torch.from_numpy(store[row, env[None, :]]).to(device) for k, store in self.storage.items()}

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs, oldest row first."""
        order = (self.head - self.rows + np.arange(self.rows)) % self.length
        rows = {name: store[order] for name, store in self.storage.items()}
        return {"envs": self.num_envs, "rows": rows, "head": self.head}

    @classmethod
    def restore(cls, capacity: int, state: Mapping[str, Any]) -> SequenceReplay:
        """A replay as :meth:`state` described it; ``capacity`` must be the same."""
        replay = cls(capacity, state["envs"])
        replay.head = state["head"]
        replay.rows = len(next(iter(state["rows"].values()), ()))
        if replay.rows > replay.length:
            raise ValueError(
                f"the saved replay has {replay.rows} rows of {replay.num_envs} environments, more than a capacity of "
                f"{capacity} transitions holds"
            )
        order = (replay.head - replay.rows + np.arange(replay.rows)) % replay.length
        for name, rows in state["rows"].items():
            replay.storage[name] = np.zeros((replay.length, *rows.shape[1:]), rows.dtype)
            replay.storage[name][order] = rows
        return replay

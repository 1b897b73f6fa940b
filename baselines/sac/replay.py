"""Replay in which every task has an equal share, however often it is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BalancedReplay", "Batch"]


class Batch(NamedTuple):
    """Transitions: ``observation, next_observation`` ``[B, D]``, ``action [B, A]``, the others ``[B]``.

    ``terminated`` is 1.0 or 0.0; ``task`` int64.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor
    task: Tensor


class BalancedReplay:
    """The last ``capacity`` transitions of N environments that play the tasks ``task [N]``.

    A transition is one row of numbers, so that a batch is one copy on the host and one to the device.
    """

    def __init__(self, capacity: int, task: NDArray[np.int64]) -> None:
        self.task = task.copy()
        self.length = max(1, capacity // len(task))
        self.rows = 0
        """Time steps kept."""
        self.head = 0
        self.ring = np.zeros((0, len(task), 0), np.float32)
        self.widths: list[int] = []
        # Environments in the order of their tasks; how many each task has, and where they begin.
        self._by_task = np.argsort(task, kind="stable")
        self._count = np.unique(task, return_counts=True)[1][:, None]
        self._begin = np.cumsum(self._count)[:, None] - self._count

    @property
    def num_tasks(self) -> int:
        """How many tasks are played."""
        return len(self._count)

    def add(
        self,
        task: NDArray[np.int64],
        observation: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float32],
        next_observation: NDArray[np.float32],
        terminated: NDArray[np.bool_],
    ) -> None:
        """Append one transition of every environment.

        Raises ``ValueError`` where one plays another task than before.
        """
        if not np.array_equal(task, self.task):
            raise ValueError(f"environments played the tasks {self.task} and now {task}; each must stay with its task")
        parts = (observation, action, reward[:, None], next_observation, terminated[:, None])
        if not self.widths:
            self._allocate([part.shape[1] for part in parts])
        np.concatenate(parts, axis=1, out=self.ring[self.head])
        self.head = (self.head + 1) % self.length
        self.rows = min(self.rows + 1, self.length)

    def sample(self, size: int, generator: np.random.Generator, device: torch.device) -> Batch:
        """``size`` transitions of each task, uniformly with replacement, ordered by task."""
        number = generator.integers(0, self.rows * self._count, size=(self.num_tasks, size))
        row, replica = np.divmod(number, self._count)
        env = self._by_task[self._begin + replica].ravel()
        chosen = self.ring.reshape(-1, self.ring.shape[-1]).take(row.ravel() * len(self.task) + env, axis=0)
        columns = torch.split(torch.from_numpy(chosen).to(device), self.widths, dim=1)
        observation, action, reward, next_observation, terminated = columns
        task = torch.from_numpy(self.task[env]).to(device)
        return Batch(observation, action, reward.squeeze(1), next_observation, terminated.squeeze(1), task)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {"task": self.task, "widths": self.widths, "ring": self.ring[: self.rows], "head": self.head}

    @classmethod
    def restore(cls, capacity: int, state: Mapping[str, Any]) -> BalancedReplay:
        """A replay as :meth:`state` described it; ``capacity`` must be the same."""
        replay = cls(capacity, state["task"])
        replay._allocate(state["widths"])
        replay.rows, replay.head = len(state["ring"]), state["head"]
        replay.ring[: replay.rows] = state["ring"]
        return replay

    def _allocate(self, widths: list[int]) -> None:
        self.widths = widths
        # Zero pages are handed out by the system as they are touched, so a large ring costs nothing yet.
        self.ring = np.zeros((self.length, len(self.task), sum(widths)), np.float32)

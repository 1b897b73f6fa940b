"""Replay of what arrived: per environment, a ring of observations with what led to them.

A row is (deter, stoch, action, observation, reward, first, terminal, last, task): in the latent state (deter, stoch)
``action`` was taken, which led to ``observation`` and earned ``reward``. An episode of n decisions is n + 1 rows: its
first observation (nothing led to it) and one row per decision, so that the true successor of its last decision is there
too, and every image is kept once. Environments end episodes at different times, hence a ring each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3po.api import Transition

__all__ = ["LATENT", "ArrivalReplay", "Sequences"]

LATENT = ("deter", "stoch")
"""The fields of a row that training brings up to date."""


class Sequences(NamedTuple):
    """B sequences of T rows: ``rows {name: [T, B, ...]}``, the latent state ``before {name: [B, ...]}`` their first.

    ``env [B]`` and ``begin [B]`` say which rows they are: the environment, and how many rows it had had before.
    """

    rows: dict[str, Tensor]
    before: dict[str, Tensor]
    env: NDArray[np.int64]
    begin: NDArray[np.int64]


class ArrivalReplay:
    """The last ``capacity`` observations over N environments, from which sequences of T rows are drawn uniformly.

    Those that nobody has drawn yet go first: each environment's rows, cut into sequences one behind the other.
    """

    def __init__(self, capacity: int, num_envs: int, length: int) -> None:
        """``length`` is T; ``capacity`` is counted in rows."""
        self.length = length
        self.size = max(1, capacity // num_envs)
        self.added = np.zeros(num_envs, np.int64)
        self.storage: dict[str, NDArray[Any]] = {}
        self.fresh: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return int(np.minimum(self.added, self.size).sum())

    def add(self, transition: Transition) -> None:
        """Append one decision of every environment; ``transition.extras`` brings its latent state."""
        t = transition
        arrivals: dict[str, NDArray[Any]] = {
            **{name: t.extras[name] for name in LATENT},
            "action": t.action,
            "observation": t.next_observation,
            "reward": t.reward,
            "first": np.zeros_like(t.first),
            "terminal": t.terminated,
            "last": t.terminated | t.truncated,
            "task": t.task,
        }
        if t.first.any():
            beginnings = {name: np.zeros_like(array) for name, array in arrivals.items()}
            self._append({**beginnings, "observation": t.observation, "first": t.first, "task": t.task}, t.first)
        self._append(arrivals, np.ones_like(t.first))

    def _append(self, rows: Mapping[str, NDArray[Any]], where: NDArray[np.bool_]) -> None:
        """Append the rows of the environments ``where`` bool ``[N]``."""
        if not self.storage:
            # Zero pages are handed out by the system as they are touched, so a large ring costs nothing yet.
            shape = (len(where), self.size)
            self.storage = {name: np.zeros((*shape, *row.shape[1:]), row.dtype) for name, row in rows.items()}
        (env,) = np.nonzero(where)
        for name, store in self.storage.items():
            store[env, self.added[env] % self.size] = rows[name][env]
        self.added[env] += 1
        self.fresh.extend((int(e), int(self.added[e]) - self.length) for e in env if self.added[e] % self.length == 0)

    def can_sample(self) -> bool:
        """Whether every environment has a whole sequence."""
        return bool(np.minimum(self.added, self.size).min() >= self.length)

    def sample(self, batch: int, generator: np.random.Generator, device: str | torch.device = "cpu") -> Sequences:
        """``batch`` sequences: the fresh ones, then others, all of those kept being equally likely."""
        env, begin = self._choose(batch, generator)
        place = (begin + np.arange(self.length)[:, None]) % self.size
        storage = self.storage.items()
        rows = {name: self._tensor(store[env, place], device) for name, store in storage if name not in LATENT}
        before = {name: self._tensor(store[env, place[0]], device) for name, store in storage if name in LATENT}
        return Sequences(rows, before, env, begin)

    def _choose(self, batch: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Environments ``[B]`` and the numbers ``[B]`` of the rows that sequences begin with."""
        oldest = np.maximum(self.added - self.size, 0)
        env, begin = np.empty(batch, np.int64), np.empty(batch, np.int64)
        count = 0
        while self.fresh and count < batch:
            env[count], begin[count] = self.fresh.popleft()
            count += bool(begin[count] >= oldest[env[count]])  # else a small ring has lost it
        starts = self.added - oldest - self.length + 1
        through = starts.cumsum()
        drawn = generator.integers(0, through[-1], size=batch - count)
        env[count:] = np.searchsorted(through, drawn, side="right")
        begin[count:] = drawn - (through - starts - oldest)[env[count:]]
        return env, begin

    @staticmethod
    def _tensor(array: NDArray[Any], device: str | torch.device) -> Tensor:
        return torch.from_numpy(array).to(device)

    def refresh(self, sequences: Sequences, latent: Mapping[str, Tensor]) -> None:
        """Keep the states ``{name: [T, B, ...]}`` that training found at the rows of ``sequences``.

        The state at one row is kept with the next, which starts from it; the newest row of all has none yet.
        """
        following = sequences.begin + np.arange(1, self.length + 1)[:, None]
        env = np.broadcast_to(sequences.env, following.shape)
        there = following < self.added[env]
        for name in LATENT:
            self.storage[name][env[there], following[there] % self.size] = latent[name].cpu().numpy()[there]

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        filled = min(int(self.added.max()), self.size)
        storage = {name: store[:, :filled] for name, store in self.storage.items()}
        return {"storage": storage, "added": self.added, "fresh": list(self.fresh)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state` described; the sizes must be the same."""
        self.added = np.array(state["added"])
        self.fresh = deque((int(env), int(start)) for env, start in state["fresh"])
        self.storage = {}
        for name, rows in state["storage"].items():
            self.storage[name] = np.zeros((len(rows), self.size, *rows.shape[2:]), rows.dtype)
            self.storage[name][:, : rows.shape[1]] = rows

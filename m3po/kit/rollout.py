"""Storage of one on-policy rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Rollout"]


class Rollout:
    """``length`` rows of ``num_envs`` environments, filled one row a time, read as a whole, then cleared.

    Fields, shapes and types are those of the first :meth:`add`; nothing is allocated before it. ``rows`` counts the
    rows filled.
    """

    def __init__(self, length: int, num_envs: int) -> None:
        if length < 1 or num_envs < 1:
            raise ValueError(f"a rollout needs at least one row and one environment, got {length} and {num_envs}")
        self.length = length
        self.num_envs = num_envs
        self.rows = 0
        self.storage: dict[str, NDArray[Any]] = {}

    @property
    def full(self) -> bool:
        """Whether all rows are filled."""
        return self.rows == self.length

    def add(self, fields: Mapping[str, NDArray[Any]]) -> None:
        """Copy one row ``{name: [N, ...]}`` in; raises ``ValueError`` when the rollout is full."""
        if self.full:
            raise ValueError(f"the rollout has its {self.length} rows; clear it before adding more")
        if not self.storage:
            self.storage = {name: np.zeros((self.length, *row.shape), row.dtype) for name, row in fields.items()}
        for name, store in self.storage.items():
            store[self.rows] = fields[name]
        self.rows += 1

    def tensors(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """The filled rows ``{name: [T, N, ...]}``. Use before clearing: CPU tensors share the memory."""
        return {name: torch.from_numpy(store[: self.rows]).to(device) for name, store in self.storage.items()}

    def clear(self) -> None:
        """Forget all rows; the memory is kept."""
        self.rows = 0

    def state(self) -> dict[str, Any]:
        """The filled rows, for :meth:`restore`."""
        return {"length": self.length, "num_envs": self.num_envs, "rows": self._filled()}

    def _filled(self) -> dict[str, NDArray[Any]]:
        return {name: store[: self.rows] for name, store in self.storage.items()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Rollout:
        """The rollout that :meth:`state` described."""
        rollout = cls(state["length"], state["num_envs"])
        for name, rows in state["rows"].items():
            rollout.storage[name] = np.zeros((rollout.length, *rows.shape[1:]), rows.dtype)
            rollout.storage[name][: len(rows)] = rows
            rollout.rows = len(rows)
        return rollout

"""Agents of a made-up plugin package: one that learns a little, and faults to order. Imports no torch."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from m3po.api import AgentConfig, Carry, Decision, Diagnostic, EnvSpec, Metrics, Transition


class NudgeConfig(AgentConfig):
    """A linear policy nudged by noise. Not meant to be good: meant to show any lost bit of state."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "bold": {"rate": 0.5}}

    rate: float = 0.05
    """Size of a nudge."""
    batch: int = 2
    """Environments a nudge looks at."""
    pause: float = 0.0
    """Seconds an update sleeps, so that a test can hit it."""
    fault: str = ""
    """What goes wrong at update 30: nan, metric, crash, kill, exit."""

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        return [] if self.batch <= num_envs else [f"batch ({self.batch}) is above the {num_envs} environments"]


class Nudge:
    """Acts on a linear map plus exploration noise plus a running sum in the carry; learns by seeded nudges."""

    Config: ClassVar[type[AgentConfig]] = NudgeConfig

    def __init__(self, spec: EnvSpec, config: NudgeConfig, *, seed: int, device: str) -> None:
        self.config, self.updates, self.tasks = config, 0, spec.num_tasks
        self.generator = np.random.default_rng(seed)
        self.weights = self.generator.normal(size=(spec.observation_size, spec.action_dim))
        self.reward = np.zeros(())

    def initial_carry(self, num_envs: int) -> Carry:
        return np.zeros(num_envs)

    def act(
        self,
        carry: Carry,
        observation: NDArray[np.float32],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        carry = np.where(first, 0.0, carry) + observation.mean(axis=1)
        action = observation @ self.weights + 0.1 * carry[:, None]
        if explore:
            action = action + self.generator.normal(size=action.shape)
        action = np.clip(action, -1, 1)
        if self.config.fault == "nan" and self.updates >= 30:
            action = action * np.nan
        return Decision(action.astype(np.float32), carry)

    def observe(self, transition: Transition) -> None:
        self.reward = transition.reward[: self.config.batch].mean(dtype=np.float64)

    def update(self) -> Metrics:
        self.updates += 1
        if self.config.pause:
            time.sleep(self.config.pause)
        if self.updates >= 30:
            self._fail()
        nudge = self.generator.normal(size=self.weights.shape)
        self.weights = self.weights + self.config.rate * float(self.reward) * nudge
        self.weights = self.weights / max(1.0, float(np.abs(self.weights).max()))
        loss = float("nan") if self.config.fault == "metric" and self.updates >= 30 else float(self.reward)
        return {"loss": loss, "updates": float(self.updates)} if self.updates % 3 == 0 else {}

    def diagnose(self) -> Mapping[str, Diagnostic]:
        weight = np.full(self.tasks, self.weights.mean())
        weight[0] = np.nan  # nothing is known of the first task
        return {"weight": Diagnostic("Mean weight", ("task",), weight)}

    def _fail(self) -> None:
        if self.config.fault == "crash":
            raise ZeroDivisionError("the agent broke")
        if self.config.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.fault == "exit":
            os._exit(17)

    def save(self, directory: Path, carry: Carry) -> None:
        np.savez(directory / "arrays.npz", weights=self.weights, reward=self.reward, carry=carry)
        state = {"updates": self.updates, "generator": self.generator.bit_generator.state}
        (directory / "state.json").write_text(json.dumps(state))

    def load(self, directory: Path) -> Carry:
        state = json.loads((directory / "state.json").read_text())
        self.updates, self.generator.bit_generator.state = state["updates"], state["generator"]
        with np.load(directory / "arrays.npz") as arrays:
            self.weights, self.reward = arrays["weights"], arrays["reward"]
            return arrays["carry"]

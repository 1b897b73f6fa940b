"""The training loop, which knows no algorithm, and the interruptions a session may bring into it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from m3po.api import Agent, Carry, Metrics, transition
from suites.spec import Episode, VectorStep
from suites.vector import VectorEnv

__all__ = ["Clock", "Diverged", "Preempted", "Session", "train"]


class Preempted(Exception):  # noqa: N818 - an event, not an error
    """Training was asked to stop, and stopped behind a checkpoint."""


class Diverged(Exception):  # noqa: N818 - an outcome of the agent, not an error of the program
    """An action or a metric is no longer a finite number; the message says which, and at which ``env_step``."""


class Clock:
    """Where the wall time went: laps of one timeline, each added to a named account, in seconds."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {"env": 0.0, "agent": 0.0, "other": 0.0, "evaluate": 0.0, **seconds}
        self._mark = time.perf_counter()

    def lap(self, account: str) -> None:
        """Book the time since the last lap on ``account``."""
        now = time.perf_counter()
        self.seconds[account] += now - self._mark
        self._mark = now

    @property
    def training(self) -> float:
        """Seconds so far without evaluation."""
        return self.total - self.seconds["evaluate"]

    @property
    def total(self) -> float:
        """Seconds so far."""
        return sum(self.seconds.values())


class Session(Protocol):
    """What surrounds the loop: evaluation, checkpoints, records, requests to stop."""

    clock: Clock

    def between_steps(self, env_step: int, carry: Carry) -> None:
        """Do what is due before the next decision. Raises :class:`Preempted` and :class:`Diverged`."""
        ...

    def record(self, env_step: int, metrics: Metrics, episodes: Sequence[Episode]) -> None:
        """Take in what one step gave. Raises :class:`Diverged`."""
        ...


def train(agent: Agent, env: VectorEnv, step: VectorStep, carry: Carry, until: int, session: Session) -> None:
    """Train from ``step`` and ``carry`` on until ``env.env_step`` reaches ``until``."""
    clock = session.clock
    while True:
        session.between_steps(env.env_step, carry)
        if env.env_step >= until:
            return
        clock.lap("other")
        decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
        clock.lap("agent")
        if not np.isfinite(decision.action).all():
            raise Diverged(f"an action was not a finite number at env step {env.env_step}")
        following = env.step(decision.action)
        clock.lap("env")
        agent.observe(transition(step, decision, following))
        metrics = agent.update()
        clock.lap("agent")
        session.record(env.env_step, metrics, following.episodes)
        step, carry = following, decision.carry

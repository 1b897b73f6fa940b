"""Evaluation: an agent that neither learns nor explores, on environments and seeds of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from m3po.api import Agent
from m3po.bench.loop import Diverged
from m3po.bench.records import Cell, EvaluationRecord
from suites.spec import Episode, Stream
from suites.vector import VectorEnv

__all__ = ["Evaluator"]

MAX_ENVS = 32
"""Environments an evaluation uses at once, where the tasks are not more than that."""

TUNING_OFFSET = 1_000_000
"""Tuning draws its evaluation episodes from its own stream, this far from the seeds it trains on."""


class Evaluator:
    """Plays the same episodes at every call: exactly ``cell.evaluation.episodes`` of each task, held-out ones too."""

    def __init__(self, cell: Cell, num_processes: int = 1) -> None:
        self.cell = cell
        num_tasks = len(cell.evaluated)
        replicas = min(cell.evaluation.episodes, max(1, MAX_ENVS // num_tasks))
        stream: Stream = "tune" if cell.stream == "tune" else "evaluate"
        seed = cell.seed + TUNING_OFFSET if cell.stream == "tune" else cell.seed
        self.env = VectorEnv(
            cell.evaluated, num_tasks * replicas, seed=seed, stream=stream, num_processes=num_processes
        )

    def __call__(
        self, agent: Agent, env_step: int, seconds: float, stopping: Callable[[], bool]
    ) -> list[EvaluationRecord] | None:
        """Rows ordered by task and episode, or ``None`` when ``stopping()`` came true before the end.

        ``env_step`` and ``seconds`` are those of the training. Raises :class:`Diverged`.
        """
        wanted = len(self.cell.evaluated) * self.cell.evaluation.episodes
        finished: dict[tuple[int, int], Episode] = {}
        step, carry = self.env.reset(), agent.initial_carry(self.env.num_envs)
        while len(finished) < wanted:
            if stopping():
                return None
            decision = agent.act(carry, step.observation, step.first, step.task, explore=False)
            if not np.isfinite(decision.action).all():
                raise Diverged(f"an action was not a finite number in the evaluation at env step {env_step}")
            step, carry = self.env.step(decision.action), decision.carry
            for episode in step.episodes:
                # an environment that is done early plays on; only the first episodes of each task's stream count
                if episode.index < self.cell.evaluation.episodes:
                    finished[episode.task, episode.index] = episode
        return [
            EvaluationRecord.of(self.cell, self.cell.evaluated[task], episode, env_step, seconds)
            for (task, _), episode in sorted(finished.items())
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.env.close()

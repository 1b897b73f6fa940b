"""Evaluation: an agent that neither learns nor explores, on environments and seeds of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from m3po.api import Agent
from m3po.bench.loop import Diverged
from m3po.bench.records import Cell, EvaluationRecord, TrainingProgress
from suites.errors import EnvError
from suites.spec import Episode, Stream
from suites.vector import VectorEnv

__all__ = ["Evaluator", "evaluation_seed"]

logger = logging.getLogger(__name__)

MAX_ENVS = 32
"""Environments an evaluation uses at once, where the tasks are not more than that."""

TUNING_OFFSET = 1_000_000
"""Tuning draws its evaluation episodes from its own stream, this far from the seeds it trains on."""


def evaluation_seed(cell: Cell) -> tuple[Stream, int]:
    """Stream and base seed of the episodes that ``cell`` is evaluated on; it trains on none of them."""
    return ("tune", cell.seed + TUNING_OFFSET) if cell.stream == "tune" else ("evaluate", cell.seed)


class Evaluator:
    """Plays the same episodes at every call: exactly ``cell.evaluation.episodes`` of each task, held-out ones too."""

    def __init__(self, cell: Cell, num_processes: int = 1) -> None:
        self.cell = cell
        num_tasks = len(cell.evaluated)
        replicas = min(cell.evaluation.episodes, max(1, MAX_ENVS // num_tasks))
        stream, seed = evaluation_seed(cell)
        self.env = VectorEnv(
            cell.evaluated,
            num_tasks * replicas,
            seed=seed,
            stream=stream,
            num_processes=num_processes,
            tolerant=True,
        )

    def __call__(
        self, agent: Agent, progress: TrainingProgress, stopping: Callable[[], bool]
    ) -> list[EvaluationRecord] | None:
        """Rows ordered by task and episode, or ``None`` when ``stopping()`` came true before the end.

        A task whose environment fails has no row, and the log says why: it is missing, which a report tells, and never
        counts as zero. Raises :class:`Diverged`, and :class:`EnvError` where no task is left.
        """
        wanted = {(task, n) for task in range(len(self.cell.evaluated)) for n in range(self.cell.evaluation.episodes)}
        finished: dict[tuple[int, int], Episode] = {}
        env_step = progress.env_step
        step, carry = self.env.reset(), agent.initial_carry(self.env.num_envs)
        while wanted:
            if stopping():
                return None
            decision = agent.act(carry, step.observation, step.first, step.task, explore=False)
            if not np.isfinite(decision.action).all():
                raise Diverged(f"an action was not a finite number in the evaluation at env step {env_step}")
            step, carry = self.env.step(decision.action), decision.carry
            for episode in step.episodes:
                key = episode.task, episode.index
                if episode.fault is not None:
                    logger.warning("the evaluation at env step %d goes on without a task: %s", env_step, episode.fault)
                    wanted = {other for other in wanted if other[0] != episode.task}
                    finished = {other: of for other, of in finished.items() if other[0] != episode.task}
                elif key in wanted:
                    # an environment that is done early plays on; only the first episodes of each task's stream count
                    wanted.remove(key)
                    finished[key] = episode
        if not finished:
            raise EnvError(f"no task could be evaluated at env step {env_step}; the log says why")
        return [
            EvaluationRecord.of(self.cell, self.cell.evaluated[task], episode, progress)
            for (task, _), episode in sorted(finished.items())
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.env.close()

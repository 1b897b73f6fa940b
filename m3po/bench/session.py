"""One process working on one cell: when to evaluate, to checkpoint, to stop, and what is written down."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from m3po.api import PARAMETERS, UPDATES, Agent, Carry, Diagnosed, Metrics
from m3po.bench.checkpoints import Checkpoint, Checkpoints, load_tree, save_tree
from m3po.bench.evaluate import Evaluator
from m3po.bench.loop import Clock, Diverged, Preempted
from m3po.bench.records import Cell, TrainingProgress, diagnostic_rows, normalised_score
from m3po.bench.store import CellFolder
from suites.spec import Episode, VectorStep
from suites.vector import VectorEnv

__all__ = ["CellSession", "Progress", "StopRequest"]

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 300.0
"""Longest time between two checkpoints; every evaluation brings one too."""

METRIC_ROWS_PER_EVALUATION = 10
"""Rows of training metrics between two evaluations, evenly spaced in environment steps."""


class StopRequest:
    """A wish to stop that anyone may utter once, with a reason."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def ask(self, reason: str) -> None:
        """Wish for a stop behind a checkpoint."""
        self.reason = self.reason or reason
        self._event.set()

    def asked(self) -> bool:
        """Whether anyone did."""
        return self._event.is_set()


@dataclass
class Meters:
    """Means of what the steps reported since the last row."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, in order of their names; counting starts anew."""
        means = {name: self.sums[name] / self.counts[name] for name in sorted(self.sums)}
        self.sums, self.counts = {}, {}
        return means


@dataclass
class Progress:
    """How far a cell is, apart from its agent and environments; part of every checkpoint."""

    evaluated_at: int = -1
    """``env_step`` of the last evaluation, −1 before the first."""
    metrics_at: int = 0
    """``env_step`` of the last row of metrics."""
    last_score: float | None = None
    updates: float | None = None
    parameters: float | None = None
    """Gradient updates so far and numbers that training moves, where the agent's metrics say."""
    sizes: list[list[int]] = field(default_factory=list)
    """``env_step`` and bytes of the cell's folder behind its first and its newest checkpoint."""
    meters: Meters = field(default_factory=Meters)

    def note_size(self, env_step: int, size: int) -> None:
        """Note the bytes of the cell's folder behind a checkpoint."""
        first = [known for known in self.sizes[:1] if known[0] < env_step]
        self.sizes = [*first, [env_step, size]]

    def size_at(self, env_step: int) -> float | None:
        """Bytes of the cell's folder behind a later checkpoint, on the line through both; None before there are two."""
        if len(self.sizes) < 2:
            return None
        (first, small), (last, large) = self.sizes
        return large + (large - small) / (last - first) * max(0, env_step - last)


class CellSession:
    """What surrounds the training loop of a cell; implements :class:`m3po.bench.loop.Session`."""

    def __init__(
        self, folder: CellFolder, cell: Cell, agent: Agent, env: VectorEnv, evaluator: Evaluator, stop: StopRequest
    ) -> None:
        self.until = folder.until()
        self.folder, self.cell, self.agent, self.env, self.evaluator, self.stop = (
            folder,
            cell,
            agent,
            env,
            evaluator,
            stop,
        )
        self.clock = Clock()
        self.progress = Progress()
        self.learning = False  # whether the agent has updated in this process
        self.checkpoints = Checkpoints(folder.path / "checkpoints")
        self._metrics_every = max(1, cell.evaluation.every // METRIC_ROWS_PER_EVALUATION)
        self._checkpointed_at = time.monotonic()
        self._logs = (folder.evaluations, folder.metrics, folder.diagnostics, folder.starts)

    def start(self) -> tuple[VectorStep, Carry]:
        """The first step and carry: of the newest checkpoint where there is one, else of a new run.

        Rows newer than that are dropped: they will be written again. Without a checkpoint all would be, so those of a
        cell that was further than its start are set aside.
        """
        checkpoint = self.checkpoints.newest()
        if checkpoint is not None:
            step, carry = self._restore(checkpoint)
        else:
            self._set_aside()
            step, carry = self.env.reset(), self.agent.initial_carry(self.env.num_envs)
            self.clock = Clock()
        for log in (self.folder.metrics, self.folder.starts):
            log.keep_until(checkpoint.env_step if checkpoint else -1)
        # a stop's checkpoint may be older than the evaluation due at its own step
        for log in (self.folder.evaluations, self.folder.diagnostics):
            log.keep_until(self.progress.evaluated_at)
        return step, carry

    def _set_aside(self) -> None:
        """Keep what may be all that is left of a finished cell: unpacked without checkpoints, its status damaged."""
        if any(row["env_step"] > 0 for row in self.folder.evaluations.rows()):
            kept = [path.name for log in self._logs if (path := log.set_aside()) is not None]
            logger.warning("no checkpoint is left to go on from; earlier rows are kept in %s", ", ".join(kept))

    def between_steps(self, env_step: int, carry: Carry) -> None:
        """Evaluate, write metrics and a checkpoint where due. Raises :class:`Preempted` when a stop was asked for."""
        self.clock.lap("other")
        over = env_step >= self.cell.budget.env_steps
        if env_step // self._metrics_every > self.progress.metrics_at // self._metrics_every or over:
            self._write_metrics(env_step)
        if self._evaluation_due(env_step, over) and not self.stop.asked():
            self._evaluate(env_step)
        evaluated_now = self.progress.evaluated_at == env_step
        if self.until is not None and self.progress.evaluated_at >= self.until:
            self.stop.ask(f"paused at env step {env_step}, as long as it was asked for")
        late = time.monotonic() - self._checkpointed_at > CHECKPOINT_SECONDS
        if evaluated_now or late or self.stop.asked():
            self._checkpoint(env_step, carry)
        if self.stop.asked() and not (over and evaluated_now):
            raise Preempted(self.stop.reason)

    def record(self, env_step: int, metrics: Metrics, episodes: Sequence[Episode]) -> None:
        """Take in the metrics of an update and the training episodes that ended. Raises :class:`Diverged`."""
        meters = self.progress.meters
        self.learning = self.learning or bool(metrics)
        self.progress.updates = metrics.get(UPDATES, self.progress.updates)
        self.progress.parameters = metrics.get(PARAMETERS, self.progress.parameters)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Diverged(f"the agent's metric {name!r} became {value} at env step {env_step}")
            meters.add(f"agent/{name}", float(value))
        for episode in episodes:
            meters.add(f"train/return/{self.cell.tasks[episode.task].name}", episode.episode_return)

    def _evaluation_due(self, env_step: int, over: bool) -> bool:
        last, every = self.progress.evaluated_at, self.cell.evaluation.every
        return last < 0 or env_step // every > last // every or (over and last < env_step)

    def _evaluate(self, env_step: int) -> None:
        progress = TrainingProgress(env_step, self.clock.training, self.progress.updates)
        records = self.evaluator(self.agent, progress, self.stop.asked)
        if records is None:
            self.clock.lap("evaluate")
            return
        if isinstance(self.agent, Diagnosed):
            self.folder.diagnostics.append(diagnostic_rows(env_step, self.agent.diagnose()))
        self.clock.lap("evaluate")
        self.folder.evaluations.append(record.model_dump(mode="json", by_alias=True) for record in records)
        scores: dict[str, list[float]] = {}
        for record in records:
            scores.setdefault(record.task, []).append(record.score)
        self.progress.last_score = normalised_score(self.cell.tasks, scores)
        self.progress.evaluated_at = env_step

    def _write_metrics(self, env_step: int) -> None:
        if env_step == self.progress.metrics_at:
            return
        if restarts := self.env.restarts + self.evaluator.env.restarts:
            self.progress.meters.add("env/restarts", restarts)
        seconds = {f"time/{name}": round(value, 3) for name, value in self.clock.seconds.items()}
        row = {"env_step": env_step, "seconds": round(self.clock.training, 3), **self.progress.meters.take(), **seconds}
        self.folder.metrics.append([row])
        self.progress.metrics_at = env_step

    def _checkpoint(self, env_step: int, carry: Carry) -> None:
        self.clock.lap("other")

        def fill(path: Path) -> None:
            (path / "agent").mkdir()
            self.agent.save(path / "agent", carry)
            state = {"env": self.env.state(), "progress": asdict(self.progress), "seconds": self.clock.seconds}
            save_tree(path, "harness", state)

        for log in self._logs:
            log.sync()
        self.checkpoints.write(env_step, fill)
        self.progress.note_size(env_step, self.folder.size())
        self._checkpointed_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> tuple[VectorStep, Carry]:
        state = load_tree(checkpoint.path, "harness")
        step = self.env.restore(state["env"])
        carry = self.agent.load(checkpoint.path / "agent")
        self.clock = Clock(**state["seconds"])
        self.progress = Progress(**{**state["progress"], "meters": Meters(**state["progress"]["meters"])})
        return step, carry

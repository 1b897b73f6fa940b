"""What the store holds, as types: a cell, its status, one evaluation episode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from m3po.api import Diagnostic
from suites.spec import Budget, Episode, Evaluation, Stream, Task

__all__ = [
    "FINAL",
    "Cell",
    "CellEntry",
    "CellStatus",
    "EvaluationRecord",
    "State",
    "TrainingProgress",
    "diagnostic_rows",
    "normalised_score",
]

State = Literal["pending", "running", "done", "failed", "diverged", "preempted"]
"""``preempted``: stopped on request, with a checkpoint to go on from."""

FINAL: frozenset[State] = frozenset({"done", "diverged"})
"""States in which a cell never runs again: divergence is a result of the agent, not an accident."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CellEntry(_Record):
    """A cell as ``study.json`` lists it: enough to tell which it is."""

    id: str
    agent: str
    seed: int
    tasks: tuple[str, ...]
    """Names of the tasks."""


class Cell(_Record):
    """One training run: an agent on a unit of tasks with one seed. ``cell.json`` is exactly this."""

    format: Literal[1] = 1
    id: str
    """Folder name: tasks, agent, seed, and the beginning of ``config_hash``."""
    suite: str
    suite_version: int
    agent: str
    """Name shown in the report."""
    agent_type: str
    """Name of the implementation, as registered."""
    seed: int
    stream: Stream
    """Seed stream of the training environments; ``tune`` for cells of a tuning study."""
    mode: Literal["joint", "per_task"]
    tasks: tuple[Task, ...]
    held_out: tuple[Task, ...] = ()
    """Tasks that are evaluated and never trained on."""
    config: Mapping[str, Any]
    """The agent's configuration with every default written out."""
    config_hash: str
    """Hash of everything but the seed that moves a result."""
    budget: Budget
    evaluation: Evaluation
    provenance: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def entry(self) -> CellEntry:
        """The cell in a list of cells."""
        return CellEntry(id=self.id, agent=self.agent, seed=self.seed, tasks=tuple(task.name for task in self.tasks))

    @property
    def evaluated(self) -> tuple[Task, ...]:
        """All tasks an agent meets, those it trains on first; their order is that of the agent's task numbers."""
        return (*self.tasks, *self.held_out)


class CellStatus(_Record):
    """Where a cell stands. ``status.json`` is exactly this; it is replaced as a whole about once a second.

    What a newer version writes beside it is passed over: a finished cell must not be run again for a field.
    """

    model_config = ConfigDict(extra="ignore")

    id: str
    state: State
    env_step: int = 0
    env_steps: int
    """Budget of the cell."""
    steps_per_second: float | None = None
    """Environment steps per second of wall time, evaluation included: of a finished cell over all it did, of a running
    one over the last minutes; ``None`` until its agent has begun to learn."""
    last_score: float | None = None
    """Mean over the tasks of the last evaluation's normalised score."""
    eta_seconds: float | None = None
    seconds: float = 0.0
    """Training seconds so far, over all processes that worked on the cell; evaluation is not counted."""
    host: str = ""
    pid: int = 0
    heartbeat: float = 0.0
    """Unix time of the last sign of life."""
    message: str = ""
    """Why the cell failed, diverged or stopped."""
    peak_memory_mb: float | None = None
    """Of the cell's process and those that step its environments."""
    disk_mb: float | None = None
    """Of the cell's folder behind its newest checkpoint."""
    disk_mb_at_end: float | None = None
    """The same behind the last one, if it grows on as it did: at most, since a replay that is full grows no more."""
    parameters: float | None = None
    """Numbers that the agent's training moves, where its metrics say."""


class TrainingProgress(NamedTuple):
    """How far a training is: environment steps, its seconds, and gradient updates where the agent says."""

    env_step: int
    seconds: float
    updates: float | None


class EvaluationRecord(_Record):
    """One evaluation episode, one row of ``evaluations.jsonl``."""

    suite: str
    protocol: str
    agent: str
    config_hash: str
    seed: int
    task: str
    env_step: int
    episode: int
    """Which of the evaluation's episodes of this task; the same number starts from the same state every time."""
    episode_return: float = Field(serialization_alias="return")
    success_any: bool | None
    success_last: bool | None
    score: float
    """What the protocol scores: the return, or 0 or 1 for success. Not normalised."""
    length: int
    """Decisions."""
    seconds: float
    """Training seconds of the cell so far."""
    updates: float | None = None
    """Gradient updates so far, where the agent's metrics say."""

    @classmethod
    def of(cls, cell: Cell, task: Task, episode: Episode, progress: TrainingProgress) -> EvaluationRecord:
        """The row of one finished episode. Raises ``ValueError`` where the protocol scores a success the task lacks."""
        return cls(
            suite=cell.suite,
            protocol=task.protocol.name,
            agent=cell.agent,
            config_hash=cell.config_hash,
            seed=cell.seed,
            task=task.name,
            env_step=progress.env_step,
            episode=episode.index,
            episode_return=episode.episode_return,
            success_any=episode.success_any,
            success_last=episode.success_last,
            score=_score(task, episode),
            length=episode.length,
            seconds=round(progress.seconds, 3),
            updates=progress.updates,
        )


def _score(task: Task, episode: Episode) -> float:
    if task.protocol.score == "return":
        return episode.episode_return
    success = episode.success_any if task.protocol.score == "success_any" else episode.success_last
    if success is None:
        raise ValueError(
            f"task {task.name!r} reports no success, but its protocol {task.protocol.name!r} scores "
            f"{task.protocol.score!r}; choose a protocol that scores the return"
        )
    return float(success)


def normalised_score(tasks: tuple[Task, ...], scores: Mapping[str, list[float]]) -> float | None:
    """Mean over the tasks of (mean score − low) / (high − low); ``scores`` holds the tasks' raw episode scores.

    ``None`` where a task has none: a mean over fewer tasks is another number.
    """
    if any(task.name not in scores for task in tasks):
        return None
    parts = []
    for task in tasks:
        episodes = scores[task.name]
        parts.append((sum(episodes) / len(episodes) - task.protocol.low) / (task.protocol.high - task.protocol.low))
    return sum(parts) / len(parts)


def diagnostic_rows(env_step: int, diagnostics: Mapping[str, Diagnostic]) -> Iterator[dict[str, Any]]:
    """Rows of ``diagnostics.jsonl``: values as nested lists, null where they are not finite."""
    for name, shown in diagnostics.items():
        values = _plain(shown.values.tolist())
        yield {"env_step": env_step, "name": name, "title": shown.title, "axes": list(shown.axes), "values": values}


def _plain(values: Any) -> Any:
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return values if math.isfinite(values) else None

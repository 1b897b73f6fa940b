"""What searching hyper-parameters found and took: ``trials.json`` of a search, and the origins a tuned suite states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.study import Record, ResultsError, Tuned

LEDGER = "trials.json"
MOST_BINS = 5
"""Parts of a range whose trials are summarised as one."""
FEWEST_PER_BIN = 3
QUARTILES = (0.25, 0.5, 0.75)
ALIKE = 1.1
"""Budgets of two agents that differ by less than this factor are equal."""


@dataclass(frozen=True)
class Field:
    """One hyper-parameter that was searched: a range, or choices."""

    name: str
    low: float | None
    high: float | None
    log: bool
    choices: tuple[Any, ...]
    default: Any
    """Its value in the configuration as it stood."""

    def place(self, value: Any) -> float | None:
        """Where ``value`` lies between 0 and 1 along the range (its logarithm where it was searched so) or the choices.

        ``None`` for a value that the search could not have proposed.
        """
        if self.choices:
            spots = [spot for spot, choice in enumerate(self.choices) if choice == value]
            return spots[0] / max(1, len(self.choices) - 1) if spots else None
        if not isinstance(value, int | float) or self.low is None or self.high is None:
            return None
        scale = np.log if self.log else float
        if not self.low <= value <= self.high:
            return None
        return float((scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low)))


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    number: int
    """From 1."""
    state: str
    message: str
    values: Mapping[str, Any]
    score: float
    """NaN where it could not be measured."""
    compute: float
    """The second objective; NaN where there is none."""
    default: bool
    """Whether it is the configuration as it stood."""
    valid: bool
    """Whether it was run whole and may be chosen."""
    diverged: int
    """Cells that diverged."""
    env_steps: int
    seconds: float


@dataclass(frozen=True)
class Search:
    """The search of one agent's configuration."""

    suite: str
    version: int
    agent: str
    objectives: tuple[str, ...]
    sampler: str
    pruner: str
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    cell_env_steps: int
    """Budget of one cell."""
    fields: tuple[Field, ...]
    trials: tuple[Trial, ...]
    repeats: int
    """Proposals that only repeated one of these, and were not run."""
    importance: Mapping[str, float]
    env_steps: int
    """What all cells took together."""
    seconds: float
    versions: Mapping[str, str]

    @property
    def measured(self) -> tuple[Trial, ...]:
        """Trials with a score, those ended early with the last they had."""
        return tuple(trial for trial in self.trials if math.isfinite(trial.score))

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores of the trials that were measured and not ended early, in their order."""
        return np.array([trial.score for trial in self.measured if trial.state != "pruned"], dtype=np.float64)

    @property
    def best(self) -> Trial | None:
        """The valid trial with the highest score, of equals the first."""
        valid = [trial for trial in self.measured if trial.valid]
        return max(valid, key=lambda trial: (trial.score, -trial.number), default=None)

    @property
    def default(self) -> Trial | None:
        """The configuration as it stood, where it was measured."""
        return next((trial for trial in self.measured if trial.default), None)

    @property
    def front(self) -> tuple[Trial, ...]:
        """Valid trials that no other beats in score and compute alike, cheapest first."""
        found: list[Trial] = []
        known = [trial for trial in self.measured if trial.valid and math.isfinite(trial.compute)]
        for trial in sorted(known, key=lambda of: (of.compute, -of.score)):
            if not found or trial.score > found[-1].score:
                found.append(trial)
        return tuple(found)


def expected_best(scores: Sequence[float] | NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Expected highest score of n trials drawn from those seen, for each n of ``numbers``; float64 ``[len(numbers)]``.

    With replacement, from the empirical distribution of B scores v_1 ≤ … ≤ v_B:
    E[max of n] = Σ_b v_b · ((b / B)^n − ((b − 1) / B)^n)  (Dodge et al. 2019, "Show Your Work", equations 5 to 8).
    Exact for trials that do not learn from each other; raises ``ValueError`` without scores or for an n below 1.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not values.size or numbers.min() < 1:
        raise ValueError(f"found {values.size} scores and numbers {numbers}; expected some of both, from 1 on")
    at_most = np.arange(values.size + 1) / values.size
    return np.asarray(np.diff(at_most[None, :] ** numbers[:, None], axis=1) @ values, dtype=np.float64)


@dataclass(frozen=True)
class Sensitivity:
    """Quartiles of the score over neighbouring values of one field: ``places`` [P] in 0 … 1, ``quartiles`` [P, 3]."""

    places: NDArray[np.float64]
    quartiles: NDArray[np.float64]


def sensitivity(search: Search, field: Field) -> Sensitivity | None:
    """How the score moves with one field while the others vary: by choices, or by parts of equally many trials.

    ``None`` where there are too few trials for two parts.
    """
    placed = [(field.place(trial.values.get(field.name)), trial.score) for trial in search.measured]
    known = np.array(sorted((place, score) for place, score in placed if place is not None), dtype=np.float64)
    if field.choices:
        parts = [known[known[:, 0] == place] for place in np.unique(known[:, 0])] if len(known) else []
    else:
        parts = (
            np.array_split(known, min(MOST_BINS, len(known) // FEWEST_PER_BIN)) if len(known) >= FEWEST_PER_BIN else []
        )
    if len(parts) < 2:
        return None
    return Sensitivity(
        np.array([part[:, 0].mean() for part in parts]),
        np.array([np.quantile(part[:, 1], QUARTILES) for part in parts]),
    )


def notes(agents: Sequence[str], tuned: Sequence[Tuned]) -> list[str]:
    """A sentence where some agents of a study were tuned and others with fewer environment steps or not at all."""
    if not tuned:
        return []
    budgets = ", ".join(f"{of.agent} {of.trials} trials ({of.env_steps:,} environment steps)" for of in tuned)
    untuned = [agent for agent in agents if agent not in {of.agent for of in tuned}]
    found = []
    if untuned:
        found = [
            f"Not every agent was tuned, which favours those that were: {budgets}; not tuned: {', '.join(untuned)}."
        ]
    if _alike([of.env_steps for of in tuned]):
        return found
    spent: dict[str, list[float]] = {"trials": [of.trials for of in tuned], "hours": [of.hours for of in tuned]}
    same = [name for name, amounts in spent.items() if _alike(amounts)]
    told = f"as many {' and '.join(same)}, but unequal environment steps" if same else "unequal budgets"
    return [*found, f"Agents were tuned with {told}, which favours those with more: {budgets}."]


def _alike(amounts: Sequence[float]) -> bool:
    return max(amounts) <= ALIKE * min(amounts)


def read_search(folder: Path) -> Search:
    """Read :data:`LEDGER` of a search's folder. Raises :class:`ResultsError` where there is none or it is wrong."""
    path = folder / LEDGER
    if not path.is_file():
        raise ResultsError(
            f"{folder}: holds no {LEDGER}; expected the folder of a search, such as results/quick/tuning/ppo"
        )
    record = Record.read(path)
    how, cost = record.record("search"), record.record("cost")
    objectives = tuple(map(str, how.items("objectives")))
    return Search(
        suite=record.text("suite"),
        version=record.integer("suite_version"),
        agent=record.text("agent"),
        objectives=objectives,
        sampler=how.text("sampler"),
        pruner=how.text("pruner"),
        seeds=tuple(map(int, record.items("seeds"))),
        tasks=tuple(str(task["name"]) for unit in record.items("tasks") for task in unit),
        cell_env_steps=record.record("budget").integer("env_steps"),
        fields=tuple(_field(record, name) for name in record.record("space").content),
        trials=tuple(_trial(item) for item in record.records("trials")),
        repeats=record.integer("repeats") if "repeats" in record.content else 0,  # earlier ledgers count them as trials
        importance={str(k): float(v) for k, v in record.record("importance").content.items()},
        env_steps=cost.integer("env_steps"),
        seconds=cost.number("seconds"),
        versions={str(k): str(v) for k, v in record.record("versions").content.items()},
    )


def _field(record: Record, name: str) -> Field:
    space = record.record("space").record(name).content
    return Field(
        name=name,
        low=space.get("low"),
        high=space.get("high"),
        log=bool(space.get("log")),
        choices=tuple(space.get("choices") or ()),
        default=record.record("fields").content.get(name),
    )


def _trial(record: Record) -> Trial:
    objectives = record.items("objectives")
    return Trial(
        number=record.integer("number") + 1,
        state=record.text("state"),
        message=record.text("message"),
        values=dict(record.record("values").content),
        score=math.nan if record.content.get("score") is None else record.number("score"),
        compute=float(objectives[1]) if len(objectives) > 1 else math.nan,
        default=bool(record.content.get("default")),
        valid=bool(record.content.get("valid")),
        diverged=record.integer("diverged"),
        env_steps=record.integer("env_steps"),
        seconds=record.number("seconds"),
    )

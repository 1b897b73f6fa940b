"""Published curves of other people's runs, to stand beside a study's own.

The scores lie in ``references/``, with the rules they were measured by, their source and licence. Where those rules are
not the study's, the curves are marked as not comparable and drawn apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from analysis.scores import Array
from analysis.study import Study, Task

__all__ = ["PublishedCurve", "Source", "published_curves", "sources"]


@dataclass(frozen=True)
class Source:
    """Where curves come from. ``measures`` says by what rules, for each family of tasks."""

    file: str
    name: str
    short: str
    licence: str
    measures: dict[str, dict[str, Any]]

    def comparable(self, task: Task) -> bool:
        """Whether its scores of ``task`` follow the rules of the study's protocol."""
        measure = self.measures[task.family]
        own = (task.protocol.action_repeat, task.protocol.decisions, task.protocol.score)
        theirs = (measure["action_repeat"], measure["decisions"], measure["score"])
        return bool(measure.get("comparable", True)) and own == theirs

    def rules(self, task: Task) -> str:
        """How its scores of ``task`` were measured, in words."""
        return str(self.measures[task.family]["about"])


@dataclass(frozen=True)
class PublishedCurve:
    """Mean raw score over ``runs`` of one published agent on one task, at ``steps`` ``[P]`` environment steps."""

    agent: str
    source: Source
    task: Task
    steps: Array
    mean: Array
    runs: int
    comparable: bool

    @property
    def label(self) -> str:
        return f"{self.agent} ({self.source.short})"

    def at(self, env_step: int) -> tuple[int, float] | None:
        """The last published step up to ``env_step``, beyond the start of training, and the score there."""
        known = np.flatnonzero((self.steps > 0) & (self.steps <= env_step))
        return (int(self.steps[known[-1]]), float(self.mean[known[-1]])) if known.size else None


def sources() -> tuple[Source, ...]:
    """Everything that is shipped."""
    entries = json.loads(files("analysis").joinpath("references/sources.json").read_bytes())
    return tuple(Source(e["file"], e["source"], e["short"], e["licence"], e["measures"]) for e in entries)


@cache
def _scores(file: str) -> pd.DataFrame:
    with files("analysis").joinpath(f"references/{file}").open("rb") as packed:
        return pd.read_csv(packed, compression="gzip")


def published_curves(study: Study) -> list[PublishedCurve]:
    """Published curves of the study's tasks, as far as its budget goes and one point beyond."""
    found = []
    for source in sources():
        scores = _scores(source.file)
        for task in study.evaluated:
            if task.family not in source.measures:
                continue
            of_task = scores[(scores["family"] == task.family) & (scores["task"] == task.name)]
            for agent, rows in of_task.groupby("agent"):
                found.append(_curve(str(agent), source, task, rows, study.env_steps))
    return found


def _curve(agent: str, source: Source, task: Task, rows: pd.DataFrame, budget: int) -> PublishedCurve:
    runs = rows["seed"].nunique()
    by_step = rows.groupby("env_step")["score"].agg(["mean", "size"])
    by_step = by_step[by_step["size"] == runs]  # a step that not every run has would bend the mean
    steps = by_step.index.to_numpy(dtype=np.float64)
    kept = slice(int(np.searchsorted(steps, budget)) + 1)
    mean = by_step["mean"].to_numpy(dtype=np.float64)
    return PublishedCurve(agent, source, task, steps[kept], mean[kept], runs, source.comparable(task))

"""Published curves of other people's runs, to stand beside a study's own.

The scores lie in ``references/``, with the rules they were measured by, their source and licence. Where those rules are
not the study's, the curves are marked as not comparable and drawn apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
        """Whether its scores of ``task`` follow the rules of the study's protocol.

        Theirs are of environments as they come, seen as states: not of images, say.
        """
        measure = self.measures[task.family]
        own = (task.protocol.action_repeat, task.protocol.decisions, task.protocol.score)
        theirs = (measure["action_repeat"], measure["decisions"], measure["score"])
        return bool(measure.get("comparable", True)) and own == theirs and not task.options

    def rules(self, task: Task) -> str:
        """How its scores of ``task`` were measured, in words."""
        return str(self.measures[task.family]["about"])


@dataclass(frozen=True)
class PublishedCurve:
    """Mean raw score over ``runs`` of one published agent on one task, at ``steps`` ``[P]`` environment steps.

    ``last`` is the last published step up to where the study has scores of the task, beyond the start of training, and
    the score there; None where nothing was published up to there.
    """

    agent: str
    source: Source
    task: Task
    steps: Array
    mean: Array
    last: tuple[int, float] | None
    runs: int
    comparable: bool

    @property
    def label(self) -> str:
        return f"{self.agent} ({self.source.short})"


def sources() -> tuple[Source, ...]:
    """Everything that is shipped."""
    entries = json.loads(files("analysis").joinpath("references/sources.json").read_bytes())
    return tuple(Source(e["file"], e["source"], e["short"], e["licence"], e["measures"]) for e in entries)


@cache
def _scores(file: str) -> pd.DataFrame:
    with files("analysis").joinpath(f"references/{file}").open("rb") as packed:
        return pd.read_csv(packed, compression="gzip")


def published_curves(study: Study, reached: Mapping[str, int] | None = None) -> list[PublishedCurve]:
    """Published curves of the study's tasks, as far as its budget goes and one point beyond.

    ``reached``: the environment step at which each task is scored, where that is not the budget; a task that is not in
    it has no score yet. Curves with no point within the budget say nothing of it and are left out. One agent for all
    tasks has only a share of its steps for each, and none of theirs is comparable with it.
    """
    alone = study.mode != "joint"
    found = []
    for source in sources():
        scores = _scores(source.file)
        for task in study.evaluated:
            if task.family not in source.measures:
                continue
            comparable = alone and source.comparable(task)
            end = study.env_steps if reached is None else reached.get(task.name, 0)
            of_task = scores[(scores["family"] == task.family) & (scores["task"] == task.name)]
            for agent, rows in of_task.groupby("agent"):
                curve = _curve(str(agent), source, task, rows, study.env_steps, end, comparable)
                found += [] if curve is None else [curve]
    return found


def _curve(
    agent: str, source: Source, task: Task, rows: pd.DataFrame, budget: int, end: int, comparable: bool
) -> PublishedCurve | None:
    runs = rows["seed"].nunique()
    by_step = rows.groupby("env_step")["score"].agg(["mean", "size"])
    by_step = by_step[by_step["size"] == runs]  # a step that not every run has would bend the mean
    steps = by_step.index.to_numpy(dtype=np.float64)
    mean = by_step["mean"].to_numpy(dtype=np.float64)
    within = np.flatnonzero((steps > 0) & (steps <= budget))
    if not within.size:
        return None
    by_end = within[steps[within] <= end]
    last = (int(steps[by_end[-1]]), float(mean[by_end[-1]])) if by_end.size else None
    kept = slice(within[-1] + 2)
    return PublishedCurve(agent, source, task, steps[kept], mean[kept], last, runs, comparable)

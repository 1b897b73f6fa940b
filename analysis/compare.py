"""What changed between two studies: two versions of the code, two configurations, one agent for all tasks or each.

Scores are compared on the tasks both have under the same protocol, engine and options. Runs of the two are drawn
apart, even where seeds agree: what changed between the studies changes the run behind a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import stats
from analysis.frame import Results
from analysis.scores import AgentScores, Array, agent_scores
from analysis.stats import Contrast, Estimate
from analysis.study import ResultsError, Study

__all__ = ["Change", "Comparison", "compare"]


@dataclass(frozen=True)
class Change:
    """One agent in both studies, over all common tasks (IQM; ``task`` None) or on one of them (mean), normalised."""

    agent: str
    task: str | None
    before: Estimate
    after: Estimate
    contrast: Contrast
    runs: tuple[int, int]
    env_steps: tuple[int, int]
    few: bool
    """Whether a side has so few runs that intervals leave out 0 far too easily: of two runs one in three does, of five
    one in twenty."""

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference leaves out 0, and rests on runs enough to say so."""
        return not self.few and self.contrast.difference.leaves_out_zero


@dataclass(frozen=True)
class Comparison:
    """All that differs. ``settings`` are sentences, ``changes`` numbers, aggregates before single tasks."""

    settings: tuple[str, ...]
    tasks: tuple[str, ...]
    changes: tuple[Change, ...]


def compare(before: Results, after: Results) -> Comparison:
    """Compare two studies, agent by agent. Raises :class:`ResultsError` where they have no agent or task in common."""
    tasks = _common_tasks(before.study, after.study)
    agents = [agent for agent in before.study.agents if agent in after.study.agents]
    for kind, common, of in (("task measured alike", tasks, "tasks"), ("agent", agents, "agents")):
        if not common:
            found = "; ".join(f"{r.study.suite}: {', '.join(_names(r.study, of))}" for r in (before, after))
            raise ResultsError(f"the two studies have no {kind} in common ({found})")
    changes = [change for agent in agents for change in _changes(before, after, agent, tasks)]
    ordered = sorted(changes, key=lambda change: change.task is not None)
    return Comparison(tuple(_settings(before, after)), tasks, tuple(ordered))


def _names(study: Study, of: str) -> tuple[str, ...]:
    return study.agents if of == "agents" else tuple(task.name for task in study.tasks)


def _common_tasks(before: Study, after: Study) -> tuple[str, ...]:
    measured = {task.name: (task.measure, task.options) for task in after.tasks}
    return tuple(task.name for task in before.tasks if measured.get(task.name) == (task.measure, task.options))


def _changes(before: Results, after: Results, agent: str, tasks: tuple[str, ...]) -> Iterator[Change]:
    both = agent_scores(before, agent), agent_scores(after, agent)
    joint = before.study.mode == "joint", after.study.mode == "joint"
    finals = _on(both[0], tasks), _on(both[1], tasks)
    known = np.isfinite(finals[0]).any(axis=0) & np.isfinite(finals[1]).any(axis=0)
    if known.any():
        yield _change(agent, None, (finals[0][:, known], finals[1][:, known]), stats.iqm, both, joint)
    for column in np.flatnonzero(known) if len(tasks) > 1 else ():
        one = finals[0][:, [column]], finals[1][:, [column]]
        yield _change(agent, tasks[column], one, stats.mean, both, joint)


def _on(scores: AgentScores, tasks: tuple[str, ...]) -> Array:
    return scores.final[:, [scores.tasks.index(task) for task in tasks]]


def _change(
    agent: str,
    task: str | None,
    finals: tuple[Array, Array],
    statistic: Callable[[Array], Array],
    scores: tuple[AgentScores, AgentScores],
    joint: tuple[bool, bool],
) -> Change:
    values, contrast = stats.contrast((agent, task or ""), finals, statistic, whole_runs=joint)
    runs = [int(np.isfinite(of).any(axis=1).sum()) for of in finals]
    steps = [of.env_step if task is None else of.final_steps[task] for of in scores]
    few = any(stats.few(of, whole_runs=whole) for of, whole in zip(finals, joint, strict=True))
    return Change(agent, task, values[0], values[1], contrast, (runs[0], runs[1]), (steps[0], steps[1]), few)


def _settings(before: Results, after: Results) -> Iterator[str]:
    """Sentences on what the studies asked for and were made by, as far as it differs."""
    old, new = _told(before), _told(after)
    for name in old:
        if old[name] != new[name]:
            yield f"{name}: {old[name]} → {new[name]}"
    if before.study.mode != after.study.mode:
        shares = [_share(results.study) for results in (before, after)]
        yield f"environment steps per task: {' → '.join(shares)} (a joint cell shares its steps among its tasks)"
    for kind in ("agents", "tasks"):
        one, other = _names(before.study, kind), _names(after.study, kind)
        if gone := [name for name in one if name not in other]:
            yield f"{kind} no longer there: {', '.join(gone)}"
        if come := [name for name in other if name not in one]:
            yield f"{kind} that are new: {', '.join(come)}"
    alike = _common_tasks(before.study, after.study)
    common = {task.name for task in after.study.tasks}
    if unlike := [t.name for t in before.study.tasks if t.name in common and t.name not in alike]:
        yield f"tasks measured by another protocol or engine or with other options, left out: {', '.join(unlike)}"
    configs = _configs(before), _configs(after)
    for agent in (agent for agent in configs[0] if agent in configs[1]):
        yield from _differences(agent, configs[0][agent], configs[1][agent])


def _share(study: Study) -> str:
    """Environment steps that each task trains for: of a joint cell about as many for each."""
    if study.mode != "joint":
        return f"{study.env_steps:,}"
    return f"{study.env_steps / len(study.tasks):,.0f} of {study.env_steps:,}"


def _told(results: Results) -> dict[str, str]:
    study, commits = results.study, sorted({commit for cell in results.cells for commit in cell.commits})
    return {
        "suite": f"{study.suite}, version {study.version}",
        "mode": "one agent for all tasks" if study.mode == "joint" else "one agent per task",
        "environment steps per cell": f"{study.env_steps:,}",
        "episodes per evaluation": str(study.episodes),
        "seeds": ", ".join(map(str, study.seeds)),
        "options of tasks": ", ".join(dict.fromkeys(task.options or "none" for task in study.tasks)),
        "code": ", ".join(commits) or "unknown",
    }


def _configs(results: Results) -> dict[str, dict[str, Any]]:
    """The configuration of each agent: of its first cell that says."""
    found: dict[str, dict[str, Any]] = {}
    for cell in results.cells:
        if cell.config:
            found.setdefault(cell.agent, json.loads(cell.config))
    return found


def _differences(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        one, other = old.get(key, "unset"), new.get(key, "unset")
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(f"{name}.{key}", one, other)
        elif one != other:
            yield f"{name}.{key}: {one} → {other}"

"""Everything a report says about a study, computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import diagnostics, efficiency, integrity, seeds, stats, tuning
from analysis.comparisons import Improvement, improvements
from analysis.diagnostics import Insides
from analysis.efficiency import Curve, Speedup, StepsToScore
from analysis.frame import Results
from analysis.published import PublishedCurve, published_curves
from analysis.scores import AXES, AgentScores, Array, agent_scores
from analysis.seeds import Prediction, Separation
from analysis.stats import Band, Estimate
from analysis.study import SweepPoint, Task
from analysis.videos import Video, videos


@dataclass(frozen=True)
class TaskScore:
    """One agent on one task at its final evaluation, on the raw scale of the task's protocol."""

    agent: str
    task: Task
    env_step: int
    runs: int
    raw: Estimate
    normalised: float


@dataclass(frozen=True)
class TaskCurve:
    """Mean raw score over runs against environment steps ``[P]`` of one agent on one task."""

    agent: str
    task: Task
    steps: Array
    band: Band


@dataclass(frozen=True)
class Compute:
    """What the cells of one agent cost. Seconds are training time; the rate counts environment steps."""

    agent: str
    cells: int
    seconds: float
    """Sum over cells."""
    seconds_per_cell: float
    """Median over cells."""
    steps_per_second: float
    """Median over cells."""
    peak_memory_mb: float | None
    updates: float | None
    """Gradient updates of a cell, median."""
    parameters: tuple[int, ...]
    """Numbers that training moves, each that occurs, ascending; they may differ from task to task."""


@dataclass(frozen=True)
class MeasureScore:
    """IQM of one agent over the tasks of one protocol and engine."""

    agent: str
    protocol: str
    """Its label in :attr:`analysis.study.Study.labels`, which no other protocol of the study has."""
    engine: str
    value: Estimate
    runs: int
    tasks: int


@dataclass(frozen=True)
class Breadth:
    """How one agent does beyond its final average: while it trains, and on the task it is worst at.

    ``area`` is the IQM of the areas under the learning curves, divided by their length; None where there is no curve.
    ``worst`` is the mean of the task named, with the interval that this task has: which task is the worst was chosen
    after seeing the runs, so it was a little unlucky. A task whose runs are all under way is not it, unless none is
    farther.
    """

    agent: str
    area: Estimate | None
    worst_task: str
    worst: Estimate


@dataclass(frozen=True)
class DomainScore:
    """IQM of one agent over the tasks of one domain."""

    agent: str
    domain: str
    value: Estimate
    tasks: int


@dataclass(frozen=True)
class Generalisation:
    """Mean normalised scores of one agent on the tasks it trained on and on those held out, and their difference."""

    agent: str
    trained: Estimate
    held_out: Estimate
    gap: Estimate
    runs: int


@dataclass(frozen=True)
class Summary:
    """All conclusions. ``agents`` are those with results, in the order of the suite."""

    results: Results
    scores: dict[str, AgentScores]
    aggregates: dict[str, dict[str, Estimate]]
    """By agent, then by metric."""
    improvements: list[Improvement]
    thresholds: Array
    profiles: dict[str, dict[str, Band]]
    """By what they count (a key of :data:`analysis.stats.PROFILES`), then by agent."""
    curves: dict[str, Curve]
    speedups: list[Speedup]
    """Of the aggregate along each axis, then task by task along each."""
    steps_to_score: list[StepsToScore]
    task_scores: list[TaskScore]
    task_curves: list[TaskCurve]
    other_axes: dict[str, dict[str, Curve]]
    """Curves against gradient updates and seconds, by axis and agent, where at least two agents know them."""
    breadth: list[Breadth]
    domains: list[DomainScore]
    """Where the study has several."""
    predictions: dict[str, list[Prediction]]
    compute: list[Compute]
    by_measure: list[MeasureScore]
    """Where the study has several protocols or engines: each for itself."""
    generalisation: list[Generalisation]
    """Where the study has held-out tasks."""
    insides: Insides
    """What the agents say of themselves."""
    published: list[PublishedCurve]
    """Other people's curves of the same tasks."""
    videos: list[Video]
    """Films of chosen policies."""
    notes: list[str]
    """Sentences on what is missing or mixed."""

    @property
    def agents(self) -> tuple[str, ...]:
        return tuple(self.scores)

    @property
    def complete_agents(self) -> tuple[str, ...]:
        """Agents with at least one run on every task: only these are compared as wholes."""
        return tuple(a for a, scores in self.scores.items() if scores.num_tasks == len(scores.tasks))

    @property
    def ranking(self) -> tuple[str, ...]:
        """The complete agents, highest IQM first, equals by name."""
        return tuple(sorted(self.complete_agents, key=lambda a: (-self.aggregates[a]["iqm"].estimate, a)))

    @property
    def sweep_points(self) -> tuple[SweepPoint, ...]:
        """Points of the sweep that may be compared: of agents with runs on every task."""
        sweep = self.results.study.sweep
        return () if sweep is None else tuple(point for point in sweep.points if point.agent in self.complete_agents)

    @property
    def steps_differ(self) -> bool:
        """Whether some task is scored at different environment steps of different agents."""
        steps: dict[str, set[int]] = {}
        for of in self.scores.values():
            for task, step in of.final_steps.items():
                steps.setdefault(task, set()).add(step)
        return any(len(found) > 1 for found in steps.values())

    @property
    def separations(self) -> list[Separation]:
        """How many seeds would tell neighbours in the ranking apart, of those that are scored at the same steps."""
        iqms = {agent: of["iqm"] for agent, of in self.aggregates.items()}
        joint = self.results.study.mode == "joint"
        found = seeds.separations(self.ranking, self.scores, iqms, self.predictions, whole_runs=joint)
        return [s for s in found if self.scores[s.agent].final_steps == self.scores[s.rival].final_steps]


def summarise(results: Results, env_step: int | None = None) -> Summary:
    """Compute everything, each agent at ``env_step`` or, by default, at its final evaluation."""
    joint = results.study.mode == "joint"
    found = {agent: agent_scores(results, agent, env_step) for agent in results.study.agents}
    scores = {agent: of for agent, of in found.items() if of.num_tasks}
    complete = {agent: of for agent, of in scores.items() if of.num_tasks == len(of.tasks)}
    curves = {
        agent: efficiency.curve(of, whole_runs=joint)
        for agent, of in complete.items()
        if of.steps.size and _on_the_way(results)
    }
    along = {axis: {agent: agent_scores(results, agent, env_step, axis=axis) for agent in scores} for axis in AXES[1:]}
    other_axes = _other_axes(along, joint)
    thresholds = _thresholds(scores)
    predictions = {agent: seeds.predict(of, whole_runs=joint) for agent, of in complete.items()}
    insides = diagnostics.read(results)
    task_scores = _task_scores(results, scores, env_step)
    task_curves, task_speedups = _by_task(results, {"env_step": scores, **along})
    return Summary(
        results=results,
        scores=scores,
        aggregates={agent: stats.aggregates(agent, of.final, whole_runs=joint) for agent, of in scores.items()},
        improvements=improvements(scores, whole_runs=joint),
        thresholds=thresholds,
        profiles={
            counted: {
                agent: stats.performance_profile(agent, of.final, thresholds, of=counted, whole_runs=joint)
                for agent, of in complete.items()
            }
            for counted in stats.PROFILES
        },
        curves=curves,
        speedups=[
            *efficiency.speedups(curves),
            *(item for axis, of in other_axes.items() for item in efficiency.speedups(of, axis=axis)),
            *task_speedups,
        ],
        steps_to_score=[efficiency.steps_to_score(of, level) for of in curves.values() for level in efficiency.LEVELS],
        task_scores=task_scores,
        task_curves=task_curves,
        other_axes=other_axes,
        breadth=_breadth(scores, joint),
        domains=_domains(results, scores, joint),
        predictions=predictions,
        compute=_compute(results, scores),
        by_measure=_by_measure(results, scores, joint),
        generalisation=_generalisation(results, scores, env_step),
        insides=insides,
        published=published_curves(results.study, _reached(task_scores)),
        videos=videos(results),
        notes=[
            *integrity.notes(results, scores),
            *integrity.unread(insides.damaged),
            *tuning.notes(results.study.agents, results.study.tuned),
        ],
    )


def _on_the_way(results: Results) -> bool:
    """Whether there are environment steps to draw scores against; a table may hold final scores alone."""
    return not results.tabular or bool(results.evaluations["env_step"].any())


MOST_THRESHOLDS = 1000
"""Thresholds of a profile, about: where scores lie far above 1 its steps are wider."""


def _thresholds(scores: dict[str, AgentScores]) -> Array:
    """0 to 1 in steps of 0.01, and on to the best score where one lies above 1."""
    best = max(1.0, *(float(np.nanmax(of.final)) for of in scores.values())) if scores else 1.0
    step = 0.01 * math.ceil(best / (0.01 * MOST_THRESHOLDS))
    return np.asarray(np.arange(0, best + step, step).round(2), dtype=np.float64)


def _other_axes(along: dict[str, dict[str, AgentScores]], joint: bool) -> dict[str, dict[str, Curve]]:
    found = {}
    for axis, scores in along.items():
        curves = {
            agent: efficiency.curve(of, whole_runs=joint)
            for agent, of in scores.items()
            if of.num_tasks == len(of.tasks) and of.steps.size and of.steps[-1] > 0
        }
        if len(curves) > 1:
            found[axis] = curves
    return found


def _by_task(results: Results, by_axis: dict[str, dict[str, AgentScores]]) -> tuple[list[TaskCurve], list[Speedup]]:
    """Curves of each task against environment steps, and its ratios on all axes where there are several tasks."""
    task_curves: list[TaskCurve] = []
    ratios: list[Speedup] = []
    for axis, scores in by_axis.items():
        for task in results.study.tasks:
            # One task at a time: the resamples of all curves would be most of the memory that a report takes.
            found = {agent: efficiency.task_curve(of, task.name) for agent, of in scores.items()}
            curves = {agent: curve for agent, curve in found.items() if curve is not None}
            if len(results.study.tasks) > 1:
                ratios += efficiency.speedups(curves, axis=axis, task=task.name)
            if axis == "env_step" and _on_the_way(results):
                task_curves += [TaskCurve(a, task, of.steps, _raw_band(task, of.band)) for a, of in curves.items()]
    return task_curves, ratios


def _breadth(scores: dict[str, AgentScores], joint: bool) -> list[Breadth]:
    found = []
    for agent, of in scores.items():
        areas = of.areas
        area = stats.aggregate(f"{agent}\x1farea", "iqm", areas, whole_runs=joint) if np.isfinite(areas).any() else None
        column = int(np.nanargmin(np.where(of.ended, stats.task_means(of.final), np.nan)))
        found.append(Breadth(agent, area, of.tasks[column], _task_mean(of, column)))
    return found


def _task_mean(scores: AgentScores, column: int) -> Estimate:
    """Mean normalised score of one task, with its interval."""
    return stats.aggregate(f"{scores.agent}\x1f{scores.tasks[column]}", "mean", scores.final[:, [column]])


def _domains(results: Results, scores: dict[str, AgentScores], joint: bool) -> list[DomainScore]:
    domains = [task.domain for task in results.study.tasks]
    if len(set(domains)) < 2:
        return []
    found = []
    for domain in dict.fromkeys(domains):
        chosen = [other == domain for other in domains]
        for agent, of in scores.items():
            final = of.final[:, chosen]
            if np.isfinite(final).any():
                value = stats.aggregate(f"{agent}\x1f{domain}", "iqm", final, whole_runs=joint)
                found.append(DomainScore(agent, domain, value, int(np.isfinite(final).any(axis=0).sum())))
    return found


def _by_measure(results: Results, scores: dict[str, AgentScores], joint: bool) -> list[MeasureScore]:
    study = results.study
    if len({task.measure for task in study.tasks}) < 2:
        return []
    labels, found = study.labels, []
    for measure in dict.fromkeys(task.measure for task in study.tasks):
        protocol, engine = labels[measure[0]], measure[1]
        chosen = [task.measure == measure for task in study.tasks]
        for agent, of in scores.items():
            final = of.final[:, chosen]
            if not np.isfinite(final).any():
                continue
            name = f"{agent}\x1f{protocol}\x1f{engine}"
            value = stats.aggregate(name, "iqm", final, whole_runs=joint)
            with_runs = np.isfinite(final)
            runs, tasks = int(with_runs.any(axis=1).sum()), int(with_runs.any(axis=0).sum())
            found.append(MeasureScore(agent, protocol, engine, value, runs, tasks))
    return found


def _generalisation(results: Results, scores: dict[str, AgentScores], env_step: int | None) -> list[Generalisation]:
    found = []
    for agent, of in scores.items():
        held_out = agent_scores(results, agent, env_step, results.study.held_out)
        if held_out.num_tasks:
            found.append(
                Generalisation(
                    agent=agent,
                    trained=stats.aggregate(agent, "mean", of.final, whole_runs=True),
                    held_out=stats.aggregate(f"{agent}\x1fheld out", "mean", held_out.final, whole_runs=True),
                    gap=stats.generalisation_gap(agent, of.final, held_out.final),
                    runs=int(np.isfinite(held_out.final).any(axis=1).sum()),
                )
            )
    return found


def _task_scores(results: Results, scores: dict[str, AgentScores], env_step: int | None) -> list[TaskScore]:
    """Of the trained tasks, then of the held-out ones."""
    study = results.study
    found = _scores_of(study.tasks, scores)
    if study.held_out:
        found += _scores_of(study.held_out, {a: agent_scores(results, a, env_step, study.held_out) for a in scores})
    return found


def _scores_of(tasks: Sequence[Task], scores: dict[str, AgentScores]) -> list[TaskScore]:
    found = []
    for index, task in enumerate(tasks):
        for agent, of in scores.items():
            runs = int(of.runs_per_task[index])
            if runs:
                normalised = _task_mean(of, index)
                raw = _raw(task, normalised)
                found.append(TaskScore(agent, task, of.final_steps[task.name], runs, raw, normalised.estimate))
    return found


def _reached(task_scores: Sequence[TaskScore]) -> dict[str, int]:
    """Environment step at which each task is scored, of the agent that got farthest."""
    found: dict[str, int] = {}
    for item in task_scores:
        found[item.task.name] = max(item.env_step, found.get(item.task.name, 0))
    return found


def _raw(task: Task, value: Estimate) -> Estimate:
    low, high = (None if bound is None else float(task.protocol.raw(bound)) for bound in (value.low, value.high))
    return Estimate(float(task.protocol.raw(value.estimate)), low, high)


def _raw_band(task: Task, band: Band) -> Band:
    raw = task.protocol.raw
    if band.low is None or band.high is None:
        return Band(raw(band.estimate))
    return Band(raw(band.estimate), raw(band.low), raw(band.high))


def _compute(results: Results, scores: dict[str, AgentScores]) -> list[Compute]:
    last: pd.DataFrame = results.evaluations.groupby(["agent", "cell"])[["env_step", "seconds", "updates"]].max()
    found = []
    for agent in scores:
        of_agent = [cell for cell in results.cells if cell.agent == agent and cell.counts]
        finished = {cell.id for cell in of_agent if cell.state == "done"}
        memory = [cell.peak_memory_mb for cell in of_agent if cell.peak_memory_mb is not None]
        rows = last[last.index.get_level_values("agent") == agent]
        rows = rows[rows["seconds"] > 0]
        if rows.empty:
            continue
        # What a cell takes, its finished ones tell; one that barely began says nothing.
        whole = rows[rows.index.get_level_values("cell").isin(finished)]
        whole = rows if whole.empty else whole
        found.append(
            Compute(
                agent=agent,
                cells=len(rows),
                seconds=float(rows["seconds"].sum()),
                seconds_per_cell=float(whole["seconds"].median()),
                steps_per_second=float((whole["env_step"] / whole["seconds"]).median()),
                peak_memory_mb=max(memory, default=None),
                updates=None if whole["updates"].isna().all() else float(whole["updates"].median()),
                parameters=tuple(sorted({int(c.parameters) for c in of_agent if c.parameters is not None})),
            )
        )
    return found

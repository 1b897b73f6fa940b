"""Everything a report says about a study, computed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import efficiency, integrity, stats
from analysis.efficiency import Curve, Speedup, StepsToScore
from analysis.frame import Results
from analysis.scores import AgentScores, Array, agent_scores
from analysis.stats import Band, Estimate
from analysis.study import Task


@dataclass(frozen=True)
class Improvement:
    """Probability that a run of ``x`` beats a run of ``y`` on a random task."""

    x: str
    y: str
    value: Estimate
    tasks: int


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


@dataclass(frozen=True)
class Summary:
    """All conclusions. ``agents`` are those with results, in the order of the suite."""

    results: Results
    scores: dict[str, AgentScores]
    aggregates: dict[str, dict[str, Estimate]]
    """By agent, then by metric."""
    improvements: list[Improvement]
    thresholds: Array
    profiles: dict[str, Band]
    curves: dict[str, Curve]
    speedups: list[Speedup]
    steps_to_score: list[StepsToScore]
    task_scores: list[TaskScore]
    task_curves: list[TaskCurve]
    compute: list[Compute]
    notes: list[str]
    """Sentences on what is missing or mixed."""

    @property
    def agents(self) -> tuple[str, ...]:
        return tuple(self.scores)

    @property
    def complete_agents(self) -> tuple[str, ...]:
        """Agents with at least one run on every task: only these are compared as wholes."""
        return tuple(a for a, scores in self.scores.items() if scores.num_tasks == len(scores.tasks))


def summarise(results: Results, env_step: int | None = None) -> Summary:
    """Compute everything, each agent at ``env_step`` or, by default, at its final evaluation."""
    joint = results.study.mode == "joint"
    found = {agent: agent_scores(results, agent, env_step) for agent in results.study.agents}
    scores = {agent: of for agent, of in found.items() if of.num_tasks}
    complete = {agent: of for agent, of in scores.items() if of.num_tasks == len(of.tasks)}
    curves = {agent: efficiency.curve(of, whole_runs=joint) for agent, of in complete.items() if of.steps.size}
    thresholds = _thresholds(scores)
    return Summary(
        results=results,
        scores=scores,
        aggregates={
            agent: {metric: stats.aggregate(agent, metric, of.final, whole_runs=joint) for metric in stats.METRICS}
            for agent, of in scores.items()
        },
        improvements=_improvements(scores, joint),
        thresholds=thresholds,
        profiles={
            agent: stats.performance_profile(agent, of.final, thresholds, whole_runs=joint)
            for agent, of in complete.items()
        },
        curves=curves,
        speedups=efficiency.speedups(curves),
        steps_to_score=[efficiency.steps_to_score(of, level) for of in curves.values() for level in efficiency.LEVELS],
        task_scores=_task_scores(results, scores),
        task_curves=_task_curves(results, scores),
        compute=_compute(results, scores),
        notes=integrity.notes(results, scores),
    )


def _thresholds(scores: dict[str, AgentScores]) -> Array:
    """0 to 1 in steps of 0.01, and on to the best score where one lies above 1."""
    best = max((float(np.nanmax(of.final)) for of in scores.values()), default=1.0)
    return np.asarray(np.arange(0, max(1.0, best) + 0.01, 0.01).round(2), dtype=np.float64)


def _improvements(scores: dict[str, AgentScores], joint: bool) -> list[Improvement]:
    found = []
    for x, of_x in scores.items():
        for y, of_y in scores.items():
            tasks = int(((of_x.runs_per_task > 0) & (of_y.runs_per_task > 0)).sum())
            if x != y and tasks:
                value = stats.probability_of_improvement((x, y), (of_x.final, of_y.final), whole_runs=joint)
                found.append(Improvement(x, y, value, tasks))
    return found


def _task_scores(results: Results, scores: dict[str, AgentScores]) -> list[TaskScore]:
    found = []
    for index, task in enumerate(results.study.tasks):
        for agent, of in scores.items():
            runs = int(of.runs_per_task[index])
            if runs:
                column = of.final[:, [index]]
                normalised = stats.aggregate(f"{agent}\x1f{task.name}", "mean", column)
                raw = _raw(task, normalised)
                found.append(TaskScore(agent, task, of.final_steps[task.name], runs, raw, normalised.estimate))
    return found


def _raw(task: Task, value: Estimate) -> Estimate:
    low, high = (None if bound is None else float(task.protocol.raw(bound)) for bound in (value.low, value.high))
    return Estimate(float(task.protocol.raw(value.estimate)), low, high)


def _task_curves(results: Results, scores: dict[str, AgentScores]) -> list[TaskCurve]:
    found = []
    for index, task in enumerate(results.study.tasks):
        for agent, of in scores.items():
            if of.runs_per_task[index] and of.steps.size:
                # Each point is a "task" of its own: [R, P]; whole runs are drawn so that a band moves smoothly.
                values = task.protocol.raw(of.curves[:, index])
                band = Band(stats.task_means(values))
                if of.runs_per_task[index] > 1:
                    rng = stats.generator("task curve", agent, task.name)
                    samples = stats.resample(values, rng, stats.CURVE_RESAMPLES, whole_runs=True)
                    band = Band(band.estimate, *stats.percentile_interval(stats.task_means(samples)))
                found.append(TaskCurve(agent, task, of.steps, band))
    return found


def _compute(results: Results, scores: dict[str, AgentScores]) -> list[Compute]:
    last: pd.DataFrame = results.evaluations.groupby(["agent", "cell"])[["env_step", "seconds"]].max()
    found = []
    for agent in scores:
        memory = [c.peak_memory_mb for c in results.cells if c.agent == agent and c.peak_memory_mb is not None]
        rows = last[last.index.get_level_values("agent") == agent]
        rows = rows[rows["seconds"] > 0]
        if rows.empty:
            continue
        found.append(
            Compute(
                agent=agent,
                cells=len(rows),
                seconds=float(rows["seconds"].sum()),
                seconds_per_cell=float(rows["seconds"].median()),
                steps_per_second=float((rows["env_step"] / rows["seconds"]).median()),
                peak_memory_mb=max(memory, default=None),
            )
        )
    return found

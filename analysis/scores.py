"""Normalised scores as arrays: runs × tasks at the end, runs × tasks × env_steps on the way.

R runs (seeds), K tasks, P points in environment steps. Run r is the r-th seed: in a joint suite one agent on all tasks,
in a per-task suite the agents trained with the same seed on each task. NaN marks what is missing; it is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.frame import Cell, Results
from analysis.study import Task

MAX_POINTS = 200
"""Points of a learning curve; more are thinned, the first and the last stay."""

AXES = ("env_step", "updates", "seconds")
"""What scores may be drawn against; columns of the evaluations."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AgentScores:
    """All normalised scores of one agent.

    ``final`` ``[R, K]`` is the score of the last evaluation at or before ``final_steps[task]`` (of a table, whose runs
    need not share a schedule, the value of the curve there); ``curves`` ``[R, K, P]`` is linear between evaluations, at
    the environment steps ``steps`` ``[P]``, for the same runs, as far as every task goes. A diverged run scores 0 from
    its divergence on. Along another axis, steps stand for gradient updates or seconds.
    """

    agent: str
    seeds: tuple[int, ...]
    """Those the study asks of this agent: seeds of others alone would be rows that change its draws."""
    tasks: tuple[str, ...]
    final: Array
    final_steps: dict[str, int]
    """Environment steps at which each task is scored; tasks without any run are absent."""
    steps: Array
    curves: Array
    runs: Mapping[tuple[int, str], Run] = field(default_factory=dict, repr=False)
    """What all of this is made of, by (seed, task)."""

    def task_curves(self, task: str) -> tuple[Array, Array]:
        """Environment steps ``[P']`` up to the one ``task`` is scored at, and its runs' curves there ``[R, P']``."""
        runs = {key: run for key, run in self.runs.items() if key[1] == task}
        steps = _points(runs, self.final_steps)
        if np.array_equal(steps, self.steps):
            return steps, self.curves[:, self.tasks.index(task)]
        curves = np.full((len(self.seeds), len(steps)), np.nan)
        for (seed, _), run in runs.items():
            curves[self.seeds.index(seed)] = run.at(steps, linear=True)
        return steps, curves

    @property
    def uneven(self) -> bool:
        """Whether tasks are scored at different steps, so that the curves of all together end before some of them."""
        return len(set(self.final_steps.values())) > 1

    @property
    def runs_per_task(self) -> NDArray[np.int64]:
        """n of each task, ``[K]``."""
        return np.asarray(np.isfinite(self.final).sum(axis=0))

    @property
    def areas(self) -> Array:
        """Area under each curve over its length: the mean score of training, ``[R, K]``; NaN where there is none."""
        if len(self.steps) < 2:
            return np.full(self.final.shape, np.nan)
        return np.asarray(np.trapezoid(self.curves, self.steps, axis=-1) / (self.steps[-1] - self.steps[0]))

    @property
    def num_tasks(self) -> int:
        """Tasks with at least one run."""
        return int((self.runs_per_task > 0).sum())

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Tasks ``[K]`` that have a finished run, or are scored as late as any; others are on their way."""
        finished = {task for (_, task), run in self.runs.items() if run.done}
        return np.array([t in finished or self.final_steps.get(t) == self.env_step for t in self.tasks], dtype=bool)

    @property
    def env_step(self) -> int:
        """Largest environment step at which a task is scored; 0 when there is nothing."""
        return max(self.final_steps.values(), default=0)

    @property
    def scored_at(self) -> str:
        """The environment step at which tasks are scored, for people: ``100,000`` or ``0 to 100,000``."""
        first = min(self.final_steps.values(), default=0)
        return f"{self.env_step:,}" if first == self.env_step else f"{first:,} to {self.env_step:,}"


@dataclass(frozen=True)
class Run:
    """One run on one task: normalised ``scores`` at ``steps``, both ``[E]``; ``diverged_at`` None or env_step."""

    steps: Array
    scores: Array
    done: bool
    diverged_at: int | None

    @property
    def reach(self) -> float:
        """Environment steps up to which the score is known: for ever once it diverged."""
        return np.inf if self.diverged_at is not None else float(self.steps[-1])

    def at(self, points: Array, *, linear: bool) -> Array:
        """Scores at ``points``: between evaluations on the straight line, or else the last evaluation's."""
        if not self.steps.size:
            scores = np.zeros_like(points)
        elif linear:
            scores = np.interp(points, self.steps, self.scores)
        else:
            scores = self.scores[np.maximum(np.searchsorted(self.steps, points, side="right") - 1, 0)]
        if self.diverged_at is not None:
            scores = np.where(points >= self.diverged_at, 0.0, scores)
        return scores


def agent_scores(
    results: Results,
    agent: str,
    env_step: int | None = None,
    tasks: Sequence[Task] | None = None,
    *,
    axis: str = "env_step",
) -> AgentScores:
    """Scores of ``agent`` on ``tasks`` (default: those trained on) at ``env_step`` and before.

    By default each task is scored at the largest environment step that every finished run of the agent reached (while
    no run is finished: that every started run reached). A run that did not get there is missing, and so is one that was
    evaluated before training only: that says nothing of learning.

    ``axis``: one of :data:`AXES`. Along updates and seconds finished runs end at different places; each keeps its last
    score up to where the longest ends. ``env_step`` stays in environment steps: what comes later is left out, and runs
    that got there are finished.
    """
    study = results.study
    names = tuple(task.name for task in (study.tasks if tasks is None else tasks))
    if axis == "env_step":
        runs = _runs(results, agent, names, axis, begun=env_step is None)
        final_steps = _final_steps(runs, study.env_steps, env_step)
    else:
        runs = _runs(results, agent, names, axis, begun=env_step is None, until=env_step)
        if env_step is not None:
            there = agent_scores(results, agent, env_step, tasks).runs
            runs = {key: replace(run, done=run.diverged_at is None) for key, run in runs.items() if key in there}
        runs = _of_equal_length(runs)
        final_steps = _final_steps(runs, study.env_steps, None)
    used = {key: run for key, run in runs.items() if run.reach >= final_steps[key[1]]}
    asked = {cell.seed for cell in study.cells if cell.agent == agent}
    seeds = tuple(seed for seed in study.seeds if seed in asked)
    row = {seed: index for index, seed in enumerate(seeds)}
    column = {task: index for index, task in enumerate(names)}

    steps = _points(used, final_steps)
    final = np.full((len(row), len(column)), np.nan)
    curves = np.full((*final.shape, len(steps)), np.nan)
    scheduled = not results.tabular and agent not in results.tables
    for (seed, task), run in used.items():
        final[row[seed], column[task]] = run.at(np.array([float(final_steps[task])]), linear=not scheduled)[0]
        curves[row[seed], column[task]] = run.at(steps, linear=True)
    return AgentScores(
        agent=agent,
        seeds=seeds,
        tasks=names,
        final=final,
        final_steps={task: final_steps[task] for _, task in used},
        steps=steps,
        curves=curves,
        runs=used,
    )


def thinned(length: int, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` of ``length`` points, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, most).round().astype(np.int64))


def _runs(
    results: Results, agent: str, tasks: Sequence[str], axis: str, *, begun: bool, until: int | None = None
) -> dict[tuple[int, str], Run]:
    """Every run with something to say on ``tasks``, by (seed, task), up to ``until`` environment steps.

    ``begun``: without those under way that were evaluated at step 0 alone.
    """
    rows = results.by_agent.get(agent, results.evaluations[:0])
    if until is not None:
        rows = rows[rows["env_step"] <= until]
    rows = _known(rows, axis)
    by_task = dict(iter(rows.groupby(["cell", "task"])))
    runs: dict[tuple[int, str], Run] = {}
    for cell in results.cells:
        if cell.agent != agent or not cell.counts:
            continue
        diverged = cell.state == "diverged" and (until is None or cell.env_step <= until)
        diverged_at = _divergence(cell, rows, axis) if diverged else None
        evaluated = {*cell.tasks, *(task.name for task in results.study.held_out)}
        for task in (task for task in tasks if task in evaluated):
            group = by_task.get((cell.id, task))
            if group is None and diverged_at is None:
                continue
            under_way = begun and cell.state not in ("done", "diverged")
            if under_way and (group is None or not group["env_step"].any()):
                continue
            steps = np.empty(0) if group is None else group[axis].to_numpy(dtype=np.float64)
            scores = np.empty(0) if group is None else group["score"].to_numpy(dtype=np.float64)
            normalised = results.study.task(task).protocol.normalise(scores)
            runs[cell.seed, task] = Run(steps, normalised, cell.state == "done", diverged_at)
    return runs


def _known(rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The rows that know where they are along ``axis``; before a cell first says so it is at 0."""
    told = rows[axis].notna()
    if told.all():
        return rows
    first = rows["env_step"].where(told).groupby(rows["cell"]).transform("min")
    return rows.assign(**{axis: rows[axis].mask(rows["env_step"] < first, 0.0)}).dropna(subset=[axis])


def _divergence(cell: Cell, rows: pd.DataFrame, axis: str) -> int:
    """Where a cell diverged; along another axis than steps nothing later than its last evaluation is known."""
    if axis == "env_step":
        return cell.env_step
    last = rows.loc[rows["cell"] == cell.id, axis].max()
    return 0 if math.isnan(last) else math.ceil(last)


def _of_equal_length(runs: dict[tuple[int, str], Run]) -> dict[tuple[int, str], Run]:
    """Finished runs with their last score repeated where the longest of them ends."""
    end = math.ceil(max((run.steps[-1] for run in runs.values() if run.done and run.steps.size), default=0))

    def prolonged(run: Run) -> Run:
        if not run.done or not run.steps.size or run.steps[-1] >= end:
            return run
        return replace(run, steps=np.append(run.steps, end), scores=np.append(run.scores, run.scores[-1]))

    return {key: prolonged(run) for key, run in runs.items()}


def _final_steps(runs: dict[tuple[int, str], Run], budget: int, env_step: int | None) -> dict[str, int]:
    steps: dict[str, int] = {}
    for name in {task for _, task in runs}:
        of_task = [run for (_, task), run in runs.items() if task == name]
        reached = [run.reach for run in of_task if run.done] or [run.reach for run in of_task]
        # Where every run diverged nothing bounds the step but the budget.
        last = min(min(reached), budget) if np.isinf(min(reached)) else min(reached)
        steps[name] = int(last) if env_step is None else env_step
    return steps


def _points(runs: Mapping[tuple[int, str], Run], final_steps: Mapping[str, int]) -> Array:
    """The environment steps at which any run was evaluated, where every run is known."""
    evaluated = [run.steps for run in runs.values() if run.steps.size]
    if not evaluated:
        return np.empty(0)
    first = max(steps[0] for steps in evaluated)
    last = min(final_steps[task] for _, task in runs)
    points: Array = np.unique(np.concatenate(evaluated))
    points = points[(points >= first) & (points <= last)]
    if len(points) > MAX_POINTS:
        points = points[thinned(len(points), MAX_POINTS)]
    return points

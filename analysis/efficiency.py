"""How many environment steps a score costs, and how many times fewer one agent needs than another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.scores import AgentScores
from analysis.stats import (
    CURVE_RESAMPLES,
    Array,
    Band,
    allows_interval,
    draw,
    drawn_iqm,
    generator,
    iqm,
    percentile_interval,
    resample,
    tail,
    task_means,
)

LEVELS = (0.25, 0.5, 0.75, 0.9)
"""Normalised scores for which the steps are reported."""


@dataclass(frozen=True)
class Curve:
    """The IQM over runs and tasks as a function of environment steps.

    ``steps`` and ``estimate`` ``[P]``; ``samples`` ``[B, P]`` are the same curve for bootstrap resamples of the runs,
    or None where one run per task allows no interval.
    """

    agent: str
    steps: Array
    estimate: Array
    samples: Array | None = None
    tail: float = 0.0
    """Share of the samples that a 95 % interval leaves out at each end."""
    final: bool = True
    """Whether the curve ends where every task is scored; if not, some task goes on alone."""

    @property
    def band(self) -> Band:
        if self.samples is None:
            return Band(self.estimate)
        return Band(self.estimate, *percentile_interval(self.samples, self.tail))

    @cached_property
    def learned(self) -> bool:
        """Whether the end lies above the beginning, by more than chance where there is an interval."""
        gain = self.estimate[-1] - self.estimate[0]
        if self.samples is not None:
            gain = min(gain, _interval(self.samples[:, -1] - self.samples[:, 0], self.tail)[0])
        return bool(gain > 0)

    @cached_property
    def own_steps(self) -> tuple[float, Array | None]:
        """Where the curve, and each of its resamples, first reaches its own last score: asked for by every rival."""
        of = None if self.samples is None else first_step(self.steps, self.samples, self.samples[:, -1])
        return float(first_step(self.steps, self.estimate, self.estimate[-1])), of


@dataclass(frozen=True)
class StepsToScore:
    """Environment steps until the curve first reaches ``target``; inf where it is not reached by ``last_step``.

    Where it is reached at ``first_step``, the first evaluation, it may have been so before. ``low`` and ``high`` are
    None where one run per task allows no interval.
    """

    agent: str
    target: float
    steps: float
    low: float | None
    high: float | None
    last_step: float
    first_step: float


@dataclass(frozen=True)
class Speedup:
    """``agent`` reaches the final score of ``reference`` with ``ratio`` times fewer environment steps.

    On another ``axis``: with as many times fewer gradient updates or seconds. ``task`` is None for the IQM over all
    tasks. ``target`` is that score, normalised. The reference is counted up to where its own curve first reaches it,
    not to its last step, so that a plateau wins nothing. Where ``agent`` never gets there, ``ratio`` is 0 and all that
    is known is that it lies below ``below``; where it is there at its first evaluation, ``ratio`` is inf and all that
    is known is that it lies above ``above`` (inf where that evaluation comes before training). Likewise for ``low`` and
    ``high``, which are None where there is no interval.
    """

    agent: str
    reference: str
    target: float
    ratio: float
    low: float | None
    high: float | None
    below: float
    above: float = np.inf
    axis: str = "env_step"
    task: str | None = None
    cut_at: float | None = None
    """Where the score of ``reference`` is not its final one: the step up to which all its tasks are known."""


def curve(scores: AgentScores, *, whole_runs: bool = False) -> Curve:
    """The aggregate learning curve of one agent, and its bootstrap resamples."""
    estimate = _along([iqm(scores.curves[..., point]) for point in range(len(scores.steps))])
    if not estimate.size or not allows_interval(scores.final):
        return Curve(scores.agent, scores.steps, estimate, final=not scores.uneven)
    samples = _along(list(_resampled(scores, whole_runs)))
    beyond = tail(scores.final, whole_runs=whole_runs)
    return Curve(scores.agent, scores.steps, estimate, samples, beyond, final=not scores.uneven)


def _resampled(scores: AgentScores, whole_runs: bool) -> Iterator[Array]:
    """Resamples of each point: of the same runs all along, as far as those present are the same."""
    present, drawn = None, None
    for values in np.moveaxis(scores.curves, -1, 0):
        if drawn is None or (np.isfinite(values) != present).any():
            present = np.isfinite(values)
            drawn = draw(values, generator("curve", scores.agent), CURVE_RESAMPLES, whole_runs=whole_runs)
        yield drawn_iqm(values, drawn)


def _along(points: list[Array]) -> Array:
    return np.stack(points, axis=-1) if points else np.empty(0)


def first_step(steps: Array, curves: Array, target: Array | float) -> Array:
    """First environment step at which curves ``[..., P]``, linear between points, reach ``target``; inf if never."""
    target = np.asarray(target, dtype=np.float64)[..., None]
    reached = curves >= target
    index = reached.argmax(axis=-1)
    before = np.maximum(index - 1, 0)

    def pick(position: NDArray[np.int64]) -> Array:
        return np.take_along_axis(curves, position[..., None], axis=-1)[..., 0]

    low, high = pick(before), pick(index)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(index > 0, (target[..., 0] - low) / (high - low), 0.0)
    crossing = steps[before] + part * (steps[index] - steps[before])
    return np.where(reached.any(axis=-1), crossing, np.inf)


def steps_to_score(of: Curve, target: float) -> StepsToScore:
    """Environment steps until ``of`` reaches the normalised score ``target``."""
    low = high = None
    if of.samples is not None:
        low, high = _interval(first_step(of.steps, of.samples, target), of.tail)
    steps = float(first_step(of.steps, of.estimate, target))
    return StepsToScore(of.agent, target, steps, low, high, float(of.steps[-1]), float(of.steps[0]))


def speedup(agent: Curve, reference: Curve) -> Speedup | None:
    """How many times fewer steps ``agent`` needs for the last score of ``reference``; None if that did not learn."""
    target = float(reference.estimate[-1])
    if not reference.learned or agent.steps[-1] <= 0:
        return None
    own, own_samples = reference.own_steps
    first, last = agent.steps[[0, -1]]
    ratio = float(_ratio(np.asarray(own), first_step(agent.steps, agent.estimate, target), first))
    low = high = None
    if agent.samples is not None and reference.samples is not None and own_samples is not None:
        targets = reference.samples[:, -1]
        needed = first_step(agent.steps, agent.samples, targets)
        ratios = _ratio(own_samples, needed, first)
        low, high = _interval(ratios, min(agent.tail, reference.tail))  # as wide as the one with fewer runs asks
    above = float(own / first) if first > 0 else np.inf
    return Speedup(
        agent=agent.agent,
        reference=reference.agent,
        target=target,
        ratio=ratio,
        low=low,
        high=high,
        below=float(own / last),
        above=above,
        cut_at=None if reference.final else float(reference.steps[-1]),
    )


def task_curve(scores: AgentScores, task: str) -> Curve | None:
    """The mean over runs of one task as a function of environment steps; None where there is none."""
    column = scores.tasks.index(task)
    runs = int(scores.runs_per_task[column])
    # Each point is a "task" of its own: [R, P]; whole runs are drawn so that a band moves smoothly.
    steps, values = scores.task_curves(task)
    if not runs or not steps.size:
        return None
    estimate = task_means(values)
    if runs == 1:
        return Curve(scores.agent, steps, estimate)
    samples = resample(values, generator("task curve", scores.agent, task), CURVE_RESAMPLES, whole_runs=True)
    return Curve(scores.agent, steps, estimate, task_means(samples), tail(scores.final[:, [column]]))


def _ratio(reference: Array, agent: Array, first: float) -> Array:
    """Steps of the reference per step of the agent: 0 where the agent never got there, inf where it was there at
    ``first``, its first evaluation, 1 where both start there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(agent <= first, np.inf, reference / agent)
    return np.where(reference == agent, 1.0, ratio)


def _interval(samples: Array, beyond: float) -> tuple[float, float]:
    """95 % percentile interval made of samples only: interpolating towards an infinite one would mean nothing."""
    low, high = np.percentile(samples, [100 * beyond, 100 - 100 * beyond], method="inverted_cdf")
    return float(low), float(high)


def speedups(curves: Mapping[str, Curve], *, axis: str = "env_step", task: str | None = None) -> list[Speedup]:
    """Every ordered pair of agents for which the question makes sense."""
    found = [speedup(curves[a], curves[b]) for a in curves for b in curves if a != b]
    return [replace(item, axis=axis, task=task) for item in found if item is not None]

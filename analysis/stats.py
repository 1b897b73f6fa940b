"""Aggregate scores and how sure we are of them.

The metrics are rliable's (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice"), and computed by it
where no run is missing; the functions here extend them to missing runs and to many resamples at once. The intervals
are our own: rliable's draw from NumPy's global generator, so they change from call to call. Here each number has a
generator made from its own name, so that no other agent, metric or order of computing moves it.

R runs, K tasks, B resamples. Scores are normalised, ``[..., R, K]``, NaN where a run is missing.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from rliable import metrics as rliable

RESAMPLES = 2000
CURVE_RESAMPLES = 500
"""Resamples of whole learning curves, which cost P times as much."""
CONFIDENCE = 0.95
FEWEST_DEGREES = 4
"""With fewer degrees of freedom intervals miss the truth far more often than they say: of three whole runs one in
four. Five runs of a single task, or of a joint study, have as many."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; ``low`` and ``high`` are None where one run per task allows none."""

    estimate: float
    low: float | None = None
    high: float | None = None

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval says that the number is not 0; where there is none, nothing does."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Band:
    """A curve ``[P]`` with its pointwise interval, or without."""

    estimate: Array
    low: Array | None = None
    high: Array | None = None


@dataclass(frozen=True)
class Contrast:
    """Two numbers held against each other: the second minus the first, and over it (None unless the first is > 0)."""

    difference: Estimate
    ratio: Estimate | None


def task_means(scores: Array) -> Array:
    """Mean over the runs present, ``[..., K]``; NaN for a task without runs."""
    return nanmean(scores, -2)


def iqm(scores: Array) -> Array:
    """Interquartile mean over all runs of all tasks: the mean without the lowest and highest quarter.

    Every run present weighs the same, so a task with fewer runs weighs less.
    """
    return _middle_mean(_sorted(scores))


def drawn_iqm(scores: Array, drawn: NDArray[np.int32]) -> Array:
    """``iqm`` of the resamples ``[B]`` in which runs ``[R, K]`` stand as often as ``drawn`` ``[B, R, K]`` says.

    With the runs in rising order, each counts as often as it stands between the lowest and the highest quarter. That
    takes a fraction of the time of sorting each resample, and the draws serve all points of a curve.
    """
    order = np.argsort(scores, axis=None)  # NaN at the end, never drawn
    up_to = drawn.reshape(len(drawn), -1).take(order, axis=1).cumsum(axis=1, dtype=np.int32)
    total = up_to[:, -1:]
    cut = (0.25 * total).astype(np.int32)
    counts = np.diff(np.clip(up_to, cut, total - cut), axis=1, prepend=cut)
    # not a product of matrices: what libraries for those make of it differs from machine to machine
    return np.asarray(np.einsum("bn,n->b", counts, np.nan_to_num(scores.ravel()[order])) / (total - 2 * cut)[:, 0])


def _sorted(scores: Array) -> Array:
    """``[..., R, K]`` as ``[..., R·K]`` in rising order, NaN at the end."""
    # order does not matter, and resamples lie in memory task by task
    return np.sort(np.swapaxes(scores, -1, -2).reshape(*scores.shape[:-2], -1), axis=-1)


def _middle_mean(ordered: Array) -> Array:
    """Mean of what rises along the last axis, without the lowest and highest quarter; NaN at the end is missing."""
    if _complete(ordered[..., -1:]):
        cut = int(0.25 * ordered.shape[-1])
        return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))
    count = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    cut = (0.25 * count).astype(int)
    position = np.arange(ordered.shape[-1])
    return nanmean(np.where((position >= cut) & (position < count - cut), ordered, np.nan), -1)


def median(scores: Array) -> Array:
    """Median over tasks of the mean over runs."""
    means = task_means(scores)
    if _complete(means):
        return np.asarray(np.median(means, axis=-1))
    with _quiet():
        return np.asarray(np.nanmedian(means, axis=-1))


def mean(scores: Array) -> Array:
    """Mean over tasks of the mean over runs."""
    return nanmean(task_means(scores), -1)


def optimality_gap(scores: Array) -> Array:
    """1 − the mean of the scores capped at 1: how far from full marks. Lower is better."""
    return 1.0 - mean(np.minimum(scores, 1.0))


METRICS: dict[str, Callable[[Array], Array]] = {
    "iqm": iqm,
    "median": median,
    "mean": mean,
    "optimality_gap": optimality_gap,
}


RLIABLE: dict[str, Callable[[Array], float]] = {
    "iqm": rliable.aggregate_iqm,
    "median": rliable.aggregate_median,
    "mean": rliable.aggregate_mean,
    "optimality_gap": rliable.aggregate_optimality_gap,
}


def point(metric: str, scores: Array) -> float:
    """One metric of scores ``[R, K]``: rliable's own number where no run is missing."""
    return float(RLIABLE[metric](scores) if np.isfinite(scores).all() else METRICS[metric](scores))


def generator(*names: str) -> np.random.Generator:
    """A generator that depends on the names alone, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def allows_interval(scores: Array) -> bool:
    """Whether every task with runs has at least two: a single run says nothing about the spread."""
    runs = np.isfinite(scores).sum(axis=0)
    return bool((runs > 0).any()) and bool((runs[runs > 0] >= 2).all())


def resample(
    scores: Array, rng: np.random.Generator, resamples: int, *, whole_runs: bool = False, runs: int | None = None
) -> Array:
    """Bootstrap resamples ``[B, R, K]`` of scores ``[R, K]``: runs drawn with replacement, as many as there are.

    By default each task draws its own runs (stratified by task, as rliable does). With ``whole_runs`` all tasks of a
    resample share the draw: in a joint suite the tasks of a run belong to one agent and rise and fall together, and
    drawing them apart would make the intervals too narrow. ``runs``: draw so many instead.
    """
    present = np.isfinite(scores)
    if whole_runs:
        rows = np.flatnonzero(present.any(axis=1))
        return np.asarray(scores[rows[rng.integers(len(rows), size=(resamples, runs or len(rows)))]])
    if present.all():
        rows = rng.integers(len(scores), size=(resamples, scores.shape[1], runs or len(scores)))
        rows += len(scores) * np.arange(scores.shape[1])[:, None]  # where tasks stand one after another
        return np.swapaxes(scores.T.ravel().take(rows), 1, 2)
    drawn = np.full((resamples, scores.shape[1], runs or len(scores)), np.nan, dtype=scores.dtype)
    for task in range(scores.shape[1]):
        known = scores[present[:, task], task]
        if known.size:
            count = runs or len(known)
            drawn[:, task, :count] = known[rng.integers(len(known), size=(resamples, count))]
    return np.swapaxes(drawn, 1, 2)


def draw(
    scores: Array, rng: np.random.Generator, resamples: int, *, whole_runs: bool = False, runs: int | None = None
) -> NDArray[np.int32]:
    """How often each run stands in each of the resamples that :func:`resample` would draw: ``[B, R, K]``."""
    places = np.arange(scores.size, dtype=np.float64).reshape(scores.shape)
    places[np.isnan(scores)] = np.nan
    drawn = resample(places, rng, resamples, whole_runs=whole_runs, runs=runs)
    drawn += scores.size * np.arange(resamples)[:, None, None]
    known = drawn.ravel(order="K")
    known = known if _complete(known) else known[~np.isnan(known)]
    counts = np.bincount(known.astype(np.int64), minlength=resamples * scores.size)
    return np.asarray(counts.reshape(resamples, *scores.shape).astype(np.int32))


def tail(*scores: Array, whole_runs: bool = False) -> float:
    """Share of the resamples of ``scores`` ``[R, K]`` that a 95 % interval leaves out at each end.

    The plain percentile interval leaves out 2.5 %, and is too narrow with few runs: the variance of a bootstrap mean of
    n runs is (n − 1)/n of the true one, and a normal quantile stands for one of Student's t. Both are made up for
    (Hesterberg 2015, "What teachers should know about the bootstrap", arXiv 1411.5279, section 5.3):

        tail = Φ(−√(n/(n − 1)) t₀.₉₇₅,ν),  ν = Σₖ(nₖ − 1) over the tasks, or n − 1 where whole runs are drawn.

    Several matrices stand for a number made of all of them. An interval still ends at the extremes of what was drawn.
    """
    counts = np.concatenate([_counts(of, whole_runs) for of in scores])
    return student_tail((counts - 1).sum(), widening=np.sqrt(np.mean(counts / (counts - 1))))


def few(scores: Array, *, whole_runs: bool = False) -> bool:
    """Whether scores ``[R, K]`` have less than :data:`FEWEST_DEGREES`: Σₖ(nₖ − 1), or n − 1 where whole runs count."""
    return int((_counts(scores, whole_runs) - 1).sum()) < FEWEST_DEGREES


def _counts(scores: Array, whole_runs: bool) -> NDArray[np.int64]:
    """How many runs are drawn from: of each task that has some, or of all tasks together."""
    present = np.isfinite(scores)
    runs = present.any(axis=1).sum(keepdims=True) if whole_runs else present.sum(axis=0)
    return np.asarray(runs[runs > 0])


def student_tail(degrees: float, *, widening: float = 1.0) -> float:
    """Φ(−widening × t₀.₉₇₅): where Student's quantile with ``degrees`` of freedom lies on the normal distribution."""
    return float(scipy.stats.norm.sf(widening * scipy.stats.t.isf((1 - CONFIDENCE) / 2, degrees)))


def percentile_interval(samples: Array, beyond: float) -> tuple[Array, Array]:
    """The interval over the first axis that leaves out the share ``beyond`` of the samples at each end."""
    percentile = np.percentile if _complete(samples) else np.nanpercentile
    with _quiet():
        low, high = percentile(samples, [100 * beyond, 100 - 100 * beyond], axis=0)
    return low, high


def aggregate(agent: str, metric: str, scores: Array, *, whole_runs: bool = False) -> Estimate:
    """One metric of one agent's scores ``[R, K]`` with its interval."""
    return aggregates(agent, scores, (metric,), whole_runs=whole_runs)[metric]


def aggregates(
    agent: str, scores: Array, metrics: Iterable[str] = tuple(METRICS), *, whole_runs: bool = False
) -> dict[str, Estimate]:
    """Metrics of one agent's scores ``[R, K]`` with their intervals, all from the same draws."""
    points = {metric: point(metric, scores) for metric in metrics}
    if not allows_interval(scores):
        return {metric: Estimate(value) for metric, value in points.items()}
    drawn = resample(scores, generator("aggregate", agent), RESAMPLES, whole_runs=whole_runs)
    beyond = tail(scores, whole_runs=whole_runs)
    return {metric: _within(value, METRICS[metric](drawn), beyond) for metric, value in points.items()}


def generalisation_gap(agent: str, trained: Array, held_out: Array) -> Estimate:
    """Mean over the trained tasks minus mean over the held-out ones of one agent's scores ``[R, K]`` and ``[R, K']``.

    Whole runs are drawn, both parts of a run together: they belong to one agent.
    """
    both, split = np.concatenate([trained, held_out], axis=1), trained.shape[1]

    def gap(scores: Array) -> Array:
        return mean(scores[..., :split]) - mean(scores[..., split:])

    return _bootstrapped(float(gap(both)), gap, both, generator("generalisation", agent), whole_runs=True)


def contrast(
    names: tuple[str, ...],
    scores: tuple[Array, Array],
    statistic: Callable[[Array], Array],
    *,
    whole_runs: tuple[bool, bool] = (False, False),
) -> tuple[tuple[Estimate, Estimate], Contrast]:
    """One statistic of two matrices ``[R, K]`` and ``[R', K]``, each with its interval, and their contrast.

    Runs of the two are drawn apart. ``names`` seed the draws. The contrast has an interval where both have one.
    """
    values = [float(statistic(of)) for of in scores]
    ratio = Estimate(values[1] / values[0]) if values[0] > 0 else None
    samples, single = [], []
    for part, of, value, whole in zip(("before", "after"), scores, values, whole_runs, strict=True):
        if not allows_interval(of):
            single.append(Estimate(value))
            continue
        samples.append(statistic(resample(of, generator("contrast", part, *names), RESAMPLES, whole_runs=whole)))
        single.append(_within(value, samples[-1], tail(of, whole_runs=whole)))
    if len(samples) < len(scores):
        return (single[0], single[1]), Contrast(Estimate(values[1] - values[0]), ratio)
    # where the two are drawn differently, the wider tail of the two keeps the coverage
    beyond = min(tail(*scores, whole_runs=whole) for whole in whole_runs)
    difference = _within(values[1] - values[0], samples[1] - samples[0], beyond)
    if ratio is not None and (samples[0] > 0).all():
        ratio = _within(ratio.estimate, samples[1] / samples[0], beyond)
    return (single[0], single[1]), Contrast(difference, ratio)


def difference(first: Estimate, second: Estimate) -> Estimate:
    """The first minus the second of two independent numbers, with an interval made of theirs.

    Each bound is as far away as both of those that push it there together, √(a² + b²) (Zou and Donner 2008,
    "Construction of confidence limits about effect measures: a general approach"). Intervals that overlap a little
    may leave their difference no doubt; that they are apart asks for more than 95 %.
    """
    value = first.estimate - second.estimate
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value)
    below = np.hypot(first.estimate - first.low, second.high - second.estimate)
    above = np.hypot(first.high - first.estimate, second.estimate - second.low)
    return Estimate(value, float(value - below), float(value + above))


def _within(value: float, samples: Array, beyond: float) -> Estimate:
    low, high = percentile_interval(samples, beyond)
    return Estimate(value, float(low), float(high))


def _bootstrapped(
    value: float,
    statistic: Callable[[Array], Array],
    scores: Array,
    rng: np.random.Generator,
    *,
    whole_runs: bool,
) -> Estimate:
    """``value``, the statistic of ``scores``, with its interval where there is one."""
    if not allows_interval(scores):
        return Estimate(value)
    samples = statistic(resample(scores, rng, RESAMPLES, whole_runs=whole_runs))
    return _within(value, samples, tail(scores, whole_runs=whole_runs))


PROFILES: dict[str, Callable[[Array], Array]] = {
    "runs": lambda scores: scores,
    "tasks": lambda scores: np.expand_dims(task_means(scores), -2),
}
"""What a profile counts: runs, each task's share weighing the same, or tasks by their mean over runs."""


def performance_profile(
    agent: str, scores: Array, thresholds: Array, *, of: str = "runs", whole_runs: bool = False
) -> Band:
    """Fraction of runs, or of tasks' means (``of``), above each threshold, averaged over tasks: ``[len(thresholds)]``.

    rliable's run-score and average-score distributions (Agarwal et al. 2021, section 4.3).
    """

    def above(counted: Array, threshold: float) -> Array:
        return mean(np.where(np.isfinite(counted), (counted > threshold).astype(float), np.nan))

    counted = PROFILES[of](scores)
    estimate = np.array([above(counted, threshold) for threshold in thresholds])
    if not allows_interval(scores):
        return Band(estimate)
    samples = PROFILES[of](resample(scores, generator("profile", agent), CURVE_RESAMPLES, whole_runs=whole_runs))
    above_each = np.stack([above(samples, t) for t in thresholds], axis=1)
    return Band(estimate, *percentile_interval(above_each, tail(scores, whole_runs=whole_runs)))


def _complete(values: Array) -> bool:
    return not np.isnan(values).any()


def nanmean(values: Array, axis: int | tuple[int, ...]) -> Array:
    """Mean over ``axis`` of what is not NaN; NaN where nothing is."""
    if _complete(values):
        return np.asarray(values.mean(axis=axis))
    with _quiet():
        return np.asarray(np.nanmean(values, axis=axis))


@contextmanager
def _quiet() -> Iterator[None]:
    """NumPy warns about all-NaN slices; here they mean 'missing' and stay NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield

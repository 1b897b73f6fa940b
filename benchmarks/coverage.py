"""How often the report's intervals cover the truth: every figure that reports and documents quote, by simulation.

Scores are drawn from distributions whose truth is known, an interval is made as the report makes it, and the share of
intervals that hold the truth is counted. Each figure quoted is the range over :data:`DRAWS` and metrics. With
``--quick`` a tenth of the trials.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product

import numpy as np
from _table import Measurement, options, show

from analysis import stats

TRIALS, RESAMPLES = 1000, 600
SEVERAL, JOINT = 6, 10
"""Tasks of a per-task study, and of a joint one."""

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(0.5, 0.1, shape),
    "tasks apart": lambda rng, shape: np.linspace(0.2, 0.9, shape[1]) + rng.normal(0, 0.1, shape),
    "failing now and then": lambda rng, shape: np.where(rng.random(shape) < 0.2, 0.2, 0.8) + rng.normal(0, 0.05, shape),
    "strongly skewed": lambda rng, shape: 0.2 * rng.lognormal(0, 1, shape),
    "runs failing as wholes": lambda rng, shape: (
        np.where(rng.random((shape[0], 1)) < 0.2, 0.2, 0.8) + rng.normal(0, 0.05, shape)
    ),
    "runs good or bad as wholes": lambda rng, shape: rng.normal(0.5, 0.1, (shape[0], 1)) + rng.normal(0, 0.1, shape),
}
"""Scores ``[R, K]`` of one agent."""


def coverage(draw: Draw, metric: str, runs: int, tasks: int, trials: int, *, whole: bool, plain: bool = False) -> float:
    """Share of intervals that hold the truth, in percent; ``plain``: of percentile intervals that are not widened."""
    rng, statistic = np.random.default_rng(7), stats.METRICS[metric]
    # what the metric of so many runs is on average: an IQM of few runs is another number than that of many
    truth = float(np.mean([statistic(draw(rng, (runs, tasks))) for _ in range(10 * TRIALS)]))
    hits = 0
    for _ in range(trials):
        scores = draw(rng, (runs, tasks))
        samples = statistic(stats.resample(scores, rng, RESAMPLES, whole_runs=whole))
        beyond = (1 - stats.CONFIDENCE) / 2 if plain else stats.tail(scores, whole_runs=whole)
        low, high = stats.percentile_interval(samples, beyond)
        hits += bool(low <= truth <= high)
    return 100 * hits / trials


def ranges(runs: int, tasks: int, trials: int, *, whole: bool, plain: bool = False) -> tuple[float, float]:
    """Least and most coverage over draws and metrics."""
    # where tasks are drawn apart, runs that are good or bad as wholes do not occur: each task has runs of its own
    draws = [draw for name, draw in DRAWS.items() if whole or not name.startswith("runs")]
    found = [coverage(draw, m, runs, tasks, trials, whole=whole, plain=plain) for draw, m in product(draws, METRICS)]
    return min(found), max(found)


METRICS = ("iqm", "mean")


def told_apart(draw: Draw, runs: int, trials: int) -> float:
    """Percent of pairs of agents that are alike, in a joint study, whose difference leaves out 0."""
    rng, told = np.random.default_rng(12), 0
    for _ in range(trials):
        both = []
        for _ in range(2):
            scores = draw(rng, (runs, JOINT))
            samples = stats.iqm(stats.resample(scores, rng, RESAMPLES, whole_runs=True))
            low, high = stats.percentile_interval(samples, stats.tail(scores, whole_runs=True))
            both.append(stats.Estimate(float(stats.iqm(scores)), float(low), float(high)))
        found = stats.difference(*both)
        told += found.low is not None and found.high is not None and not found.low <= 0 <= found.high
    return 100 * told / trials


def main() -> int:
    arguments = options(__doc__)
    trials = TRIALS // 10 if arguments.quick else TRIALS
    asked = [
        *((f"several tasks, {runs} runs", runs, SEVERAL, {"whole": False}) for runs in (3, 5, 10)),
        ("several tasks, 3 runs, plain percentiles", 3, SEVERAL, {"whole": False, "plain": True}),
        ("a single task, 3 runs", 3, 1, {"whole": False}),
        *((f"joint, {JOINT} tasks, {runs} runs", runs, JOINT, {"whole": True}) for runs in (2, 3, 5, 10)),
    ]
    measured = []
    for name, runs, tasks, how in asked:
        least, most = ranges(runs, tasks, trials, **how)
        measured += [Measurement(f"{name}: {end}", value, "%") for end, value in (("least", least), ("most", most))]
    for runs in (2, 3, 5):
        found = [told_apart(draw, runs, trials) for draw in DRAWS.values()]
        for end, value in (("least", min(found)), ("most", max(found))):
            measured.append(Measurement(f"joint, agents alike told apart, {runs} runs: {end}", value, "%"))
    return show("Coverage", measured, arguments.json)


if __name__ == "__main__":
    sys.exit(main())

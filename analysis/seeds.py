"""How many seeds a conclusion needs: how wide intervals would be with more, and when two agents would come apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from analysis import stats
from analysis.scores import AgentScores
from analysis.stats import (
    RESAMPLES,
    Estimate,
    allows_interval,
    draw,
    drawn_iqm,
    generator,
    iqm,
    percentile_interval,
    student_tail,
)

NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)
"""Numbers of seeds for which intervals are predicted."""


@dataclass(frozen=True)
class Prediction:
    """The 95 % interval to expect for an agent's IQM with ``seeds`` runs of each task, if those seen are typical."""

    agent: str
    seeds: int
    low: float
    high: float


@dataclass(frozen=True)
class Separation:
    """How many seeds would tell two neighbours in the ranking apart, if their scores stay.

    They are apart where the interval of their difference leaves out 0 and does not rest on few runs, as in the first
    sentence of a report. ``needed`` is ``seeds``, what both have now, where they are; else it is more, and None where
    the last of :data:`NUMBERS` would not do.
    """

    agent: str
    rival: str
    seeds: int
    needed: int | None


def predict(scores: AgentScores, *, whole_runs: bool = False) -> list[Prediction]:
    """What to expect for each of :data:`NUMBERS`; empty where one run per task says nothing of the spread.

    A bootstrap that draws m runs where there are n. Its values are stretched from the estimate by √(n/(n − 1)), what n
    runs hide of the spread, and cut off as those of m runs will be: at Student's quantile.
    """
    if not allows_interval(scores.final):
        return []
    fewest = int(scores.runs_per_task[scores.runs_per_task > 0].min())
    estimate, stretch = float(iqm(scores.final)), np.sqrt(fewest / (fewest - 1))
    found = []
    for seeds in NUMBERS:
        rng = generator("seeds", scores.agent)
        drawn = drawn_iqm(scores.final, draw(scores.final, rng, RESAMPLES, whole_runs=whole_runs, runs=seeds))
        tail = student_tail((seeds - 1) * (1 if whole_runs else scores.num_tasks))
        low, high = percentile_interval(estimate + stretch * (drawn - estimate), tail)
        found.append(Prediction(scores.agent, seeds, float(low), float(high)))
    return found


def separations(
    ranking: Sequence[str],
    scores: Mapping[str, AgentScores],
    iqms: Mapping[str, Estimate],
    predictions: Mapping[str, list[Prediction]],
    *,
    whole_runs: bool = False,
) -> list[Separation]:
    """Neighbours in ``ranking``, best first; agents without predictions are left out. ``iqms``: as they are now."""
    ranked = [agent for agent in ranking if predictions.get(agent)]
    found = []
    for better, worse in pairwise(ranked):
        both = scores[better], scores[worse]
        now = int(min(of.runs_per_task[of.runs_per_task > 0].min() for of in both))
        few = any(stats.few(of.final, whole_runs=whole_runs) for of in both)
        if not few and stats.difference(iqms[better], iqms[worse]).leaves_out_zero:
            found.append(Separation(better, worse, now, now))
            continue
        of_each = zip(predictions[better], predictions[worse], strict=True)
        degrees = 1 if whole_runs else both[0].num_tasks  # of each seed but the first
        enough = [
            a.seeds
            for a, b in of_each
            if a.seeds > now
            and (a.seeds - 1) * degrees >= stats.FEWEST_DEGREES
            and stats.difference(_predicted(a, iqms[better]), _predicted(b, iqms[worse])).leaves_out_zero
        ]
        found.append(Separation(better, worse, now, min(enough, default=None)))
    return found


def _predicted(of: Prediction, now: Estimate) -> Estimate:
    return Estimate(now.estimate, of.low, of.high)

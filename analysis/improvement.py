"""Does a run of one agent beat a run of another? The probability with its interval, and tests for families of pairs.

R runs, K tasks. Scores are normalised, ``[..., R, K]``, NaN where a run is missing.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

from analysis.stats import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Estimate,
    allows_interval,
    generator,
    nanmean,
    percentile_interval,
    resample,
    tail,
)

PERMUTATIONS = 2000
"""Of a test at least; the smallest p-value it can give is one more than that, inverted."""
PERMUTATIONS_PER_PAIR = 100
"""Of each test in a family of so many pairs, so that the smallest p-value stays below 0.01 when adjusted for all."""


def improvement(x: Array, y: Array) -> Array:
    """P(X > Y) + ½ P(X = Y) for two random runs of one task, averaged over the tasks both have: ``[..., R, K]``."""
    greater = np.sign(x[..., :, None, :] - y[..., None, :, :])  # NaN where either is missing
    return nanmean(0.5 + 0.5 * nanmean(greater, axis=(-3, -2)), -1)


def probability_of_improvement(
    agents: tuple[str, str], scores: tuple[Array, Array], *, whole_runs: bool = False, paired: bool = True
) -> Estimate:
    """Probability that a run of the first agent beats one of the second, with its interval.

    rliable's definition. ``paired``: the rows of both are the same seeds, and are drawn together where neither agent
    misses a run that the other has. The pair and its mirror share their draws, so the two always add up to 1.
    """
    common = np.isfinite(scores[0]).any(axis=0) & np.isfinite(scores[1]).any(axis=0)
    x, y = scores[0][:, common], scores[1][:, common]
    value = float(improvement(x, y))
    if not (allows_interval(x) and allows_interval(y)):
        return Estimate(value)
    pair = "\x1e".join(sorted(agents))
    # Generators that draw alike: runs of one seed stay together, as in a paired comparison. Where places in the two
    # matrices are not the same seeds that would couple runs which have nothing in common.
    together = paired and np.array_equal(np.isfinite(x), np.isfinite(y))
    drawn = [
        resample(of, generator("improvement", pair, *([] if together else [agent])), RESAMPLES, whole_runs=whole_runs)
        for agent, of in zip(agents, (x, y), strict=True)
    ]
    # One task at a time: [B, R, R, K] would not fit.
    per_task = [improvement(drawn[0][..., [k]], drawn[1][..., [k]]) for k in range(x.shape[1])]
    low, high = percentile_interval(np.mean(per_task, axis=0), tail(x, y, whole_runs=whole_runs))
    below, above = _unseen(x, y, whole_runs=whole_runs)
    low = value - np.hypot(value - low, below) if below else low
    high = value + np.hypot(high - value, above) if above else high
    return Estimate(value, float(low), float(high))


def _unseen(x: Array, y: Array, *, whole_runs: bool) -> tuple[float, float]:
    """How far below and above a probability of improvement may lie because of tasks that drawing runs says nothing of.

    On a task where every run of one agent beats every run of the other, so does it in each resample, however few they
    are. Such tasks count with Newcombe's interval: independent of each other, or all as one where whole runs are drawn.
    """
    probability = np.array([float(improvement(x[:, [k]], y[:, [k]])) for k in range(x.shape[1])])
    counts = zip(np.isfinite(x).sum(axis=0), np.isfinite(y).sum(axis=0), strict=True)
    away = np.array([_from_the_edge(int(runs_x), int(runs_y)) for runs_x, runs_y in counts])
    below, above = (
        float(of.sum() if whole_runs else np.sqrt((of**2).sum())) / len(away)
        for of in (np.where(probability == edge, away, 0.0) for edge in (1.0, 0.0))
    )
    return below, above


def _from_the_edge(runs_x: int, runs_y: int) -> float:
    """1 − the lower end of the interval of P(X > Y) where all runs of X beat all of Y: 0.36 for five runs each.

    Newcombe's score interval (2006, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic, part 2", method 5) of an estimate θ̂: the θ with

        (θ̂ − θ)² = z² θ(1 − θ)/(nₓn_y) · [1 + ((nₓ + n_y)/2 − 1) · ((1 − θ)/(2 − θ) + θ/(1 + θ))].
    """
    z = float(scipy.stats.norm.isf((1 - CONFIDENCE) / 2))

    def excess(theta: float) -> float:
        spread = 1 + ((runs_x + runs_y) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (1 - theta) - z**2 * theta * spread / (runs_x * runs_y)

    return 1 - float(scipy.optimize.brentq(excess, 0.0, 1.0))


def permutations(pairs: int) -> int:
    """How often labels are permuted in each of the tests of so many pairs: more than 20 pairs need more."""
    return max(PERMUTATIONS, PERMUTATIONS_PER_PAIR * pairs)


def permutation_test(
    agents: tuple[str, str], scores: tuple[Array, Array], *, whole_runs: bool = False, times: int = PERMUTATIONS
) -> float:
    """p-value, two-sided, of the hypothesis that the runs of two agents ``[R, K]`` on a task could be exchanged.

    The statistic is the probability of improvement; labels are permuted within each task, or for whole runs. The
    smallest value it can give is 1/(``times`` + 1), and with three runs each on one task 0.1.
    """
    common = np.isfinite(scores[0]).any(axis=0) & np.isfinite(scores[1]).any(axis=0)
    x, y = (of[:, common] for of in scores)
    both = np.concatenate([x, y])
    is_x = np.arange(len(both)) < len(x)
    rng = generator("permutation", *agents)
    strata = [slice(None)] if whole_runs else [slice(k, k + 1) for k in range(both.shape[1])]
    effects = [_permuted_effects(both[:, of], is_x, rng, times) for of in strata]
    effect = np.abs(np.concatenate(effects, axis=1).mean(axis=1))
    # Rounding must not tell apart what is equal by symmetry.
    return float((effect >= effect[0] - 1e-12).mean())


def _permuted_effects(both: Array, is_x: NDArray[np.bool_], rng: np.random.Generator, times: int) -> Array:
    """P(X > Y) − ½ ``[1 + times, K]`` of runs ``both`` ``[R, K]``: as labelled by ``is_x``, then permuted.

    From rank sums (Mann and Whitney): with nₓ and n_y runs it is (Σ ranks of X − nₓ(nₓ + 1)/2)/(nₓ n_y) − ½.
    """
    present = np.isfinite(both).any(axis=1)
    both, is_x = both[present], is_x[present]
    ranks = scipy.stats.rankdata(both, axis=0, nan_policy="omit")
    shuffled = rng.permuted(np.broadcast_to(is_x, (times, len(is_x))), axis=1)
    labels = np.concatenate([is_x[None], shuffled]).astype(float)
    counted = np.isfinite(both).astype(float)
    num_x = labels @ counted
    num_y = counted.sum(axis=0) - num_x
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = (labels @ np.nan_to_num(ranks) - num_x * (num_x + 1) / 2) / (num_x * num_y) - 0.5
    return np.asarray(np.nan_to_num(effect))  # a permutation that leaves one agent without a run of a task says nothing


def holm(p_values: Array) -> Array:
    """p-values ``[P]`` of a family of tests, each adjusted such that one below α is below it for the whole family.

    The i-th smallest of P becomes the largest of (P − j + 1) pⱼ over j ≤ i, at most 1 (Holm 1979).
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p_values)[order]))
    return adjusted

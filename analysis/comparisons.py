"""Which of two agents is better on a random task, and how surely, over all pairs of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.improvement import holm, permutation_test, permutations, probability_of_improvement
from analysis.scores import AgentScores
from analysis.stats import Estimate

__all__ = ["Improvement", "improvements"]


@dataclass(frozen=True)
class Improvement:
    """Probability that a run of ``x`` beats a run of ``y`` on a random task.

    ``p_value`` of the hypothesis that their runs could be exchanged, ``adjusted`` for all pairs of the study (Holm).
    """

    x: str
    y: str
    value: Estimate
    p_value: float
    adjusted: float
    tasks: int


def improvements(scores: Mapping[str, AgentScores], *, whole_runs: bool = False) -> list[Improvement]:
    """Every ordered pair of agents with a task in common; a pair and its mirror stand side by side."""
    pairs = [(x, y) for x, y in combinations(scores, 2) if _common(scores[x], scores[y])]
    finals = [(scores[x].final, scores[y].final) for x, y in pairs]
    times = permutations(len(pairs))
    p_values = [
        permutation_test(pair, final, whole_runs=whole_runs, times=times)
        for pair, final in zip(pairs, finals, strict=True)
    ]
    found = []
    for (x, y), final, p_value, adjusted in zip(pairs, finals, p_values, holm(np.array(p_values)), strict=True):
        paired = scores[x].seeds == scores[y].seeds
        value = probability_of_improvement((x, y), final, whole_runs=whole_runs, paired=paired)
        tests = p_value, float(adjusted), _common(scores[x], scores[y])
        found += [Improvement(x, y, value, *tests), Improvement(y, x, _mirrored(value), *tests)]
    return found


def _common(x: AgentScores, y: AgentScores) -> int:
    return int(((x.runs_per_task > 0) & (y.runs_per_task > 0)).sum())


def _mirrored(value: Estimate) -> Estimate:
    if value.low is None or value.high is None:
        return Estimate(1 - value.estimate)
    return Estimate(1 - value.estimate, 1 - value.high, 1 - value.low)

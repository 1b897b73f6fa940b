"""What more seeds would do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats

from analysis.scores import AgentScores
from analysis.seeds import NUMBERS, Prediction, predict, separations
from analysis.stats import Estimate, aggregate


def agent(name: str, final: np.ndarray) -> AgentScores:
    runs, tasks = final.shape
    names = tuple(f"task-{k}" for k in range(tasks))
    return AgentScores(name, tuple(range(runs)), names, final, dict.fromkeys(names, 1), np.empty(0), np.empty(0))


def iqms(scores: Mapping[str, AgentScores]) -> dict[str, Estimate]:
    return {name: aggregate(name, "iqm", of.final) for name, of in scores.items()}


def test_the_width_is_that_of_student_for_normal_scores() -> None:
    # The IQM of normal scores has about 1.2 times the variance of their mean; half an interval of m runs of one task is
    # t₀.₉₇₅ with m − 1 degrees of freedom × √1.2 σ/√m.
    scores = agent("a", np.random.default_rng(0).normal(0.5, 0.1, (200, 1)))
    for found in predict(scores):
        if found.seeds >= 8:  # fewer runs than that cannot reach so far out
            expected = 2 * scipy.stats.t.isf(0.025, found.seeds - 1) * np.sqrt(1.2 / found.seeds) * 0.1
            assert found.high - found.low == pytest.approx(expected, rel=0.15)


def test_what_few_runs_hide_of_the_spread_is_made_up_for() -> None:
    # of three runs at 0, 1 and 2, one pair in nine is twice the lowest: the interval of two runs, one degree of
    # freedom, reaches as far, and from the estimate, 1, by √(3/2) farther
    of_two = predict(agent("a", np.array([[0.0], [1.0], [2.0]])))[0]
    assert (of_two.seeds, of_two.low, of_two.high) == (2, pytest.approx(1 - 1.5**0.5), pytest.approx(1 + 1.5**0.5))


def test_more_seeds_narrower_intervals() -> None:
    scores = agent("a", np.random.default_rng(0).normal(0.5, 0.1, (3, 4)))
    for whole_runs in (False, True):
        widths = [found.high - found.low for found in predict(scores, whole_runs=whole_runs)]
        assert len(widths) == len(NUMBERS)
        assert widths[0] > widths[5] > widths[-1] > 0
    assert predict(agent("a", np.array([[0.5, 0.6]]))) == []


def test_neighbours_come_apart_with_enough_seeds() -> None:
    spread = np.linspace(-0.1, 0.1, 5)[:, None] * np.ones(3)
    scores = {name: agent(name, level + spread) for name, level in (("a", 0.5), ("b", 0.9), ("c", 0.55), ("d", 0.501))}
    predictions = {name: predict(of) for name, of in scores.items()}
    first, second, third = separations("bcda", scores, iqms(scores), predictions)
    assert (first.agent, first.rival, first.seeds, first.needed) == ("b", "c", 5, 5)
    assert (second.agent, second.rival) == ("c", "d")
    assert second.needed is not None
    assert second.needed > 5
    assert (third.agent, third.rival, third.needed) == ("d", "a", None)


def test_an_agent_without_intervals_is_left_out() -> None:
    scores = {"a": agent("a", np.array([[0.1], [0.2]])), "b": agent("b", np.array([[0.9]]))}
    assert separations("ba", scores, iqms(scores), {name: predict(of) for name, of in scores.items()}) == []


def test_seeds_needed_are_those_the_first_sentence_asks_for() -> None:
    """Overlapping intervals whose difference leaves out 0 are apart; three whole runs are too few in any case."""
    scores = {name: agent(name, np.zeros((3, 2))) for name in "ab"}
    now = {"a": Estimate(0.71, 0.66, 0.75), "b": Estimate(0.6, 0.5, 0.67)}  # 0.11 − √(0.05² + 0.07²) > 0
    predictions = {
        name: [Prediction(name, seeds, of.low or 0, of.high or 0) for seeds in NUMBERS] for name, of in now.items()
    }
    (found,) = separations("ab", scores, now, predictions)
    assert (found.seeds, found.needed) == (3, 3)
    (found,) = separations("ab", scores, now, predictions, whole_runs=True)
    assert (found.seeds, found.needed) == (3, 5)  # n − 1 is 4

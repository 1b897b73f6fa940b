"""All pairs of agents, with p-values adjusted for their number."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.comparisons import improvements
from analysis.improvement import permutation_test, probability_of_improvement
from analysis.scores import AgentScores
from analysis.summary import Summary


def test_every_pair_has_its_mirror(summary: Summary) -> None:
    found = {(i.x, i.y): i for i in summary.improvements}
    assert len(found) == 6
    for (x, y), item in found.items():
        back = found[y, x]
        assert item.value.estimate + back.value.estimate == pytest.approx(1)
        assert item.value.low is not None
        assert back.value.high is not None
        assert item.value.low + back.value.high == pytest.approx(1)
        assert (item.p_value, item.adjusted, item.tasks) == (back.p_value, back.adjusted, 2)


def test_numbers_are_those_of_the_pair_alone(summary: Summary) -> None:
    first = improvements(summary.scores)[0]
    finals = summary.scores["m3po"].final, summary.scores["ppo"].final
    assert (first.x, first.y) == ("m3po", "ppo")
    assert first.value == probability_of_improvement(("m3po", "ppo"), finals)
    assert first.p_value == permutation_test(("m3po", "ppo"), finals)


def test_the_smallest_of_three_p_values_counts_three_times(summary: Summary) -> None:
    found = {i.p_value: i.adjusted for i in summary.improvements}
    assert found[min(found)] == pytest.approx(min(1, 3 * min(found)))


def test_many_pairs_can_still_be_told_apart() -> None:
    """15 agents make 105 pairs: of 2000 permutations the smallest p-value, 1/2001, would be 0.052 for all of them."""
    rng, tasks = np.random.default_rng(0), tuple("abcd")
    scores = {}
    for level in range(15):
        final = level + rng.uniform(0, 0.5, (5, 4))
        none = np.empty(0)
        scores[f"agent-{level}"] = AgentScores(f"agent-{level}", (0, 1, 2, 3, 4), tasks, final, {}, none, none)
    found = improvements(scores)
    assert len(found) == 2 * 105
    # 105 pairs × 1/(10,500 + 1)
    assert min(item.adjusted for item in found) == pytest.approx(105 / 10_501)

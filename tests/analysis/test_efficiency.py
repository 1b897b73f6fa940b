"""Steps to a score and ratios of them, with what is never reached kept apart from numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.efficiency import Curve, curve, first_step, speedup, speedups, steps_to_score
from analysis.frame import load
from analysis.report.efficiency_tables import speedup_text, steps_text
from analysis.scores import AgentScores, agent_scores
from tests.analysis.synthetic import Synthetic

STEPS = np.array([0.0, 100.0, 200.0, 300.0])
INF = np.inf


def straight(agent: str, *values: float, spread: float | None = None) -> Curve:
    """A curve through ``values``; with ``spread``, three resamples: lower, itself, higher."""
    estimate = np.array(values)
    samples = None if spread is None else np.stack([estimate * (1 - spread), estimate, estimate * (1 + spread)])
    return Curve(agent, STEPS, estimate, samples)


def test_first_step_is_linear_between_points() -> None:
    curves = np.array([[0.0, 0.4, 0.2, 1.0], [0.0, 0.1, 0.2, 0.3], [0.5, 0.0, 0.0, 0.9]])
    # 0.3: ¾ of the way to 0.4; reached exactly at the end; there from the start
    np.testing.assert_allclose(first_step(STEPS, curves, 0.3), [75, 300, 0])
    np.testing.assert_allclose(first_step(STEPS, curves, np.array([0.4, 0.31, 0.9])), [100, INF, 300])


def test_steps_to_score() -> None:
    of = straight("a", 0.0, 0.3, 0.6, 0.9, spread=0.5)
    found = steps_to_score(of, 0.6)
    # the lower resample ends at 0.45 and never gets there; the higher passes 0.6 at 100 + 100 × 0.15 / 0.45
    assert (found.steps, found.high) == (200, INF)
    assert found.low == pytest.approx(133.33, abs=0.01)
    assert steps_text(found) == "200 [133, > 300]"
    assert steps_text(steps_to_score(of, 2.0)) == "> 300"
    assert steps_text(steps_to_score(straight("a", 0.0, 0.3, 0.6, 0.9), 0.45)) == "150 (no interval)"


def test_speedup_counts_the_reference_to_its_own_crossing() -> None:
    slow = straight("slow", 0.0, 0.2, 0.4, 0.4)  # first at its final score after 200 steps, not 300
    fast = straight("fast", 0.0, 0.8, 0.8, 0.8)
    found = speedup(fast, slow)
    assert found is not None
    assert found.ratio == pytest.approx(4)  # 200 / 50
    back = speedup(slow, fast)
    assert back is not None
    assert (back.ratio, back.low) == (0, None)
    assert back.below == pytest.approx(100 / 300)
    assert speedup_text(back) == "not reached (below 0.33×)"


def test_what_is_there_at_the_first_evaluation_may_have_been_so_before() -> None:
    """By hand: evaluations at 100 to 400; b reaches its 0.4 at 400, a is above it at 100 already."""
    late = STEPS + 100
    a, b = (
        Curve(agent, late, np.array(values), np.array([values, values]))
        for agent, values in (("a", [0.9, 0.9, 0.9, 0.9]), ("b", [0.1, 0.2, 0.3, 0.4]))
    )
    found = speedup(a, b)
    assert found is not None
    assert (found.ratio, found.low, found.high, found.above) == (INF, INF, INF, 4)
    assert speedup_text(found) == "at least 4.00×"
    assert steps_text(steps_to_score(a, 0.5)) == "≤ 100"
    assert steps_text(steps_to_score(b, 0.25)) == "250 [250, 250]"
    # one resample of two is there at once
    half = Curve("a", late, np.array([0.1, 0.5, 0.9, 0.9]), np.array([[0.1, 0.5, 0.9, 0.9], [0.5, 0.9, 0.9, 0.9]]))
    found = speedup(half, b)
    assert found is not None
    assert found.ratio == pytest.approx(400 / 175)
    assert (found.low, found.high) == (pytest.approx(400 / 175), INF)
    assert steps_text(steps_to_score(half, 0.5)) == "200 [≤ 100, 200]"
    # there at once, but not in all resamples
    assert (
        speedup_text(replace(found, ratio=INF, low=0.0))
        == "there at the first evaluation [not reached, no upper limit]"
    )
    # before training there is nothing before
    start = speedup(Curve("a", STEPS, a.estimate), Curve("b", STEPS, b.estimate))
    assert start is not None
    assert (speedup_text(start), start.above) == ("there from the start", INF)
    assert steps_text(steps_to_score(Curve("a", STEPS, a.estimate), 0.5)) == "0 (no interval)"


def test_speedup_interval_is_censored_where_a_resample_never_arrives() -> None:
    a, b = straight("a", 0.0, 0.5, 0.55, 0.6, spread=0.5), straight("b", 0.0, 0.1, 0.3, 0.5)
    reference = Curve("b", STEPS, b.estimate, np.stack([b.estimate] * 3))
    found = speedup(a, reference)
    assert found is not None
    assert found.ratio == pytest.approx(3)  # 300 / 100
    assert found.low == 0  # the lower resample of a ends at 0.3
    assert found.high == pytest.approx(4.5)  # the higher reaches 0.5 at 100 × 0.5 / 0.75
    assert speedup_text(found) == "3.00× [not reached, 4.50]"


@pytest.mark.parametrize(("own", "theirs", "low", "high"), [(0.0, 0.4, 0, 4.5), (0.4, 0.0, 0, 4.5), (0.4, 0.4, 3, 3)])
def test_speedup_interval_is_as_wide_as_the_one_with_fewer_runs_asks(
    own: float, theirs: float, low: float, high: float
) -> None:
    """The resamples of the test before, 0, 3 and 4.5: without tails all of them, with 0.4 the middle one."""
    a, b = straight("a", 0.0, 0.5, 0.55, 0.6, spread=0.5), np.array([0.0, 0.1, 0.3, 0.5])
    found = speedup(replace(a, tail=own), Curve("b", STEPS, b, np.stack([b] * 3), theirs))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_reference_that_did_not_learn_is_no_yardstick() -> None:
    flat, noisy = straight("flat", 0.2, 0.3, 0.1, 0.2), straight("noisy", 0.1, 0.1, 0.1, 0.11)
    assert speedup(straight("a", 0.0, 0.5, 0.5, 0.5), flat) is None
    unsure = Curve("noisy", STEPS, noisy.estimate, np.array([[0.1, 0.1, 0.1, 0.05], [0.1, 0.1, 0.1, 0.15]]))
    assert speedup(straight("a", 0.0, 0.5, 0.5, 0.5), unsure) is None


def test_every_ordered_pair_is_asked() -> None:
    curves = {name: straight(name, 0.0, 0.1, 0.2, top) for name, top in (("a", 0.3), ("b", 0.5), ("c", 0.4))}
    assert [(s.agent, s.reference) for s in speedups(curves)] == [
        ("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b"),
    ]  # fmt: skip


def test_curve_is_the_iqm_of_the_runs(study: Synthetic) -> None:
    of: AgentScores = agent_scores(load(study.folder), "m3po")
    found = curve(of)
    # 3 runs × 2 tasks: int(0.25 × 6) = 1 is cut at each end
    expected = [np.sort(of.curves[..., point].ravel())[1:-1].mean() for point in range(11)]
    np.testing.assert_allclose(found.estimate, expected, atol=1e-12)
    assert found.band.low is not None
    assert (found.band.low <= found.estimate + 1e-12).all()
    again = curve(of)
    assert found.samples is not None
    assert again.samples is not None
    np.testing.assert_array_equal(found.samples, again.samples)

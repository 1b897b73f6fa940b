"""Probabilities against SciPy and rliable, their intervals and tests against simulation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from rliable import metrics as rliable

from analysis.improvement import holm, improvement, permutation_test, probability_of_improvement

EXACT = 1e-12
NAN = np.nan
SCORES = np.random.default_rng(0).normal(0.5, 0.4, (10, 4))


@pytest.mark.parametrize("runs", [(4, 4), (3, 5), (1, 3)])
def test_probability_of_improvement_is_the_mann_whitney_statistic(runs: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.integers(0, 5, (n, 3)).astype(float) for n in runs)  # few values, so that ties happen
    expected = [scipy.stats.mannwhitneyu(x[:, k], y[:, k]).statistic / (runs[0] * runs[1]) for k in range(3)]
    assert float(improvement(x, y)) == pytest.approx(np.mean(expected), abs=EXACT)
    assert float(improvement(x, y)) == pytest.approx(rliable.probability_of_improvement(x, y), abs=EXACT)


def test_probability_of_improvement_by_hand() -> None:
    x, y = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.5, 0.0]])
    # task 1: 1 > 0, 1 > .5, 0 = 0, 0 < .5 → (1 + 1 + ½ + 0) / 4; task 2: all ties → ½
    assert improvement(x, y) == pytest.approx((0.625 + 0.5) / 2, abs=EXACT)
    # A missing run and a task that only one of them has are left out.
    assert improvement(np.vstack([x, [NAN, NAN]]), y) == pytest.approx(0.5625, abs=EXACT)
    value = probability_of_improvement(("x", "y"), (x, np.where([True, False], y, NAN)))
    assert value.estimate == pytest.approx(0.625, abs=EXACT)


def test_a_pair_and_its_mirror_add_up_to_one() -> None:
    x, y = SCORES, SCORES[::-1] - 0.1
    there = probability_of_improvement(("x", "y"), (x, y))
    back = probability_of_improvement(("y", "x"), (y, x))
    assert there.estimate + back.estimate == pytest.approx(1, abs=EXACT)
    assert there.low is not None
    assert back.high is not None
    assert there.low + back.high == pytest.approx(1, abs=1e-9)


def test_one_run_gives_no_interval() -> None:
    assert probability_of_improvement(("a", "b"), (np.array([[1.0]]), np.zeros((3, 1)))).low is None


def test_runs_that_are_all_apart_leave_the_interval_open() -> None:
    """Newcombe's equation by hand: with z = 1.96 and five runs each θ = 0.643 solves
    1 − θ = 0.357 = 1.96² × 0.643/25 × [1 + 4 × (0.357/1.357 + 0.643/1.643)] = 0.0988 × 3.618.
    """
    above, below = np.arange(5.0)[:, None] + 10, np.arange(5.0)[:, None]
    one = probability_of_improvement(("x", "y"), (above, below))
    assert (one.estimate, one.low, one.high) == (1, pytest.approx(0.643, abs=0.001), 1)
    mirror = probability_of_improvement(("y", "x"), (below, above))
    assert (mirror.estimate, mirror.low, mirror.high) == (0, 0, pytest.approx(0.357, abs=0.001))
    # four independent tasks halve the distance; four views of the same runs do not
    four = (above + np.zeros(4), below + np.zeros(4))
    assert probability_of_improvement(("x", "y"), four).low == pytest.approx(1 - 0.357 / 2, abs=0.001)
    whole = probability_of_improvement(("x", "y"), four, whole_runs=True)
    assert whole.low == pytest.approx(0.643, abs=0.001)
    # won on one task, lost on the other: both could be closer, 0.357/2 on either side
    split = probability_of_improvement(("x", "y"), (np.hstack([above, below]), np.hstack([below, above])))
    assert (split.estimate, split.low, split.high) == (
        0.5,
        *(pytest.approx(0.5 + d, abs=0.001) for d in (-0.1785, 0.1785)),
    )


def test_the_interval_of_a_probability_near_one_covers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """P(X > Y) = Φ(2.66/√2) = 0.97 for normal scores 2.66 apart: two thirds of samples of four runs are all apart."""
    monkeypatch.setattr("analysis.improvement.RESAMPLES", 200)
    rng, truth = np.random.default_rng(2), float(scipy.stats.norm.cdf(2.66 / np.sqrt(2)))
    held = 0
    for trial in range(150):
        scores = rng.normal(2.66, 1, (4, 1)), rng.normal(0, 1, (4, 1))
        found = probability_of_improvement((f"x{trial}", "y"), scores)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    # three standard errors of a share of 150: √(0.95 × 0.05 / 150) = 1.8 %
    assert held / 150 > 0.89


def test_the_permutation_test_is_exact() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(5, 1)), rng.normal(0.8, 1, (6, 1))
    exact = scipy.stats.mannwhitneyu(x[:, 0], y[:, 0], method="exact").pvalue
    # three standard errors of a share of 2000
    assert permutation_test(("x", "y"), (x, y)) == pytest.approx(exact, abs=3 * np.sqrt(exact / 2000))
    # three runs each, all apart: 2 of the 20 ways to label them are as extreme
    apart = np.arange(6.0)[:, None]
    assert permutation_test(("x", "y"), (apart[3:], apart[:3])) == pytest.approx(0.1, abs=0.02)
    # the same on four tasks: (2 / 20) × (1 / 20)³ = 1/80000, below what 2000 permutations can show
    assert permutation_test(("x", "y"), (apart[3:] + np.zeros(4), apart[:3] + np.zeros(4))) < 0.002
    # but not if they are four views of the same three runs
    whole = permutation_test(("x", "y"), (apart[3:] + np.zeros(4), apart[:3] + np.zeros(4)), whole_runs=True)
    assert whole == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("whole_runs", [False, True])
def test_the_permutation_test_errs_as_often_as_it_says(whole_runs: bool) -> None:
    rng = np.random.default_rng(8)
    p = []
    for _ in range(200):
        x, y = rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
        y[rng.random(y.shape) < 0.1] = NAN
        p.append(permutation_test(("x", "y"), (x, y), whole_runs=whole_runs))
    # three standard errors of a share of 200 around 20 %: 8.5 %
    assert 0.11 < np.mean(np.array(p) < 0.2) < 0.29


def test_equal_runs_have_p_one() -> None:
    scores = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert permutation_test(("x", "y"), (scores, scores)) == 1
    assert permutation_test(("x", "y"), (scores[:1], scores[1:2])) == pytest.approx(1, abs=EXACT)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 × 4 3 2 1 = .02 .03 .06 .04; the last is not below the one before
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02], atol=EXACT)
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1, 1], atol=EXACT)
    assert holm(np.empty(0)).size == 0


def test_runs_of_one_seed_are_drawn_together() -> None:
    # y is always a little better than x's run of the same seed, by less than seeds differ: whatever is drawn, it wins
    # at least half the comparisons of a pair with itself and never fewer than x does
    x = np.array([[0.1], [0.3], [0.5], [0.7]])
    value = probability_of_improvement(("x", "y"), (x + 0.01, x))
    assert value.low is not None
    assert value.low >= 0.5

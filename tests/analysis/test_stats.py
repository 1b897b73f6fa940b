"""Metrics against rliable, intervals against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from rliable import library
from rliable import metrics as rliable

from analysis import stats

EXACT = 1e-12
NAN = np.nan

MATRICES = {
    "ten runs, four tasks": np.random.default_rng(0).normal(0.5, 0.4, (10, 4)),
    "three runs, seven tasks": np.random.default_rng(1).uniform(-0.2, 1.3, (3, 7)),
    "one run": np.array([[0.1, 0.9, 0.4]]),
    "one task": np.array([[0.1], [0.9], [0.4], [1.4], [0.2]]),
    "one number": np.array([[0.3]]),
    "ties": np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]),
    "constant": np.full((3, 2), 0.5),
}


@pytest.mark.parametrize("scores", MATRICES.values(), ids=MATRICES)
def test_metrics_are_rliables(scores: np.ndarray) -> None:
    theirs = {
        "iqm": rliable.aggregate_iqm,
        "median": rliable.aggregate_median,
        "mean": rliable.aggregate_mean,
        "optimality_gap": rliable.aggregate_optimality_gap,
    }
    assert set(theirs) == set(stats.METRICS)
    for name, metric in stats.METRICS.items():
        assert float(metric(scores)) == pytest.approx(float(theirs[name](scores)), abs=EXACT)


def test_metrics_by_hand() -> None:
    scores = np.array([[0.0, 0.4], [0.2, 0.6], [0.7, 2.0], [0.3, 0.8]])
    # sorted: 0 .2 | .3 .4 .6 .7 | .8 2 → the middle four: 2.0 / 4
    assert stats.iqm(scores) == pytest.approx(0.5, abs=EXACT)
    # task means 1.2 / 4 = 0.3 and 3.8 / 4 = 0.95
    assert stats.median(scores) == pytest.approx((0.3 + 0.95) / 2, abs=EXACT)
    assert stats.mean(scores) == pytest.approx(0.625, abs=EXACT)
    # capped at 1: 0.3 and 2.8 / 4 = 0.7 → 1 − 0.5
    assert stats.optimality_gap(scores) == pytest.approx(0.5, abs=EXACT)


def test_missing_runs_are_left_out_not_zero() -> None:
    scores = np.array([[0.2, 0.4], [0.4, NAN], [NAN, NAN]])
    assert stats.mean(scores) == pytest.approx((0.3 + 0.4) / 2, abs=EXACT)
    assert stats.iqm(scores) == pytest.approx(1.0 / 3, abs=EXACT)  # 3 numbers, int(0.25 × 3) = 0 cut
    assert stats.median(np.array([[0.2, NAN, 0.8]])) == pytest.approx(0.5, abs=EXACT)


@pytest.mark.parametrize("runs", [None, 7])
@pytest.mark.parametrize("whole_runs", [False, True])
@pytest.mark.parametrize("missing", [0, 1, 5, 12])
def test_iqm_of_what_was_drawn_is_that_of_the_resamples(missing: int, whole_runs: bool, runs: int | None) -> None:
    scores = np.random.default_rng(missing).normal(size=(4, 3)).round(1)  # some tie
    scores.ravel()[:missing] = NAN
    if missing == scores.size:
        scores[0, 0] = 0.3
    drawn = stats.resample(scores, np.random.default_rng(1), 50, whole_runs=whole_runs, runs=runs)
    counts = stats.draw(scores, np.random.default_rng(1), 50, whole_runs=whole_runs, runs=runs)
    assert counts.shape == (50, *scores.shape)
    np.testing.assert_array_equal(counts.sum(axis=(1, 2)), np.isfinite(drawn).sum(axis=(1, 2)))
    np.testing.assert_allclose(stats.drawn_iqm(scores, counts), stats.iqm(drawn), atol=EXACT)


def test_metrics_of_many_resamples_at_once() -> None:
    samples = np.random.default_rng(0).normal(size=(5, 4, 3))
    for metric in stats.METRICS.values():
        np.testing.assert_allclose(metric(samples), [metric(sample) for sample in samples], atol=EXACT)


def test_resamples_stay_inside_their_task() -> None:
    scores = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, NAN]])
    drawn = stats.resample(scores, stats.generator("x"), 200)
    assert drawn.shape == (200, 3, 2)
    assert set(np.unique(drawn[:, :, 0])) == {1.0, 2.0, 3.0}
    assert set(np.unique(drawn[:, :2, 1])) == {10.0, 20.0}
    assert np.isnan(drawn[:, 2, 1]).all()
    assert (drawn[:, 0, 0] * 10 != drawn[:, 0, 1]).any()  # tasks draw apart


def test_whole_runs_keep_the_tasks_of_a_run_together() -> None:
    scores = np.array([[1.0, 10.0], [2.0, 20.0], [NAN, NAN]])
    drawn = stats.resample(scores, stats.generator("x"), 200, whole_runs=True)
    assert drawn.shape == (200, 2, 2)
    np.testing.assert_array_equal(drawn[..., 0] * 10, drawn[..., 1])


def test_one_run_per_task_gives_no_interval() -> None:
    for metric in stats.METRICS:
        value = stats.aggregate("ppo", metric, np.array([[0.3, 0.5]]))
        assert (value.low, value.high) == (None, None)
    assert stats.aggregate("ppo", "iqm", np.array([[0.3, 0.5], [0.4, NAN]])).low is None
    assert stats.performance_profile("a", np.array([[1.0]]), np.array([0.5])).low is None


def test_intervals_do_not_move() -> None:
    scores = MATRICES["ten runs, four tasks"]
    first = stats.aggregate("m3po", "iqm", scores)
    np.random.seed(0)
    stats.aggregate("ppo", "iqm", scores)
    assert stats.aggregate("m3po", "iqm", scores) == first
    assert stats.aggregate("m3po", "mean", scores).low != stats.aggregate("sac", "mean", scores).low
    assert first.low is not None
    assert first.high is not None
    assert first.low < first.estimate < first.high


def test_the_tails_of_an_interval_by_hand() -> None:
    # three runs of four tasks: √(3/2) × t₀.₉₇₅ with 4 × 2 degrees of freedom, 2.306, is 2.824; Φ(−2.824) = 0.00237
    assert stats.tail(np.zeros((3, 4))) == pytest.approx(0.00237, abs=1e-5)
    # drawn as wholes they have 2: √(3/2) × 4.303 = 5.27
    assert stats.tail(np.zeros((3, 4)), whole_runs=True) == pytest.approx(6.8e-8, rel=0.02)
    # two agents, 4 and 2 runs of one task: √((4/3 + 2)/2) × t with 3 + 1, 2.776, is 3.584
    assert stats.tail(np.zeros((4, 1)), np.array([[1.0], [2.0], [NAN]])) == pytest.approx(1.69e-4, rel=0.02)
    # many runs: the plain percentile interval
    assert stats.tail(np.zeros((1000, 10))) == pytest.approx(0.025, abs=1e-4)


DRAWS = {
    "normal": lambda rng, shape: rng.normal(0.5, 0.1, shape),
    "tasks apart": lambda rng, shape: np.linspace(0.2, 0.9, shape[1]) + rng.normal(0, 0.1, shape),
    "failing now and then": lambda rng, shape: np.where(rng.random(shape) < 0.2, 0.2, 0.8) + rng.normal(0, 0.05, shape),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("runs", [3, 5, 10])
def test_coverage_by_simulation(runs: int, draw: str) -> None:
    """95 %, where the plain percentile interval of three runs covers less than 90 %."""
    rng, shape = np.random.default_rng(7), (runs, 6)
    truth = float(stats.mean(DRAWS[draw](rng, (100_000, 6))))
    hits = []
    for _ in range(300):
        scores = DRAWS[draw](rng, shape)
        samples = stats.mean(stats.resample(scores, rng, 600))
        low, high = stats.percentile_interval(samples, stats.tail(scores))
        hits.append(low <= truth <= high)
    # three standard errors of a share of 300 around 95 %, √(0.95 × 0.05 / 300) = 1.3 %; skewed runs miss a little more
    assert 0.91 - 0.04 * (draw == "failing now and then") < np.mean(hits) < 0.99


@pytest.mark.parametrize(("runs", "least", "most"), [(3, 0.63, 0.85), (5, 0.87, 0.98)])
def test_coverage_of_whole_runs_by_simulation(runs: int, least: float, most: float) -> None:
    """Three runs on ten tasks are three numbers: as of a single task their interval is about their range.

    The bounds are three standard errors of a share of 200 around 0.75 and 0.93: √(0.75 × 0.25 / 200) = 3.1 %.
    """
    rng = np.random.default_rng(11)
    hits = []
    for _ in range(200):
        scores = rng.normal(0.5, 0.1, (runs, 10))
        samples = stats.iqm(stats.resample(scores, rng, 400, whole_runs=True))
        low, high = stats.percentile_interval(samples, stats.tail(scores, whole_runs=True))
        hits.append(low <= 0.5 <= high)
    assert least < np.mean(hits) < most


def test_few_runs_by_hand() -> None:
    # degrees of freedom: tasks × (runs − 1), or runs − 1 where whole runs are drawn; 4 are enough
    assert stats.few(np.zeros((3, 1)))
    assert not stats.few(np.zeros((3, 2)))
    assert not stats.few(np.zeros((5, 1)))
    assert stats.few(np.zeros((4, 50)), whole_runs=True)
    assert not stats.few(np.zeros((5, 50)), whole_runs=True)
    assert stats.few(np.array([[1.0, 2.0], [1.0, NAN], [1.0, NAN], [1.0, NAN]]))  # 3 + 0


def test_the_interval_of_a_difference_by_hand() -> None:
    # 0.7 − 0.4; below √(0.03² + 0.04²) = 0.05, above √(0.12² + 0.05²) = 0.13
    found = stats.difference(stats.Estimate(0.7, 0.67, 0.82), stats.Estimate(0.4, 0.35, 0.44))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.3, 0.25, 0.43))
    assert stats.difference(stats.Estimate(0.7), stats.Estimate(0.4, 0.35, 0.44)).low is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.3, True),
        (-0.3, -0.1, True),
        (-0.1, 0.3, False),
        (0.0, 0.3, False),
        (-0.3, 0.0, False),
        (None, None, False),
    ],
)
def test_an_interval_that_leaves_out_zero(low: float | None, high: float | None, expected: bool) -> None:
    assert stats.Estimate(0.2, low, high).leaves_out_zero is expected


@pytest.mark.parametrize("runs", [5, 10])
def test_agents_that_are_alike_are_seldom_told_apart(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most about 5 times in 100; three standard errors of a share of 200: √(0.05 × 0.95 / 200) = 1.5 %."""
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    rng = np.random.default_rng(12)
    told = 0
    for trial in range(200):
        both = [
            stats.aggregate(f"{trial} {of}", "iqm", rng.normal(0.5, 0.1, (runs, 10)), whole_runs=True) for of in "xy"
        ]
        found = stats.difference(*both)
        assert found.low is not None
        assert found.high is not None
        told += not found.low <= 0 <= found.high
    assert told / 200 < 0.1


def test_whole_runs_cover_correlated_tasks_where_strata_do_not() -> None:
    rng = np.random.default_rng(7)
    hits = np.zeros(2)
    for _ in range(200):
        scores = rng.normal(0.5, 0.1, (20, 1)) + np.zeros(8)  # a run is as good on every task
        for index, whole in enumerate((False, True)):
            samples = stats.mean(stats.resample(scores, rng, 300, whole_runs=whole))
            low, high = stats.percentile_interval(samples, stats.tail(scores, whole_runs=whole))
            hits[index] += low <= 0.5 <= high
    assert hits[0] / 200 < 0.7  # the mean of 8 "independent" tasks looks √8 times too certain: ±0.69 σ, 51 %
    assert hits[1] / 200 > 0.9


def test_profiles_are_rliables() -> None:
    """Its run-score and average-score distributions, on a matrix of its own form."""
    scores, thresholds = np.random.default_rng(3).uniform(0, 1, (5, 7)), np.linspace(0, 1, 11)
    for of, by_runs in (("runs", True), ("tasks", False)):
        theirs, _ = library.create_performance_profile(
            {"a": scores}, thresholds, use_score_distribution=by_runs, reps=2
        )
        ours = stats.performance_profile("a", scores, thresholds, of=of)
        np.testing.assert_allclose(ours.estimate, theirs["a"], atol=1e-12)
        assert ours.low is not None
        assert ours.high is not None
        assert (ours.low <= ours.estimate + 1e-12).all()
        assert (ours.estimate <= ours.high + 1e-12).all()


def test_performance_profile_by_hand() -> None:
    scores = np.array([[0.1, 0.5], [0.3, 0.5], [0.6, NAN]])
    band = stats.performance_profile("x", scores, np.array([0.0, 0.1, 0.5, 0.6]))
    # task 1: 3/3, 2/3, 1/3, 0; task 2: 2/2, 2/2, 0 (not above), 0
    np.testing.assert_allclose(band.estimate, [1, (2 / 3 + 1) / 2, 1 / 6, 0], atol=EXACT)
    assert band.low is not None
    assert band.high is not None
    assert (band.low <= band.estimate).all()
    assert (band.estimate <= band.high).all()

"""What a search found and took: its numbers, its notes, and the files it is read from."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.study import ResultsError, Tuned
from analysis.tuning import Field, expected_best, notes, read_search, sensitivity
from tests.analysis.searches import write_search


def test_expected_best_is_the_mean_over_all_draws() -> None:
    scores = [0.1, 0.7, 0.7, 0.4]
    for n in (1, 2, 3):
        drawn = [max(chosen) for chosen in itertools.product(scores, repeat=n)]  # every draw with replacement
        assert expected_best(scores, np.array([n]))[0] == pytest.approx(sum(drawn) / len(drawn))


def test_expected_best_goes_from_the_mean_to_the_best() -> None:
    scores = np.random.default_rng(0).random(30)
    found = expected_best(scores, np.arange(1, 2000))
    assert found[0] == pytest.approx(scores.mean())
    assert found[-1] == pytest.approx(scores.max())
    assert (np.diff(found) >= -1e-12).all()


@pytest.mark.parametrize(("scores", "number"), [([], 1), ([0.5], 0)])
def test_expected_best_needs_scores_and_trials(scores: list[float], number: int) -> None:
    with pytest.raises(ValueError, match="expected some of both"):
        expected_best(scores, np.array([number]))


def test_a_search_is_read_whole(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path))
    assert (search.agent, search.suite, search.version) == ("ppo", "quick", 2)
    assert len(search.trials) == 20
    assert len(search.measured) == 19, "one trial failed"
    assert search.default is not None
    assert search.default.number == 1
    assert search.best is not None
    assert search.best.score == max(trial.score for trial in search.trials if trial.valid)
    assert [field.name for field in search.fields] == ["learning_rate", "clip", "minibatch_size"]


def test_values_have_their_place_along_the_range() -> None:
    rate = Field("rate", 1e-4, 1e-2, True, (), 3e-4)
    assert rate.place(1e-3) == pytest.approx(0.5), "half of the way in the logarithm"
    assert rate.place(1e-2) == 1
    assert rate.place(1) is None, "the search could not have proposed it"
    assert Field("clip", 0.1, 0.3, False, (), 0.2).place(0.15) == pytest.approx(0.25)
    sizes = Field("size", None, None, False, (64, [128], 256), 64)
    assert [sizes.place(size) for size in (64, [128], 256, 512)] == [0, 0.5, 1, None]


def test_sensitivity_finds_what_matters(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path, trials=60))
    rate, _, size = search.fields
    found = sensitivity(search, rate)
    assert found is not None
    best = int(found.quartiles[:, 1].argmax())
    assert found.places[best] == pytest.approx(0.5, abs=0.15), "1e-3 is half of the way from 1e-4 to 1e-2"
    of_size = sensitivity(search, size)
    assert of_size is not None
    assert list(of_size.places) == [0, 0.5, 1]
    medians = of_size.quartiles[:, 1]
    assert np.ptp(medians) < np.ptp(found.quartiles[:, 1]) / 2


def test_few_trials_have_no_sensitivity(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path, trials=4))
    assert sensitivity(search, search.fields[0]) is None


def test_the_front_holds_what_no_other_beats(tmp_path: Path) -> None:
    search = read_search(write_search(tmp_path, objectives=("score", "updates")))
    assert search.front
    for trial in search.front:
        assert not any(
            other.valid and other.score >= trial.score and other.compute < trial.compute for other in search.measured
        )
        assert not any(
            other.valid and other.score > trial.score and other.compute <= trial.compute for other in search.measured
        )


def _tuned(agent: str, trials: int, env_steps: int, hours: float) -> Tuned:
    return Tuned(agent, "quick", trials, env_steps, hours, (10_000,), ("t",), 0.3, (0.3, 0.4))


def test_unequal_tuning_is_said() -> None:
    ppo, m3po = _tuned("ppo", 16, 1000, 1.0), _tuned("m3po", 16, 950, 4.0)
    assert notes(("ppo", "m3po"), ()) == []
    assert notes(("ppo", "m3po"), (ppo, m3po)) == [], "as many trials and steps each"
    (pruned,) = notes(("ppo", "m3po"), (ppo, _tuned("m3po", 16, 400, 4.0)))
    assert pruned == (
        "Agents were tuned with as many trials, but unequal environment steps, which favours those with more: "
        "ppo 16 trials (1,000 environment steps), m3po 16 trials (400 environment steps)."
    )
    (missing,) = notes(("ppo", "m3po"), (ppo,))
    assert "not tuned: m3po" in missing
    both = notes(("ppo", "m3po", "random"), (ppo, _tuned("m3po", 16, 400, 4.0)))
    assert [note.split(",")[0] for note in both] == [
        "Not every agent was tuned",
        "Agents were tuned with as many trials",
    ]
    (unequal,) = notes(("ppo", "m3po"), (ppo, _tuned("m3po", 32, 4000, 4.0)))
    assert "unequal budgets" in unequal
    assert notes(("ppo", "m3po"), (ppo, _tuned("m3po", 4, 950, 9.0))) == [], "as many environment steps each"


def test_a_folder_without_trials_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"holds no trials\.json"):
        read_search(tmp_path)
    write_search(tmp_path, format=9)
    with pytest.raises(ResultsError, match="has format 9"):
        read_search(tmp_path)


def test_what_was_not_measured_is_no_number(tmp_path: Path) -> None:
    failed = [trial for trial in read_search(write_search(tmp_path)).trials if trial.state == "failed"]
    assert [math.isnan(trial.score) for trial in failed] == [True]

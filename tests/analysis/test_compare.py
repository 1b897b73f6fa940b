from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import stats
from analysis.compare import Comparison, compare
from analysis.frame import load
from analysis.study import ResultsError
from analysis.tidy import from_frame
from tests.analysis.synthetic import RETURN, SUCCESS, Synthetic

Score = Callable[[str, int, str, float], float]


def flat(level: float) -> Score:
    """Seed s ends at level + s / 100, on every task."""
    return lambda agent, seed, task, fraction: (level + seed / 100) * fraction


def between(root: Path, **after: object) -> Comparison:
    before = Synthetic(root / "before", score=flat(0.4)).write()
    return compare(load(before), load(Synthetic(root / "after", **{"score": flat(0.6), **after}).write()))  # type: ignore[arg-type]


def test_differences_and_ratios_are_of_the_aggregates(tmp_path: Path) -> None:
    changes = between(tmp_path).changes
    overall = next(change for change in changes if change.agent == "m3po" and change.task is None)
    # by hand: seeds 0, 1, 2 end at 0.40, 0.41, 0.42 before and 0.60, 0.61, 0.62 after, on both tasks
    assert overall.before.estimate == pytest.approx(0.41)
    assert overall.after.estimate == pytest.approx(0.61)
    assert overall.contrast.difference.estimate == pytest.approx(0.2)
    assert overall.contrast.ratio is not None
    assert overall.contrast.ratio.estimate == pytest.approx(0.61 / 0.41)
    assert overall.apart
    assert [change.task for change in changes if change.agent == "ppo"] == [None, "cartpole-swingup", "reach-v3"]


@pytest.mark.parametrize(("seeds", "of_all", "of_one"), [(3, True, False), (5, True, True), (2, False, False)])
def test_few_runs_get_no_star(tmp_path: Path, seeds: int, of_all: bool, of_one: bool) -> None:
    """All differ by 0.2, with a spread of 0.01 a seed. Two tasks of three runs have 4 degrees of freedom, one has 2."""
    before, after = (
        load(Synthetic(tmp_path / str(level), score=flat(level), seeds=range(seeds)).write()) for level in (0.4, 0.6)
    )
    changes = compare(before, after).changes
    assert {change.apart for change in changes if change.task is None} == {of_all}
    assert {change.apart for change in changes if change.task is not None} == {of_one}


def test_nothing_changed_is_nothing_apart(tmp_path: Path) -> None:
    found = between(tmp_path, score=flat(0.4))
    assert not found.settings
    assert not any(change.apart for change in found.changes)
    assert all(change.contrast.difference.estimate == 0 for change in found.changes)


def test_settings_that_differ_are_said(tmp_path: Path) -> None:
    found = between(
        tmp_path, agents=("m3po", "random"), seeds=(0, 1), mode="joint", tasks=[("cartpole-swingup", RETURN)], version=2
    )
    assert found.settings == (
        "suite: quick, version 1 → quick, version 2",
        "mode: one agent per task → one agent for all tasks",
        "seeds: 0, 1, 2 → 0, 1",
        "environment steps per task: 10,000 → 10,000 of 10,000 (a joint cell shares its steps among its tasks)",
        "agents no longer there: ppo, dreamerv3",
        "agents that are new: random",
        "tasks no longer there: reach-v3",
    )
    assert [change.runs for change in found.changes] == [(3, 2)]


def test_steps_of_a_joint_cell_are_shared(tmp_path: Path) -> None:
    found = between(tmp_path, mode="joint", env_steps=20_000, every=2_000)
    shared = "environment steps per task: 10,000 → 10,000 of 20,000 (a joint cell shares its steps among its tasks)"
    assert shared in found.settings
    assert not any("per task:" in told for told in between(tmp_path / "alike").settings)


def test_a_changed_configuration_is_said_key_by_key(tmp_path: Path) -> None:
    old, new = Synthetic(tmp_path / "a"), Synthetic(tmp_path / "b")
    for made, rate in ((old, 0.1), (new, 0.2)):
        made.write()
        for cell in made.cells:
            made.write_cell(cell, config={"rate": rate, "nets": {"width": 64}, "seed_steps": 5})
    assert "m3po.rate: 0.1 → 0.2" in compare(load(old.folder), load(new.folder)).settings


def test_tasks_of_another_protocol_are_left_out(tmp_path: Path) -> None:
    other = RETURN | {"action_repeat": 1, "decisions": 1000}
    found = between(tmp_path, tasks=[("cartpole-swingup", other), ("reach-v3", SUCCESS)])
    assert found.tasks == ("reach-v3",)
    left_out = "tasks measured by another protocol or engine or with other options, left out: cartpole-swingup"
    assert left_out in found.settings


def test_hidden_goals_are_not_compared_with_goals_that_are_seen(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no task measured alike in common"):
        between(tmp_path, options={"goals": "hidden"})


def test_nothing_in_common_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ResultsError, match=re.escape("no agent in common (quick: m3po, ppo, dreamerv3; quick: random)")
    ):
        between(tmp_path, agents=("random",))
    with pytest.raises(ResultsError, match="no task measured alike in common"):
        between(tmp_path / "other", tasks=[("walker-walk", RETURN)])


def test_tables_from_elsewhere_compare_as_well() -> None:
    def table(level: float) -> pd.DataFrame:
        return pd.DataFrame([{"agent": "a", "task": "t", "seed": s, "score": level + s} for s in range(3)])

    found = compare(from_frame(table(10), bounds=(0, 100)), from_frame(table(20), bounds=(0, 100)))
    assert [change.contrast.difference.estimate for change in found.changes] == [pytest.approx(0.1)]


def test_a_side_with_runs_enough_keeps_its_interval_beside_a_single_run() -> None:
    def table(seeds: int) -> pd.DataFrame:
        return pd.DataFrame([{"agent": "a", "task": "t", "seed": s, "score": 10 + s} for s in range(seeds)])

    (change,) = compare(from_frame(table(5), bounds=(0, 100)), from_frame(table(1), bounds=(0, 100))).changes
    assert change.before.low is not None
    assert change.before.high is not None
    assert 0.1 <= change.before.low < 0.12 < change.before.high <= 0.14
    assert (change.after.low, change.contrast.difference.low, change.apart) == (None, None, False)


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    """Five runs against five of four tasks, both normal with spread 0.1, 0.1 apart: about 95 of 100 intervals hold it.

    300 trials have a standard deviation of 1.3 points, so that 90 to 99 is within four of them.
    """
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        before, after = rng.normal(0.5, 0.1, (5, 4)), rng.normal(0.6, 0.1, (5, 4))
        _, contrast = stats.contrast((str(trial),), (before, after), stats.mean)
        low, high = contrast.difference.low, contrast.difference.high
        assert low is not None
        assert high is not None
        held += low <= 0.1 <= high
    assert 0.90 <= held / 300 <= 0.99


def test_runs_of_a_joint_study_are_drawn_whole() -> None:
    """Run r has r on one task and 2 − r on the other: whole runs have the mean 1 always, single ones do not."""
    opposed = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    (whole, apart), _ = stats.contrast(("x",), (opposed, opposed), stats.mean, whole_runs=(True, False))
    assert whole.low == whole.high == 1.0
    assert apart.low is not None
    assert apart.low < 0.8

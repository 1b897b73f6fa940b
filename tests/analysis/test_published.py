from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.frame import load
from analysis.published import PublishedCurve, published_curves, sources
from analysis.report.markup import About
from analysis.report.setup_tables import protocols
from analysis.report.study import render
from analysis.report.tables import published
from analysis.study import Protocol, Study, Task
from analysis.summary import summarise
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import RETURN, Synthetic

DMC = Protocol("dmc-1000", 2, 500, "return", 0, 1000)
METAWORLD = Protocol("metaworld-v3", 1, 500, "success_any", 0, 1)


def study(*tasks: Task, env_steps: int = 100_000) -> Study:
    return Study("s", 1, "per_task", env_steps, 10, ("m3po",), (0,), tasks, (), ())


def curve(found: list[PublishedCurve], agent: str, file: str) -> PublishedCurve:
    return next(c for c in found if c.agent == agent and c.source.file == file)


@pytest.mark.parametrize(
    ("task", "mean"),
    [("cartpole-swingup", 839), ("reacher-easy", 937), ("walker-walk", 962), ("cheetah-run", 519)],
)
def test_tdmpc2_after_100k_steps_is_what_its_authors_published(task: str, mean: float) -> None:
    found = curve(published_curves(study(Task(task, "dm_control", DMC))), "TD-MPC2", "tdmpc2.csv.gz")
    assert found.last is not None
    assert found.last[0] == 100_000
    assert round(found.last[1]) == mean
    assert (found.runs, found.comparable) == (3, True)


def test_names_of_tasks_are_this_projects() -> None:
    names = ("ball_in_cup-catch", "cartpole-swingup_sparse", "finger-turn_hard")
    tasks = [Task(name, "dm_control", DMC) for name in names]
    tasks.append(Task("drawer-open-v3", "metaworld", METAWORLD))
    found = published_curves(study(*tasks))
    assert {c.task.name for c in found if c.agent == "TD-MPC2"} == {task.name for task in tasks}


def test_other_rules_are_never_comparable() -> None:
    """Another action repeat, another version of Meta-World, and training episodes with an unknown action repeat."""
    repeat = replace(DMC, action_repeat=1, decisions=1000)
    found = published_curves(
        study(Task("walker-walk", "dm_control", repeat), Task("drawer-open-v3", "metaworld", METAWORLD))
    )
    assert found
    assert not any(c.comparable for c in found)
    same = published_curves(study(Task("walker-walk", "dm_control", DMC)))
    assert {c.source.file: c.comparable for c in same} == {"tdmpc2.csv.gz": True, "dreamerv3.csv.gz": False}


def test_what_was_seen_as_images_is_not_compared_with_what_was_seen_as_states(tmp_path: Path) -> None:
    made = Synthetic(
        tmp_path, ("m3po",), tasks=[("walker-walk", RETURN)], family="dm_control", env_steps=100_000, every=10_000,
        options={"observation": "pixels"},
    )  # fmt: skip
    summary = summarise(load(made.write()))
    assert summary.published
    assert not any(c.comparable for c in summary.published)
    table = protocols(summary)
    assert dict(zip(table.header, table.rows[0], strict=True))["Options"] == '{"observation": "pixels"}'


def test_a_curve_goes_one_point_beyond_the_budget_and_has_steps_of_all_runs_only() -> None:
    found = published_curves(study(Task("walker-walk", "dm_control", DMC), env_steps=150_000))
    assert curve(found, "TD-MPC2", "tdmpc2.csv.gz").steps.tolist() == [0, 100_000, 200_000]
    # of this agent one run alone has step 0, and two of three have step 200,000
    assert curve(found, "DreamerV3", "tdmpc2.csv.gz").steps.tolist() == [100_000, 300_000]


def test_curves_without_a_point_within_the_budget_are_left_out() -> None:
    """TD-MPC2's authors published every 100 thousand steps, DreamerV3's every 10 thousand."""
    found = published_curves(study(Task("walker-walk", "dm_control", DMC), env_steps=50_000))
    assert {c.source.file for c in found} == {"dreamerv3.csv.gz"}
    assert {c.last and c.last[0] for c in found} == {50_000}
    assert not published_curves(study(Task("walker-walk", "dm_control", DMC), env_steps=4_000))


def test_scores_stand_beside_the_step_that_the_study_has_come_to() -> None:
    """TD-MPC2's authors published every 100 thousand steps."""
    task = Task("walker-walk", "dm_control", DMC)
    found = {
        end: curve(published_curves(study(task, env_steps=500_000), {task.name: end}), "TD-MPC2", "tdmpc2.csv.gz")
        for end in (50_000, 100_000, 299_999, 500_000)
    }
    assert {end: of.last and of.last[0] for end, of in found.items()} == {
        50_000: None, 100_000: 100_000, 299_999: 200_000, 500_000: 500_000,
    }  # fmt: skip
    # the figure goes on to the budget all the same
    assert {of.steps[-1] for of in found.values()} == {600_000}
    nothing = published_curves(study(task, env_steps=500_000), {})
    assert {of.last for of in nothing} == {None}


def test_a_study_that_runs_says_its_own_step(tmp_path: Path) -> None:
    made = Synthetic(
        tmp_path, ("m3po",), tasks=[("walker-walk", RETURN)], family="dm_control", env_steps=500_000, every=100_000
    )
    made.write()
    for cell in made.cells:
        made.write_cell(cell, state="running", last=100_000)
    table = published(summarise(load(made.folder)))
    shown = dict(zip(table.header, table.rows[0], strict=True))
    assert "] at 100,000 (n = 3)" in shown["m3po"]
    assert "962 at 100,000 (n = 3)" in shown.values()
    assert set(table.frame["env_step"]) == {100_000}
    # no cell of ours is behind what others published
    assert table.about is not None
    assert dict(zip(table.header, table.about[0], strict=True))["m3po"] == About(("m3po",), ("walker-walk",))
    assert not any(table.about[0][2:])


def test_one_agent_for_all_tasks_is_compared_with_none_that_has_one_task(tmp_path: Path) -> None:
    """400 thousand steps of four tasks are not 400 thousand of one."""
    tasks = [(name, RETURN) for name in ("cartpole-swingup", "reacher-easy", "walker-walk", "cheetah-run")]
    made = Synthetic(
        tmp_path, ("m3po",), tasks=tasks, mode="joint", family="dm_control", env_steps=400_000, every=100_000
    )
    summary = summarise(load(made.write()))
    assert not any(of.comparable for of in summary.published)
    table = published(summary)
    theirs = [text for row in table.rows for text in row[2:] if text]
    assert theirs
    assert all(text.startswith("(") for text in theirs)
    assert "or of one agent per task, not to be compared" in table.caption


def test_every_source_says_whose_it_is_and_under_what_licence() -> None:
    for source in sources():
        assert source.name
        assert source.licence == "MIT"
        assert all(measure["about"] for measure in source.measures.values())


def test_a_report_shows_comparable_curves_beside_and_the_others_apart(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only("published", "published_apart")
    summary = summarise(load(Synthetic(tmp_path, family="dm_control", env_steps=100_000, every=10_000).write()))
    files = render(summary)
    assert {"figures/published.svg", "figures/published_apart.svg"} <= set(files)
    page = files["report.html"].decode()
    assert "licence MIT" in page
    shown = published(summary)
    assert not shown.frame["comparable"].all()
    assert np.isfinite(shown.frame["mean"]).all()

"""Scores along updates and seconds, task by task, by domain and over the whole of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.frame import load
from analysis.report import efficiency_tables, tables
from analysis.report.markup import About
from analysis.scores import agent_scores
from analysis.summary import summarise
from tests.analysis.synthetic import RETURN, SUCCESS, Synthetic

TASKS = (("walker-walk", RETURN), ("walker-run", RETURN), ("cheetah-run", RETURN))


def write(root: Path, updates: Mapping[str, float] | None = None, seconds: Mapping[str, float] | None = None) -> Path:
    """A study in which agents rise in a straight line, with so many updates and seconds per environment step."""
    skill = {"m3po": 1.0, "ppo": 0.5, "dreamerv3": 0.5}
    study = Synthetic(root, tasks=TASKS, score=lambda agent, seed, task, fraction: skill[agent] * fraction)
    folder = study.write()
    for cell in study.cells:
        path = folder / cell["id"] / "evaluations.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            # an agent tells its updates once there are some
            row["updates"] = (updates[cell["agent"]] * row["env_step"] if updates else 0) or None
            if seconds:
                row["seconds"] = seconds[cell["agent"]] * row["env_step"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_ratios_along_every_axis(tmp_path: Path) -> None:
    updates = {"m3po": 1.0, "ppo": 0.25, "dreamerv3": 4.0}
    seconds = {"m3po": 0.1, "ppo": 0.01, "dreamerv3": 0.2}
    summary = summarise(load(write(tmp_path, updates, seconds)))
    found = {(s.axis, s.task, s.agent, s.reference): s.ratio for s in summary.speedups}
    # m3po passes the final score of both half way
    assert found["env_step", None, "m3po", "ppo"] == pytest.approx(2)
    # 2 × 0.25 updates of ppo for one of m3po; 2 × 0.01/0.1 seconds
    assert found["updates", None, "m3po", "ppo"] == pytest.approx(0.5)
    assert found["seconds", None, "m3po", "ppo"] == pytest.approx(0.2)
    assert found["updates", None, "m3po", "dreamerv3"] == pytest.approx(8)
    assert found["seconds", None, "m3po", "dreamerv3"] == pytest.approx(4)
    for name, _ in TASKS:
        assert found["env_step", name, "m3po", "ppo"] == pytest.approx(2)


def test_a_report_at_a_step_ends_there_along_every_axis(tmp_path: Path) -> None:
    """By hand: 4,000 of 10,000 steps, at a tenth of a second each, are 400 seconds, and m3po is at 0.4 there."""
    folder = write(tmp_path, seconds={"m3po": 0.1, "ppo": 0.01, "dreamerv3": 0.2})
    curves = summarise(load(folder), env_step=4_000).other_axes["seconds"]
    assert curves["m3po"].steps[-1] == 400
    assert curves["m3po"].estimate[-1] == pytest.approx(0.4)
    assert summarise(load(folder)).other_axes["seconds"]["m3po"].steps[-1] == 1_000


def test_a_goal_that_differs_along_an_axis_is_named(tmp_path: Path) -> None:
    """ppo ends at 0.5 along both axes; then, along seconds alone, at 0.25."""
    found = summarise(load(write(tmp_path, seconds={"m3po": 0.1, "ppo": 0.01, "dreamerv3": 0.2})))
    table = efficiency_tables.efficiency(found)
    assert "ppo's 0.500" in table.header
    assert not any(" to " in cell for row in table.rows for cell in row)
    moved = [replace(s, target=0.25) if (s.axis, s.reference) == ("seconds", "ppo") else s for s in found.speedups]
    table = efficiency_tables.efficiency(replace(found, speedups=moved))
    column = table.header.index("ppo's 0.500")
    (steps,) = (row[column] for row in table.rows if row[:2] == ("Environment steps", "m3po"))
    (seconds,) = (row[column] for row in table.rows if row[:2] == ("Seconds of training", "m3po"))
    assert "to" not in steps
    assert seconds.endswith(" to ppo's 0.250")


def test_results_that_do_not_know_their_updates_have_no_such_axis(tmp_path: Path) -> None:
    assert set(summarise(load(write(tmp_path))).other_axes) == {"seconds"}


def test_an_evaluation_that_does_not_know_its_seconds_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for path in folder.glob("*.m3po.*/evaluations.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            # an agent tells its updates once there are some, and here forgets them once more in the middle
            row["updates"] = None if row["env_step"] in (0, 5_000) else row["env_step"] / 10
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = agent_scores(load(folder), "m3po", axis="updates")
    assert scores.steps.tolist() == [0, *(step / 10 for step in range(1_000, 10_001, 1_000) if step != 5_000)]
    # by hand: on the line between the evaluations after 4,000 and 6,000 of 10,000 steps
    np.testing.assert_allclose(scores.curves[0, 0], scores.steps / 1_000, atol=1e-12)


def test_a_run_that_ends_earlier_keeps_its_score(tmp_path: Path) -> None:
    folder = write(tmp_path)
    path = next(folder.glob("walker-walk.m3po.s0*")) / "evaluations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "seconds": row["env_step"] / 200}) + "\n" for row in rows))
    scores = agent_scores(load(folder), "m3po", axis="seconds")
    # the others take 100 s, this one 50
    assert scores.steps[-1] == 100
    half = np.interp(50, scores.steps, scores.curves[0, 0])
    assert half == pytest.approx(1)
    assert scores.curves[0, 0, -1] == pytest.approx(1)
    assert np.interp(50, scores.steps, scores.curves[1, 0]) == pytest.approx(0.5)


def test_a_diverged_run_is_zero_along_an_axis_from_its_last_evaluation_on(tmp_path: Path) -> None:
    """Nobody knows after how many seconds or updates it diverged; one that never told its updates did so from 0 on."""
    study = Synthetic(tmp_path, tasks=TASKS[:1], agents=["m3po"], score=lambda agent, seed, task, fraction: fraction)
    folder = study.write()
    study.write_cell(study.cells[1], state="diverged", last=6_200)  # evaluated after 60 of 62 seconds
    for cell in (study.cells[0], study.cells[2]):
        path = folder / cell["id"] / "evaluations.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**row, "updates": row["env_step"] / 10}) + "\n" for row in rows))
    seconds, updates = (agent_scores(load(folder), "m3po", axis=axis) for axis in ("seconds", "updates"))
    assert seconds.steps.tolist() == list(range(0, 101, 10))
    np.testing.assert_allclose(seconds.curves[1, 0], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0, 0, 0], atol=1e-12)
    assert updates.steps.tolist() == list(range(0, 1001, 100))
    assert updates.curves[1, 0].tolist() == [0] * 11
    for scores in (seconds, updates):
        assert scores.final[:, 0].tolist() == [1, 0, 1]


def test_area_worst_task_and_domains(tmp_path: Path) -> None:
    skill = {"walker-walk": 0.8, "walker-run": 0.4, "cheetah-run": 0.6}
    study = Synthetic(tmp_path, tasks=TASKS, score=lambda agent, seed, task, fraction: skill[task] * fraction)
    summary = summarise(load(study.write()))
    breadth = summary.breadth[0]
    # straight lines from 0 have half their end as area; of nine runs the IQM keeps the middle five
    assert breadth.area is not None
    assert breadth.area.estimate == pytest.approx(0.5 * (0.4 + 3 * 0.6 + 0.8) / 5)
    assert (breadth.worst_task, breadth.worst.estimate) == ("walker-run", pytest.approx(0.4))
    # the family of the synthetic tasks is one; those of the control suite are told apart by what moves
    assert summary.domains == []


def test_the_worst_task_has_its_own_interval(tmp_path: Path) -> None:
    """Seeds end at 0.1, 0.5, 0.9 on each of three tasks alike: the worst of three redrawn means would lie far lower."""
    study = Synthetic(tmp_path, tasks=TASKS, score=lambda agent, seed, task, fraction: (0.1 + 0.4 * seed) * fraction)
    summary = summarise(load(study.write()))
    for item in summary.breadth:
        (own,) = (t for t in summary.task_scores if (t.agent, t.task.name) == (item.agent, item.worst_task))
        assert item.worst.low is not None
        assert item.worst.high is not None
        assert (item.worst.low * 1000, item.worst.high * 1000) == pytest.approx((own.raw.low, own.raw.high))
        # three runs of a single task: their range
        assert (item.worst.low, item.worst.high) == pytest.approx((0.1, 0.9))


def test_a_task_under_way_is_not_the_worst_unless_all_are(tmp_path: Path) -> None:
    skill = {"walker-walk": 0.8, "walker-run": 0.4, "cheetah-run": 0.6}
    score = lambda agent, seed, task, fraction: skill[task] * fraction  # noqa: E731
    study = Synthetic(tmp_path, agents=("m3po",), env_steps=1_000, every=100, tasks=TASKS, score=score)
    study.write()
    for cell in study.cells:
        if cell["tasks"] == ["walker-walk"]:
            study.write_cell(cell, state="running", last=100)  # 0.08 so far
    summary = summarise(load(study.folder))
    assert summary.breadth[0].worst_task == "walker-run"
    assert tables.breadth(summary).rows[0][-1] == "walker-run at 1,000"
    for cell in study.cells:
        study.write_cell(cell, state="running", last=500 if cell["tasks"] == ["cheetah-run"] else 100)
    assert summarise(load(study.folder)).breadth[0].worst_task == "cheetah-run"


def test_domains_of_the_control_suite(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, tasks=(*TASKS, ("reach-v3", SUCCESS)))
    folder = study.write()
    for path in [folder / "study.json", *folder.glob("*/cell.json")]:
        content = json.loads(path.read_text())
        for task in content["tasks"]:
            task["family"] = "metaworld" if task["name"] == "reach-v3" else "dm_control"
        path.write_text(json.dumps(content))
    summary = summarise(load(folder))
    found = {(d.agent, d.domain): d.tasks for d in summary.domains}
    assert {domain for _, domain in found} == {"walker", "cheetah", "metaworld"}
    assert found["m3po", "walker"] == 2
    table = tables.domains(summary)
    assert table.about is not None
    assert table.about[0][1] == About((summary.agents[0],), tuple(name for name, _ in TASKS if "walker" in name))

"""Parts of a study that are drawn apart: protocols and engines, swept values, held-out tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures.drawing import with_runs
from analysis.figures.study import by_protocol
from analysis.frame import load
from analysis.integrity import checks
from analysis.report import tables
from analysis.report.markup import About
from analysis.report.methods import paragraph
from analysis.report.study import document, write
from analysis.summary import summarise
from analysis.tidy import from_frame
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import RETURN, SUCCESS, Synthetic


def flat(values: dict[str, float]):
    """Normalised scores that depend on the task, and a little on the seed: 0.01 a seed."""
    return lambda agent, seed, task, fraction: values[task] + 0.01 * seed


def test_protocols_are_drawn_apart(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("ppo",), score=flat({"cartpole-swingup": 0.2, "reach-v3": 0.6}))
    found = tables.by_protocol(summarise(load(study.write()))).frame
    # seeds 0, 1, 2: the IQM of 0.2, 0.21, 0.22 is their mean, as int(0.25 * 3) = 0 runs are cut
    assert found["protocol"].tolist() == ["dmc-1000", "metaworld-v3"]
    np.testing.assert_allclose(found["estimate"], [0.21, 0.61])
    assert (found["runs"].tolist(), found["tasks"].tolist()) == ([3, 3], [1, 1])


def test_engines_are_drawn_apart(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only("by_protocol")
    study = Synthetic(tmp_path, tasks=(("reach-v3", SUCCESS), ("push-v3", SUCCESS)), engines={"push-v3": "envpool"})
    summary = summarise(load(study.write()))
    assert {(s.protocol, s.engine) for s in summary.by_measure} == {
        ("metaworld-v3", "native"),
        ("metaworld-v3", "envpool"),
    }
    assert document(summary)["engines"] == {"reach-v3": "native", "push-v3": "envpool"}
    shown = write(study.folder).read_text()
    assert "Protocol by protocol" in shown
    assert "envpool" in shown


def test_protocols_of_one_name_are_told_apart(tmp_path: Path) -> None:
    other = RETURN | {"action_repeat": 1, "decisions": 1000}
    tasks = (("cartpole-swingup", RETURN), ("walker-walk", other), ("reach-v3", SUCCESS))
    scores = flat({"cartpole-swingup": 0.9, "walker-walk": 0.1, "reach-v3": 0.5})
    study = Synthetic(tmp_path, agents=("m3po", "ppo"), tasks=tasks, score=scores)
    summary = summarise(load(study.write()))
    table = tables.by_protocol(summary)
    assert table.about is not None
    assert [row[2] for row in table.about] == [About(("m3po",), (task,)) for task, _ in tasks]
    # seeds add 0, 0.01 and 0.02
    assert [row[:3] for row in table.rows] == [
        ("dmc-1000 (action repeat 2, 500 decisions)", "native", "0.910 [0.900, 0.920]"),
        ("dmc-1000 (action repeat 1, 1000 decisions)", "native", "0.110 [0.100, 0.120]"),
        ("metaworld-v3", "native", "0.510 [0.500, 0.520]"),
    ]
    assert len(table.frame.drop_duplicates(["protocol", "engine", "agent"])) == len(table.frame) == 6
    figure = by_protocol(summary)
    assert figure is not None
    drawn = [[float(line.get_xdata()[0]) for line in panel.lines] for panel in figure.axes]  # type: ignore[index]
    np.testing.assert_allclose(drawn, [[0.91] * 2, [0.11] * 2, [0.51] * 2])


def test_many_protocols_do_not_stand_in_one_row() -> None:
    rows = [
        {"agent": "a", "task": f"t{k}", "seed": s, "score": 1, "low": 0, "high": k + 2}
        for k in range(9)
        for s in (0, 1)
    ]
    figure = by_protocol(summarise(from_frame(pd.DataFrame(rows))))
    assert figure is not None
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == 9
    assert panels[8].get_title() == "as measured\n(0 to 10)\nunknown"
    assert len({panel.get_position().y0 for panel in panels}) == 3


def test_a_study_of_one_protocol_has_no_such_part(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only()
    study = Synthetic(tmp_path, tasks=(("reach-v3", SUCCESS),))
    summary = summarise(load(study.write()))
    assert summary.by_measure == []
    assert "Protocol by protocol" not in write(study.folder).read_text()


def test_a_cell_measured_on_another_engine_shares_no_figure(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("ppo",), tasks=(("reach-v3", SUCCESS),), seeds=(0, 1))
    study.write()
    study.engines = {"reach-v3": "envpool"}
    study.write_cell(study.cells[1])
    other = load(study.folder).cells[1]
    assert other.state == "incompatible"
    assert other.reason == "task reach-v3 was measured under another engine (envpool) than the study's"


def test_generalisation(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only("generalisation")
    study = Synthetic(
        tmp_path,
        agents=("m3po",),
        tasks=(("reach-v3", SUCCESS), ("push-v3", SUCCESS)),
        held_out=(("door-lock-v3", SUCCESS),),
        mode="joint",
        score=flat({"reach-v3": 0.8, "push-v3": 0.6, "door-lock-v3": 0.3}),
    )
    summary = summarise(load(study.write()))
    (found,) = summary.generalisation
    # mean over seeds of 0.01 * seed is 0.01; trained: (0.8 + 0.6) / 2
    assert found.trained.estimate == pytest.approx(0.71)
    assert found.held_out.estimate == pytest.approx(0.31)
    # the seed moves both parts alike, and whole runs are drawn: the gap has no spread
    assert (found.gap.estimate, found.gap.low, found.gap.high) == pytest.approx((0.4, 0.4, 0.4))
    assert summary.scores["m3po"].tasks == ("reach-v3", "push-v3"), "held-out tasks enter no aggregate"
    about = (About(("m3po",), ("reach-v3", "push-v3")), About(("m3po",), ("door-lock-v3",)), About(("m3po",)))
    assert tables.generalisation(summary).about == ((None, *about, None),)
    rows = {row[0]: row[2] for row in tables.per_task(summary).rows}
    assert rows["door-lock-v3 (held out)"] == "0.31 [0.30, 0.32] (n = 3)"
    assert "Generalisation" in write(study.folder).read_text()


def test_a_sweep_is_a_table_and_a_figure(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only("sweep")
    agents = ("m3po-num_envs-1", "m3po-num_envs-8", "ppo-num_envs-1")
    points = [
        {"agent": "m3po-num_envs-1", "base": "m3po", "value": 1},
        {"agent": "m3po-num_envs-8", "base": "m3po", "value": 8},
        {"agent": "ppo-num_envs-1", "base": "ppo", "value": 1},
    ]
    study = Synthetic(
        tmp_path,
        agents=agents,
        tasks=(("cartpole-swingup", RETURN),),
        sweep={"key": "num_envs", "points": points},
        score=lambda agent, seed, task, fraction: {"1": 0.3, "8": 0.5}[agent[-1]],
    )
    table = tables.sweep(summarise(load(study.write())))
    assert table.header == ("num_envs", "m3po", "ppo")
    assert table.rows == (
        ("1", "0.300 [0.300, 0.300]", "0.300 [0.300, 0.300]"),
        ("8", "0.500 [0.500, 0.500]", "missing"),
    )
    assert "at 10,000 environment steps" in table.caption
    assert table.about == (
        (None, About(("m3po-num_envs-1",)), About(("ppo-num_envs-1",))),
        (None, About(("m3po-num_envs-8",)), None),
    )
    write(study.folder)
    assert (study.folder / "report" / "figures" / "sweep.png").stat().st_size > 5_000


def test_a_sweep_of_lists_is_a_table_and_a_figure(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only("sweep")
    points = [{"agent": f"ppo-{n}", "base": "ppo", "value": [n, n]} for n in (32, 64)]
    study = Synthetic(tmp_path, agents=("ppo-32", "ppo-64"), sweep={"key": "agents.ppo.hidden", "points": points})
    study.write()
    write(study.folder)
    assert (study.folder / "report" / "figures" / "sweep.png").stat().st_size > 5_000
    # LaTeX would take what follows a rule or a line's end in brackets for its option
    assert "\n{}[32, 32] &" in (study.folder / "report" / "tables" / "sweep.tex").read_text()


def test_what_a_cell_takes_finished_ones_tell(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("ppo",), tasks=(("reach-v3", SUCCESS),))
    study.write()
    whole = summarise(load(study.folder)).compute[0]
    study.write_cell(study.cells[2], state="preempted", last=1_000)
    found = summarise(load(study.folder)).compute[0]
    assert found.seconds_per_cell == whole.seconds_per_cell
    assert (found.cells, found.seconds < whole.seconds) == (3, True)


def test_a_task_without_runs_is_no_complete_study(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("m3po", "ppo"))
    study.write()
    for cell in study.cells:
        if cell["agent"] == "ppo" and cell["tasks"] == ["reach-v3"]:
            study.write_cell(cell, state="failed", last=0)
    summary = summarise(load(study.folder))
    looked = checks(summary.results, summary.scores, [])
    (runs,) = (check for check in looked if "of every agent and task" in check.sentence)
    assert not runs.passed
    assert "with 0 to 3 runs per agent and task" in paragraph(summary)
    assert with_runs(summary, "ppo") == "ppo (n = 3, 1 of 2 tasks)"


def test_a_sweep_under_way_says_at_which_steps(tmp_path: Path) -> None:
    """One value is half way and one has runs on one task of two only: the first says so, the second is no point."""
    agents = ("m3po-h-1", "m3po-h-2", "m3po-h-3")
    points = [{"agent": agent, "base": "m3po", "value": int(agent[-1])} for agent in agents]
    study = Synthetic(tmp_path, agents=agents, sweep={"key": "h", "points": points}, score=lambda *_: 0.5)
    study.write()
    for cell in study.cells:
        if cell["agent"] == "m3po-h-2":
            study.write_cell(cell, state="running", last=5_000)
        elif cell["agent"] == "m3po-h-3" and cell["tasks"] == ["reach-v3"]:
            study.write_cell(cell, state="failed", last=0)
    table = tables.sweep(summarise(load(study.folder)))
    assert table.rows == (("1", "0.500 [0.500, 0.500] at 10,000"), ("2", "0.500 [0.500, 0.500] at 5,000"))
    assert "at the environment steps that each has come to" in table.caption

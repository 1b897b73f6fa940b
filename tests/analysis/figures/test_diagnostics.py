"""Figures of what agents say of themselves: what is drawn where, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import diagnostics as diagnostic_figures
from analysis.figures import drawing
from analysis.frame import load
from analysis.summary import Summary, summarise
from tests.analysis.synthetic import SUCCESS, Synthetic, diagnostic, dump_lines

SEVERAL = {"gap": "task", "heat": "", "error": "task horizon", "alike": "task task"}


def joint(root: Path, tasks: int, agents: Sequence[str] = ("m3po", "ppo")) -> Synthetic:
    named = [(f"task-{index}", SUCCESS) for index in range(tasks)]
    study = Synthetic(root, agents=agents, seeds=(0, 1), tasks=named, mode="joint", every=1_000, episodes=1)
    study.write()
    return study


def summary_of(study: Synthetic) -> Summary:
    return summarise(load(study.folder))


def shown(figure: Figure | None) -> list[Axes]:
    """Visible panels, without colour bars."""
    assert figure is not None
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


def titles(panels: list[Axes]) -> list[str]:
    return [axes.get_title() for axes in panels]


def test_nothing_is_drawn_of_nothing(summary: Summary) -> None:
    assert {name: draw(summary) for name, draw in diagnostic_figures.FIGURES.items()} == {
        "training_metrics": None, "diagnostics": None, "horizon_diagnostics": None, "task_similarity": None,
    }  # fmt: skip


def test_one_panel_per_metric_and_one_line_per_agent(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=1)
    study.write_insides({})
    (panel,) = shown(diagnostic_figures.training_metrics(summary_of(study)))
    assert panel.get_title() == "loss"  # the updates only count
    assert [line.get_gid() for line in panel.lines] == ["agent-0", "agent-1"]
    assert panel.lines[0].get_xdata()[-1] == 10_000


def test_of_many_metrics_those_most_agents_log_are_drawn(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=1)
    for cell in study.cells:
        own = {f"agent/{cell['agent']}_{index:02d}": 0.5 for index in range(30)}
        row = {"env_step": 1_000, **own, "agent/z_shared": 1.0}
        dump_lines(study.folder / cell["id"] / "metrics.jsonl", [row])
    panels = shown(diagnostic_figures.training_metrics(summary_of(study)))
    assert len(panels) == diagnostic_figures.MOST_METRICS == 40
    assert panels[-1].get_title() == "z shared"


def test_up_to_six_tasks_have_columns(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=3)
    study.write_insides({"heat": "", "gap": "task", "gain": "task"})
    panels = shown(diagnostic_figures.diagnostics(summary_of(study)))
    # two rows of three tasks, and one panel for what is of no task
    assert titles(panels) == ["task-0", "task-1", "task-2", "", "", "", "all tasks"]
    assert [panels[at].get_ylabel() for at in (0, 3, 6)] == ["Gap", "Gain", "Heat"]
    assert [len(axes.lines) for axes in panels] == [2] * 7
    assert not any(axes.collections for axes in panels), "one task has no spread over tasks"


def test_cells_of_one_task_each_make_the_same_columns(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("m3po",), seeds=(0, 1))
    study.write()
    study.write_insides({"heat": "", "gap": "task"})
    panels = shown(diagnostic_figures.diagnostics(summary_of(study)))
    assert titles(panels) == ["cartpole-swingup", "reach-v3", "", ""]


def test_more_tasks_are_drawn_as_one_with_a_band(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=11, agents=("m3po",))
    for cell in study.cells:
        rows = [diagnostic(step, "gap", ["task"], list(range(11))) for step in (0, 10_000)]
        rows.append(diagnostic(0, "heat", [], 1))
        dump_lines(study.folder / cell["id"] / "diagnostics.jsonl", rows)
    figure = diagnostic_figures.diagnostics(summary_of(study))
    panels = shown(figure)
    assert figure is not None
    assert "11 tasks and seeds; bands: 10th to 90th percentile" in str(figure.get_supxlabel())
    assert titles(panels) == ["Gap", "Heat"]
    assert panels[0].lines[0].get_ydata().tolist() == [5.0, 5.0]
    corners = panels[0].collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (1.0, 9.0)  # of 0, 1, …, 10
    assert len(panels[1].collections) == 0


def test_many_agents_have_no_bands(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=7, agents=[f"a{index}" for index in range(7)])
    study.write_insides({"gap": "task"})
    figure = diagnostic_figures.diagnostics(summary_of(study))
    assert figure is not None
    assert not shown(figure)[0].collections
    assert "bands" not in str(figure.get_supxlabel())


def test_steps_ahead_have_a_panel_per_agent_and_a_line_per_stage(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=2)
    for cell in study.cells:
        rows = [
            diagnostic(step, "error", ["task", "horizon"], [[step, step + 1, None], [step + 2, step + 3, step]])
            for step in range(0, 10_001, 1_000)
        ]
        dump_lines(study.folder / cell["id"] / "diagnostics.jsonl", rows)
    panels = shown(diagnostic_figures.horizon_diagnostics(summary_of(study)))
    assert titles(panels) == ["m3po", "ppo"]
    assert panels[0].get_ylabel() == "Error"
    assert [len(axes.lines) for axes in panels] == [diagnostic_figures.STAGES] * 2
    first, last = panels[0].lines[0], panels[0].lines[-1]
    assert first.get_xdata().tolist() == [1, 2, 3]
    assert first.get_ydata().tolist() == [1.0, 2.0, 0.0]  # means over the tasks that know: (0 + 2) / 2, (1 + 3) / 2, 0
    assert last.get_ydata()[0] == 10_001
    assert sum(first.get_color()[:3]) > sum(last.get_color()[:3]), "light to dark"


def test_each_name_begins_a_row_of_at_most_twelve_agents(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=1, agents=[f"a{index:02d}" for index in range(13)])
    study.write_insides({"error": "task horizon", "miss": "horizon"})
    panels = shown(diagnostic_figures.horizon_diagnostics(summary_of(study)))
    assert len(panels) == 2 * diagnostic_figures.MOST_CURVED == 24
    assert (panels[0].get_ylabel(), panels[12].get_ylabel()) == ("Error", "Miss")
    assert titles(panels)[11:13] == ["a11", "a00"]


@pytest.mark.parametrize(("scale", "limit"), [(1.0, 1.0), (3.0, 3.0)])
def test_tasks_against_tasks_are_heat_maps_centred_at_zero(tmp_path: Path, scale: float, limit: float) -> None:
    study = joint(tmp_path, tasks=3, agents=[f"a{index}" for index in range(7)])
    table = scale * np.array([[1, -0.5, 0.1], [-0.5, 1, 0.2], [0.1, 0.2, 1]])
    for cell in study.cells:
        rows = [diagnostic(5_000, "alike", ["task", "task"], table.tolist())]
        dump_lines(study.folder / cell["id"] / "diagnostics.jsonl", rows)
    panels = shown(diagnostic_figures.task_similarity(summary_of(study)))
    assert titles(panels) == [f"a{index}" for index in range(diagnostic_figures.MOST_MAPPED)]
    (image,) = panels[0].images
    np.testing.assert_allclose(np.asarray(image.get_array()), table)
    assert image.get_clim() == (-limit, limit)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["task-0", "task-1", "task-2"]


def test_names_of_many_tasks_are_not_written(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=31, agents=("m3po",))
    study.write_insides({"alike": "task task"})
    figure = diagnostic_figures.task_similarity(summary_of(study))
    assert figure is not None
    assert shown(figure)[0].get_yticklabels() == []
    assert figure.get_supxlabel() == "31 tasks, in the order of the suite"


def test_a_task_against_itself_alone_is_not_drawn(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("m3po",), seeds=(0,))
    study.write()
    study.write_insides({"alike": "task task"})
    assert diagnostic_figures.task_similarity(summary_of(study)) is None


def test_agents_without_results_are_not_drawn(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=1)
    study.write_insides({"heat": ""})
    for cell in study.cells:
        if cell["agent"] == "ppo":
            (study.folder / cell["id"] / "evaluations.jsonl").unlink()
    (panel,) = shown(diagnostic_figures.diagnostics(summary_of(study)))
    assert [line.get_gid() for line in panel.lines] == ["agent-0"]


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    study = joint(tmp_path, tasks=2)
    study.write_insides(SEVERAL)
    first, second = (drawing.render(diagnostic_figures.FIGURES, summary_of(study)) for _ in range(2))
    names = {f"{name}.{kind}" for name in diagnostic_figures.FIGURES for kind in ("pdf", "svg", "png")}
    assert names == set(first)
    assert first == second

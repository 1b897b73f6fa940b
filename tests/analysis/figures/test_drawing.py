"""The legend takes its room from nobody, and no score is drawn outside its panel."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures import drawing, style
from analysis.figures.efficiency import speedups
from analysis.figures.study import aggregates, by_protocol, task_curves
from analysis.frame import load
from analysis.report.efficiency_tables import task_efficiency
from analysis.summary import summarise
from analysis.tidy import from_frame
from tests.analysis.synthetic import RETURN, Synthetic


def test_the_figure_grows_with_the_lines_of_its_legend(tmp_path: Path) -> None:
    names = [f"a-rather-long-name-{index}" for index in range(9)]
    study = Synthetic(tmp_path, agents=names, seeds=(0,), tasks=(("run", RETURN),), every=5_000)
    summary = summarise(load(study.write()))
    heights = []
    for agents in (names[:1], names):
        figure = drawing.new_figure(7.0, 3.0)
        drawing.legend(figure, summary, agents)
        heights.append(figure.get_figheight())
    assert heights[0] == 3.0
    assert heights[1] > 3.3  # nine long names do not stand in one or two lines of seven inches


def test_long_names_leave_the_figures_their_room(tmp_path: Path) -> None:
    """Nothing written runs out of the figure or into a neighbour, and panels keep most of the width."""
    names = [f"{name}-with-a-long-description-{at}" for at, name in enumerate(("m3po", "ppo", "dreamerv3", "sac"))]
    score = lambda agent, seed, task, fraction: (0.2 + 0.1 * names.index(agent) + 0.01 * seed) * fraction  # noqa: E731
    summary = summarise(load(Synthetic(tmp_path, agents=names, seeds=(0, 1), every=2_500, score=score).write()))
    for draw in (aggregates, by_protocol, speedups):
        with matplotlib.rc_context(style.RC):
            figure = draw(summary)
            assert figure is not None
            figure.draw_without_rendering()
        panels = [axes for axes in figure.axes if axes.get_visible()]
        written = [text for axes in panels for text in (axes.title, *axes.get_yticklabels())]
        boxes = [text.get_window_extent() for text in (*written, *figure.texts) if text.get_text()]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes), draw.__name__
        titles = [axes.title.get_window_extent() for axes in panels]
        assert not any(one.overlaps(other) for one, other in combinations(titles, 2)), draw.__name__
        assert sum(axes.get_position().width for axes in panels[:4]) > 0.55, draw.__name__


def test_ratios_are_drawn_along_every_axis(tmp_path: Path) -> None:
    """By hand: a straight line to 0.8 is at ppo's 0.4 after half its steps; its steps take as many seconds."""
    score = lambda agent, seed, task, fraction: (0.8 if agent == "m3po" else 0.4) * fraction  # noqa: E731
    summary = summarise(load(Synthetic(tmp_path, agents=("m3po", "ppo"), score=score).write()))
    figure = speedups(summary)
    assert figure is not None
    (panel,) = figure.axes
    drawn = {
        (str(line.get_marker()), *line.get_xydata()[0].round(2)) for line in panel.lines if len(line.get_xydata()) == 1
    }
    # rows: all tasks, then two; above and below the middle of each: environment steps and seconds
    rows = (0, 1, 2)
    assert drawn == {(mark, 2.0, row + side) for row in rows for mark, side in (("o", -0.13), ("D", 0.13))}
    table = task_efficiency(summary)
    assert [row[:2] for row in table.rows] == [
        (counted, task)
        for counted in ("Environment steps", "Seconds of training")
        for task in ("cartpole-swingup", "reach-v3")
    ]
    assert {row[2] for row in table.rows} == {"2.00× [2.00, 2.00]"}


def test_a_figure_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []
    drawn = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: draws.append(1) or drawn(self, renderer))

    def draw(_: object) -> Figure:
        figure = drawing.new_figure(2.0, 1.0)
        axes = figure.subplots()
        figure.colorbar(axes.imshow([[0.0, 1.0]]))
        return figure

    drawing.render({"a": draw}, None)
    assert len(draws) == 1 + 3  # to lay it out, and for each kind of file


@pytest.mark.parametrize(
    ("column", "high"),
    [("score", 1000), ("return", 1000), ("success", 100), ("success", 1), ("success_last", 1), ("score", 1)],
)
def test_every_score_lies_inside_its_panel(column: str, high: float) -> None:
    """Whatever its column is called: rates of success from 0 to 1, all else as far as it goes, here to 1.3 · high."""
    top = 1.0 if (column.partition("_")[0], high) == ("success", 1) else 1.3
    rows = [{"agent": "a", "task": "t", "seed": 0, "env_step": s, column: top * high * s / 10} for s in range(11)]
    figure = task_curves(summarise(from_frame(pd.DataFrame(rows), bounds=(0, high))))
    assert figure is not None
    (panel,) = figure.axes
    bottom, upper = panel.get_ylim()
    assert bottom <= 0
    assert upper == pytest.approx(1.04) if top == 1 else upper > 1.3 * high

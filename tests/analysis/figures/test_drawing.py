"""The legend takes its room from nobody, and no score is drawn outside its panel."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import drawing
from analysis.figures.study import task_curves
from analysis.frame import load
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

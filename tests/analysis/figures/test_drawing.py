"""The legend takes its room from nobody."""

from __future__ import annotations

from pathlib import Path

from analysis.figures import drawing
from analysis.frame import load
from analysis.summary import summarise
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

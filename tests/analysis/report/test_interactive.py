from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from analysis.report.efficiency_tables import task_efficiency
from analysis.report.interactive import chart, embedded, linked
from analysis.report.markup import About, Table
from analysis.report.tables import breadth
from analysis.summary import Summary


def table(*rows: tuple[str, ...], header: tuple[str, ...], names: int = 1) -> Table:
    return Table("t", "", pd.DataFrame(), header, rows, names)


@pytest.mark.parametrize(
    ("made", "agents", "tasks"),
    [
        (table(("m3po", "0.5"), header=("Agent", "IQM")), ("m3po",), ()),
        (table(("reach-v3", "0.5"), header=("Task", "ppo")), ("ppo",), ("reach-v3",)),
        (table(("m3po", "2.1×"), header=("Agent", "ppo's 0.412")), ("m3po", "ppo"), ()),
        (table(("reach-v3 (held out)", "0.5"), header=("Task", "Any")), (), ("reach-v3",)),
        (table(("m3po", "missing"), header=("Agent", "IQM")), (), ()),
        (table(("5", "0.2"), header=("Seeds", "nobody")), (), ()),
    ],
)
def test_a_number_is_about_the_names_of_its_row_and_column(
    summary: Summary, made: Table, agents: tuple[str, ...], tasks: tuple[str, ...]
) -> None:
    (row,) = linked(made, summary.results.study)
    assert row[0].about is None  # a name is no number
    assert row[1].about == (About(agents, tasks) if agents or tasks else None)


def test_a_table_that_knows_better_is_believed(summary: Summary) -> None:
    made = replace(
        table(("reach-v3", "0.5", "0.7", "missing"), header=("Task", "ppo", "theirs", "m3po")),
        about=((None, About(("ppo", "m3po")), None, About(("m3po",))),),
    )
    (row,) = linked(made, summary.results.study)
    assert [field.about for field in row] == [None, About(("ppo", "m3po")), None, None]


def test_the_worst_task_is_not_behind_the_area_under_the_curve(summary: Summary) -> None:
    (row, *_) = linked(breadth(summary), summary.results.study)
    agent, worst = row[0].text, row[3].text
    assert [field.about for field in row] == [None, About((agent,)), About((agent,), (worst,)), None]


def test_the_leaders_ratio_on_a_task_is_about_both(summary: Summary) -> None:
    made = task_efficiency(summary)
    leader = summary.ranking[0]
    for row in linked(made, summary.results.study):
        for head, field in zip(made.header[2:], row[2:], strict=True):
            reference = head.removesuffix("'s final score")
            assert field.about is None or field.about == About((reference, leader), (row[1].text,))
    assert any(field.about for row in linked(made, summary.results.study) for field in row)


def test_curves_are_those_of_the_summary(summary: Summary) -> None:
    data = chart(summary)
    assert data is not None
    views = {(view["task"], view["axis"]): view["curves"] for view in data["views"]}
    assert set(views) == {
        ("", "Environment steps"), ("", "Seconds of training"), ("cartpole-swingup", "Environment steps"),
        ("reach-v3", "Environment steps"),
    }  # fmt: skip
    (curve,) = (c for c in views["", "Environment steps"] if c["agent"] == "ppo")
    of = summary.curves["ppo"]
    assert curve["x"] == of.steps.tolist()
    assert curve["y"] == pytest.approx(of.estimate.tolist(), rel=1e-3)
    assert all(low <= y <= high for low, y, high in zip(curve["low"], curve["y"], curve["high"], strict=True))


def test_what_is_embedded_cannot_leave_its_element() -> None:
    text = embedded({"name": "</script><b>&"})
    assert not {"<", ">", "&"} & set(text)
    assert json.loads(text) == {"name": "</script><b>&"}

from __future__ import annotations

import json

import pandas as pd
import pytest

from analysis.report.interactive import chart, embedded, linked
from analysis.report.markup import Table
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
    assert (row[0].agents, row[0].tasks) == ((), ())  # a name is no number
    assert (row[1].agents, row[1].tasks) == (agents, tasks)


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

"""Numbers as a reader sees them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.frame import load
from analysis.report import setup_tables, tables
from analysis.stats import Estimate
from analysis.summary import Summary, summarise
from analysis.wording import interval
from tests.analysis.synthetic import Synthetic


def test_interval_text() -> None:
    assert interval(Estimate(0.714, 0.655, 0.749)) == "0.71 [0.66, 0.75]"
    assert interval(Estimate(0.5)) == "0.50 (no interval)"


def test_every_table_is_listed(summary: Summary) -> None:
    # this study neither sweeps nor holds tasks out nor has several domains (test_parts.py has those), nobody published
    # results of its tasks (test_published.py), it does not say how its agents were set, and none of them
    # was tuned (test_tuning.py)
    others = {"sweep", "generalisation", "domains", "published", "hyperparameters", "tuning"}
    assert set(tables.tables(summary)) == set(tables.NAMES) - others


def test_aggregates_name_runs_tasks_and_step(summary: Summary) -> None:
    table = tables.aggregates(summary)
    assert table.frame.columns.tolist() == ["agent", "metric", "estimate", "low", "high", "runs", "tasks"]
    assert len(table.frame) == 3 * 4
    assert table.rows[0][-3:] == ("3", "2", "10,000")


def test_final_scores_lead_back_to_the_episodes(summary: Summary) -> None:
    frame = tables.final_scores(summary).frame
    assert len(frame) == 3 * 3 * 2
    evaluations = summary.results.evaluations.set_index(["cell", "task", "env_step"])["score"]
    for row in frame.to_dict("records"):
        assert row["score"] == pytest.approx(evaluations[row["cell"], row["task"], row["env_step"]], abs=1e-9)
    np.testing.assert_allclose(
        frame[frame["agent"] == "ppo"].groupby("task")["normalised"].mean().mean(),
        summary.aggregates["ppo"]["mean"].estimate,
        atol=1e-12,
    )


def test_per_task_is_raw_with_its_runs(summary: Summary) -> None:
    table = tables.per_task(summary)
    dmc, metaworld = table.rows
    assert dmc[:2] == ("cartpole-swingup", "return")
    assert metaworld[:2] == ("reach-v3", "success at any step")
    assert dmc[2].endswith("(n = 3)")
    assert float(dmc[2].split(" ")[0]) > 1 > float(metaworld[2].split(" ")[0])


def test_compute_counts_training_seconds(summary: Summary) -> None:
    ppo = setup_tables.compute(summary).frame.set_index("agent").loc["ppo"]
    # 6 cells of 10 000 steps at 100 steps per second
    assert (ppo["cells"], ppo["seconds"], ppo["steps_per_second"], ppo["peak_memory_mb"]) == (6, 600, 100, 512)


def test_hyperparameters_say_who_set_them_and_where_they_come_from(tmp_path: Path) -> None:
    row = {"field": "clip", "value": 0.2, "set_by": "preset small", "about": "ε of the ratio (Schulman 2017, table 3)"}
    hidden = {"field": "hidden", "value": [64, 64], "set_by": "default", "about": "Widths."}
    made = Synthetic(tmp_path, agents=("ppo",), settings=[row, hidden])
    table = setup_tables.hyperparameters(summarise(load(made.write())))
    assert table.rows == (
        ("ppo", "clip", "0.2", "preset small", "ε of the ratio (Schulman 2017, table 3)"),
        ("ppo", "hidden", "[64, 64]", "default", "Widths."),
    )


def test_compute_tells_updates_and_parameters(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, agents=("ppo",))
    made.write()
    for index, cell in enumerate(made.cells):
        path = made.folder / cell["id"] / "status.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters": 100.0 + 50 * (index % 2)}))
    table = setup_tables.compute(summarise(load(made.folder)))
    shown = dict(zip(table.header, table.rows[0], strict=True))
    assert (shown["Parameters"], shown["Updates per cell"]) == ("100 to 150", "unknown")

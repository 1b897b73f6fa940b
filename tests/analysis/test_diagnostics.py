"""What agents say of themselves: means over cells, thinned; what is damaged is named and costs no score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import diagnostics
from analysis.diagnostics import DIAGNOSTICS, METRICS, POINTS, Insides
from analysis.frame import load
from analysis.report.study import document, write
from analysis.summary import summarise
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import SUCCESS, Synthetic, diagnostic, dump_lines

CELL = "joint.ppo.s{}.1a2b3c4d"


@pytest.fixture
def joint(tmp_path: Path) -> Synthetic:
    """One agent of two seeds on two tasks and one held out, evaluated at 0, 5 000 and 10 000 steps."""
    study = Synthetic(
        tmp_path,
        agents=("ppo",),
        seeds=(0, 1),
        tasks=(("reach", SUCCESS), ("push", SUCCESS)),
        held_out=(("door", SUCCESS),),
        mode="joint",
        every=5_000,
    )
    study.write()
    return study


def put(study: Synthetic, seed: int, rows: list[dict[str, Any]], name: str = "diagnostics") -> Path:
    path = study.folder / CELL.format(seed) / f"{name}.jsonl"
    dump_lines(path, rows)
    return path


def read(study: Synthetic) -> Insides:
    return diagnostics.read(load(study.folder))


def values(frame: pd.DataFrame, *columns: str) -> dict[Any, float]:
    return frame.set_index(list(columns))["value"].to_dict()


def test_values_per_task_are_means_over_seeds_and_null_is_unknown(joint: Synthetic) -> None:
    put(joint, 0, [diagnostic(0, "gap", ["task"], [1.0, None, None]), diagnostic(5_000, "gap", ["task"], [3, 4, None])])
    put(joint, 1, [diagnostic(0, "gap", ["task"], [2.0, 7.0, None]), diagnostic(5_000, "heat", [], 0.5)])
    found = read(joint).diagnostics
    found = found[found["name"] == "gap"]
    assert tuple(found.columns) == DIAGNOSTICS
    assert set(found["title"]) == {"Gap"}
    # reach at 0: (1 + 2) / 2; push at 0 and all at 5 000 are known to one seed; door is known to none
    expected = {("reach", 0): 1.5, ("push", 0): 7.0, ("reach", 5_000): 3.0, ("push", 5_000): 4.0}
    assert values(found, "task", "env_step") == expected


def test_the_task_axis_is_the_tasks_of_the_cell_then_the_held_out(joint: Synthetic) -> None:
    put(joint, 0, [diagnostic(0, "gap", ["task"], [1, 2, 3])])
    assert values(read(joint).diagnostics, "task") == {"reach": 1.0, "push": 2.0, "door": 3.0}


def test_steps_ahead_begin_at_one(joint: Synthetic) -> None:
    put(joint, 0, [diagnostic(0, "a", ["horizon"], [5, 6]), diagnostic(0, "b", ["task", "horizon"], [[1], [2], [3]])])
    found = read(joint).diagnostics
    assert values(found[found["name"] == "a"], "ahead") == {1: 5.0, 2: 6.0}
    assert values(found[found["name"] == "b"], "task", "ahead") == {("reach", 1): 1, ("push", 1): 2, ("door", 1): 3}


def test_of_tasks_against_tasks_the_last_is_kept(joint: Synthetic) -> None:
    tables = [[[step + 3 * row + column for column in range(3)] for row in range(3)] for step in (0, 100)]
    rows = [diagnostic(at, "alike", ["task", "task"], of) for at, of in zip((0, 5_000), tables, strict=True)]
    put(joint, 0, rows)
    found = read(joint).diagnostics
    assert set(found["env_step"]) == {5_000}
    assert values(found, "task", "other")["push", "door"] == 105.0  # 100 + 3 · 1 + 2


def test_a_cell_with_one_task_speaks_of_that_task(study: Synthetic) -> None:
    path = study.folder / "reach-v3.ppo.s0.1a2b3c4d" / "diagnostics.jsonl"
    dump_lines(path, [diagnostic(0, "heat", [], 0.5), diagnostic(0, "error", ["horizon"], [1, 2])])
    found = read(study).diagnostics
    assert set(found["task"]) == {"reach-v3"}
    assert values(found, "axes", "ahead") == {("task", 0): 0.5, ("task horizon", 1): 1.0, ("task horizon", 2): 2.0}


def test_a_number_of_an_agent_of_many_tasks_is_of_no_task(joint: Synthetic) -> None:
    put(joint, 0, [diagnostic(0, "heat", [], 0.5)])
    assert values(read(joint).diagnostics, "axes", "task") == {("", ""): 0.5}


def test_long_runs_are_thinned_and_their_ends_stay(joint: Synthetic) -> None:
    put(joint, 0, [diagnostic(step, "heat", [], step) for step in range(0, 10_001, 10)])
    put(joint, 0, [{"env_step": step, "agent/loss": -step} for step in range(10, 10_001, 10)], "metrics")
    found = read(joint)
    assert (len(found.diagnostics), len(found.metrics)) == (POINTS + 1, POINTS)  # the step 0 is a point of its own
    for frame, sign in ((found.diagnostics, 1), (found.metrics, -1)):
        assert frame["env_step"].is_monotonic_increasing
        assert frame["env_step"].iloc[-1] == 10_000
        assert (frame["value"] == sign * frame["env_step"]).all()


def test_cells_that_are_evaluated_a_little_apart_share_a_point(joint: Synthetic) -> None:
    put(joint, 0, [diagnostic(5_000, "heat", [], 1)])
    put(joint, 1, [diagnostic(4_990, "heat", [], 2)])
    assert values(read(joint).diagnostics, "env_step") == {5_000: 1.5}


def test_training_metrics_are_means_over_cells(joint: Synthetic) -> None:
    rows = [{"env_step": 5_000, "seconds": 1.0, "agent/loss": 2.0, "time/env": 9.0, "train/return/reach": 7.0}]
    put(joint, 0, rows, "metrics")
    put(joint, 1, [{"env_step": 5_000, "agent/loss": 4.0}], "metrics")
    found = read(joint).metrics
    assert tuple(found.columns) == METRICS
    assert values(found, "agent", "metric", "env_step") == {("ppo", "loss", 5_000): 3.0}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        # by hand: seed 0 says 2 at 5 000 and no more, seed 1 says 4 there and 1 at 10 000
        (("done", "done"), {5_000: 3.0}),
        (("running", "running"), {5_000: 3.0}),
        (("running", "done"), {5_000: 4.0, 10_000: 1.0}),
        (("diverged", "done"), {5_000: 4.0, 10_000: 1.0}),
        (("done", "running"), {5_000: 3.0}),
    ],
)
def test_means_do_not_bend_where_a_cell_ends(joint: Synthetic, states: tuple[str, str], expected: object) -> None:
    for cell, state in zip(joint.cells, states, strict=True):
        joint.write_cell(cell, state=state)
    put(joint, 0, [{"env_step": 5_000, "agent/loss": 2.0}], "metrics")
    put(joint, 1, [{"env_step": 5_000, "agent/loss": 4.0}, {"env_step": 10_000, "agent/loss": 1.0}], "metrics")
    put(joint, 0, [diagnostic(5_000, "heat", [], 2.0)])
    put(joint, 1, [diagnostic(5_000, "heat", [], 4.0), diagnostic(10_000, "heat", [], 1.0)])
    found = read(joint)
    assert values(found.metrics, "env_step") == expected
    assert values(found.diagnostics, "env_step") == expected


def test_the_last_likeness_of_tasks_is_not_cut(joint: Synthetic) -> None:
    for cell in joint.cells:
        joint.write_cell(cell, state="running")
    for seed, step in enumerate((5_000, 10_000)):
        put(joint, seed, [diagnostic(step, "alike", ["task", "task"], [[seed] * 3] * 3)])
    assert set(read(joint).diagnostics["value"]) == {0.5}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ((126.0, 252.5, 380.0), (126.0, 252.5, 380.0), False),
        ((126.0, 252.5, 380.0), (126.0, 252.5, 381.0), True),  # cells differ
        ((126.0, 252.3, 380.0), (126.0, 252.3, 380.0), True),  # a mean over updates of a counter is never 0.3
        ((380.0, 252.5, 126.0), (380.0, 252.5, 126.0), True),  # a schedule
        ((1.0,), (1.0,), True),
    ],
)
def test_counters_are_left_out(
    joint: Synthetic, first: tuple[float, ...], second: tuple[float, ...], kept: bool
) -> None:
    for seed, of in enumerate((first, second)):
        rows = [{"env_step": 1_000 * (at + 1), "agent/n": value, "agent/loss": 0.1} for at, value in enumerate(of)]
        put(joint, seed, rows, "metrics")
    assert set(read(joint).metrics["metric"]) == ({"n", "loss"} if kept else {"loss"})


def test_updates_are_what_scores_are_drawn_against_and_no_curve(joint: Synthetic) -> None:
    for seed, updates in enumerate((10.0, 20.0)):  # cells differ, so that nothing else tells it from a measurement
        put(joint, seed, [{"env_step": 5_000, "agent/updates": updates, "agent/loss": 0.1}], "metrics")
    assert set(read(joint).metrics["metric"]) == {"loss"}


def test_a_torn_last_line_is_dropped(joint: Synthetic) -> None:
    path = put(joint, 0, [diagnostic(0, "heat", [], 1), diagnostic(5_000, "heat", [], 2)])
    path.write_bytes(path.read_bytes()[:-1])
    found = read(joint)
    assert (values(found.diagnostics, "env_step"), found.damaged) == ({0: 1.0}, ())


GOOD = diagnostic(0, "gap", ["task"], [1, 2, 3])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{torn", " is not a JSON object"),
        ("[1]", " is not a JSON object"),
        (json.dumps({**GOOD, "env_step": 1.5}), ": 'env_step' is 1.5, expected a whole number"),
        (json.dumps({**GOOD, "title": None}), ": 'title' is null, expected a text"),
        (json.dumps({**GOOD, "axes": "task"}), ": 'axes' is \"task\", expected a list"),
        (json.dumps({**GOOD, "axes": ["time"]}), ": 'axes' is ['time'], expected one of [[], ['task'], ['horizon'], "),
        (json.dumps({**GOOD, "axes": ["horizon", "task"]}), ": 'axes' is ['horizon', 'task'], expected one of"),
        (json.dumps({**GOOD, "axes": [["task"]]}), ": 'axes' is [['task']], expected one of"),
        (json.dumps({**GOOD, "values": [1, 2]}), ": 'values' has shape [2], expected [3 tasks]"),
        (json.dumps({**GOOD, "values": 1}), ": 'values' has shape [], expected [3 tasks]"),
        (
            json.dumps({**GOOD, "axes": ["task", "horizon"], "values": [[1], [2]]}),
            ": 'values' has shape [2, 1], expected [3 tasks, steps ahead]",
        ),
        (
            json.dumps({**GOOD, "axes": ["task", "task"], "values": [[1], [2], [3]]}),
            ": 'values' has shape [3, 1], expected [3 tasks, 3 tasks]",
        ),
        (json.dumps({**GOOD, "values": [1, [2], 3]}), ": 'values' holds something else than numbers"),
        (json.dumps({**GOOD, "values": ["1", 2, 3]}), ": 'values' holds something else than numbers"),
        (json.dumps({**GOOD, "values": [True, 2, 3]}), ": 'values' holds something else than numbers"),
        (json.dumps({key: GOOD[key] for key in GOOD if key != "values"}), ": the field 'values' is missing"),
        (json.dumps({key: GOOD[key] for key in GOOD if key != "name"}), ": the field 'name' is missing"),
    ],
)
def test_a_damaged_line_is_named_and_leaves_out_its_file_alone(joint: Synthetic, line: str, words: str) -> None:
    path = put(joint, 0, [GOOD])
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
    put(joint, 1, [diagnostic(0, "gap", ["task"], [5, 6, 7])])
    summary = summarise(load(joint.folder))
    (told,) = summary.insides.damaged
    assert told.startswith(f"{CELL.format(0)}/diagnostics.jsonl: line 2{words}")
    assert any(told in note for note in summary.notes)
    assert values(summary.insides.diagnostics, "task")["reach"] == 5.0
    assert summary.scores["ppo"].runs_per_task.tolist() == [2, 2], "no score rests on it"


@pytest.mark.parametrize("value", ["many", None, True])
def test_a_metric_that_is_no_number_is_named(joint: Synthetic, value: object) -> None:
    put(joint, 0, [{"env_step": 5, "agent/loss": value}], "metrics")
    (told,) = read(joint).damaged
    assert told.startswith(f"{CELL.format(0)}/metrics.jsonl: line 1: 'agent/loss' is")


def test_only_cells_that_count_are_read(joint: Synthetic) -> None:
    joint.write_cell(joint.cells[0], state="failed")
    put(joint, 0, [diagnostic(0, "heat", [], 1)])
    put(joint, 1, [diagnostic(0, "heat", [], 3)])
    assert values(read(joint).diagnostics, "env_step") == {0: 3.0}


def test_the_newest_values_stand_in_the_json(joint: Synthetic) -> None:
    rows = [
        diagnostic(0, "gap", ["task"], [1, 2, None]),
        diagnostic(5_000, "gap", ["task"], [3, None, None]),
        diagnostic(5_000, "heat", [], 0.5),
        diagnostic(5_000, "error", ["task", "horizon"], [[1, 2], [None, 4], [5, 6]]),
        diagnostic(5_000, "alike", ["task", "task"], [[1, 0, 0], [0, 1, 0], [0, 0.25, 1]]),
    ]
    put(joint, 0, rows)
    found = {item["name"]: item for item in document(summarise(load(joint.folder)))["diagnostics"]}
    assert found["gap"] == {
        "agent": "ppo", "name": "gap", "title": "Gap", "axes": ["task"], "tasks": ["reach", "push"],
        "env_step": 5_000, "values": [3.0, 2.0],
    }  # fmt: skip
    assert (found["heat"]["values"], found["heat"]["tasks"]) == (0.5, [])
    assert found["error"]["values"] == [[1.0, 2.0], [None, 4.0], [5.0, 6.0]]
    assert found["alike"]["values"][2] == [0.0, 0.25, 1.0]


def test_a_report_has_a_part_for_it_before_what_it_cost(joint: Synthetic, draw_only: DrawOnly) -> None:
    draw_only()
    joint.write_insides({"gap": "task", "error": "task horizon", "alike": "task task", "heat": ""})
    page = write(joint.folder)
    for text in (page.read_text(), (page.parent / "report.md").read_text()):
        assert (
            text.index("Task by task") < text.index("Diagnostics: what the agents did inside") < text.index("Compute")
        )
    assert len(json.loads((page.parent / "report.json").read_text())["diagnostics"]) == 4
    for name in ("training_metrics", "diagnostics", "horizon_diagnostics", "task_similarity"):
        assert f"](figures/{name}.png)" in (page.parent / "report.md").read_text()


def test_a_report_without_it_has_no_such_part(joint: Synthetic, draw_only: DrawOnly) -> None:
    draw_only()
    joint.write_insides({"heat": ""})
    write(joint.folder)
    for path in joint.folder.glob("*/*s.jsonl"):
        if path.stem in ("metrics", "diagnostics"):
            path.unlink()
    page = write(joint.folder)
    assert "Diagnostics" not in page.read_text()
    assert "Diagnostics" not in (page.parent / "report.md").read_text()
    assert json.loads((page.parent / "report.json").read_text())["diagnostics"] == []
    assert not (page.parent / "figures" / "diagnostics.png").exists(), "of the earlier report"

"""Reading results: what is well formed is averaged, what is not is named and left out."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.frame import COLUMNS, Cell, _means, load
from analysis.study import ResultsError
from tests.analysis.synthetic import RETURN, Synthetic, dump

TUNED = {"suite": "q", "trials": 1, "env_steps": 1, "hours": 1.0, "seeds": [1], "tasks": ["a"], "scores": [0.5]}
CELL = "cartpole-swingup.ppo.s1.1a2b3c4d"


def cell_of(study: Synthetic, identifier: str = CELL) -> Cell:
    return next(cell for cell in load(study.folder).cells if cell.id == identifier)


def rewrite(study: Synthetic, **changes: object) -> None:
    study.write_cell(next(cell for cell in study.cells if cell["id"] == CELL), **changes)  # type: ignore[arg-type]


def test_one_row_per_evaluation(study: Synthetic) -> None:
    loaded = load(study.folder)
    assert tuple(loaded.evaluations.columns) == COLUMNS
    # 2 tasks × 3 agents × 3 seeds × evaluations at 0, 1 000, …, 10 000
    assert len(loaded.evaluations) == 2 * 3 * 3 * 11
    assert set(loaded.evaluations["episodes"]) == {study.episodes}
    assert {cell.state for cell in loaded.cells} == {"done"}


def test_score_is_the_mean_over_episodes(study: Synthetic) -> None:
    path = study.folder / CELL / "evaluations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["score"] = float(row["episode"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluations = load(study.folder).evaluations
    assert set(evaluations[evaluations["cell"] == CELL]["score"]) == {2.0}  # (0 + 1 + 2 + 3 + 4) / 5


def test_torn_last_line_is_dropped_with_its_evaluation(study: Synthetic) -> None:
    path = study.folder / CELL / "evaluations.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    evaluations = load(study.folder).evaluations
    assert evaluations[evaluations["cell"] == CELL]["env_step"].max() == 9_000  # four episodes are left of the last
    cell = cell_of(study)
    assert (cell.state, cell.incomplete) == ("done", 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{torn", "line 4 is not a JSON object"),
        ("[1]", "line 4 is not a JSON object"),
        ("{}", "line 4 lacks the field 'task'"),
    ],
)
def test_a_damaged_line_marks_its_cell_and_no_other(study: Synthetic, line: str, words: str) -> None:
    path = study.folder / CELL / "evaluations.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = line
    path.write_text("\n".join(lines) + "\n")
    loaded = load(study.folder)
    assert [cell.id for cell in loaded.cells if cell.state == "corrupt"] == [CELL]
    assert cell_of(study).reason == f"{CELL}/evaluations.jsonl: {words}"
    assert CELL not in set(loaded.evaluations["cell"])
    assert loaded.evaluations["cell"].nunique() == len(study.cells) - 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("score", float("nan"), "'score' in line 4 is not a finite number"),
        ("return", "many", "'return' is not a number"),
        ("env_step", "7", "not a whole number"),
        ("env_step", 10**30, f"'env_step' is {10**30} in a line, expected a number below 2⁶³"),
        ("episode", 2**63, "'episode' is 9223372036854775808 in a line, expected a number below 2⁶³"),
        ("score", 10**400, "'score' is not a number"),
        ("task", ["reach-v3"], "which is not the cell's"),
        ("seed", 7, "belongs to another agent, seed or configuration"),
        ("config_hash", "other", "belongs to another agent, seed or configuration"),
        ("episode", 0, "stands in it twice"),
    ],
)
def test_a_wrong_value_is_named(study: Synthetic, field: str, value: object, words: str) -> None:
    path = study.folder / CELL / "evaluations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3][field] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cell = cell_of(study)
    assert cell.state == "corrupt"
    assert words in cell.reason


@pytest.mark.parametrize("name", ["cell.json", "status.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 2}'])
def test_a_damaged_json_file_marks_its_cell(study: Synthetic, name: str, content: bytes) -> None:
    (study.folder / CELL / name).write_bytes(content)
    cell = cell_of(study)
    assert cell.state == "corrupt"
    assert cell.reason.startswith(f"{CELL}/{name}: ")


def test_another_suite_version_or_protocol_shares_no_figure(study: Synthetic) -> None:
    rewrite(study, suite_version=2)
    assert (cell_of(study).state, cell_of(study).counts) == ("incompatible", False)
    tasks = [{"name": "cartpole-swingup", "family": "toy", "protocol": {**RETURN, "high": 500.0}}]
    rewrite(study, tasks=tasks)
    assert "another protocol" in cell_of(study).reason


def test_a_row_of_another_protocol_shares_no_figure(study: Synthetic) -> None:
    path = study.folder / CELL / "evaluations.jsonl"
    path.write_text(path.read_text().replace('"dmc-1000"', '"dmc-2000"'))
    assert cell_of(study).state == "incompatible"


def test_failed_cells_give_no_rows(study: Synthetic) -> None:
    rewrite(study, state="failed", last=4_000)
    assert CELL not in set(load(study.folder).evaluations["cell"])


def test_a_cell_without_a_folder_is_pending(study: Synthetic) -> None:
    shutil.rmtree(study.folder / CELL)
    assert (cell_of(study).state, cell_of(study).reason) == ("pending", "not started")


def test_cells_outside_the_study_are_superseded(study: Synthetic) -> None:
    old = "cartpole-swingup.ppo.s1.00000000"
    shutil.copytree(study.folder / CELL, study.folder / old)
    shutil.copytree(study.folder / CELL, study.folder / "tuning" / "ppo" / CELL)  # tuning is no part of the study
    (study.folder / "report").mkdir()
    assert load(study.folder).superseded == (old,)


def test_a_folder_of_studies_lists_them(tmp_path: Path) -> None:
    for name in ("quick", "lite"):
        Synthetic(tmp_path, suite=name, agents=["ppo"], seeds=[0]).write()
    with pytest.raises(ResultsError, match=r"holds 2 studies \(lite, quick\); choose one"):
        load(tmp_path)


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"holds no study\.json"):
        load(tmp_path)
    with pytest.raises(ResultsError, match="there is no such folder"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, this version reads format 1"),
        ({"suite": 3}, "'suite' is 3, expected a text"),
        ({"version": True}, "'version' is true, expected a whole number"),
        ({"tasks": []}, "'tasks' is empty"),
        ({"seeds": [0, None]}, "'seeds[1]' is null, expected a whole number"),
        ({"seeds": ["x"]}, "'seeds[0]' is \"x\", expected a whole number"),
        ({"budget": {"env_steps": 0}}, "'env_steps' of 'budget' is 0, expected a whole number from 1"),
        ({"tuned": {"ppo": TUNED | {"scores": [0.5, None]}}}, "'scores[1]' is null, expected a number"),
        ({"tuned": {"ppo": TUNED | {"seeds": [[1]]}}}, "'seeds[0]' is [1], expected a whole number"),
        ({"cells": [{"id": "../x", "agent": "ppo", "seed": 0, "tasks": []}]}, "'../x' is not a folder name"),
        ({"cells": [{"id": "x", "agent": "ppo", "seed": 0, "tasks": ["fly"]}]}, "not in 'tasks': fly"),
        ({"cells": [{"id": "x", "agent": "sac", "seed": 0, "tasks": []}]}, "not in 'agents' or 'seeds'"),
    ],
)
def test_a_wrong_study_is_told(study: Synthetic, changes: dict[str, object], words: str) -> None:
    study.write_study(**changes)
    with pytest.raises(ResultsError) as error:
        load(study.folder)
    assert words in str(error.value)


def test_results_can_be_moved(study: Synthetic, tmp_path: Path) -> None:
    there = tmp_path / "ein anderer Ort" / "räume"
    before = load(study.folder).evaluations
    there.parent.mkdir()
    study.folder.rename(there)
    assert load(there).evaluations.equals(before)


def test_rows_are_data_never_code(study: Synthetic) -> None:
    (study.folder / CELL / "evaluations.jsonl").write_bytes(b"[" * 100_000 + b"\n")
    assert cell_of(study).state == "corrupt"
    dump(study.folder / "study.json", {"format": 1, "__class__": "os.system"})
    with pytest.raises(ResultsError, match="the field 'tasks' is missing"):
        load(study.folder)


def test_reading_at_once_is_reading_line_by_line(study: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    path = study.folder / study.cells[0]["id"] / "evaluations.jsonl"
    path.write_bytes(path.read_bytes() + b'{"torn": ')  # as a kill leaves it
    quick = load(study.folder)
    read: list[object] = []
    monkeypatch.setattr("analysis.frame._columns_at_once", lambda *_: read.append(1))
    slow = load(study.folder)
    assert len(read) == len(study.cells)
    pd.testing.assert_frame_equal(quick.evaluations, slow.evaluations)
    assert quick.cells == slow.cells


def test_means_are_over_episodes_that_know_a_value(study: Synthetic) -> None:
    """By hand: of 2, unknown and 5 the mean is 3.5; of nothing it is unknown."""
    means = _means(np.array([2.0, np.nan, 5.0, np.nan, np.nan]), np.array([0, 3]))
    np.testing.assert_array_equal(means, [3.5, np.nan])


def test_a_cell_that_only_another_user_may_read_is_damaged_and_named(
    study: Synthetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.stat

    def denied(self: Path, **options: Any) -> os.stat_result:
        if CELL in self.parts:  # as with umask 077, but for tests that are root's too
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return plain(self, **options)

    monkeypatch.setattr(Path, "stat", denied)
    loaded = load(study.folder)
    assert [(cell.id, cell.reason) for cell in loaded.cells if cell.state != "done"] == [
        (CELL, f"{CELL}: cannot be read (Permission denied)")
    ]

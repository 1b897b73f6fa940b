"""The search behind ``tune``, with cells that are only pretended."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna import Study
from rich.console import Console

from m3po.bench.records import Cell, CellStatus
from m3po.bench.search import Problem, Search, ended, open_study
from suites.catalog import load_suite


@pytest.fixture
def problem(plugin: Path, write_suite: Callable[..., Path]) -> Problem:
    return Problem.of(load_suite(str(write_suite())), "nudge", 40)


@pytest.fixture
def search(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Search]:
    """A search in a folder whose cells score −|rate − 0.2|, so that nothing runs."""

    def run_cells(self: Search, cells: Sequence[Cell]) -> dict[str, CellStatus]:
        return {
            cell.id: CellStatus(id=cell.id, state="done", env_steps=40, last_score=-abs(cell.config["rate"] - 0.2))
            for cell in cells
        }

    monkeypatch.setattr(Search, "_run_cells", run_cells)

    def make(folder: Path) -> Search:
        folder.mkdir(exist_ok=True)
        return Search(problem, folder, open_study(folder, problem), 1, "cpu", Console(file=io.StringIO()))

    return make


def _values(study: Study) -> list[dict[str, Any]]:
    return [trial.user_attrs["values"] for trial in ended(study)]


def test_an_interruption_changes_no_proposal(search: Callable[[Path], Search], tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")
    whole.run(8)
    for wanted in (3, 6, 8):
        parts = search(tmp_path / "parts")
        parts.run(wanted)
    assert _values(parts.study) == _values(whole.study)
    rates = [values["rate"] for values in _values(whole.study)]
    assert len(set(rates)) == 8, "no proposal comes twice"
    assert rates[0] == 0.05, "the configuration as it stands comes first"


def test_a_killed_trial_is_asked_for_once_more_and_then_given_up(problem: Problem, tmp_path: Path) -> None:
    for round_, already_ended in ((1, 0), (2, 0), (3, 1)):
        study = open_study(tmp_path, problem)
        assert len(ended(study)) == already_ended, round_
        if round_ < 3:
            trial = study.ask()
            trial.set_user_attr("values", {"rate": trial.suggest_float("rate", 0.01, 1.0, log=True)})
            assert trial.params == {"rate": 0.05}, round_
        # the process dies here: the trial stays open


def test_a_trial_stopped_politely_is_asked_for_again_without_a_limit(problem: Problem, tmp_path: Path) -> None:
    for _ in range(4):
        study = open_study(tmp_path, problem)
        assert ended(study) == []
        trial = study.ask()
        trial.set_user_attr("values", {"rate": trial.suggest_float("rate", 0.01, 1.0, log=True)})
        trial.set_user_attr("stopped", True)
        assert trial.params == {"rate": 0.05}


def test_a_torn_journal_and_a_dead_tuners_lock_are_no_obstacle(
    search: Callable[[Path], Search], tmp_path: Path
) -> None:
    search(tmp_path / "s").run(2)
    journal = tmp_path / "s" / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "trial')
    (tmp_path / "s" / "journal.log.lock").symlink_to("nowhere")
    again = search(tmp_path / "s")
    again.run(3)
    assert len(ended(again.study)) == 3

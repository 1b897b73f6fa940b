"""The search behind ``tune``, with cells that are only pretended."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from optuna import Study
from optuna.trial import Trial, TrialState
from rich.console import Console

from m3po.bench.problem import Problem
from m3po.bench.records import Cell, CellStatus
from m3po.bench.search import Search
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.trials import SAMPLERS, ended, open_study, working
from suites.catalog import load_suite
from suites.errors import SuiteError
from suites.spec import Tuning


class MakeProblem(Protocol):
    def __call__(self, tuning: dict[str, Any] = {}, **lines: str) -> Problem: ...  # noqa: B006


@pytest.fixture
def make_problem(plugin: Path, write_suite: Callable[..., Path]) -> MakeProblem:
    """A problem of tuning ``nudge`` for 40 steps, with these values in the section ``tuning``."""

    def make(tuning: dict[str, Any] = {}, **lines: str) -> Problem:  # noqa: B006
        settings = Tuning.model_validate({"env_steps": 40, "evaluation": {"every": 4}, **tuning})
        return Problem.of(load_suite(str(write_suite(**lines))), "nudge", settings)

    return make


def pretend(cell: Cell, until: int) -> CellStatus:
    """A cell that scores 1 − |rate − 0.2| from the start on."""
    score, whole = 1 - abs(cell.config["rate"] - 0.2), cell.budget.env_steps
    state = "done" if until >= whole else "preempted"
    return CellStatus(id=cell.id, state=state, env_step=until, env_steps=whole, last_score=score, seconds=until)  # type: ignore[arg-type]


class MakeSearch(Protocol):
    def __call__(self, folder: Path, problem: Problem, jobs: int = 1) -> Search: ...


@pytest.fixture
def ran() -> list[tuple[str, int]]:
    """Cells that were run, with the step they ran to, in their order."""
    return []


@pytest.fixture
def make_search(monkeypatch: pytest.MonkeyPatch, ran: list[tuple[str, int]]) -> Iterator[MakeSearch]:
    """A search in a folder whose cells are pretended, so that nothing runs."""

    def run_cells(self: Search, cells: Sequence[Cell], until: int) -> dict[str, CellStatus]:
        statuses = {}
        for cell in cells:
            ran.append((cell.id, until))
            folder = CellFolder(self.folder / cell.id)
            folder.create(cell)
            statuses[cell.id] = pretend(cell, until)
            folder.write_status(statuses[cell.id])
            row = {
                "env_step": until,
                "task": cell.tasks[0].name,
                "score": 20 * (statuses[cell.id].last_score or 0) - 20,
            }
            folder.evaluations.append([{**row, "updates": 2 * until}])
        return statuses

    monkeypatch.setattr(Search, "_run_cells", run_cells)
    with ExitStack() as stack:

        def make(folder: Path, problem: Problem, jobs: int = 1) -> Search:
            folder.mkdir(exist_ok=True)
            worker = stack.enter_context(working(folder))
            study = open_study(folder, problem)
            return Search(problem, folder, study, worker, jobs, "cpu", Console(file=io.StringIO()))

        yield make


def _values(study: Study) -> list[dict[str, Any]]:
    return [trial.user_attrs["values"] for trial in ended(study)]


def test_an_interruption_changes_no_proposal(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    whole = make_search(tmp_path / "whole", make_problem({"trials": 8}))
    whole.run()
    for wanted in (3, 6, 8):
        parts = make_search(tmp_path / "parts", make_problem({"trials": wanted}))
        parts.run()
    assert _values(parts.study) == _values(whole.study)
    rates = [values["rate"] for values in _values(whole.study)]
    assert len(set(rates)) == 8, "no proposal comes twice"
    assert rates[0] == 0.05, "the configuration as it stands comes first"


def _die_in_a_trial(folder: Path, problem: Problem, **attributes: Any) -> Trial:
    """What is left of a worker that died in a trial."""
    study = open_study(folder, problem)
    trial = study.ask()
    trial.set_user_attr("values", {"rate": trial.suggest_float("rate", 0.01, 1.0, log=True)})
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    return trial


def test_a_killed_trial_is_asked_for_once_more_and_then_given_up(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem()
    for _ in range(2):
        assert ended(open_study(tmp_path, problem)) == []
        assert _die_in_a_trial(tmp_path, problem, worker="gone").params == {"rate": 0.05}
    (given_up,) = ended(open_study(tmp_path, problem))
    assert given_up.user_attrs["default"], "it is known for the configuration as it stood"


def test_a_trial_stopped_politely_is_asked_for_again_without_a_limit(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem()
    for _ in range(4):
        assert _die_in_a_trial(tmp_path, problem, stopped=True).params == {"rate": 0.05}
        assert ended(open_study(tmp_path, problem)) == []


def test_a_trial_of_a_living_worker_is_left_to_it(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem()
    with working(tmp_path) as worker:
        _die_in_a_trial(tmp_path, problem, worker=worker)
        study = open_study(tmp_path, problem)
        assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    open_study(tmp_path, problem)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_workers_share_the_trials(make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    searches = [make_search(tmp_path / "s", make_problem({"trials": 9})) for _ in range(3)]
    threads = [threading.Thread(target=_work, args=(search,)) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    trials = ended(searches[0].study)
    assert [trial.number for trial in trials] == list(range(9)), "none too many, none twice"
    assert {trial.user_attrs["worker"] for trial in trials} <= {search.worker for search in searches}


def _work(search: Search) -> None:
    """What :meth:`Search.run` does, but for signals, which are the main thread's."""
    while True:
        attempts, over = search._ask(1)
        if over:
            return
        search._run_batch(attempts)


def test_a_torn_journal_and_a_dead_tuners_lock_are_no_obstacle(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    make_search(tmp_path / "s", make_problem({"trials": 2})).run()
    journal = tmp_path / "s" / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "trial')
    (tmp_path / "s" / "journal.log.lock").symlink_to("nowhere")
    again = make_search(tmp_path / "s", make_problem({"trials": 3}))
    again.run()
    assert len(ended(again.study)) == 3


def test_trials_of_another_search_are_refused(make_problem: MakeProblem, tmp_path: Path) -> None:
    open_study(tmp_path, make_problem())
    with pytest.raises(StoreError, match="were made with other search"):
        open_study(tmp_path, make_problem({"sampler": "random"}))
    open_study(tmp_path, make_problem({"trials": 5}))  # how long to search may change


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"cmaes"}))
def test_every_sampler_proposes(name: str, make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    search = make_search(tmp_path / "s", make_problem({"sampler": name, "trials": 7}))
    search.run()
    rates = [values["rate"] for values in _values(search.study)]
    assert len(set(rates)) == 7
    assert all(0.01 <= rate <= 1 for rate in rates)


def test_environment_steps_bound_a_search(make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    # a trial has two cells of 40 steps: 250 steps are enough for three trials
    search = make_search(tmp_path / "s", make_problem({"total_env_steps": 250, "seeds": 2}))
    search.run()
    assert len(ended(search.study)) == 3
    record = json.loads((tmp_path / "s" / "trials.json").read_text())
    assert record["cost"] == {"env_steps": 240, "seconds": 240.0}


def test_hours_bound_a_search(make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    # a pretended cell takes a second for each of its 40 steps: after two of them 80 seconds are over
    search = make_search(tmp_path / "s", make_problem({"hours": 80 / 3600}))
    search.run()
    assert len(ended(search.study)) == 2


def test_a_space_that_never_works_ends_the_search(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3po.bench.search.HOPELESS", 4)
    problem = make_problem({"hours": 1}, seeds="1\ntune: {nudge: {batch: {choices: [8]}}}")
    search = make_search(tmp_path / "s", problem)
    search.run()
    # the first trial is the configuration as it stands; a batch of 8 is above the 4 environments
    assert [trial.state for trial in ended(search.study)] == [TrialState.COMPLETE, *[TrialState.FAIL] * 4]


def test_seeds_of_the_suite_are_refused(make_problem: MakeProblem) -> None:
    with pytest.raises(SuiteError, match=r"tuning would use seeds of the suite \(0\); name others"):
        make_problem({"seeds": (0, 7)})
    with pytest.raises(SuiteError, match=r"seeds of the suite \(10000\)"):
        make_problem(seeds="[0, 10000]")
    assert make_problem({"seeds": 2}).seeds == (10_000, 10_001)
    assert make_problem(seeds="[3, 5]").seeds == (10_003, 10_005)

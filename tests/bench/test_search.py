"""The search behind ``tune``, with cells that are only pretended."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from optuna import Study
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState
from rich.console import Console

from analysis.tuning import read_search
from m3po.api import SearchSpace
from m3po.bench.interrupt import Stopped
from m3po.bench.ledger import needed
from m3po.bench.problem import Problem
from m3po.bench.records import Cell, CellStatus
from m3po.bench.search import Search
from m3po.bench.store import CellFolder, DiskFull, StoreError
from m3po.bench.trials import SAMPLERS, ended, open_study, requeue, sampler, suggest, working
from m3po.bench.tune import _found
from suites.catalog import load_suite
from suites.errors import SuiteError
from suites.spec import SamplerName, Tuning
from tests.bench.conftest import with_size_limit


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


@pytest.mark.parametrize("name", ["gp", "nsgaii", "qmc", "random", "tpe"])
def test_a_kill_changes_no_proposal_and_no_number(
    name: str, make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem({"trials": 9, "sampler": name})
    whole = make_search(tmp_path / "whole", problem)
    whole.run()
    for wanted in (0, 3, 7):
        if wanted:
            make_search(tmp_path / "parts", make_problem({"trials": wanted, "sampler": name})).run()
        killed = make_search(tmp_path / "parts", problem)
        (attempt,) = killed.ask() or []
        assert attempt.number == wanted + 1
        attempt.trial.set_user_attr("worker", "gone")
    parts = make_search(tmp_path / "parts", problem)
    parts.console = Console(file=(said := io.StringIO()), width=200)
    parts.run()
    assert "trial 8 of 9, once more: rate=" in said.getvalue()
    assert "trial 9 of 9: rate=" in said.getvalue()
    found, expected = (json.loads((tmp_path / of / "trials.json").read_text())["trials"] for of in ("parts", "whole"))
    assert [entry["number"] for entry in found] == list(range(9))
    assert [entry["values"] for entry in found] == [entry["values"] for entry in expected]


def test_a_signal_while_a_trial_is_asked_for_stops_the_search_politely(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make_search(tmp_path, make_problem({"trials": 3}))
    lost: list[int] = []
    monkeypatch.setattr("m3po.bench.search.suggest", _signalled(suggest, signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, lambda number, frame: lost.append(number))
    try:
        assert search.run(), "it was interrupted"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert lost == []
    assert [trial.state for trial in search.study.trials] == [TrialState.COMPLETE], "what was asked for is told"


def test_a_second_signal_ends_a_search_that_is_stuck(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make_search(tmp_path, make_problem({"trials": 3}))
    monkeypatch.setattr("m3po.bench.search.suggest", _signalled(suggest, signal.SIGUSR1, signal.SIGTERM))
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(Stopped):
            search.run()
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGTERM, before[1])


def _signalled(call: Callable[..., Any], *numbers: signal.Signals) -> Callable[..., Any]:
    """``call``, during which these signals come."""

    def disturbed(*arguments: Any) -> Any:
        for number in numbers:
            os.kill(os.getpid(), number)
        return call(*arguments)

    return disturbed


def _die_in_a_trial(folder: Path, problem: Problem, **attributes: Any) -> Trial:
    """What is left of a worker that died in a trial."""
    study = open_study(folder, problem)
    trial = study.ask()
    trial.set_user_attr("values", {"rate": trial.suggest_float("rate", 0.01, 1.0, log=True)})
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    return trial


Failing = Callable[[Cell], str]
"""Why a cell fails; nothing where it does not."""


@pytest.fixture
def make_fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Failing], None]:
    """Has pretended cells fail, at their first step, for the reasons that a function names."""

    def make(why: Failing) -> None:
        healthy = Search._run_cells

        def run_cells(self: Search, cells: Sequence[Cell], until: int) -> dict[str, CellStatus]:
            reasons = {cell.id: why(cell) for cell in cells}
            statuses = healthy(self, [cell for cell in cells if not reasons[cell.id]], until)
            for name, reason in reasons.items():
                if reason:
                    statuses[name] = CellStatus(id=name, state="failed", env_steps=40, message=reason)
            return statuses

        monkeypatch.setattr(Search, "_run_cells", run_cells)

    return make


def test_a_trial_that_failed_by_accident_is_tried_once_more_and_counts_once(
    make_search: MakeSearch, make_problem: MakeProblem, make_fail: Callable[[Failing], None], tmp_path: Path
) -> None:
    search = make_search(tmp_path / "s", make_problem({"trials": 3}))
    accidents = ["its process was killed"]
    make_fail(lambda cell: accidents.pop() if accidents else "")
    search.run()
    trials = ended(search.study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert (trials[0].params, trials[0].user_attrs["default"]) == ({"rate": 0.05}, True)
    assert len(json.loads((tmp_path / "s" / "trials.json").read_text())["trials"]) == 3


def test_a_trial_that_fails_again_counts_with_its_reason(
    make_search: MakeSearch, make_problem: MakeProblem, make_fail: Callable[[Failing], None], tmp_path: Path
) -> None:
    search = make_search(tmp_path / "s", make_problem({"trials": 3}))
    seen: dict[float, None] = {}

    def second(cell: Cell) -> bool:
        seen.setdefault(cell.config["rate"])
        return list(seen).index(cell.config["rate"]) == 1

    make_fail(lambda cell: "out of memory" if second(cell) else "")
    search.run()
    assert not search.trouble
    entries = json.loads((tmp_path / "s" / "trials.json").read_text())["trials"]
    assert [(entry["state"], entry["message"]) for entry in entries] == [
        ("done", ""),
        ("failed", "out of memory"),
        ("done", ""),
    ]
    assert [entry["number"] for entry in entries] == [0, 1, 2]


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_what_stands_and_fails_in_every_cell_ends_the_search_and_costs_it_no_trial(
    make_search: MakeSearch, make_problem: MakeProblem, make_fail: Callable[[Failing], None], tmp_path: Path, jobs: int
) -> None:
    broken = [True]
    make_fail(lambda cell: "the agent broke" if broken else "")
    search = make_search(tmp_path / "s", make_problem({"trials": 20, "seeds": 2}), jobs)
    search.run()
    assert search.trouble.startswith("the configuration as it stands, which all others are held against, failed with: ")
    assert search.invalid
    assert len(search.study.trials) <= 2 * jobs + 1, "nothing behind its second time"
    assert ended(search.study) == []

    broken.clear()
    CellFolder(tmp_path / "s" / "workers" / search.worker).path.rename(tmp_path / "gone")  # the process has ended
    again = make_search(tmp_path / "s", make_problem({"trials": 6, "seeds": 2}), jobs)
    again.run()
    record = json.loads((tmp_path / "s" / "trials.json").read_text())["trials"]
    assert [(entry["number"], entry["state"]) for entry in record] == [(number, "done") for number in range(6)]
    assert record[0]["default"]


def test_what_stands_and_fails_in_some_cells_is_an_outcome(
    make_search: MakeSearch, make_problem: MakeProblem, make_fail: Callable[[Failing], None], tmp_path: Path
) -> None:
    make_fail(lambda cell: "killed" if cell.config["rate"] == 0.05 and cell.seed == 10_001 else "")
    search = make_search(tmp_path / "s", make_problem({"trials": 3, "seeds": 2}))
    search.run()
    assert not search.trouble
    assert [trial.state for trial in ended(search.study)] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_machine_on_which_nothing_works_ends_the_search_and_costs_it_no_trial(
    make_search: MakeSearch, make_problem: MakeProblem, make_fail: Callable[[Failing], None], tmp_path: Path, jobs: int
) -> None:
    make_search(tmp_path / "s", make_problem({"trials": 1})).run()
    broken = [True]
    make_fail(lambda cell: "the driver is missing" if broken else "")
    search = make_search(tmp_path / "s", make_problem({"trials": 20}), jobs)
    search.run()
    assert "in a row failed without a score, the last with: the driver is missing" in search.trouble
    assert not search.invalid
    assert len(search.study.trials) <= 9, "it does not race through them"
    assert len(ended(search.study)) == 1
    tried = {trial.params["rate"] for trial in search.study.get_trials(states=(TrialState.FAIL,))}
    assert len(tried) >= 3

    broken.clear()
    CellFolder(tmp_path / "s" / "workers" / search.worker).path.rename(tmp_path / "gone")  # the process has ended
    again = make_search(tmp_path / "s", make_problem({"trials": 7}), jobs)
    again.run()
    counted = ended(again.study)
    assert [trial.state for trial in counted] == [TrialState.COMPLETE] * 7
    assert tried <= {trial.params["rate"] for trial in counted}


def test_a_full_disk_ends_the_search_at_once(
    make_search: MakeSearch, make_problem: MakeProblem, make_fail: Callable[[Failing], None], tmp_path: Path
) -> None:
    full = [True]
    make_fail(lambda cell: "no space left on the disk; free some space and run the same command again" if full else "")
    search = make_search(tmp_path / "s", make_problem({"trials": 2}))
    search.run()
    assert search.trouble == "no space left on the disk; free some space and run the same command again"
    assert len(search.study.trials) == 1
    full.clear()
    CellFolder(tmp_path / "s" / "workers" / search.worker).path.rename(tmp_path / "gone")  # the process has ended
    again = make_search(tmp_path / "s", make_problem({"trials": 2}))
    again.run()
    assert [trial.state for trial in ended(again.study)] == [TrialState.COMPLETE] * 2
    assert ended(again.study)[0].params == {"rate": 0.05}


def test_a_killed_trial_is_asked_for_once_more_and_then_given_up(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem()
    for _ in range(2):
        assert ended(open_study(tmp_path, problem)) == []
        assert _die_in_a_trial(tmp_path, problem, worker="gone").params == {"rate": 0.05}
    (given_up,) = ended(open_study(tmp_path, problem))
    assert given_up.user_attrs["default"], "it is known for the configuration as it stood"


def test_a_killed_trial_whose_cells_got_further_is_asked_for_again(make_problem: MakeProblem, tmp_path: Path) -> None:
    problem = make_problem()
    cell = CellFolder(tmp_path / "cell")
    cell.path.mkdir()
    for reached in (4, 8, 12, 12, 12):
        assert ended(open_study(tmp_path, problem)) == []
        _die_in_a_trial(tmp_path, problem, worker="gone", cells=["cell"])
        cell.write_status(CellStatus(id="cell", state="running", env_step=reached, env_steps=40))
    (given_up,) = ended(open_study(tmp_path, problem))
    assert given_up.number == 4, "it came no further, twice"


def test_a_worker_that_dies_before_it_has_values_does_not_lose_the_first_trial(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    open_study(tmp_path, make_problem()).ask()  # the process dies here
    search = make_search(tmp_path, make_problem({"trials": 1}))
    search.run()
    assert _values(search.study) == [{"rate": 0.05}]


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
    """What :meth:`Search.run` does, which a thread may not while it waits: signals are the main thread's."""
    search.interrupt.listening = lambda patience: nullcontext()  # type: ignore[method-assign]
    search.run()


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


def test_a_line_that_another_worker_left_torn_is_never_glued_onto(make_problem: MakeProblem, tmp_path: Path) -> None:
    ours, theirs = open_study(tmp_path, make_problem()), open_study(tmp_path, make_problem())
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code": 4, "trial')  # it was killed here
    ours.ask().set_user_attr("values", {"rate": 0.05})
    for study in (ours, theirs, open_study(tmp_path, make_problem())):
        assert study.trials[0].user_attrs["values"] == {"rate": 0.05}


def test_a_disk_that_fills_up_in_a_search_is_told_and_the_same_command_goes_on(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    with working(tmp_path):
        trial = open_study(tmp_path, make_problem()).ask()
        limit = (tmp_path / "journal.log").stat().st_size + 20  # in the middle of a line
        with pytest.raises(DiskFull, match=r"cannot append to .*journal\.log: file too large; free some space and run"):
            with_size_limit(limit, lambda: trial.set_user_attr("values", {"rate": 0.05}))
    search = make_search(tmp_path, make_problem({"trials": 1}))
    search.run()
    assert _values(search.study) == [{"rate": 0.05}]


@pytest.mark.parametrize("method", ["read_logs", "append_logs"])
def test_a_disk_that_fails_in_a_search_is_told(
    make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*arguments: object) -> Iterator[None]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    study = open_study(tmp_path, make_problem())
    monkeypatch.setattr(f"optuna.storages.journal._file.JournalFileBackend.{method}", broken)
    with pytest.raises(StoreError, match=r"journal\.log: Input/output error; what was told before is kept"):
        study.ask()


def test_a_damaged_journal_is_named(make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    make_search(tmp_path / "s", make_problem({"trials": 1})).run()
    journal = tmp_path / "s" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], lines[1][: len(lines[1]) // 2] + b"\n", *lines[2:]]))
    with pytest.raises(StoreError, match=r"journal\.log is damaged: a line of it is no JSON; restore it, or move"):
        open_study(tmp_path / "s", make_problem())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nothing+known://u:secret@[::1]/db", "the storage nothing+known://::1/db cannot be opened"),
        ("postgresql://u:secret@[bad/db", "the storage cannot be opened"),
        ("postgresql//u:secret@host/db", "the storage cannot be opened"),
        ("nothing+known://u:with/secret@host/db", "the storage cannot be opened"),
        ("nothing+known://u:with@secret@host/db", "the storage nothing+known://host/db cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(
    url: str, told: str, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr("m3po.bench.trials.RDBStorage", refused)
    with pytest.raises(StoreError) as caught:
        open_study(tmp_path, make_problem(), url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_trials_of_another_search_are_refused(make_problem: MakeProblem, tmp_path: Path) -> None:
    open_study(tmp_path, make_problem())
    with pytest.raises(StoreError, match="were made with other search"):
        open_study(tmp_path, make_problem({"sampler": "random"}))
    with pytest.raises(StoreError, match="were made with other storage"):
        open_study(tmp_path, make_problem(), "postgresql+psycopg://nowhere")
    open_study(tmp_path, make_problem({"trials": 5}))  # how long to search may change


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_proposes(name: str, make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    if name == "cmaes":
        pytest.importorskip("cmaes")
    search = make_search(tmp_path / "s", make_problem({"sampler": name, "trials": 7}))
    search.run()
    rates = [values["rate"] for values in _values(search.study)]
    assert len(set(rates)) == 7
    assert all(0.01 <= rate <= 1 for rate in rates)


def test_a_sampler_whose_package_is_missing_is_named(
    make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3po.bench.trials.find_spec", lambda name: None)
    with pytest.raises(SuiteError, match="the sampler 'cmaes' needs the package cmaes: pip install cmaes"):
        open_study(tmp_path, make_problem({"sampler": "cmaes"}))


def test_environment_steps_bound_a_search(make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path) -> None:
    # a trial has two cells of 40 steps: 250 steps are enough for three trials
    search = make_search(tmp_path / "s", make_problem({"total_env_steps": 250, "seeds": 2}))
    search.run()
    assert len(ended(search.study)) == 3
    record = json.loads((tmp_path / "s" / "trials.json").read_text())
    assert record["cost"] == {"env_steps": 240, "seconds": 240.0}


@pytest.mark.parametrize("jobs", [1, 4])
def test_hours_bound_a_search_however_many_trials_run_side_by_side(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, jobs: int
) -> None:
    # a pretended cell takes a second for each of its 40 steps: 150 seconds are enough for three of them
    search = make_search(tmp_path / "s", make_problem({"hours": 150 / 3600}), jobs)
    search.run()
    assert len(ended(search.study)) == 3
    assert json.loads((tmp_path / "s" / "trials.json").read_text())["cost"]["seconds"] == 120


def test_what_others_have_under_way_has_its_share_of_the_hours(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem({"hours": 100 / 3600})
    first, second = (make_search(tmp_path / "s", problem, jobs=4) for _ in range(2))
    (begun,) = first.ask() or []
    assert first.ask() == [], "nobody knows yet what a trial takes"
    first.run_batch([begun])
    (under_way,) = first.ask() or []
    assert second.ask() == [], "two trials of 40 seconds and no third fit into 100"
    assert under_way.number == 2


def test_a_space_that_never_works_ends_the_search(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3po.bench.search.HOPELESS", 4)
    problem = make_problem({"hours": 1}, seeds="1\ntune: {nudge: {batch: {choices: [8]}}}")
    search = make_search(tmp_path / "s", problem)
    search.run()
    # the first trial is the configuration as it stands; a batch of 8 is above the 4 environments
    assert [trial.state for trial in ended(search.study)] == [TrialState.COMPLETE, TrialState.FAIL]
    assert len(search.study.trials) == 1 + 4, "and the others repeat the second"


@pytest.mark.parametrize("bound", [{"hours": 1}, {"total_env_steps": 4000}, {"trials": 9}])
@pytest.mark.parametrize("jobs", [1, 4])
def test_a_configuration_is_one_trial_however_often_it_is_proposed(
    make_search: MakeSearch,
    make_problem: MakeProblem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ran: list[tuple[str, int]],
    bound: Any,
    jobs: int,
) -> None:
    monkeypatch.setattr("m3po.bench.search.HOPELESS", 8)
    problem = make_problem({**bound, "sampler": "random"}, seeds="1\ntune: {nudge: {batch: {choices: [2, 4, 8]}}}")
    search = make_search(tmp_path / "s", problem, jobs)
    search.console = Console(file=(said := io.StringIO()), width=200)
    search.run()
    trials = ended(search.study)
    assert {trial.params["batch"] for trial in trials} == {2, 4, 8}
    assert len(trials) == 3, "8 is above the 4 environments: an outcome, once"
    assert len(ran) == 2
    record = json.loads((tmp_path / "s" / "trials.json").read_text())
    assert [entry["number"] for entry in record["trials"]] == [0, 1, 2]
    assert record["repeats"] == len(search.study.trials) - 3 > 0
    assert "the last 8 proposals could not work or only repeated earlier ones" in said.getvalue()
    repeated = [trial for trial in search.study.trials if "repeats" in trial.user_attrs]
    # but for what was under way then, the sampler is told what the other had
    known = {trial.number: (trial.state, trial.values) for trial in trials}
    told = [(trial.state, trial.values) == known[trial.user_attrs["repeats"]] for trial in repeated]
    assert all(told[-4:])


def test_a_sampler_that_only_repeats_itself_is_relieved_by_chance(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def recorded(name: SamplerName, number: int) -> BaseSampler:
        asked.append(name)
        return sampler(name, number)

    monkeypatch.setattr("m3po.bench.search.HOPELESS", 4)
    monkeypatch.setattr("m3po.bench.search.sampler", recorded)
    search = make_search(
        tmp_path / "s", replace(make_problem({"trials": 9}), space={"batch": SearchSpace(choices=(2,))})
    )
    search.run()
    assert asked == ["tpe", "tpe", "tpe", "random", "random"], "of what stands, and of four that repeat it"


def test_a_configuration_that_was_ended_early_is_not_run_when_it_is_proposed_again(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3po.bench.search.HOPELESS", 4)
    monkeypatch.setattr(Trial, "should_prune", lambda self: True)
    problem = make_problem({"pruner": "halving", "env_steps": 36, "trials": 3, "sampler": "random"})
    problem = replace(problem, space={"batch": SearchSpace(choices=(2, 4))})
    search = make_search(tmp_path / "s", problem)
    search.run()
    states = {(trial.params["batch"], trial.state) for trial in search.study.trials}
    assert states == {(2, TrialState.COMPLETE), (4, TrialState.PRUNED)}
    assert {tuple(trial.intermediate_values) for trial in search.study.trials if trial.params["batch"] == 4} == {(1,)}
    assert len(ended(search.study)) == 2


def test_seeds_of_the_suite_are_refused(make_problem: MakeProblem) -> None:
    with pytest.raises(SuiteError, match=r"tuning would use seeds of the suite \(0\); name others"):
        make_problem({"seeds": (0, 7)})
    with pytest.raises(SuiteError, match=r"seeds of the suite \(10000\)"):
        make_problem(seeds="[0, 10000]")
    assert make_problem({"seeds": 2}).seeds == (10_000, 10_001)
    assert make_problem(seeds="[3, 5]").seeds == (10_003, 10_005)


def test_wilcoxons_test_ends_a_trial_that_is_worse_on_every_task_and_seed(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, ran: list[tuple[str, int]]
) -> None:
    # the trial as it stands scores 0.85 on all of six seeds; rates below 0.05 and above 0.35 are worse on each of them
    search = make_search(tmp_path / "s", make_problem({"pruner": "wilcoxon", "seeds": 6, "trials": 6}))
    search.run()
    trials = ended(search.study)
    worse = [trial for trial in trials if not 0.05 <= trial.params["rate"] <= 0.35]
    assert worse, "the space is mostly worse"
    assert {trial.number for trial in trials if "pruned" in trial.user_attrs} == {trial.number for trial in worse}
    for trial in trials:
        seen = {cell for cell, _ in ran} & set(trial.user_attrs["cells"])
        # one-sided, n equal signs have p = 0.5^n: below 0.1 with four cells, which run one by one
        assert len(seen) == (4 if trial in worse else 6)
        assert trial.state == TrialState.COMPLETE
        assert trial.user_attrs["valid"] is (trial not in worse)


def test_halving_lets_the_same_cells_go_on(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, ran: list[tuple[str, int]]
) -> None:
    problem = make_problem({"pruner": "halving", "env_steps": 36, "trials": 12})
    assert problem.rungs == (4, 12, 36), "36 / 9 and 36 / 3, at an evaluation every 4"
    search = make_search(tmp_path / "s", problem)
    search.run()
    trials = ended(search.study)
    lengths = {trial.number: [until for cell, until in ran if cell in trial.user_attrs["cells"]] for trial in trials}
    assert {tuple(of) for of in lengths.values()} <= {(4,), (4, 12), (4, 12, 36)}
    whole = [number for number, of in lengths.items() if len(of) == 3]
    assert 0 < len(whole) < len(trials)
    assert {trial.number for trial in trials if trial.user_attrs["valid"]} == set(whole)
    assert {trial.state for trial in trials if trial.number not in whole} == {TrialState.PRUNED}
    best = max(trials, key=lambda trial: 1 - abs(trial.params["rate"] - 0.2))
    assert best.number in whole


@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
def test_a_trial_that_was_interrupted_does_not_compete_with_itself(
    pruner: str, make_problem: MakeProblem, tmp_path: Path
) -> None:
    problem = make_problem({"pruner": pruner, "env_steps": 36})
    study = open_study(tmp_path, problem)
    study.pruner._get_bracket_id = lambda study, trial: 0  # type: ignore[attr-defined]  # all in one bracket
    for _ in range(3):  # interrupted behind the first rung
        trial = study.ask()
        trial.report(0.9, 1)
        assert not trial.should_prune()
        trial.set_user_attr("stopped", True)
        requeue(study, tmp_path)
    for score, pruned in ((0.9, False), (0.95, False), (0.92, True)):
        trial = study.ask()
        trial.report(score, 1)
        # one of three goes on, the best; of six, with 0.9 four times, it would be two, and 0.92 one of them
        assert trial.should_prune() is pruned
    reported = [trial.system_attrs["completed_rung_0"] for trial in study.trials]
    assert reported == [0.9, 0.9, 0.9, 0.9, 0.95, 0.92], "Optuna keeps what failed trials reported"


@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_every_pruner_of_curves_works(
    pruner: str, make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    search = make_search(tmp_path / "s", make_problem({"pruner": pruner, "env_steps": 36, "trials": 9}))
    search.run()
    states = {trial.state for trial in ended(search.study)}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}


def test_what_trials_are_held_against_is_measured_whole(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem({"pruner": "halving", "env_steps": 36, "trials": 3})
    search = make_search(tmp_path / "s", problem)
    monkeypatch.setattr(Trial, "should_prune", lambda self: True)
    search.run()
    found = _found(problem, json.loads((tmp_path / "s" / "trials.json").read_text()))
    assert [(trial.default, trial.whole) for trial in found.trials] == [(True, True), (False, False), (False, False)]
    # the rate as it stood is 0.05
    assert found.stood == pytest.approx(0.85)
    assert found.origin.scores == (found.stood,), "what a trial had when it was ended early is no score of a search"


def test_rungs_need_room(make_problem: MakeProblem) -> None:
    with pytest.raises(SuiteError, match="3 rungs of 4, 4, 8 environment steps, each at an evaluation, do not grow"):
        _ = make_problem({"pruner": "halving", "env_steps": 8}).rungs


def test_two_objectives_seek_score_and_little_compute(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    search = make_search(tmp_path / "s", make_problem({"objectives": ("score", "updates"), "trials": 3}))
    search.run()
    for trial in ended(search.study):
        # a pretended cell makes two updates in each of its 40 steps
        assert trial.values == [pytest.approx(1 - abs(trial.params["rate"] - 0.2)), 80]
    told = read_search(tmp_path / "s")
    assert [trial.compute for trial in told.trials] == [80, 80, 80]
    assert told.objectives == ("score", "updates")
    assert told.best is not None
    assert told.front == (told.best,), "all need the same, so that only the best is beaten by none"
    assert told.default is not None
    assert told.default.values == {"rate": 0.05}


def test_a_diverged_cell_needs_what_it_would_have_needed(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    folder.write_status(CellStatus(id="x", state="diverged", env_step=10, env_steps=40, seconds=5.0))
    assert needed(folder, "seconds") == 20.0, "diverging early is not cheap: 5 s × 40 / 10"
    folder.write_status(CellStatus(id="x", state="done", env_step=40, env_steps=40, seconds=5.0))
    assert needed(folder, "seconds") == 5.0


def test_divergence_is_an_outcome_with_the_worst_value(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make_search(tmp_path / "s", make_problem({"trials": 1, "seeds": 2}))
    healthy = Search._run_cells

    def run_cells(self: Search, cells: Sequence[Cell], until: int) -> dict[str, CellStatus]:
        statuses = healthy(self, cells, until)
        return {
            name: status.model_copy(update={"state": "diverged"}) if name == cells[0].id else status
            for name, status in statuses.items()
        }

    monkeypatch.setattr(Search, "_run_cells", run_cells)
    search.run()
    (trial,) = ended(search.study)
    assert trial.state == TrialState.COMPLETE, "not a pruned one"
    # one of two cells diverged; the other scores 1 − |0.05 − 0.2|
    assert trial.value == pytest.approx((0 + 0.85) / 2)
    (entry,) = json.loads((tmp_path / "s" / "trials.json").read_text())["trials"]
    assert (entry["state"], entry["diverged"]) == ("done", 1)


def test_no_score_is_worse_than_divergence(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make_search(tmp_path / "s", make_problem({"trials": 1}))
    healthy = Search._run_cells

    def run_cells(self: Search, cells: Sequence[Cell], until: int) -> dict[str, CellStatus]:
        statuses = healthy(self, cells, until)
        return {name: status.model_copy(update={"last_score": -1.0}) for name, status in statuses.items()}

    monkeypatch.setattr(Search, "_run_cells", run_cells)
    search.run()
    assert [trial.value for trial in ended(search.study)] == [0.0]


def test_a_budget_below_one_trial_is_refused(make_problem: MakeProblem) -> None:
    with pytest.raises(
        SuiteError, match=r"total_env_steps \(79\) are less than one trial of nudge takes \(80: 2 cells"
    ):
        make_problem({"total_env_steps": 79, "seeds": 2})


def test_a_configuration_that_only_a_trial_could_run_cannot_work(write_suite: Callable[..., Path]) -> None:
    suite = load_suite(str(write_suite(agents="{ppo: {rollout_size: 64}}", budget="{env_steps: 100, num_envs: 4}")))
    problem = Problem.of(suite, "ppo", Tuning(trials=1, env_steps=200))
    assert len(problem.cells({"rollout_size": 80})) == 1
    with pytest.raises(ValueError, match=r"^one rollout takes 256 environment steps, .* budget of 200"):
        problem.cells({"rollout_size": 256})
    with pytest.raises(
        ValueError, match=r"^in the suite itself one rollout takes 128 environment steps, .* budget of 100"
    ):
        problem.cells({"rollout_size": 128})


def test_a_value_that_the_space_would_round_is_not_in_it(make_problem: MakeProblem) -> None:
    for rate, contained in ((0.5, {}), (1.0, {"rate": 1.0})):
        agents = f"{{nudge: {{rate: {rate}}}}}\ntune: {{nudge: {{rate: {{low: 0, high: 1, integer: true}}}}}}"
        assert make_problem({"trials": 1}, agents=agents).defaults() == contained


@pytest.mark.parametrize("agent", ["m3po", "ppo", "dreamerv3", "sac", "tdmpc2"])
def test_shipped_spaces_hold_what_stands(agent: str) -> None:
    """Some of Optuna's samplers never learn of a field that the first trial, the configuration as it stands, lacks."""
    problem = Problem.of(load_suite("dmc4"), agent, Tuning(trials=1))
    assert set(problem.defaults()) == set(problem.space)


def test_importance_is_optunas_and_finds_the_field_that_matters(
    make_search: MakeSearch, make_problem: MakeProblem, tmp_path: Path
) -> None:
    spaces = "{rate: {low: 0.01, high: 1.0, log: true}, pause: {low: 0.0, high: 1.0}}"
    found = []
    for objectives in (("score",), ("score", "updates")):
        tuning = {"trials": 20, "sampler": "random", "objectives": objectives}
        folder = tmp_path / str(len(objectives))
        make_search(folder, make_problem(tuning, seeds=f"1\ntune: {{nudge: {spaces}}}")).run()
        found.append(read_search(folder).importance)
    assert found[0].keys() == {"rate", "pause"}
    assert sum(found[0].values()) == pytest.approx(1)
    assert found[0]["rate"] > 0.6
    assert found[1] == pytest.approx(found[0]), "with two objectives, what matters is what matters to the score"

"""Who runs, who waits, and how an end is understood: with a launcher that only pretends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from m3po.bench.interrupt import Interrupt
from m3po.bench.records import CellStatus, State
from m3po.bench.run import BUSY, OUT_OF_SPACE
from m3po.bench.scheduler import run_cells
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.study import StudyFolder, build_study
from suites.catalog import load_suite


@dataclass
class FakeJob:
    folder: CellFolder
    end: Callable[[CellFolder], int | None]
    stopped: bool = False
    killed: bool = False

    def poll(self) -> int | None:
        return self.end(self.folder)

    def stop(self) -> None:
        self.stopped = True

    def kill(self) -> None:
        self.killed = True


@dataclass
class FakeLauncher:
    end: Callable[[CellFolder], int | None]
    slots: int = 2
    jobs: list[FakeJob] = field(default_factory=list)

    def start(self, folder: CellFolder) -> FakeJob:
        self.jobs.append(FakeJob(folder, self.end))
        return self.jobs[-1]


def _ends(state: State, code: int) -> Callable[[CellFolder], int]:
    def end(folder: CellFolder) -> int:
        folder.write_status(CellStatus(id=folder.id, state=state, env_steps=400))
        return code

    return end


@pytest.fixture
def folders(plugin: Path, write_suite: Callable[..., Path], tmp_path: Path) -> list[CellFolder]:
    study = build_study(load_suite(str(write_suite(seeds="3"))))
    return StudyFolder(tmp_path / "results" / "tiny").create(study, {})


def _ignore(statuses: Mapping[str, CellStatus]) -> None: ...


def test_finished_cells_are_skipped_and_failed_ones_tried_again(folders: list[CellFolder]) -> None:
    for folder, state in zip(folders, ("done", "diverged", "failed"), strict=True):
        folder.write_status(CellStatus(id=folder.id, state=state, env_steps=400))  # type: ignore[arg-type]
    launcher = FakeLauncher(_ends("done", 0))
    statuses = run_cells(folders, launcher, _ignore)
    assert [job.folder for job in launcher.jobs] == [folders[2]]
    assert [status.state for status in statuses.values()] == ["done", "diverged", "done"]


def test_one_failure_does_not_stop_the_rest(folders: list[CellFolder]) -> None:
    launcher = FakeLauncher(lambda folder: (_ends("failed", 1) if folder == folders[0] else _ends("done", 0))(folder))
    statuses = run_cells(folders, launcher, _ignore)
    assert [status.state for status in statuses.values()] == ["failed", "done", "done"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, "killed, most likely for lack of memory"),
        (137, "killed, most likely for lack of memory"),
        (-11, "ended by SIGSEGV without a word; see log.txt"),
        (17, "ended with exit code 17 without a word"),
        (OUT_OF_SPACE, "no space left on the disk"),
    ],
)
def test_a_worker_that_dies_without_a_word_is_a_failure_with_its_reason(
    folders: list[CellFolder], code: int, message: str
) -> None:
    folders[0].write_status(CellStatus(id=folders[0].id, state="running", env_steps=400))
    statuses = run_cells(folders[:1], FakeLauncher(lambda folder: code), _ignore)
    assert statuses[folders[0].id].state == "failed"
    assert message in statuses[folders[0].id].message
    assert folders[0].status() == statuses[folders[0].id], "it is written down too"


@pytest.mark.parametrize("state", ["done", "diverged"])
@pytest.mark.parametrize(("code", "how"), [(-11, "was ended by SIGSEGV"), (137, "ended with exit code 137")])
def test_a_worker_that_dies_after_its_last_word_leaves_a_finished_cell(
    folders: list[CellFolder], state: State, code: int, how: str
) -> None:
    statuses = run_cells(folders[:1], FakeLauncher(_ends(state, code)), _ignore)
    assert statuses[folders[0].id].state == folders[0].status().state == state
    assert folders[0].log.read_text() == f"the cell was {state} before its process {how}\n"


def test_what_a_worker_said_last_is_its_reason(folders: list[CellFolder]) -> None:
    said = "cannot lock /results/lock: no locks available; its file system has to offer file locks\n\n"

    def ends(folder: CellFolder) -> int:
        folder.log.write_bytes(b"2026 WARNING an earlier line \xff\n" + said.encode())
        return 1

    (status,) = run_cells(folders[:1], FakeLauncher(ends), _ignore).values()
    assert status.message == f"its process ended with exit code 1; log.txt in its folder ends with: {said.strip()}"


def test_never_more_cells_than_slots(folders: list[CellFolder]) -> None:
    launcher = FakeLauncher(lambda folder: None, slots=2)
    interrupt = Interrupt()

    def watch(statuses: Mapping[str, CellStatus]) -> None:
        assert len(launcher.jobs) == 2
        interrupt.count = 2

    run_cells(folders, launcher, watch, interrupt)
    assert [job.killed for job in launcher.jobs] == [True, True]


def test_an_interruption_asks_the_running_cells_and_starts_no_more(folders: list[CellFolder]) -> None:
    said: list[str] = []
    interrupt = Interrupt(said.append)
    launcher = FakeLauncher(lambda folder: None, slots=1)

    def end(folder: CellFolder) -> int | None:
        return _ends("preempted", 3)(folder) if launcher.jobs[0].stopped else None

    launcher.end = end

    def watch(statuses: Mapping[str, CellStatus]) -> None:
        interrupt.count = 1

    statuses = run_cells(folders, launcher, watch, interrupt)
    assert len(launcher.jobs) == 1
    assert [status.state for status in statuses.values()] == ["preempted", "pending", "pending"]
    assert "Ctrl-C again" in said[0]


def test_a_worker_that_was_stopped_before_it_could_listen_did_not_fail(folders: list[CellFolder]) -> None:
    interrupt = Interrupt()
    launcher = FakeLauncher(lambda folder: -15 if launcher.jobs[0].stopped else None)

    def watch(statuses: Mapping[str, CellStatus]) -> None:
        interrupt.count = 1

    statuses = run_cells(folders[:1], launcher, watch, interrupt)
    assert statuses[folders[0].id].state == "pending"


def test_a_cell_held_elsewhere_is_waited_for(folders: list[CellFolder]) -> None:
    launcher = FakeLauncher(_ends("done", 0))
    holder = ExitStack()
    holder.enter_context(folders[0].held())
    folders[0].write_status(CellStatus(id=folders[0].id, state="running", env_steps=400))
    seen: list[State] = []

    def watch(statuses: Mapping[str, CellStatus]) -> None:
        seen.append(statuses[folders[0].id].state)
        if statuses[folders[1].id].state == statuses[folders[2].id].state == "done":
            _ends("done", 0)(folders[0])  # its other holder finishes it
            holder.close()

    said: list[str] = []
    statuses = run_cells(folders, launcher, watch, Interrupt(said.append))
    assert [job.folder for job in launcher.jobs] == folders[1:]
    assert "running" in seen
    assert [f"{folders[0].id} is being run by another process" in sentence for sentence in said] == [True]
    assert statuses[folders[0].id].state == "done"


def test_a_cell_whose_other_holder_was_killed_is_taken_over(folders: list[CellFolder]) -> None:
    launcher = FakeLauncher(_ends("done", 0))
    holder = ExitStack()
    holder.enter_context(folders[0].held())
    folders[0].write_status(CellStatus(id=folders[0].id, state="running", env_steps=400))
    statuses = run_cells(folders[:1], launcher, lambda statuses: holder.close())
    assert [job.folder for job in launcher.jobs] == folders[:1]
    assert statuses[folders[0].id].state == "done"


def test_without_waiting_a_cell_held_elsewhere_is_left_to_its_holder(folders: list[CellFolder]) -> None:
    launcher = FakeLauncher(_ends("done", 0))
    with folders[0].held():
        folders[0].write_status(CellStatus(id=folders[0].id, state="running", env_steps=400))
        statuses = run_cells(folders, launcher, _ignore, wait=False)
    assert [job.folder for job in launcher.jobs] == folders[1:]
    assert [status.state for status in statuses.values()][1:] == ["done", "done"]


def test_a_busy_worker_is_no_failure(folders: list[CellFolder]) -> None:
    answers = iter([BUSY, 0])

    def end(folder: CellFolder) -> int:
        code = next(answers)
        return code if code else _ends("done", 0)(folder)

    statuses = run_cells(folders[:1], FakeLauncher(end), _ignore)
    assert statuses[folders[0].id].state == "done"


def test_a_worker_that_cannot_be_started_is_a_failure(folders: list[CellFolder]) -> None:
    class Broken(FakeLauncher):
        def start(self, folder: CellFolder) -> FakeJob:
            raise StoreError("cannot start")

    statuses = run_cells(folders, Broken(lambda folder: None), _ignore)
    assert {status.message for status in statuses.values()} == {"cannot start"}


def test_a_lock_that_cannot_be_looked_at_fails_its_cell_alone(folders: list[CellFolder]) -> None:
    (folders[1].path / "lock").symlink_to("lock")  # another user's would be as good, but not where tests are root's
    statuses = run_cells(folders, FakeLauncher(_ends("done", 0)), _ignore)
    assert [status.state for status in statuses.values()] == ["done", "failed", "done"]
    assert "cannot look at" in statuses[folders[1].id].message


def test_an_error_here_stops_the_running_cells_behind_a_checkpoint(folders: list[CellFolder]) -> None:
    launcher = FakeLauncher(lambda folder: None, slots=2)

    def end(folder: CellFolder) -> int | None:
        return _ends("preempted", 3)(folder) if all(job.stopped for job in launcher.jobs) else None

    def watch(statuses: Mapping[str, CellStatus]) -> None:
        launcher.end = end
        for job in launcher.jobs:
            job.end = end
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        run_cells(folders, launcher, watch)
    assert [(job.stopped, job.killed) for job in launcher.jobs] == [(True, False)] * 2
    assert [folder.status().state for folder in folders] == ["preempted", "preempted", "pending"]


def test_a_worker_that_ended_at_once_when_it_was_asked_twice_did_not_fail(folders: list[CellFolder]) -> None:
    folders[0].write_status(CellStatus(id=folders[0].id, state="running", env_steps=400))
    statuses = run_cells(folders[:1], FakeLauncher(lambda folder: 3), _ignore)
    assert statuses[folders[0].id].state == "preempted"
    assert "run again to go on" in statuses[folders[0].id].message

"""Kill -9 at bad moments; run again; the rows are those of an undisturbed run."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from m3po.bench.checkpoints import Checkpoints
from m3po.bench.store import CellFolder
from tests.bench.conftest import Cli, evaluation_rows, metric_rows, wait_for

WriteSuite = Callable[..., Path]
SLOW = "{nudge: {pause: 0.05}}"  # a cell takes five seconds at least


def _cells(results: Path) -> list[Path]:
    study = json.loads((results / "tiny" / "study.json").read_text())
    return [results / "tiny" / cell["id"] for cell in study["cells"]]


def _env_step(results: Path) -> int:
    if not (results / "tiny" / "study.json").exists():
        return -1
    return max(CellFolder(cell).status().env_step for cell in _cells(results))


def _assert_equal_rows(results: Path, expected: Path) -> None:
    for cell in _cells(results):
        assert evaluation_rows(cell) == evaluation_rows(expected / "tiny" / cell.name)
        assert metric_rows(cell) == metric_rows(expected / "tiny" / cell.name)


def test_killing_worker_and_scheduler_changes_no_row(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents=SLOW)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert cli("run", suite, "--results", whole, "--no-report").returncode == 0

    scheduler = cli.start("run", suite, "--results", killed, "--no-report")
    wait_for(lambda: _env_step(killed) >= 120, what="training")
    worker = CellFolder(_cells(killed)[0]).status().pid
    os.kill(worker, signal.SIGKILL)
    out, _ = scheduler.communicate(timeout=60)
    assert scheduler.returncode == 1
    assert "killed, most likely for lack of memory" in out

    scheduler = cli.start("run", suite, "--results", killed, "--no-report")
    wait_for(lambda: _env_step(killed) >= 240, what="training")
    scheduler.kill()
    # at once, while the orphaned worker may still hold its cell
    last = cli("run", suite, "--results", killed, "--no-report")
    assert last.returncode == 0, last.stderr
    _assert_equal_rows(killed, whole)


def test_two_schedulers_share_the_cells(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents=SLOW, seeds="2")
    results = tmp_path / "results"
    both = [cli.start("run", suite, "--results", results, "--no-report", "--jobs", 1) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    for cell in _cells(results):
        # evaluations at 0, 100, 200, 300, 400 with 3 episodes each: every cell ran once
        assert len(evaluation_rows(cell)) == 15
        assert "Traceback" not in (cell / "log.txt").read_text()


def test_ctrl_c_once_checkpoints_and_the_next_run_goes_on(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents=SLOW, seeds="3")
    process = cli.start("run", suite, "--jobs", 1)
    results = tmp_path / "results"
    wait_for(lambda: _env_step(results) >= 20, what="training")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "interrupted: 0 of 3 cells are finished" in out
    states = [CellFolder(cell).live_status().state for cell in _cells(results)]
    assert states == ["preempted", "pending", "pending"]
    stopped_at = CellFolder(_cells(results)[0]).status().env_step
    assert (_cells(results)[0] / "checkpoints" / str(stopped_at) / "done").exists()


def test_ctrl_c_twice_ends_everything_at_once(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    process = cli.start("run", write_suite(agents="{nudge: {pause: 300}}"))
    cell = wait_for(lambda: _running_cell(tmp_path / "results"), what="the cell")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert any("Ctrl-C again" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert not cell.is_held(), "the worker lives on"
    assert cell.live_status().state == "preempted"


def _running_cell(results: Path) -> CellFolder | None:
    if not (results / "tiny" / "study.json").exists():
        return None
    cell = CellFolder(_cells(results)[0])
    # the status says 'running' from the start; the first checkpoint shows that signals are obeyed
    return cell if (cell.path / "checkpoints" / "0" / "done").exists() else None


def test_an_amended_suite_runs_what_is_missing(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert cli("run", write_suite(), "--no-report").returncode == 0
    (first,) = _cells(results)
    before = (first / "evaluations.jsonl").stat().st_mtime_ns, (first / "status.json").stat().st_mtime_ns
    assert cli("run", write_suite(seeds="2"), "--no-report").returncode == 0
    assert len(_cells(results)) == 2
    assert all(CellFolder(cell).status().state == "done" for cell in _cells(results))
    assert ((first / "evaluations.jsonl").stat().st_mtime_ns, (first / "status.json").stat().st_mtime_ns) == before

    edited = cli("run", write_suite(agents="{nudge: {rate: 0.1}}"), "--no-report")
    assert edited.returncode == 0
    (anew,) = _cells(results)
    assert anew != first
    assert first.exists(), "the superseded result is kept"


def test_cells_made_by_other_code_of_an_agent_are_kept_and_told(
    cli: Cli, plugin: Path, write_suite: Callable[..., Path]
) -> None:
    assert cli("run", write_suite(), "--no-report").returncode == 0
    again = cli("run", write_suite(), "--no-report")
    assert "made by" not in again.stdout + again.stderr
    source = plugin / "bench_test_agents.py"
    source.write_text(f"{source.read_text()}# changed\n")
    changed = cli("run", write_suite(), "--no-report")
    assert changed.returncode == 0
    told = changed.stdout + changed.stderr
    assert "1 cell of nudge made by test-agents 1.0, source" in told
    assert "to have it anew, remove toy-reach.nudge.s0." in told


def _stopped_cell(results: Path) -> CellFolder:
    """The only cell, which has to be stopped behind a checkpoint of its last step."""
    (cell,) = map(CellFolder, _cells(results))
    wait_for(lambda: not cell.is_held(), what="the worker's end")
    status = cell.status()
    assert status.state == "preempted", status
    kept = Checkpoints(cell.path / "checkpoints").newest()
    assert kept is not None
    assert kept.env_step == status.env_step > 0
    return cell


UPDATES_TAKE = "{nudge: {pause: 0.5}}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_leaves_a_checkpoint(
    cli: Cli, write_suite: WriteSuite, tmp_path: Path, number: signal.Signals
) -> None:
    """As systemd ends a service, and Slurm a job or warns it of its end."""
    results = tmp_path / "results"
    process = cli.start("run", write_suite(agents=UPDATES_TAKE, evaluation="{every: 400, episodes: 1}"))
    wait_for(lambda: _env_step(results) > 0, what="training")
    os.kill(CellFolder(_cells(results)[0]).status().pid, number)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, (out, err)
    _stopped_cell(results)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_before_any_cell_runs_is_an_interruption_too(
    cli: Cli, plugin: Path, write_suite: WriteSuite, tmp_path: Path, number: signal.Signals
) -> None:
    """As while everything is imported, a GPU is looked for, cells are created, the report is written."""
    asked = tmp_path / "asked"
    (plugin / "torch.py").write_text(f"import time; open({str(asked)!r}, 'w').close(); time.sleep(60)\n")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        process = cli.start("run", write_suite(), "--device", "cuda")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(asked.exists, what="the question for a GPU")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert err == "interrupted; run the same command again to go on\n"


def test_a_reader_that_is_gone_changes_nothing(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    results = tmp_path / "results"
    process = cli.start("run", write_suite(agents=UPDATES_TAKE, evaluation="{every: 400, episodes: 1}"))
    wait_for(lambda: _env_step(results) > 0, what="training")
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 3
    _stopped_cell(results)
    process.stderr.close()


def test_a_closed_terminal_leaves_a_checkpoint(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents=UPDATES_TAKE, evaluation="{every: 400, episodes: 1}")
    results = tmp_path / "results"
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

    process = subprocess.Popen(
        [sys.executable, "-c", "from m3po.bench.cli import main; main()", "run", suite],
        cwd=tmp_path,
        text=True,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    cli.started.append(process)
    os.close(theirs)

    def trains() -> bool:
        while select.select([ours], [], [], 0)[0]:
            os.read(ours, 65536)  # a terminal takes no more before it is read
        return _env_step(results) > 0

    wait_for(trains, what="training")
    os.close(ours)
    assert process.wait(60) == 3
    _stopped_cell(results)


def test_nohup_outlives_its_terminal(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    results = tmp_path / "results"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        process = cli.start("run", write_suite(agents=SLOW), "--no-report")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: _env_step(results) > 0, what="training")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "stopping" not in out

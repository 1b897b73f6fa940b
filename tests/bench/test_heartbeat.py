"""What a cell's status says while it runs, and what ends it when it hangs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from m3po.bench import heartbeat, run
from m3po.bench.heartbeat import HANG_SIGNAL, HUNG, Heartbeat
from m3po.bench.loop import Clock
from m3po.bench.run import run_cell
from m3po.bench.session import CellSession
from m3po.bench.store import CellFolder
from tests.bench.conftest import MakeCell, wait_for


def test_a_finished_cell_tells_the_pace_of_all_it_did(make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "total", property(lambda clock: 50.0))
    status = run_cell(make_cell().path)
    assert status is not None
    assert status.steps_per_second == 400 / 50


def test_a_running_cell_tells_no_pace_until_its_agent_learns(make_cell: MakeCell) -> None:
    folder = make_cell()
    seen: list[tuple[int, float | None]] = []

    class Beats(Heartbeat):
        """Beats once at each step of the loop instead of once a second."""

        def watch(self, session: CellSession) -> None:
            super().watch(session)
            between = session.between_steps

            def beat(env_step: int, carry: object) -> None:
                seen.append((env_step, self.status("running").steps_per_second))
                between(env_step, carry)

            session.between_steps = beat  # type: ignore[method-assign]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Heartbeat", Beats)
        run_cell(folder.path)
    # Nudge tells of every third update, the first of them after 12 steps: 4 environments, an update every 4 steps
    assert {rate for env_step, rate in seen if env_step <= 12} == {None}
    assert all(rate for env_step, rate in seen if env_step > 12)


def test_peak_memory_counts_the_processes_that_step_environments() -> None:
    alone = heartbeat._peak_memory_mb()
    program = "import sys; memory = bytearray(100_000_000); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert heartbeat._peak_memory_mb() - alone > 95
        child.communicate()
    assert heartbeat._peak_memory_mb() - alone < 50


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak")
def test_peak_memory_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    measure = "from m3po.bench import heartbeat; print(heartbeat._peak_memory_mb())"
    heavy = f"import subprocess, sys; x = bytearray(600_000_000); subprocess.run([sys.executable, '-c', {measure!r}])"
    told = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True).stdout
    assert 10 < float(told) < 500


def test_threads_and_processes_that_end_while_they_are_counted_count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "0" / "children"]))
    assert heartbeat._peak_memory_mb() > 0
    assert heartbeat._peak_of("0") == 0


def worker(folder: CellFolder, hang_seconds: float, step: str, more: str = "") -> subprocess.Popen[str]:
    """A worker process in which a step of the environment is the lambda ``step``."""
    script = (
        "import sys, time, m3po.bench.heartbeat as heartbeat, suites.toy\n"
        "from m3po.bench.run import main\n"
        "plain = suites.toy.Reach.step\n"
        f"heartbeat.HANG_SECONDS = {hang_seconds}\n"
        f"suites.toy.Reach.step = {step}\n"
        f"{more}\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", script, str(folder.path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("step", "code"),
    [("lambda self, action: time.sleep(1000)", HUNG), ("lambda self, action: sum(range(10**12))", -HANG_SIGNAL)],
    ids=["letting other threads run", "letting no other thread run"],
)
def test_a_hung_environment_ends_its_process_with_the_stacks(make_cell: MakeCell, step: str, code: int) -> None:
    process = worker(make_cell(), 1, step)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "in <lambda>" in said
    assert "suites/lanes.py" in said


def test_a_stopped_process_hangs_in_nothing(make_cell: MakeCell) -> None:
    """As a cluster stops it to let another job pass, here for longer than an environment may hang."""
    folder = make_cell()
    process = worker(folder, 1, "lambda self, action: time.sleep(0.02) or plain(self, action)")
    wait_for(lambda: folder.status().env_step > 0)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_a_disk_that_does_not_answer_is_no_hung_environment(make_cell: MakeCell) -> None:
    """As a network file system whose server is away: whoever writes waits, and the training goes on meanwhile."""
    folder = make_cell()
    # 100 steps of 4 environments, 0.02 s of processor time each: 8 s. A status waits for 4 s of them; 2 s mean hung
    away = (
        "from m3po.bench.store import CellFolder\n"
        "write = CellFolder.write_status\n"
        "def waits(self, status):\n"
        "    while time.process_time() < 4 and status.state == 'running': time.sleep(0.1)\n"
        "    write(self, status)\n"
        "CellFolder.write_status = waits\n"
        "def busy(seconds):\n"
        "    end = time.thread_time() + seconds\n"
        "    while time.thread_time() < end: pass"
    )
    process = worker(folder, 1, "lambda self, action: busy(0.02) or plain(self, action)", away)
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert folder.status().state == "done"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_no_heartbeat_is_left_behind(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    """However a cell ends that was run from Python: a thread left over would say that it runs."""

    def train(*arguments: Any) -> None:
        assert "heartbeat" in {thread.name for thread in threading.enumerate()}
        if error is not None:
            raise error

    monkeypatch.setattr(run, "_train", train)
    folder = make_cell()
    with nullcontext() if error is None else pytest.raises(error):
        assert run_cell(folder.path) is not None
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}

"""One cell: what it writes, and that an interruption changes nothing."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from m3po.bench import run, session
from m3po.bench.checkpoints import Checkpoints
from m3po.bench.evaluate import Evaluator
from m3po.bench.launch.local import LocalJob, LocalLauncher
from m3po.bench.run import OUT_OF_SPACE, run_cell
from m3po.bench.session import Progress, StopRequest
from m3po.bench.store import CellFolder, StoreError
from suites.seeding import EpisodeSeed
from suites.spec import Stream
from suites.toy import Reach, Terminate
from tests.bench.conftest import ROOT, MakeCell, evaluation_rows, metric_rows, wait_for


def test_a_cell_evaluates_at_the_start_at_every_period_and_at_the_end(make_cell: MakeCell) -> None:
    folder = make_cell(budget="{env_steps: 250, num_envs: 4}")
    status = run_cell(folder.path)
    assert status is not None
    assert (status.state, status.message) == ("done", "")
    rows = evaluation_rows(folder.path)
    # 4 environments: env_step moves by 4, so the budget of 250 is reached at 252
    assert [row["env_step"] for row in rows] == [step for step in (0, 100, 200, 252) for _ in range(3)]
    assert [row["episode"] for row in rows] == [0, 1, 2] * 4
    assert status.env_step == 252


def test_an_evaluation_knows_the_updates_the_agent_told_last(make_cell: MakeCell) -> None:
    folder = make_cell(evaluation="{every: 100, episodes: 1}")
    assert run_cell(folder.path) is not None
    # 4 environments: an update every 4 steps, told at every third one; 25, 50, 75 and 100 of them
    told = [(row["env_step"], row["updates"]) for row in evaluation_rows(folder.path)]
    assert told == [(0, None), (100, 24), (200, 48), (300, 75), (400, 99)]


def test_every_evaluation_starts_from_the_same_states_and_leaves_training_alone(make_cell: MakeCell) -> None:
    often = make_cell("often", evaluation="{every: 20, episodes: 3}")
    seldom = make_cell("seldom", evaluation="{every: 200, episodes: 3}")
    assert run_cell(often.path) is not None
    assert run_cell(seldom.path) is not None
    common = [row for row in evaluation_rows(often.path) if row["env_step"] in (0, 200, 400)]
    for row in common:
        row.pop("config_hash")
    expected = evaluation_rows(seldom.path)
    for row in expected:
        row.pop("config_hash")
    assert common == expected


def test_exactly_the_stated_episodes_where_they_end_early(make_cell: MakeCell) -> None:
    # toy-terminate's episodes differ in length; 40 episodes need two rounds of the 32 environments
    folder = make_cell(tasks="{family: toy, names: [toy-terminate]}", evaluation="{every: 400, episodes: 40}")
    assert run_cell(folder.path) is not None
    rows = evaluation_rows(folder.path)
    assert [row["episode"] for row in rows] == [*range(40), *range(40)]
    assert len({row["length"] for row in rows}) > 1


@pytest.mark.parametrize(
    ("stream", "begun"), [("train", {("train", 0), ("evaluate", 0)}), ("tune", {("tune", 0), ("tune", 1_000_000)})]
)
def test_no_episode_is_both_trained_and_evaluated_on(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch, stream: Stream, begun: set[tuple[str, int]]
) -> None:
    seen: set[tuple[str, int]] = set()
    reset = Reach.reset

    def noted(self: Reach, seed: EpisodeSeed) -> Any:
        seen.add((seed.stream, seed.base))
        return reset(self, seed)

    monkeypatch.setattr(Reach, "reset", noted)
    folder = make_cell(stream=stream)
    assert run_cell(folder.path) is not None
    assert seen == begun


def test_metrics_are_evenly_spaced_means(make_cell: MakeCell) -> None:
    folder = make_cell()
    assert run_cell(folder.path) is not None
    rows = folder.metrics.rows()
    # evaluation every 100, ten rows of metrics in between: each time env_step, in steps of 4, passes a multiple of 10
    assert [row["env_step"] for row in rows[:5]] == [12, 20, 32, 40, 52]
    assert rows[-1]["env_step"] == 400
    accounts = rows[-1]
    assert accounts["seconds"] == pytest.approx(
        accounts["time/env"] + accounts["time/agent"] + accounts["time/other"], abs=0.003
    )
    assert {"agent/loss", "train/return/toy-reach"} <= set().union(*rows)


def test_what_an_agent_says_of_itself_is_kept_with_each_evaluation(make_cell: MakeCell) -> None:
    folder = make_cell(tasks="{family: toy, set: all}", mode="joint")
    assert run_cell(folder.path) is not None
    rows = folder.diagnostics.rows()
    assert [row["env_step"] for row in rows] == sorted({row["env_step"] for row in evaluation_rows(folder.path)})
    assert {(row["name"], row["title"], *row["axes"]) for row in rows} == {("weight", "Mean weight", "task")}
    assert all(row["values"][0] is None and isinstance(row["values"][1], float) for row in rows)


def test_the_page_on_result_files_has_every_column_that_is_written(
    make_cell: MakeCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    folder = make_cell(tasks="{family: toy, set: all}", mode="joint")
    assert run_cell(folder.path) is not None
    files = sorted(path for path in folder.path.iterdir() if path.suffix in (".json", ".jsonl"))
    sections = re.findall(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert sorted(name for name, _ in sections) == [path.name for path in files]
    for name, section in sections:
        text = (folder.path / name).read_text(encoding="utf-8")
        written = set().union(*map(json.loads, text.splitlines() if name.endswith("l") else [text]))
        cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        documented = set(re.findall(r"`([^`]+)`", " ".join(cells)))
        patterns = {column: re.compile(re.sub(r"<\w+>", ".+", column)) for column in documented}
        unknown = [key for key in written if not any(pattern.fullmatch(key) for pattern in patterns.values())]
        absent = [column for column, pattern in patterns.items() if not any(map(pattern.fullmatch, written))]
        # no environment was replaced
        assert (unknown, absent) == ([], ["env/restarts"] if name == "metrics.jsonl" else []), name
    monkeypatch.chdir(tmp_path)
    shown = [
        block.replace("results/lite", "results/tiny") for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    ]
    raw, means = shown
    for code, rows in ((raw, 5 * 2 * 3), (means, 5 * 2)):  # evaluations, tasks, and of the first episodes
        names: dict[str, Any] = {}
        exec(code, names)
        assert len(names["rows"]) == rows


def test_a_checkpoint_comes_with_every_evaluation_and_after_five_minutes(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = 0.0, []
    record, write = session.CellSession.record, Checkpoints.write

    def slow(self: session.CellSession, *arguments: Any) -> None:
        nonlocal now
        now += 20.0
        record(self, *arguments)

    def noted(self: Checkpoints, env_step: int, fill: Callable[[Path], None]) -> None:
        written.append(env_step)
        write(self, env_step, fill)

    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    monkeypatch.setattr(session.CellSession, "record", slow)
    monkeypatch.setattr(Checkpoints, "write", noted)
    assert run_cell(make_cell(evaluation="{every: 200, episodes: 1}").path) is not None
    # by hand: a step of 4 environments takes 20 seconds, so more than 300 have gone by after 16 of them
    assert written == [0, 64, 128, 192, 200, 264, 328, 392, 400]


def test_a_cell_tells_what_it_takes_on_the_disk(make_cell: MakeCell) -> None:
    cell = make_cell()
    status = run_cell(cell.path)
    assert status is not None
    # The status is the one file that still changes: the heartbeat may have been replacing it then, or not.
    changing = (cell.path / "status.json").stat().st_size
    others = cell.size() - changing
    rounding = 500  # bytes: it is told to a thousandth of a megabyte
    assert status.disk_mb is not None
    assert others - rounding <= status.disk_mb * 1e6 <= others + 2 * changing + rounding
    assert status.disk_mb_at_end == status.disk_mb
    assert others > 5_000


def test_what_a_cell_will_take_follows_from_its_first_and_newest_checkpoint() -> None:
    progress = Progress()
    progress.note_size(0, 100)
    progress.note_size(0, 120)  # a second checkpoint of the same step
    assert progress.size_at(200) is None
    progress.note_size(50, 190)
    progress.note_size(100, 320)
    # 120 and 2 more for each of 100 steps
    assert (progress.size_at(100), progress.size_at(200)) == (320, 520)
    assert progress.size_at(90) == 320  # the budget may end behind an evaluation, before the last step


@pytest.mark.parametrize("steps_before", [1, 37, 100])
def test_a_stopped_cell_goes_on_bit_for_bit(
    make_cell: MakeCell, steps_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = make_cell("whole"), make_cell("parts")
    assert run_cell(whole.path) is not None
    with monkeypatch.context() as patch:
        record = session.CellSession.record
        taken = 0

        def stop_after(self: session.CellSession, *arguments: Any) -> None:
            nonlocal taken
            taken += 1
            if taken == steps_before:
                self.stop.ask("enough")
            record(self, *arguments)

        patch.setattr(session.CellSession, "record", stop_after)
        status = run_cell(parts.path, stop=StopRequest())
    assert status is not None
    if steps_before < 100:  # at step 100 of 4 environments the budget is used up: it ends as a whole run does
        assert (status.state, status.env_step) == ("preempted", 4 * steps_before)
        assert status.message == "enough; run again to go on"
    finished = run_cell(parts.path)
    assert finished is not None
    if steps_before == 100:
        finished = run_cell(parts.path)
        assert finished is not None
    assert finished.state == "done"
    assert evaluation_rows(parts.path) == evaluation_rows(whole.path)
    assert metric_rows(parts.path) == metric_rows(whole.path)
    assert parts.diagnostics.rows() == whole.diagnostics.rows()
    assert _last_state(parts) == _last_state(whole)
    assert finished.seconds >= status.seconds


def test_every_process_says_from_where_it_went_on_and_with_what(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that planned a cell need not be the code that ran it."""
    folder = make_cell()

    def run_as(commit: str, *, until: int | None = None) -> None:
        stop = StopRequest()
        record = session.CellSession.record

        def stop_there(self: session.CellSession, env_step: int, *arguments: Any) -> None:
            if until is not None and env_step >= until:
                stop.ask("enough")
            record(self, env_step, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(run, "gather", lambda device, agent: {"commit": commit, "device": device})
            patch.setattr(session.CellSession, "record", stop_there)
            assert run_cell(folder.path, stop=stop) is not None

    run_as("one", until=120)
    run_as("two")
    assert folder.starts.rows() == [
        {"env_step": 0, "commit": "one", "device": "cpu"},
        {"env_step": 120, "commit": "two", "device": "cpu"},
    ]
    assert folder.cell().provenance == {}


def test_a_start_whose_work_was_lost_leaves_no_trace(make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_cell()
    monkeypatch.setattr(run, "gather", lambda device, agent: {"commit": "lost"})
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_cell(folder.path)
    assert [row["commit"] for row in folder.starts.rows()] == ["lost"]
    monkeypatch.setattr(run, "gather", lambda device, agent: {"commit": "kept"})
    assert run_cell(folder.path) is not None
    assert [row["commit"] for row in folder.starts.rows()] == ["kept"]


def test_a_cell_without_checkpoints_keeps_the_rows_of_before(
    make_cell: MakeCell, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_cell(evaluation="{every: 200, episodes: 1}")
    for attempt in ("evaluations.jsonl.old", "evaluations.jsonl.old2"):
        assert run_cell(folder.path) is not None
        rows = (folder.path / "evaluations.jsonl").read_bytes()
        shutil.rmtree(folder.path / "checkpoints")  # as in an unpacked study
        (folder.path / "status.json").write_text("{}")
        assert run_cell(folder.path) is not None
        assert (folder.path / attempt).read_bytes() == rows
        assert "earlier rows are kept in evaluations.jsonl.old" in caplog.text
    assert [row["env_step"] for row in evaluation_rows(folder.path)] == [0, 200, 400]


def test_a_checkpoint_that_cannot_be_read_for_a_moment_is_not_given_up(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system answers now and then: the work is gone on with, not begun again."""
    folder = make_cell()
    stop = StopRequest()
    between = session.CellSession.between_steps

    def stops_at_300(self: session.CellSession, env_step: int, carry: Any) -> None:
        if env_step >= 300:
            stop.ask("a time limit")
        between(self, env_step, carry)

    with monkeypatch.context() as patch:
        patch.setattr(session.CellSession, "between_steps", stops_at_300)
        assert run_cell(folder.path, stop=stop) is not None
    read = Path.read_bytes

    def stale(self: Path) -> bytes:
        if self.name == "done":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        status = run_cell(folder.path)
    assert status is not None
    assert (status.state, "Stale file handle" in status.message) == ("failed", True), status
    assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["300"]
    status = run_cell(folder.path)
    assert status is not None
    assert status.state == "done"
    assert [row["env_step"] for row in folder.starts.rows()] == [0, 300]


def test_a_stop_within_an_evaluation_leaves_no_half_of_it(make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = make_cell("whole"), make_cell("parts")
    assert run_cell(whole.path) is not None
    stop, evaluations = StopRequest(), 0
    evaluate = Evaluator.__call__

    def stop_in_the_third(self: Evaluator, agent: Any, progress: Any, stopping: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        steps = itertools.count()

        def after_seven_steps() -> bool:
            if evaluations == 3 and next(steps) == 7:
                stop.ask("enough")
            return bool(stopping())

        return evaluate(self, agent, progress, after_seven_steps)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", stop_in_the_third)
        status = run_cell(parts.path, stop=stop)
    assert status is not None
    assert (status.state, status.env_step) == ("preempted", 200)
    assert {row["env_step"] for row in evaluation_rows(parts.path)} == {0, 100}
    assert run_cell(parts.path) is not None
    assert evaluation_rows(parts.path) == evaluation_rows(whole.path)


def test_rows_behind_the_last_checkpoint_are_written_again(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = make_cell("whole"), make_cell("parts")
    assert run_cell(whole.path) is not None
    write = Checkpoints.write

    def full_at_200(self: Checkpoints, env_step: int, fill: Callable[[Path], None]) -> None:
        if env_step == 200:
            raise StoreError("the disk is full")
        write(self, env_step, fill)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", full_at_200)
        status = run_cell(parts.path)
    assert status is not None
    assert (status.state, status.message) == ("failed", "the disk is full")
    assert max(row["env_step"] for row in evaluation_rows(parts.path)) == 200
    assert run_cell(parts.path) is not None
    assert evaluation_rows(parts.path) == evaluation_rows(whole.path)
    assert metric_rows(parts.path) == metric_rows(whole.path)
    assert parts.diagnostics.rows() == whole.diagnostics.rows()


def test_an_evaluation_at_the_step_of_an_older_checkpoint_is_not_written_twice(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop where an evaluation is due leaves a checkpoint without it; then the next one does not reach the disk."""
    whole, parts = make_cell("whole"), make_cell("parts")
    assert run_cell(whole.path) is not None
    stop = StopRequest()
    due = session.CellSession._evaluation_due
    with monkeypatch.context() as patch:

        def stop_at_200(self: session.CellSession, env_step: int, over: bool) -> bool:
            if env_step == 200:
                stop.ask("enough")
            return due(self, env_step, over)

        patch.setattr(session.CellSession, "_evaluation_due", stop_at_200)
        stopped = run_cell(parts.path, stop=stop)
    assert stopped is not None
    assert (stopped.state, stopped.env_step) == ("preempted", 200)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", lambda *arguments: (_ for _ in ()).throw(StoreError("the disk is full")))
        assert run_cell(parts.path) is not None
    assert max(row["env_step"] for row in evaluation_rows(parts.path)) == 200, "evaluated, and then no checkpoint"
    assert run_cell(parts.path) is not None
    assert evaluation_rows(parts.path) == evaluation_rows(whole.path)
    assert parts.diagnostics.rows() == whole.diagnostics.rows()
    assert metric_rows(parts.path) == metric_rows(whole.path)


def _last_state(folder: CellFolder) -> tuple[str, bytes]:
    checkpoint = Checkpoints(folder.path / "checkpoints").newest()
    assert checkpoint is not None
    agent = checkpoint.path / "agent"
    return (agent / "state.json").read_text(), (agent / "arrays.npz").read_bytes()


def test_a_finished_cell_is_left_alone(make_cell: MakeCell) -> None:
    folder = make_cell()
    first = run_cell(folder.path)
    before = (folder.path / "evaluations.jsonl").stat().st_mtime_ns
    assert run_cell(folder.path) == first
    assert (folder.path / "evaluations.jsonl").stat().st_mtime_ns == before


def test_only_one_process_holds_a_cell(make_cell: MakeCell) -> None:
    folder = make_cell()
    with folder.held() as ours:
        assert ours
        assert folder.is_held()
        assert run_cell(folder.path) is None
    assert not folder.is_held()


@pytest.mark.parametrize(("fault", "what"), [("nan", "action"), ("metric", "'loss'")])
def test_divergence_is_an_outcome_with_its_step(make_cell: MakeCell, fault: str, what: str) -> None:
    folder = make_cell(agents=f"{{nudge: {{fault: {fault}}}}}")
    status = run_cell(folder.path)
    assert status is not None
    # the 30th update belongs to env_step 120
    assert (status.state, status.env_step) == ("diverged", 120)
    assert what in status.message
    assert "120" in status.message
    assert {row["env_step"] for row in evaluation_rows(folder.path)} == {0, 100}
    kept = Checkpoints(folder.path / "checkpoints").newest()
    assert kept is not None
    assert kept.env_step == 100
    assert run_cell(folder.path) == status, "a diverged cell is finished"


def test_a_crash_fails_the_cell_with_its_reason(make_cell: MakeCell) -> None:
    folder = make_cell(agents="{nudge: {fault: crash}}")
    status = run_cell(folder.path)
    assert status is not None
    assert (status.state, status.message) == ("failed", "ZeroDivisionError: the agent broke")


def test_joint_cells_record_every_task(make_cell: MakeCell) -> None:
    folder = make_cell(tasks="{family: toy, set: all}", mode="joint")
    status = run_cell(folder.path)
    assert status is not None
    assert folder.id.startswith("joint.nudge.s0.")
    rows = evaluation_rows(folder.path)
    assert [row["task"] for row in rows[:6]] == ["toy-reach"] * 3 + ["toy-terminate"] * 3
    # last_score: the mean over both tasks of (mean score + 20) / 20, since toy scores lie in -20 … 0
    last = [row for row in rows if row["env_step"] == 400]
    assert status.last_score == pytest.approx(sum(row["score"] + 20 for row in last) / 6 / 20)
    assert status.last_score is not None
    assert math.isfinite(status.last_score)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_signals_stop_a_worker_behind_a_checkpoint(make_cell: MakeCell, number: signal.Signals) -> None:
    folder = make_cell(agents="{nudge: {pause: 0.05}}")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "m3po.bench.run", str(folder.path)],
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: folder.status().env_step > 20)
    process.send_signal(number)
    assert process.wait(timeout=60) == 3
    status = folder.live_status()
    assert (status.state, status.message) == ("preempted", f"stopped by {number.name}; run again to go on")
    checkpoint = Checkpoints(folder.path / "checkpoints").newest()
    assert checkpoint is not None
    assert checkpoint.env_step == status.env_step > 20


def test_a_supervised_worker_stops_when_its_parent_is_gone(make_cell: MakeCell) -> None:
    folder = make_cell(agents="{nudge: {pause: 0.05}}")
    process = subprocess.Popen(
        [sys.executable, "-m", "m3po.bench.run", str(folder.path), "--supervised"],
        stderr=subprocess.DEVNULL,
        stdin=subprocess.PIPE,
    )
    wait_for(lambda: folder.status().env_step > 20)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 3
    assert "scheduler is gone" in folder.live_status().message


def test_a_worker_has_one_thread_whatever_the_terminal_says(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    for name in names:
        monkeypatch.setenv(name, "8")
    given: dict[str, str] = {}
    monkeypatch.setattr(subprocess, "Popen", lambda command, *, env, **options: given.update(env))
    LocalLauncher(slots=1, env_processes=2).start(make_cell())
    assert {name: given[name] for name in names} == dict.fromkeys(names, "1")
    assert given["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("signal_first", [True, False])
def test_a_supervised_worker_stops_when_it_is_told_to_and_a_signal_beside_it_is_no_second(
    make_cell: MakeCell, signal_first: bool
) -> None:
    # both come within one update: a status shows the last one's end within a second
    folder = make_cell(agents="{nudge: {pause: 2}}")
    job = LocalLauncher(1).start(folder)
    wait_for(lambda: folder.status().env_step > 4)
    asked = [job.stop, lambda: job.process.send_signal(signal.SIGTERM)]
    for ask in reversed(asked) if signal_first else asked:
        ask()
        time.sleep(0.1)
    job.process.wait(60)
    job.stop()  # too late, and no error
    assert job.poll() == 3
    status = folder.status()
    assert status.state == "preempted"
    kept = Checkpoints(folder.path / "checkpoints").newest()
    assert kept is not None
    assert kept.env_step == status.env_step > 4


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux tells a process's environment")
def test_several_gpus_are_dealt_out(make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    cells = [make_cell(name, budget="{env_steps: 1_000_000, num_envs: 4}") for name in ("a", "b", "c", "d", "e")]

    def seen(job: LocalJob) -> str:
        environment = Path(f"/proc/{job.process.pid}/environ").read_bytes().split(b"\0")
        return next(line.decode() for line in environment if line.startswith(b"CUDA_VISIBLE_DEVICES="))[-3:]

    jobs: list[LocalJob] = []
    launcher = LocalLauncher(5, "cuda")
    try:
        jobs += [launcher.start(cell) for cell in cells[:3]]
        assert [seen(job) for job in jobs] == ["S=3", "S=5", "S=3"]
        jobs[1].kill()
        jobs += [launcher.start(cells[3])]
        assert seen(jobs[3]) == "S=5", "what has ended holds none"
        jobs += [LocalLauncher(1, "cpu").start(cells[4])]
        assert seen(jobs[4]) == "3,5"
    finally:
        for job in jobs:
            job.kill()


def test_a_worker_told_to_stop_while_it_starts_does_not_begin(make_cell: MakeCell) -> None:
    folder, stop = make_cell(), StopRequest()
    stop.ask("stopped by its scheduler")
    status = run_cell(folder.path, stop=stop)
    assert status is not None
    assert (status.state, status.message) == ("preempted", "stopped by its scheduler; run again to go on")
    assert not (folder.path / "checkpoints").exists()


def _with_a_full_log(command: list[str]) -> int:
    """Exit code of a worker whose log lies on a full disk."""
    with Path("/dev/full").open("w") as full:
        return subprocess.run(command, stdout=full, stderr=full, stdin=subprocess.DEVNULL, check=False).returncode


def test_a_worker_on_a_full_disk_says_so_by_its_exit_code(make_cell: MakeCell) -> None:
    program = f"ulimit -f 0; exec {sys.executable} -B -m m3po.bench.run {make_cell().path}"
    assert _with_a_full_log(["bash", "-c", program]) == OUT_OF_SPACE


def test_a_disk_that_was_full_for_a_while_stops_neither_the_work_nor_its_heartbeat(make_cell: MakeCell) -> None:
    """Without a heartbeat the worker would soon be taken for hung."""
    folder = make_cell(budget="{env_steps: 200, num_envs: 4}", evaluation="{every: 100, episodes: 1}")
    script = (
        "import sys, time, suites.toy\n"
        "from m3po.bench.run import main\n"
        "from m3po.bench.store import CellFolder, DiskFull\n"
        "plain, write, beats = suites.toy.Reach.step, CellFolder.write_status, []\n"
        "def step(self, action):\n"
        "    print('a step', flush=True)\n"
        "    time.sleep(0.02)\n"  # 5 seconds for 260 steps
        "    return plain(self, action)\n"
        "def full_at_first(self, status):\n"
        "    beats.append(status)\n"
        "    if len(beats) < 3: raise DiskFull('no space left')\n"
        "    write(self, status)\n"
        "suites.toy.Reach.step, CellFolder.write_status = step, full_at_first\n"
        "code = main()\n"
        "sys.exit(code if len(beats) > 4 else 'no heartbeat')\n"
    )
    assert _with_a_full_log([sys.executable, "-c", script, str(folder.path)]) == 0
    assert folder.status().state == "done"


def test_a_status_without_its_process_is_told_from_a_running_one(make_cell: MakeCell) -> None:
    folder = make_cell()
    folder.write_status(folder.status(400).model_copy(update={"state": "running", "env_step": 100}))
    assert folder.live_status().state == "preempted"
    with folder.held():
        assert folder.live_status().state == "running"


def test_the_cell_file_holds_no_path(make_cell: MakeCell, tmp_path: Path) -> None:
    folder = make_cell()
    assert run_cell(folder.path) is not None
    for name in ("cell.json", "status.json", "evaluations.jsonl", "metrics.jsonl"):
        assert str(tmp_path) not in (folder.path / name).read_text()
    record = json.loads((folder.path / "cell.json").read_text())
    assert record["config"] == {"preset": "default", "rate": 0.05, "batch": 2, "pause": 0.0, "fault": ""}


JOINT = {"tasks": "{family: toy, set: all}", "mode": "joint"}


def test_a_task_that_fails_in_an_evaluation_is_missing_there_and_the_others_go_on(
    make_cell: MakeCell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reset = Terminate.reset

    def fails_in_evaluations(self: Terminate, seed: EpisodeSeed) -> Any:
        if seed.stream == "evaluate":
            raise ValueError("no such model")
        return reset(self, seed)

    monkeypatch.setattr(Terminate, "reset", fails_in_evaluations)
    folder = make_cell(**JOINT)
    status = run_cell(folder.path)
    assert status is not None
    assert (status.state, status.last_score) == ("done", None), "a mean over fewer tasks is another number"
    rows = evaluation_rows(folder.path)
    assert {row["task"] for row in rows} == {"toy-reach"}
    assert len(rows) == 5 * 3, "five evaluations of three episodes"
    assert "toy-terminate), episode 0, step 0: failed in reset: ValueError: no such model" in caplog.text


def test_held_out_tasks_are_evaluated_and_not_trained_on(make_cell: MakeCell) -> None:
    folder = make_cell(mode="joint\nheld_out: {family: toy, names: [toy-terminate]}")
    assert folder.cell().evaluated[1].name == "toy-terminate"
    assert run_cell(folder.path) is not None
    rows = evaluation_rows(folder.path)
    assert [row["task"] for row in rows[:6]] == ["toy-reach"] * 3 + ["toy-terminate"] * 3
    trained = {key for row in metric_rows(folder.path) for key in row if key.startswith("train/return/")}
    assert trained == {"train/return/toy-reach"}

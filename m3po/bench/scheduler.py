"""Run cells until none is left: who is next, who ended how, and what to do when somebody wants to stop."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from m3po.bench.heartbeat import HANG_SIGNAL, HUNG
from m3po.bench.interrupt import WISHES, Interrupt
from m3po.bench.launch import Job, Launcher
from m3po.bench.records import FINAL, CellStatus
from m3po.bench.run import BUSY, EXIT_CODES, OUT_OF_SPACE
from m3po.bench.store import FREE_SPACE, CellFolder, StoreError

__all__ = ["run_cells"]

POLL_SECONDS = 0.1
LOOK_SECONDS = 0.5
"""How often the status files of running cells are read."""

Watch = Callable[[Mapping[str, CellStatus]], None]


def run_cells(
    folders: Sequence[CellFolder],
    launcher: Launcher,
    watch: Watch,
    interrupt: Interrupt | None = None,
    *,
    wait: bool = True,
) -> dict[str, CellStatus]:
    """Run all cells that are not finished; returns every cell's last status, by id.

    A cell held by another scheduler's worker is waited for, and taken over if that worker ends early; without ``wait``
    only as long as there are others to run. ``watch`` is
    called about twice a second with all statuses. After one interruption, or an error here, no cell is started and the
    running ones are asked to stop; after two they are killed.
    """
    run = _Run(list(folders), launcher, watch, interrupt or Interrupt(), wait)
    with run.interrupt.listening():
        try:
            while run.step():
                time.sleep(POLL_SECONDS)
        finally:
            run.end()
    watch(run.statuses)
    return run.statuses


@dataclass
class _Run:
    folders: Sequence[CellFolder]
    launcher: Launcher
    watch: Watch
    interrupt: Interrupt
    wait: bool
    statuses: dict[str, CellStatus] = field(default_factory=dict)
    waiting: deque[CellFolder] = field(default_factory=deque)
    elsewhere: list[CellFolder] = field(default_factory=list)
    """Cells that another scheduler's worker holds."""
    jobs: dict[CellFolder, Job] = field(default_factory=dict)
    _stopped: bool = False
    _told: bool = False
    _looked_at: float = 0.0

    def __post_init__(self) -> None:
        self.statuses = {folder.id: _before(folder) for folder in self.folders}
        self.waiting.extend(folder for folder in self.folders if self.statuses[folder.id].state not in FINAL)

    def step(self) -> bool:
        """Move everything on by one step; false when nothing is left to wait for."""
        self._reap()
        if self.interrupt.count >= 2:
            return False
        if self.interrupt.count == 1 and not self._stopped:
            self._stop()
            if self.jobs:
                self.interrupt.announce("stopping: running cells write a checkpoint; Ctrl-C again ends them at once")
        while self.waiting and len(self.jobs) < self.launcher.slots:
            self._start(self.waiting.popleft())
        if self.wait and self.elsewhere and not self._told:
            self._told = True  # here they look as if we were working on them
            self.interrupt.announce(
                f"{self.elsewhere[0].id} is being run by another process; such cells are waited for, and gone on with "
                "if it stops"
            )
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._look()
        return bool(self.jobs or self.waiting or (self.wait and self.elsewhere))

    def end(self) -> None:
        """End what still runs: at once after two interruptions, else (an error stopped us) behind checkpoints."""
        try:
            if not self._stopped:
                self._stop()
            while self.jobs and self.interrupt.count < 2:
                self._reap()
                time.sleep(POLL_SECONDS)
        finally:
            for folder, job in self.jobs.items():
                job.kill()
                self.statuses[folder.id] = folder.live_status(self.statuses[folder.id].env_steps)
            self.jobs.clear()

    def _stop(self) -> None:
        self._stopped = True
        self.waiting.clear()
        self.elsewhere.clear()
        for job in self.jobs.values():
            job.stop()

    def _start(self, folder: CellFolder) -> None:
        try:
            if folder.is_held():
                self.elsewhere.append(folder)
            else:
                self.jobs[folder] = self.launcher.start(folder)
        except StoreError as error:
            self._give_up(folder, error)

    def _give_up(self, folder: CellFolder, error: StoreError) -> None:
        """One cell that cannot be worked on does not stop the others."""
        status = self.statuses[folder.id]
        self.statuses[folder.id] = status.model_copy(update={"state": "failed", "message": str(error)})

    def _reap(self) -> None:
        for folder, job in list(self.jobs.items()):
            code = job.poll()
            if code is None:
                continue
            del self.jobs[folder]
            if code == BUSY:
                self.elsewhere.append(folder)
            elif self.interrupt.count and -code in WISHES:
                self.statuses[folder.id] = _before(folder)  # asked to stop before it could listen
            else:
                try:
                    self.statuses[folder.id] = _after(folder, code, self.statuses[folder.id])
                except StoreError as error:
                    self._give_up(folder, error)

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        for folder in self.jobs:
            self.statuses[folder.id] = folder.status(self.statuses[folder.id].env_steps)
        for folder in list(self.elsewhere):
            try:
                status = folder.live_status(self.statuses[folder.id].env_steps)
                self.statuses[folder.id] = status
                if folder.is_held():
                    continue
            except StoreError as error:
                self._give_up(folder, error)
                self.elsewhere.remove(folder)
                continue
            self.elsewhere.remove(folder)
            if status.state not in FINAL and status.state != "failed":
                self.waiting.append(folder)
        self.watch(self.statuses)


def _before(folder: CellFolder) -> CellStatus:
    """Status before the run: what failed or was stopped is pending again."""
    try:
        env_steps = folder.cell().budget.env_steps
        status = folder.live_status(env_steps)
    except StoreError as error:
        return CellStatus(id=folder.id, state="failed", env_steps=0, message=str(error))
    if status.state in ("failed", "preempted"):
        return status.model_copy(update={"state": "pending", "message": ""})
    return status


def _after(folder: CellFolder, code: int, before: CellStatus) -> CellStatus:
    """Status of a cell whose worker ended with ``code``; written down where the worker could not do so itself."""
    status = folder.live_status(before.env_steps)  # one that ended at once, when asked twice, still says it runs
    if EXIT_CODES.get(status.state) == code:
        return status
    if status.state in FINAL:  # all of it is written; what the process died of afterwards is none of the cell's
        with suppress(OSError), folder.log.open("a", encoding="utf-8") as log:
            log.write(f"the cell was {status.state} before its process {_how(code)}\n")
        return status
    cause = _cause(code, status, _last_words(folder.log))
    status = status.model_copy(update={"state": "failed", "message": cause, "eta_seconds": None})
    # a full disk: the summary says so all the same, and the next run finds the cell unfinished
    with suppress(StoreError), folder.held() as ours:
        if ours:
            folder.write_status(status)
    return status


def _cause(code: int, status: CellStatus, last_words: str) -> str:
    """Why a worker ended, for the user; ``last_words`` of its log."""
    if code == OUT_OF_SPACE:
        return f"no space left on the disk; {FREE_SPACE}"
    if code in (HUNG, -HANG_SIGNAL, 128 + HANG_SIGNAL):
        return "an environment hangs in a step; log.txt shows where. Run the same command again to go on"
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        memory = f" (its peak was {status.peak_memory_mb:.0f} MB)" if status.peak_memory_mb else ""
        return (
            f"its process was killed, most likely for lack of memory{memory}; "
            "try fewer --jobs or a smaller budget.num_envs, then run the same command again"
        )
    if code > 0 and last_words:
        return f"its process ended with exit code {code}; log.txt in its folder ends with: {last_words}"
    return f"its process {_how(code)} without a word; see log.txt in its folder"


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_words(log: Path) -> str:
    """The last line that a cell's processes printed."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

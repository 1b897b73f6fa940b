"""The sign of life of a cell: its status, written about once a second, and an end to what hangs."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from m3po.bench.pace import Pace
from m3po.bench.records import Cell, CellStatus, State
from m3po.bench.session import CellSession, Progress
from m3po.bench.store import CellFolder, StoreError

__all__ = ["HANG_SIGNAL", "HUNG", "Heartbeat"]

HANG_SECONDS = 120.0
"""An environment that takes so long for one step is taken for hung; that of a worker process is replaced before."""

HUNG = 6
"""Exit code of a worker that a hung environment made end."""

HANG_SIGNAL = signal.SIGPROF
"""What ends a worker whose environment hangs without letting other threads run."""


class Heartbeat:
    """Rewrites the cell's status about once a second inside its ``with``, however long one update takes.

    ``watchdog``: ends this process, with the stacks of its threads on standard error, when an environment takes more
    than :data:`HANG_SECONDS` for one step. They are counted in beats and in processor time, not by the clock: a process
    that Ctrl-Z or a cluster stops for hours hangs in nothing.
    """

    EVERY_SECONDS = 1.0

    def __init__(self, folder: CellFolder, cell: Cell, watchdog: bool = False) -> None:
        self._folder, self._cell, self._watchdog = folder, cell, watchdog
        self._previous = folder.status(cell.budget.env_steps)
        self._peak = self._previous.peak_memory_mb or 0.0
        self._session: CellSession | None = None
        self._pace = Pace()
        self._stepping_since: float | None = None
        self._beats_in_step = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._beat, name="heartbeat", daemon=True)]
        if watchdog:  # apart from the beats: a file system that lets those wait is no environment that hangs
            self._threads.append(threading.Thread(target=self._watch_steps, name="watchdog", daemon=True))

    def __enter__(self) -> Self:
        if self._watchdog:
            faulthandler.register(HANG_SIGNAL, all_threads=True, chain=True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._watchdog:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def watch(self, session: CellSession) -> None:
        """Report on ``session``, which is about to begin its loop."""
        self._session = session

    def finish(self, state: State, message: str = "") -> CellStatus:
        """Write the last status, behind the last beat; it is returned. Raises :class:`StoreError`."""
        status = self.status(state, message)
        self._folder.write_status(status)
        return status

    def status(self, state: State, message: str = "") -> CellStatus:
        """The cell as it stands now."""
        self._peak = max(self._peak, _peak_memory_mb())
        measured = {} if self._session is None else self._measured(self._session, state)
        values = {
            "state": state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "heartbeat": round(time.time(), 3),
            "message": message,
            "peak_memory_mb": round(self._peak, 1),
        }
        return self._previous.model_copy(update={**values, **measured})

    def _beat(self) -> None:
        while not self._over.is_set():
            try:
                self._folder.write_status(self.status("running"))
            except StoreError as error:
                # the loop meets the same disk at its next checkpoint and says so properly
                print(error, file=sys.stderr, flush=True)
            self._over.wait(self.EVERY_SECONDS)

    def _watch_steps(self) -> None:
        while not self._over.is_set():
            self._end_if_hung()
            self._over.wait(self.EVERY_SECONDS)

    def _end_if_hung(self) -> None:
        # An environment that computes on without letting other threads run: unless we come by again, this ends us.
        signal.setitimer(signal.ITIMER_PROF, 2 * HANG_SECONDS)
        envs = () if self._session is None else (self._session.env, self._session.evaluator.env)
        since = next((env.stepping_since for env in envs if env.stepping_since is not None), None)
        same_step = since is not None and since == self._stepping_since
        self._stepping_since, self._beats_in_step = since, self._beats_in_step + 1 if same_step else 0
        if self._beats_in_step * self.EVERY_SECONDS > HANG_SECONDS:
            faulthandler.dump_traceback(all_threads=True)
            os._exit(HUNG)

    def _measured(self, session: CellSession, state: State) -> dict[str, Any]:
        env_step = session.env.env_step
        self._pace.mark(time.monotonic(), env_step, learning=session.learning)
        # a whole cell tells what the next one costs, its warm-up and evaluations included
        now = self._pace.rate() or self._previous.steps_per_second
        rate = env_step / session.clock.total if state == "done" else now
        remaining = max(0, self._cell.budget.env_steps - env_step)
        return {
            "env_step": env_step,
            "seconds": round(session.clock.training, 3),
            "last_score": session.progress.last_score,
            "parameters": session.progress.parameters,
            "steps_per_second": round(rate, 2) if rate else None,
            "eta_seconds": round(remaining / rate, 1) if rate and state == "running" else None,
            **_disk(session.progress, self._cell.budget.env_steps),
        }


def _disk(progress: Progress, env_steps: int) -> dict[str, float]:
    """What the cell's folder takes now and behind its last checkpoint, as far as that is known."""
    now = progress.sizes[-1][1] if progress.sizes else None
    found = {"disk_mb": now, "disk_mb_at_end": progress.size_at(env_steps)}
    return {name: round(size / 1e6, 3) for name, size in found.items() if size is not None}


def _peak_memory_mb() -> float:
    """Peak of this process and, where the system tells (Linux), of those that step its environments."""
    # A process inherits ru_maxrss from the one that started it, so that is only for systems which tell no other.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    own = _peak_of("self") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    children = [pid for listed in Path("/proc/self/task").glob("*/children") for pid in _told(listed).split()]
    return own + sum(map(_peak_of, children))


def _peak_of(pid: str) -> float:
    lines = _told(Path(f"/proc/{pid}/status")).splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _told(path: Path) -> str:
    """What the system tells of a thread or a process; nothing of one that ended meanwhile."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""

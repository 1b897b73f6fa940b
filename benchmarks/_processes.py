"""Processes and their memory, read from ``/proc``, and processes that take turns.

The standard library is all that it needs: other implementations' interpreters import it too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def group(leader: int) -> list[Path]:
    """``/proc`` folders of the processes in a process group, which the launcher makes one per cell."""
    return [entry for entry in Path("/proc").glob("[0-9]*") if _fields(entry)[1:2] == [leader]]


def family_of(ancestor: int) -> list[Path]:
    """``/proc`` folders of a process and all that descend from it."""
    parents = {int(entry.name): _fields(entry)[0] for entry in Path("/proc").glob("[0-9]*") if _fields(entry)}
    members = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return [Path("/proc") / str(pid) for pid in members]


def _fields(entry: Path) -> list[int]:
    """Parent and process group; empty where the process ended meanwhile."""
    try:
        # the fields behind the name in brackets: state, parent, process group
        return [int(field) for field in (entry / "stat").read_text().rpartition(")")[2].split()[1:3]]
    except OSError:
        return []


def resident(process: Path) -> float:
    """Proportional set size of a process in MB: shared pages are divided among those who share them."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def peak() -> float:
    """Largest resident memory that this process had so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


class Turns:
    """Steps of a process that works only when it is its turn, and what they cost.

    ``begin`` and ``end`` stand around each step. Each line of standard input is a turn, the number of its steps; each
    is answered by a line of JSON. The process waits between turns, and is over when its input is.
    """

    def __init__(self) -> None:
        # Standard output is for the answers: what else the process prints goes where its errors go.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._wait()

    def begin(self) -> None:
        self._began = time.process_time()

    def end(self) -> None:
        self._seconds += time.process_time() - self._began
        self._left -= 1
        if not self._left:
            answer = {"cpu_ms": 1000 * self._seconds / self._steps, "peak_mb": peak()}
            print(json.dumps(answer), file=self._answers, flush=True)
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # a training loop knows no other end
        self._steps = self._left = int(line)
        self._seconds = 0.0


class Worker:
    """A process with :class:`Turns`, seen from the one that gives them."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed below)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1
        )

    def turn(self, steps: int) -> dict[str, float]:
        """What so many gradient steps cost."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{steps}\n")
        if answer := self.process.stdout.readline():
            found: dict[str, float] = json.loads(answer)
            return found
        self.log.seek(0)
        raise SystemExit(f"{' '.join(self.command[:3])} ended before it was told to:\n{self.log.read()[-2000:]}")

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.log.close()

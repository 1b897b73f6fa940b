"""Cells as processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field

from m3po.bench.store import CellFolder, explained

__all__ = ["LocalJob", "LocalLauncher"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""Cells share the cores, and the number of threads changes the last bits of sums: one each, whatever ``--jobs``."""

KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
"""For glibc: what tensors free serves the next ones, instead of going back to the system page by page."""

GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class LocalJob:
    """A worker process in a process group of its own, so that a Ctrl-C in the terminal reaches the scheduler alone."""

    process: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """Exit code, or ``None`` while it runs; its environment processes are gone with it."""
        code = self.process.poll()
        if code is not None:
            self._end_group()
            self._close()
        return code

    def stop(self) -> None:
        """Ask for a checkpoint and an end."""
        # by no signal: beside one that the whole group got it would be the second, which ends a worker at once
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            os.write(self.process.stdin.fileno(), b".")

    def kill(self) -> None:
        """End the process and all it started at once."""
        self._end_group()
        self.process.wait()
        self._close()

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


@dataclass(frozen=True)
class LocalLauncher:
    """Runs at most ``slots`` cells at once; each may use ``env_processes`` processes for its environments.

    Of several GPUs that ``CUDA_VISIBLE_DEVICES`` names, as a cluster sets it, each cell gets the one with fewest cells.
    """

    slots: int
    device: str = "cpu"
    env_processes: int = 1
    _dealt: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list, init=False)

    def start(self, folder: CellFolder) -> LocalJob:
        """Start a worker; what it prints is appended to the cell's log. Raises :class:`StoreError`."""
        # -P: the folder the user happens to stand in must not shadow our packages
        command = [sys.executable, "-P", "-m", "m3po.bench.run", str(folder.path), "--supervised"]
        command += ["--device", self.device, "--env-processes", str(self.env_processes)]
        with explained("start a worker for", folder.path), folder.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # a word on it asks the worker to stop; its end tells that we died
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ONE_THREAD, **KEEP_MEMORY, **(gpu := self._gpu())},
                start_new_session=True,
            )
        self._dealt.extend((name, process) for name in gpu.values())
        return LocalJob(process)

    def _gpu(self) -> dict[str, str]:
        """The one GPU a cell shall see; agents take the first."""
        names = [name for name in os.environ.get(GPUS, "").split(",") if name.strip()]
        if self.device == "cpu" or len(names) < 2:
            return {}
        self._dealt[:] = [(name, process) for name, process in self._dealt if process.returncode is None]
        busy = [name for name, _ in self._dealt]
        return {GPUS: min(names, key=busy.count)}

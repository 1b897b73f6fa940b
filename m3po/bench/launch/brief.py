"""Cells that run until they have told how fast they go, and go on from there another time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from m3po.bench.launch import Job, Launcher
from m3po.bench.store import CellFolder

__all__ = ["BriefJob", "BriefLauncher"]

TELLING_SECONDS = 30.0
"""How long a cell goes on from its first word on its pace: what an update costs varies from one to the next."""

LOOK_SECONDS = 0.5


@dataclass
class BriefJob:
    """Another launcher's job, asked to stop behind a checkpoint once its cell's pace is known."""

    job: Job
    folder: CellFolder
    _told: float | None = None
    _looked: float = field(default_factory=time.monotonic)
    _asked: bool = False

    def poll(self) -> int | None:
        """See :class:`m3po.bench.launch.Job`."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if self._told is None and self.folder.status().steps_per_second:
                self._told = now
            if self._told is not None and now - self._told >= TELLING_SECONDS:
                self.stop()
        return self.job.poll()

    def stop(self) -> None:
        """See :class:`m3po.bench.launch.Job`."""
        self._asked = True
        self.job.stop()

    def kill(self) -> None:
        """See :class:`m3po.bench.launch.Job`."""
        self.job.kill()


@dataclass(frozen=True)
class BriefLauncher:
    """Starts cells through ``launcher`` and stops them as soon as their pace is known."""

    launcher: Launcher

    @property
    def slots(self) -> int:
        """Cells that may run at once."""
        return self.launcher.slots

    def start(self, folder: CellFolder) -> BriefJob:
        """Start a cell. Raises :class:`m3po.bench.store.StoreError` where that is impossible."""
        return BriefJob(self.launcher.start(folder), folder)

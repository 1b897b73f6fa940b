"""Ways to run cells in processes of their own.

A launcher starts ``python -m m3po.bench.run CELL_DIR`` somewhere; all else (which cells, in which order, what became of
them) is the scheduler's. A new launcher implements these two protocols and nothing more.
"""

from __future__ import annotations

from typing import Protocol

from m3po.bench.store import CellFolder

__all__ = ["Job", "Launcher"]


class Job(Protocol):
    """One started cell."""

    def poll(self) -> int | None:
        """Exit code of :func:`m3po.bench.run.main` once it ended, negative for a signal; ``None`` while it runs."""
        ...

    def stop(self) -> None:
        """Ask for a checkpoint and an end."""
        ...

    def kill(self) -> None:
        """End it at once, with everything it started."""
        ...


class Launcher(Protocol):
    """Starts cells."""

    @property
    def slots(self) -> int:
        """Cells that may run at once."""
        ...

    def start(self, folder: CellFolder) -> Job:
        """Start a cell. Raises :class:`m3po.bench.store.StoreError` where that is impossible."""
        ...

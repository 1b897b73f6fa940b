"""Reports beside the results they tell of, written by one process at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from m3po.bench.store import locked

__all__ = ["write_report"]


def write_report(write: Callable[[Path, Path | None], Path], folder: Path, out: Path | None = None) -> Path:
    """Have ``write(folder, out)`` write a report; returns its page. Raises what it raises, and :class:`StoreError`.

    Runs that share a store may end together, and each report would remove files of the other. Where it goes elsewhere
    (``out``) nobody is waited for: the results may lie where nothing can be written.
    """
    if out is not None:
        return write(folder, out)
    with locked(folder / "report.lock"):
        return write(folder, None)

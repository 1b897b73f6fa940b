"""What a run shows while it works: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from m3po.bench.plan import estimate
from m3po.bench.records import FINAL, CellEntry, CellStatus

__all__ = [
    "Display",
    "PlainDisplay",
    "TableDisplay",
    "cell_table",
    "duration",
    "make_display",
    "size",
    "summary",
    "unheard",
]

STYLES = {
    "pending": "dim",
    "running": "cyan",
    "done": "green",
    "failed": "bold red",
    "diverged": "magenta",
    "preempted": "yellow",
}
PLAIN_EVERY_SECONDS = 60.0
"""How often a run without a terminal says how far it is."""


def unheard(stream: IO[str]) -> IO[str]:
    """``stream`` for what is told on the way: nothing ends because nobody hears it any more.

    Once it cannot be written to (a closed terminal, a broken pipe), all that this process writes there is dropped.
    """
    return cast(IO[str], _Unheard(stream))


class _Unheard:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def _silence(self) -> None:
        # of the descriptor, because what is buffered is tried again, and the command has last words too
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Display(Protocol):
    """Shows statuses as they change."""

    def __call__(self, statuses: Mapping[str, CellStatus]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(cells: Sequence[CellEntry], jobs: int, console: Console) -> Display:
    """A live table where ``console`` is a terminal, else lines."""
    return TableDisplay(cells, jobs, console) if console.is_terminal else PlainDisplay(cells, jobs, console)


class TableDisplay:
    """A table redrawn in place. Where it would not fit: the running cells, and those that changed last."""

    def __init__(self, cells: Sequence[CellEntry], jobs: int, console: Console) -> None:
        self._cells, self._jobs = {cell.id: cell for cell in cells}, jobs
        self._console = console
        self._changed: dict[str, str] = {}
        self._table = Group()
        self._live = Live(console=console, auto_refresh=False)

    def __call__(self, statuses: Mapping[str, CellStatus]) -> None:
        """Draw ``statuses``."""
        for name, status in statuses.items():
            if self._changed.get(name) != status.state:
                self._changed.pop(name, None)
                self._changed[name] = status.state
        self._table = self._draw(statuses)
        total = Text(summary(list(self._cells.values()), statuses, self._jobs))
        self._live.update(Group(self._table, total), refresh=True)

    def _draw(self, statuses: Mapping[str, CellStatus]) -> Group:
        shown = self._shown(statuses)
        table = cell_table([(self._cells[name], statuses[name]) for name in shown])
        hidden = len(statuses) - len(shown)
        return Group(table, Text(f"… and {hidden} more cells", style="dim")) if hidden else Group(table)

    def _shown(self, statuses: Mapping[str, CellStatus]) -> list[str]:
        room = max(4, self._console.height - 8)
        if len(statuses) <= room:
            return list(statuses)
        running = [name for name, status in statuses.items() if status.state == "running"]
        recent = [name for name in reversed(self._changed) if statuses[name].state not in ("running", "pending")]
        chosen = {*running[:room], *recent[: max(0, room - len(running))]}
        return [name for name in statuses if name in chosen]

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._table)  # the run says its total itself
        self._live.stop()


class PlainDisplay:
    """One line per change of state, and one now and then on the whole."""

    def __init__(self, cells: Sequence[CellEntry], jobs: int, console: Console) -> None:
        self._cells, self._jobs, self._console = list(cells), jobs, console
        self._states: dict[str, str] = {}
        self._said_at = time.monotonic()

    def __call__(self, statuses: Mapping[str, CellStatus]) -> None:
        """Say what changed."""
        if not self._states:
            self._begin(statuses)
        for name, status in statuses.items():
            if self._states[name] != status.state:
                self._say(_sentence(status))
            self._states[name] = status.state
        if time.monotonic() - self._said_at > PLAIN_EVERY_SECONDS:
            self._say(summary(self._cells, statuses, self._jobs))
            self._said_at = time.monotonic()

    def _begin(self, statuses: Mapping[str, CellStatus]) -> None:
        finished = {name: status.state for name, status in statuses.items() if status.state in FINAL}
        self._states = {name: finished.get(name, "pending") for name in statuses}
        if finished:
            self._say(f"{len(finished)} of {len(statuses)} cells are already finished")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def cell_table(rows: Sequence[tuple[CellEntry, CellStatus]]) -> Table:
    """Cells with state, progress, speed, last score and time left."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("cell", "left"), ("state", "left"), ("progress", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name in ("env steps", "steps/s", "score", "ETA"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell, status in rows:
        table.add_row(
            Text(cell.id.rpartition(".")[0]),
            Text(status.state, style=STYLES[status.state]),
            ProgressBar(total=max(1, status.env_steps), completed=min(status.env_step, status.env_steps), width=16),
            f"{status.env_step:,}",
            f"{status.steps_per_second:,.0f}" if status.steps_per_second else "",
            f"{status.last_score:.3f}" if status.last_score is not None else "",
            duration(status.eta_seconds),
        )
    return table


def summary(cells: Sequence[CellEntry], statuses: Mapping[str, CellStatus], jobs: int) -> str:
    """How many cells are in which state, and how long the rest will take."""
    states = [status.state for status in statuses.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STYLES if state in states)
    left = estimate(cells, statuses, jobs).seconds
    rest = f"; about {duration(left)} left" if left else ""
    return f"{len(states)} cell{'' if len(states) == 1 else 's'}: {counts}{rest}"


def duration(seconds: float | None) -> str:
    """A length of time as people write it; nothing where it is unknown."""
    if seconds is None:
        return ""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def size(megabytes: float) -> str:
    """An amount of data as people write it, to three digits."""
    return f"{megabytes / 1000:,.3g} GB" if megabytes >= 1000 else f"{megabytes:.3g} MB"


def _sentence(status: CellStatus) -> str:
    parts = [f"{status.id}: {status.state}"]
    if status.state != "pending" and status.env_step:
        parts.append(f"at env step {status.env_step:,} of {status.env_steps:,}")
    if status.last_score is not None:
        parts.append(f"score {status.last_score:.3f}")
    if status.message:
        parts.append(status.message)
    return ", ".join(parts)

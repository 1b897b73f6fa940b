"""Films of chosen policies that lie beside the cells, for the page to show."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.frame import Results
from analysis.study import Record, ResultsError

__all__ = ["LARGEST", "Video", "videos"]

LARGEST = 8_000_000
"""Bytes of all films together that a page carries inside itself."""


@dataclass(frozen=True)
class Video:
    """One film; ``source`` is a data URL, or empty where the page would become too large. ``path`` is in the study."""

    caption: str
    path: str
    source: str


def videos(results: Results) -> list[Video]:
    """The films of the cells that count, in the study's order; one that cannot be read is left out."""
    found, room = [], LARGEST
    for caption, path in _films(results):
        content = path.read_bytes()
        room -= len(content)
        source = f"data:video/mp4;base64,{base64.b64encode(content).decode()}" if room >= 0 else ""
        found.append(Video(caption, "/".join(path.parts[-3:]), source))
    return found


def _films(results: Results) -> Iterator[tuple[str, Path]]:
    for cell in results.cells:
        if results.path is None or not cell.counts or cell.table:
            continue
        for about in sorted((results.path / cell.id / "videos").glob("*.json")):
            film = about.with_suffix(".mp4")
            try:
                caption = _caption(Record.read(about))
            except ResultsError:
                continue
            if film.is_file():
                yield caption, film


def _caption(record: Record) -> str:
    reached = record.content.get("success_any")
    success = "" if reached is None else ", success" if reached else ", no success"
    return (
        f"{record.text('agent')} on {record.text('task')}, seed {record.integer('seed')}, evaluation episode "
        f"{record.integer('episode')} after {record.integer('env_step'):,} environment steps: return "
        f"{record.number('episode_return'):.1f}{success}"
    )

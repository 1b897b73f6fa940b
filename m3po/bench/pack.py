"""A study in one small file: what its finished cells measured, without checkpoints and films.

It is unpacked with ``tar xf``. There ``report`` says the same as before, and ``run`` goes on with the cells that were
not finished, from their beginning. Neither what processes printed nor the names of their machines go along.
"""

from __future__ import annotations

import io
import json
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from m3po.bench.records import FINAL
from m3po.bench.store import CellFolder, StoreError, explained, read_json
from m3po.bench.study import StudyFolder

__all__ = ["Packed", "pack"]

SUFFIX = ".tar.xz"
LEFT_OUT = frozenset({"checkpoints", "videos", "report", "report.lock", "lock", "log.txt"})
"""Names of what is large, can be made again, or belongs to a process; below ``tuning`` they may name an agent."""

COST = ("cell.json", "status.json", "until.json")
"""Of a cell whose trial ended early: what it took, which is a part of what the search took, and how far it may go."""


@dataclass(frozen=True)
class Packed:
    """The file that was written."""

    path: Path
    size: int
    """Of it, in bytes."""
    cells: int
    """Packed."""
    unfinished: int
    """Cells left out, because their results would not be theirs yet."""


def pack(study: StudyFolder, out: Path | None = None) -> Packed:
    """Write a study's finished cells, its searches included, into ``out``, by default ``<study>.tar.xz`` here.

    The same results give the same bytes. An earlier file is replaced as a whole. Raises
    :class:`m3po.bench.store.StoreError`.
    """
    folder = study.path.resolve()
    study.record()
    path = out or Path(f"{folder.name}{SUFFIX}")
    if not path.name.endswith(SUFFIX):
        raise StoreError(f"{path} should be the name of a file that ends with {SUFFIX}")
    if links := _links(folder):
        raise StoreError(f"{links[0]} is a link, and links are not packed; put what it leads to in its place")
    cells = [CellFolder(found.parent) for found in sorted(folder.rglob("cell.json"))]
    unfinished = {cell.path for cell in cells if cell.status().state not in FINAL}
    searches = set((folder / "tuning").glob("*"))
    started = {path for path in unfinished if path.parent in searches and CellFolder(path).status().env_step > 0}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with explained("write", path):
        try:
            with tarfile.open(temporary, "w:xz") as archive:
                for file in _files(folder, {*unfinished, path.resolve()}, started, searches):
                    _add(archive, file, f"{folder.name}/{file.relative_to(folder)}")
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    return Packed(path, path.stat().st_size, len(cells) - len(unfinished), len(unfinished))


def _links(folder: Path) -> list[Path]:
    """Links to folders, or of which a cell consists: without them the file would lack results."""
    links = [path for path in sorted(folder.rglob("*")) if path.is_symlink() and path.name not in LEFT_OUT]
    return [path for path in links if path.is_dir() or (path.parent / "cell.json").exists()]


def _files(folder: Path, but: set[Path], started: set[Path], searches: set[Path]) -> Iterator[Path]:
    """Files to pack, in an order that does not depend on the disk. Links are none: they may lead anywhere."""
    for path in sorted(folder.iterdir()):
        if path in started:
            yield from (path / name for name in COST if (path / name).is_file())
        left_out = path.name in LEFT_OUT and path not in searches
        if path.is_symlink() or left_out or path.name.startswith(".") or path in but:
            continue
        if path.is_dir():
            yield from _files(path, but, started, searches)
        else:
            yield path


def _add(archive: tarfile.TarFile, file: Path, name: str) -> None:
    if file.name != "status.json":
        archive.add(file, name, filter=_anonymous)
        return
    content = (json.dumps({**read_json(file), "host": ""}, indent=1, ensure_ascii=False) + "\n").encode()
    entry = _anonymous(archive.gettarinfo(file, name))
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose file it was and when."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry

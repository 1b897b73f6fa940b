"""Checkpoints: folders that count only once their file ``done`` is there, written last.

``done`` lists every file with its size and CRC-32, so that a torn or damaged checkpoint is recognised and passed over.
The previous checkpoint is removed only after the new one is complete.
"""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3po.bench.store import FREE_SPACE, DiskFull, StoreError, explained, fsync, read_json, write_json

__all__ = ["Checkpoint", "Checkpoints", "load_tree", "save_tree"]

logger = logging.getLogger(__name__)

FULL_BELOW_BYTES = 1 << 20
"""A failed write with less space left than this is put down to a full disk, whatever the writer's own error says."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. ``part`` counts checkpoints of one ``env_step``."""

    path: Path
    env_step: int
    part: int = 0


class Checkpoints:
    """The checkpoints of one cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; torn or damaged ones are named in the log and passed over.

        Raises :class:`StoreError` where one cannot be read now: what is passed over, the next checkpoint removes.
        """
        for checkpoint in sorted(self._all(), key=lambda found: (found.env_step, found.part), reverse=True):
            fault = _fault(checkpoint.path)
            if fault is None:
                return checkpoint
            logger.warning("checkpoint %s is passed over: %s", checkpoint.path.name, fault)
        return None

    def write(self, env_step: int, fill: Callable[[Path], None]) -> None:
        """Write a checkpoint; ``fill(folder)`` puts the files in. Raises :class:`StoreError`; older ones then stay."""
        older = list(self._all())
        path = self._free_path(env_step, older)
        with explained("write checkpoint", path):
            path.mkdir(parents=True)
        try:
            with explained("write checkpoint", path):
                fill(path)
                manifest = _manifest(path)
                for name in manifest:
                    fsync(path / name)
                write_json(path / "done", {"format": 1, "files": manifest})
                fsync(self.folder)
        except BaseException as error:
            full = not isinstance(error, StoreError) and shutil.disk_usage(self.folder).free < FULL_BELOW_BYTES
            shutil.rmtree(path, ignore_errors=True)
            if full:
                raise DiskFull(f"cannot write checkpoint {path}: no space left ({error}); {FREE_SPACE}") from error
            raise
        for checkpoint in older:
            shutil.rmtree(checkpoint.path, ignore_errors=True)

    def _all(self) -> list[Checkpoint]:
        found = []
        for path in self.folder.glob("*/"):
            step, _, part = path.name.partition(".")
            if step.isdigit() and (not part or part.isdigit()):
                found.append(Checkpoint(path, int(step), int(part or 0)))
        return found

    def _free_path(self, env_step: int, older: list[Checkpoint]) -> Path:
        """Two checkpoints of one step (stopped, then evaluated there) get two folders: the first stays until then."""
        parts = [checkpoint.part for checkpoint in older if checkpoint.env_step == env_step]
        return self.folder / (f"{env_step}.{max(parts) + 1}" if parts else str(env_step))


def _manifest(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file but ``done``, by path relative to the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "done")
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, _crc(path)] for path in files}


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or ``None``."""
    if not (path / "done").exists():
        return "it was not completed"
    try:
        done = read_json(path / "done")
    except StoreError as error:
        unreadable = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError)
        if unreadable:  # as a network file system's for a moment (stale file handle): that says nothing against it
            raise
        return str(error)
    if not isinstance(done, dict) or done.get("format") != 1:
        return "it is of another version"
    try:
        found = _manifest(path)
    except FileNotFoundError:  # removed meanwhile by the process that trains, for a newer one
        found = {}
    return None if done.get("files") == found else "its files are not those that were written"


def save_tree(folder: Path, name: str, tree: Any) -> None:
    """Write nested dicts and lists of JSON values and numpy arrays as ``<name>.json`` and ``<name>.npz``."""
    arrays: dict[str, Any] = {}

    def outline(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                raise TypeError(f"{name} holds an array of Python objects; only numbers, flags and text are kept")
            key = f"a{len(arrays)}"
            arrays[key] = value
            return {"__array__": key}
        if isinstance(value, dict):
            return {key: outline(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [outline(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    (folder / f"{name}.json").write_text(json.dumps(outline(tree)), encoding="utf-8")
    with (folder / f"{name}.npz").open("wb") as file:
        np.savez(file, **arrays)


def load_tree(folder: Path, name: str) -> Any:
    """Read what :func:`save_tree` wrote; tuples come back as lists."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:

        def fill(value: Any) -> Any:
            if isinstance(value, dict):
                if value.keys() == {"__array__"}:
                    return arrays[value["__array__"]]
                return {key: fill(item) for key, item in value.items()}
            return [fill(item) for item in value] if isinstance(value, list) else value

        return fill(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))

"""The files of a study, and what keeps them whole under kill -9, full disks and two schedulers.

Small files are replaced atomically; tables are appended line by line and repaired when opened; a cell is held by a
kernel lock that dies with its holder. See :mod:`m3po.bench.checkpoints` for checkpoints. Nothing in these files is a
path, so a results folder may be moved.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from m3po.bench.records import Cell, CellStatus

__all__ = [
    "FREE_SPACE",
    "CellFolder",
    "DiskFull",
    "RowLog",
    "StoreError",
    "drop_torn_tail",
    "explained",
    "fsync",
    "locked",
    "read_json",
    "write_json",
    "write_text",
]

LOCK_PATIENCE_SECONDS = 2.0
"""How long a worker tries for a cell's lock: somebody who only looks at it holds it for microseconds."""


FREE_SPACE = "free some space and run the same command again"
"""How every message ends that tells of a full disk."""


class StoreError(Exception):
    """A file that cannot be written, read or understood; the message says which and what to do."""


class DiskFull(StoreError):  # noqa: N818 - the condition is the name
    """No space left, or a quota or file size limit reached."""


def absent(error: StoreError) -> bool:
    """Whether a file could not be read because it is not there. ``Path.exists`` fails where a look is not allowed."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a :class:`StoreError` with a sentence; ``doing`` as in "write"."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = os.strerror(error.errno).lower()
            raise DiskFull(f"cannot {doing} {path}: {reason}; {FREE_SPACE}") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(
                f"cannot {doing} {path}: {os.strerror(error.errno).lower()}; "
                "make the folder writable or choose another one with --results"
            ) from error
        if error.errno in (errno.ENOSYS, errno.ENOLCK):
            raise StoreError(
                f"cannot {doing} {path}: {os.strerror(error.errno).lower()}; its file system has to offer file locks "
                "(Lustre: mount it with -o flock), or choose another one with --results"
            ) from error
        raise StoreError(f"cannot {doing} {path}: {error.strerror or error}") from error


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file as a whole: readers see the old or the new one, never a part. Raises :class:`StoreError`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # process ids are unique to one host only
    with explained("write", path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                fsync(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace a JSON file as a whole. Raises :class:`StoreError`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """Content of a JSON file. Raises :class:`StoreError` where it is missing or damaged."""
    with explained("read", path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:  # no JSON, or no text at all
        raise StoreError(f"{path} is damaged: {error}; restore it, or remove it and run again") from error


def drop_torn_tail(path: Path) -> None:
    """Cut what stands behind the last line's end, so that the next line is not glued onto it."""
    if path.exists():
        with explained("repair", path), path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            if file.read(1) not in (b"", b"\n"):
                os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a kernel lock on ``path`` and hold it during the block; it dies with its holder."""
    with explained("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with explained("lock", path):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class RowLog:
    """A table in a file, one JSON object a line, ordered by ``env_step``, only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All rows; a torn last line is left out. Raises :class:`StoreError` for damage elsewhere."""
        return [row for row, _ in self._parsed()]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; after a failed write the file is as it was. Kill-proof at once, power-proof after :meth:`sync`.

        Raises :class:`StoreError`.
        """
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        with explained("append to", self.path), self.path.open("ab", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except OSError:
                file.truncate(length)
                raise

    def sync(self) -> None:
        """Bring the rows to the disk. Raises :class:`StoreError`."""
        if self.path.exists():
            with explained("write", self.path):
                fsync(self.path)

    def set_aside(self) -> Path | None:
        """Give the file, where there is one, a name that nobody reads; returns it. Raises :class:`StoreError`."""
        if not self.path.exists():
            return None
        names = (f"{self.path.name}.old{number}" for number in chain([""], count(2)))
        free = next(path for path in map(self.path.with_name, names) if not path.exists())
        with explained("rename", self.path):
            return self.path.rename(free)

    def keep_until(self, env_step: int) -> None:
        """Drop a torn last line and all rows newer than ``env_step`` (−1 drops all). Raises :class:`StoreError`."""
        if not self.path.exists():
            return
        end = 0
        for row, line_end in self._parsed():
            if row["env_step"] > env_step:
                break
            end = line_end
        with explained("truncate", self.path):
            os.truncate(self.path, end)

    def _parsed(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Rows, each with the position in the file where its line ends."""
        try:
            with explained("read", self.path):
                data = self.path.read_bytes()
        except StoreError as error:
            if absent(error):
                return
            raise
        end = 0
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield json.loads(line), end
            except ValueError as error:
                raise StoreError(
                    f"{self.path}, line {number} is damaged: {error}; remove the cell's folder to run it anew"
                ) from error


@dataclass(frozen=True)
class CellFolder:
    """The folder of one cell."""

    path: Path

    @property
    def id(self) -> str:
        """Name of the cell."""
        return self.path.name

    @property
    def evaluations(self) -> RowLog:
        """One row per evaluation episode."""
        return RowLog(self.path / "evaluations.jsonl")

    @property
    def metrics(self) -> RowLog:
        """Training metrics."""
        return RowLog(self.path / "metrics.jsonl")

    @property
    def diagnostics(self) -> RowLog:
        """What agents say of themselves at evaluations, one row per :class:`m3po.api.Diagnostic`."""
        return RowLog(self.path / "diagnostics.jsonl")

    @property
    def starts(self) -> RowLog:
        """One row per process that worked on the cell: from which environment step, with what code, versions, hardware.

        ``cell.json`` says with what the cell was planned, perhaps months before and on another machine.
        """
        return RowLog(self.path / "starts.jsonl")

    @property
    def log(self) -> Path:
        """What the cell's processes printed."""
        return self.path / "log.txt"

    def size(self) -> int:
        """Bytes of all its files."""
        found = 0
        for path in self.path.rglob("*"):
            with suppress(OSError):  # replaced or removed meanwhile
                found += path.stat().st_size if path.is_file() else 0
        return found

    def create(self, cell: Cell) -> None:
        """Make the folder and its ``cell.json``; one already there is left as it was sealed, unless it is damaged.

        One that cannot be read is left too (another user's?): whoever is to run it is told.
        """
        try:
            self.cell()
            return
        except StoreError as error:
            if isinstance(error.__cause__, OSError) and not absent(error):
                return
        with explained("create", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "cell.json", cell.model_dump(mode="json"))

    def cell(self) -> Cell:
        """What the cell is. Raises :class:`StoreError`."""
        path = self.path / "cell.json"
        try:
            return Cell.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise StoreError(
                f"{path} cannot be understood ({where}: {first['msg']}); it is damaged or of another version"
            ) from error

    def status(self, env_steps: int = 0) -> CellStatus:
        """Where the cell stands, as its file says; ``pending`` where there is none yet."""
        path = self.path / "status.json"
        try:
            return CellStatus.model_validate(read_json(path))
        except (StoreError, ValidationError) as error:
            if isinstance(error, StoreError) and absent(error):
                return CellStatus(id=self.id, state="pending", env_steps=env_steps)
            message = f"{path} cannot be understood ({error}); run again to replace it"
            return CellStatus(id=self.id, state="failed", env_steps=env_steps, message=message)

    def live_status(self, env_steps: int = 0) -> CellStatus:
        """As :meth:`status`, but a cell that says it runs and has lost its process is ``preempted``."""
        status = self.status(env_steps)
        if status.state == "running" and not self.is_held():
            message = "its process was killed; run again to go on from its last checkpoint"
            return status.model_copy(update={"state": "preempted", "message": message, "eta_seconds": None})
        return status

    def until(self) -> int | None:
        """Environment steps after which the cell is to pause, at the evaluation due there; ``None``: at its end."""
        path = self.path / "until.json"
        return int(read_json(path)["env_step"]) if path.exists() else None

    def allow(self, env_step: int, env_steps: int) -> None:
        """Let the cell, whose budget is ``env_steps``, run until ``env_step`` at least: a limit only ever rises."""
        path, before = self.path / "until.json", self.until()
        if before is None and (self.path / "status.json").exists():
            return
        if env_step >= env_steps:
            path.unlink(missing_ok=True)
        elif before is None or before < env_step:
            write_json(path, {"env_step": env_step})

    def write_status(self, status: CellStatus) -> None:
        """Replace the status. Not forced to the disk: it says how things stand now, and is rewritten each second."""
        write_json(self.path / "status.json", status.model_dump(mode="json"), durable=False)

    def is_held(self) -> bool:
        """Whether some process on this machine works on the cell now. Raises :class:`StoreError`."""
        with explained("look at", self.path / "lock"):
            try:
                descriptor = os.open(self.path / "lock", os.O_RDONLY)
            except FileNotFoundError:
                return False
            try:
                return not _try_lock(descriptor, fcntl.LOCK_SH)
            finally:
                os.close(descriptor)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the cell during the block; false where another process holds it. The kernel frees it if we die.

        Raises :class:`StoreError`.
        """
        with explained("lock", self.path / "lock"):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with explained("lock", self.path / "lock"):
                ours = _try_lock(descriptor, fcntl.LOCK_EX, patience=LOCK_PATIENCE_SECONDS)
            yield ours
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int, kind: int, patience: float = 0.0) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True

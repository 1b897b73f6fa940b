"""From result files to one tidy table, with everything that is missing or cannot be trusted named."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from analysis.study import ExpectedCell, Record, ResultsError, Study, read_lines, read_study, task_of

__all__ = ["COLUMNS", "Cell", "Results", "ResultsError", "load", "told"]

T = TypeVar("T")
Columns = dict[str, NDArray[Any]]
"""Arrays of one length by name; empty where there are no rows."""

COLUMNS = (
    "cell",
    "agent",
    "seed",
    "task",
    "env_step",
    "episodes",
    "score",
    "return",
    "success_any",
    "success_last",
    "length",
    "seconds",
    "updates",
)
"""Columns of :attr:`Results.evaluations`. ``seconds`` of training and gradient ``updates`` are NaN where unknown."""

LEFT_OUT = frozenset({"failed", "corrupt", "incompatible", "missing"})
"""States whose rows enter no number: the run counts as missing."""

_NUMBERS = ("score", "return", "length", "seconds")
_OPTIONAL = ("success_any", "success_last", "updates")
_LATER = ("updates",)
"""Fields that the first releases did not write."""
_KEYS = ("task", "env_step", "episode", *_NUMBERS, *_OPTIONAL)
_OWNER = ("agent", "seed", "config_hash")
_FIELDS = (*_KEYS, *_OWNER, "protocol")


@dataclass(frozen=True)
class Cell:
    """An expected training run and what was found of it."""

    id: str
    agent: str
    seed: int
    tasks: tuple[str, ...]
    state: str
    """pending, running, done, failed, diverged, preempted as its status says; or ``corrupt`` (a file cannot be read),
    or ``incompatible`` (measured under another suite version or protocol), or ``missing`` (not in a table)."""
    reason: str = ""
    env_step: int = 0
    """Environment steps taken so far, as the status says."""
    config: str = ""
    """The resolved agent configuration as canonical JSON."""
    config_hash: str = ""
    commits: tuple[str, ...] = ()
    """Commits of the code that worked on the cell, ``with changes (source …)`` where the tree was dirty."""
    planned_by: str = ""
    """Commit of the code that planned the cell, where nothing recorded what worked on it."""
    packages: tuple[tuple[str, str], ...] = ()
    """Names and versions of the packages it was made with."""
    agent_code: tuple[str, ...] = ()
    """Package, version and digest of the source that the agent came from, where it is not one of ours."""
    machines: tuple[str, ...] = ()
    """Processors, cores and devices it was trained on."""
    budget: int | None = None
    episodes: int | None = None
    """Episodes per task and evaluation this cell was made for."""
    peak_memory_mb: float | None = None
    parameters: float | None = None
    """Numbers that training moves, where the agent says."""
    incomplete: int = 0
    """(task, env_step) evaluations left out because episodes are missing."""
    table: str = ""
    """The table it stands in, where it is none of the study's own (:func:`analysis.tidy.beside`)."""

    @property
    def counts(self) -> bool:
        """Whether its rows may enter a number."""
        return self.state not in LEFT_OUT


@dataclass(frozen=True)
class Results:
    """A study and all that was measured of it.

    ``evaluations`` has the columns :data:`COLUMNS`: one row per cell, task and env_step, the mean over that
    evaluation's episodes (so that memory does not grow with them). It holds only cells that count.
    """

    path: Path | None
    """The study's folder; None where results came as a table."""
    study: Study
    cells: tuple[Cell, ...]
    evaluations: pd.DataFrame
    superseded: tuple[str, ...] = field(default=())
    """Ids of cells in the folder that the suite no longer asks for."""

    @cached_property
    def by_agent(self) -> dict[str, pd.DataFrame]:
        """The evaluations of each agent that has some."""
        return {str(agent): rows for agent, rows in self.evaluations.groupby("agent", sort=False)}

    @cached_property
    def tables(self) -> dict[str, str]:
        """Agents that stand beside the study's own, and the table each is from."""
        return {cell.agent: cell.table for cell in self.cells if cell.table}

    @property
    def tabular(self) -> bool:
        """Whether they came as a table, which says nothing of training, of evaluation and of who set the bounds."""
        return self.path is None


class _DistrustError(Exception):
    """Why a cell cannot enter the numbers: ``state`` and a reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


def load(results: Path) -> Results:
    """Read the folder of one study.

    A cell whose files are damaged is marked ``corrupt`` with the path and the reason; the others load. Raises
    :class:`ResultsError` where the folder or its ``study.json`` cannot be used.
    """
    results = Path(results)
    study = read_study(results)
    cells: list[Cell] = []
    parts: list[Columns] = []
    for expected in study.cells:
        cell, columns = _load_cell(results, expected, study)
        cells.append(cell)
        if columns:
            parts.append(columns)
    return Results(results, study, tuple(cells), _table(parts), _superseded(results, study))


def _table(parts: list[Columns]) -> pd.DataFrame:
    """One table of what the cells' files hold. Made at once: a table for each of thousands of cells costs more than
    reading its file."""
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})


def _superseded(results: Path, study: Study) -> tuple[str, ...]:
    current = {cell.id for cell in study.cells}
    found = (child.name for child in results.iterdir() if os.path.isfile(child / "cell.json"))
    return tuple(sorted(set(found) - current))


def _load_cell(results: Path, expected: ExpectedCell, study: Study) -> tuple[Cell, Columns]:
    """The cell and the rows of :data:`COLUMNS` it has; no columns where it has none."""
    folder = results / expected.id
    cell = Cell(expected.id, expected.agent, expected.seed, expected.tasks, state="pending", reason="not started")
    try:
        if not (folder / "cell.json").is_file():
            return cell, {}
        cell = _described(cell, folder, study)
        if not cell.counts:
            return cell, {}
        columns = _evaluations(cell, folder / "evaluations.jsonl", study)
    except (_DistrustError, ResultsError) as error:
        state = error.state if isinstance(error, _DistrustError) else "corrupt"
        return replace(cell, state=state, reason=told(error, results)), {}
    except OSError as error:  # another user's, in a folder that several share
        return replace(cell, state="corrupt", reason=f"{cell.id}: cannot be read ({error.strerror})"), {}
    if not columns:
        return cell, {}
    whole = columns["episodes"] >= (cell.episodes or 1)
    incomplete = int((~whole).sum())
    kept = {name: of[whole] for name, of in columns.items()} if incomplete else columns
    return replace(cell, incomplete=incomplete), kept if whole.any() else {}


def told(error: Exception, results: Path) -> str:
    """An error's message with paths from the study's folder, so that a report does not depend on where that lies."""
    return str(error).replace(f"{results}{os.sep}", "")


def _described(cell: Cell, folder: Path, study: Study) -> Cell:
    """The cell with what its ``cell.json`` and ``status.json`` say."""
    record = Record.read(folder / "cell.json")
    if (record.text("id"), record.text("agent"), record.integer("seed")) != (cell.id, cell.agent, cell.seed):
        raise ResultsError(f"{record.path}: describes another cell than its folder; restore the file")
    _check_measure(record, cell, study)
    starts = folder / "starts.jsonl"
    origins = [row for _, row in read_lines(starts)] if starts.is_file() else []
    planner = record.record("provenance").content if "provenance" in record.content else {}
    cell = replace(
        cell,
        reason="",
        config=json.dumps(record.record("config").content, sort_keys=True),
        config_hash=record.text("config_hash"),
        commits=_distinct(_commit(origin) for origin in origins),
        planned_by="" if origins else _commit(planner),
        packages=_distinct(package for origin in origins for package in _packages(origin)),
        agent_code=_distinct(_agent_code(origin) for origin in origins),
        machines=_distinct(", ".join(_machine(origin)) for origin in origins),
        budget=record.record("budget").integer("env_steps"),
        episodes=record.record("evaluation").integer("episodes"),
    )
    if not (folder / "status.json").is_file():
        return cell
    status = Record.read(folder / "status.json")
    return replace(
        cell,
        state=status.text("state"),
        reason=str(status.content.get("message") or ""),
        env_step=status.integer("env_step"),
        peak_memory_mb=_optional(status, "peak_memory_mb"),
        parameters=_optional(status, "parameters"),
    )


def _optional(record: Record, key: str) -> float | None:
    value = record.content.get(key)
    return float(value) if isinstance(value, int | float) else None


def _distinct(found: Iterable[T]) -> tuple[T, ...]:
    """Without what is empty or was there before."""
    return tuple(dict.fromkeys(each for each in found if each))


def _commit(provenance: Mapping[str, Any]) -> str:
    commit = str(provenance.get("commit") or "")[:12]
    if not (commit and provenance.get("dirty")):
        return commit
    source = provenance.get("source")
    return f"{commit} with changes (source {source})" if source else f"{commit} with changes"


def _packages(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = provenance.get("packages")
    for name, version in found.items() if isinstance(found, Mapping) else ():
        yield re.sub(r"[-_.]+", "-", str(name)).lower(), str(version)  # one spelling each, as of packages


def _agent_code(provenance: Mapping[str, Any]) -> str:
    agent = provenance.get("agent")
    if not isinstance(agent, Mapping) or not agent.get("source"):
        return ""
    named = " ".join(str(agent[key]) for key in ("package", "version") if agent.get(key))
    return f"{named} (source {agent['source']})".strip()


def _machine(provenance: Mapping[str, Any]) -> Iterator[str]:
    if provenance.get("cpu"):
        yield str(provenance["cpu"])
    if provenance.get("cores"):
        yield f"{provenance['cores']} cores"
    if used := provenance.get("gpu") or provenance.get("device"):
        yield f"trained on {used}"


def _check_measure(record: Record, cell: Cell, study: Study) -> None:
    """A cell measured otherwise than the study says may not share a figure with the rest."""
    version = record.integer("suite_version")
    if version != study.version:
        raise _DistrustError(
            "incompatible", f"made by version {version} of the suite, the study is version {study.version}"
        )
    for task in map(task_of, record.records("tasks")):
        if task.name not in cell.tasks or task.measure == study.task(task.name).measure:
            continue
        expected = study.task(task.name)
        other = "protocol" if task.protocol != expected.protocol else f"engine ({task.engine})"
        raise _DistrustError("incompatible", f"task {task.name} was measured under another {other} than the study's")


def _evaluations(cell: Cell, path: Path, study: Study) -> Columns:
    """Mean over the episodes of each evaluation of one cell, with the columns :data:`COLUMNS`; none without rows."""
    if not path.is_file():
        return {}
    found = _columns_at_once(cell, path, study) or _columns(list(_rows(cell, path, study)))
    if not found:
        return {}
    numbers = {name: _numbers(found[name], name, path) for name in (*_NUMBERS, *_OPTIONAL)}
    names = np.array(sorted(set(found["task"])), dtype=object)
    number = {name: index for index, name in enumerate(names)}
    task = np.array([number[name] for name in found["task"]])
    env_step, episode = (_whole_numbers(found[name], name, path) for name in ("env_step", "episode"))
    order = np.lexsort((episode, env_step, task))
    place = np.stack([task, env_step, episode])[:, order]
    if (np.diff(place, axis=1) == 0).all(axis=0).any():
        raise ResultsError(f"{path}: an episode stands in it twice; remove the cell's folder and run again")
    first = np.flatnonzero(np.diff(place[:2], axis=1, prepend=-1).any(axis=0))
    return {
        "cell": np.full(len(first), cell.id, dtype=object),
        "agent": np.full(len(first), cell.agent, dtype=object),
        "seed": np.full(len(first), cell.seed),
        "task": names[place[0, first]],
        "env_step": place[1, first],
        "episodes": np.diff(first, append=len(order)),
        **{name: _means(numbers[name][order], first) for name in (*_NUMBERS, *_OPTIONAL)},
        "seconds": np.maximum.reduceat(numbers["seconds"][order], first),
    }


def _means(values: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of the groups of ``values`` that begin at ``first``, over what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.add.reduceat(np.where(known, values, 0.0), first) / np.add.reduceat(known, first)
    return mean


def _whole_numbers(values: Sequence[int], name: str, path: Path) -> NDArray[np.int64]:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        raise ResultsError(f"{path}: {name!r} is {max(values)} in a line, expected a number below 2⁶³") from None


def _numbers(values: Sequence[Any], name: str, path: Path) -> NDArray[np.float64]:
    try:
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        raise ResultsError(f"{path}: a value of {name!r} is not a number") from None
    if name in _NUMBERS and not np.isfinite(numbers).all():
        line = int(np.flatnonzero(~np.isfinite(numbers))[0]) + 1
        raise ResultsError(f"{path}: {name!r} in line {line} is not a finite number")
    return numbers


def _columns(rows: list[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return dict(zip(_KEYS, zip(*rows, strict=True), strict=True)) if rows else {}


def _columns_at_once(cell: Cell, path: Path, study: Study) -> dict[str, tuple[Any, ...]] | None:
    """The columns of ``evaluations.jsonl``, read as a whole: many times as fast as line by line.

    ``None`` where anything is not as it should be, or there is nothing: reading line by line then finds what it is.
    """
    try:
        content = path.read_bytes()
        rows = orjson.loads(b"[" + content[: content.rfind(b"\n") + 1].rstrip(b"\n").replace(b"\n", b",") + b"]")
        found = dict(zip(_FIELDS, zip(*map(itemgetter(*_FIELDS), rows), strict=True), strict=True))
        owners = set(zip(*(found[key] for key in _OWNER), strict=True))
        measures = set(zip(found["task"], found["protocol"], strict=True))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    tasks = {*cell.tasks, *(task.name for task in study.held_out)}
    expected = {(name, study.task(name).protocol.name) for name in tasks}
    whole = all(type(value) is int and value >= 0 for name in ("env_step", "episode") for value in found[name])
    as_it_should_be = owners <= {(cell.agent, cell.seed, cell.config_hash)} and measures <= expected and whole
    return found if as_it_should_be else None


def _rows(cell: Cell, path: Path, study: Study) -> Iterator[tuple[Any, ...]]:
    """The rows of ``evaluations.jsonl``, one per episode."""
    tasks = (*cell.tasks, *(task.name for task in study.held_out))
    protocols = {name: study.task(name).protocol.name for name in tasks}
    for where, row in read_lines(path):
        try:
            yield _row(row, cell, protocols)
        except _DistrustError as error:
            raise _DistrustError(error.state, f"{where} {error}") from None


def _row(row: Mapping[str, Any], cell: Cell, protocols: dict[str, str]) -> tuple[Any, ...]:
    try:
        values = tuple(row.get(key) if key in _LATER else row[key] for key in _KEYS)
        owner = tuple(row[key] for key in _OWNER)
        protocol = row["protocol"]
    except KeyError as error:
        raise _DistrustError("corrupt", f"lacks the field {error}") from None
    if owner != (cell.agent, cell.seed, cell.config_hash):
        raise _DistrustError("corrupt", "belongs to another agent, seed or configuration than its cell")
    task, env_step, episode = values[:3]
    if not isinstance(task, str) or task not in protocols:
        raise _DistrustError("corrupt", f"names the task {task!r}, which is not the cell's")
    if type(env_step) is not int or type(episode) is not int or env_step < 0:
        raise _DistrustError("corrupt", "has an 'env_step' or 'episode' that is not a whole number")
    if protocol != protocols[task]:
        raise _DistrustError(
            "incompatible", f"was measured under protocol {protocol!r}, the study's is {protocols[task]!r}"
        )
    return values

"""What agents say of themselves: metrics of their training, and what they diagnose at each evaluation.

Thinned while reading: of each sixtieth of the budget a cell's last row is kept, and of that the mean over an agent's
cells, so that memory grows neither with the length of the runs nor with their number. As scores do, a mean goes as far
as every finished cell of the agent (while none is finished: every cell that has begun), and leaves out cells that did
not get there: it would bend where a cell ends that others go beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import Cell, Results, told
from analysis.scores import Array
from analysis.study import Record, ResultsError, Study, read_lines

__all__ = ["AXES", "DIAGNOSTICS", "METRICS", "POINTS", "Insides", "diagnostics", "last", "read", "training_metrics"]

POINTS = 60
"""Points of a curve."""

METRICS = ("agent", "metric", "env_step", "value")
"""Columns of :attr:`Insides.metrics`: str, str (without ``agent/``), int, float."""

DIAGNOSTICS = ("agent", "name", "title", "axes", "task", "other", "ahead", "env_step", "value")
"""Columns of :attr:`Insides.diagnostics`.

``axes`` is a key of :data:`AXES`. ``task`` and ``other`` are names of tasks along the first and the second task axis,
empty where there is none; ``ahead`` is steps ahead, from 1, and 0 where there is no horizon. ``env_step`` is an int,
``value`` a float, the others are str.
"""

AXES = {" ".join(axes): axes for axes in ((), ("task",), ("horizon",), ("task", "horizon"), ("task", "task"))}
"""The axes a diagnostic may have."""

_METRIC_PREFIX = "agent/"
_TOLD_ELSEWHERE = frozenset({"agent/updates", "agent/parameters"})
"""What scores are drawn against, and a table's; no curves of their own."""
_METRIC_ROW = ("metric", "point", "env_step", "value")
_DIAGNOSTIC_ROW = ("name", "title", "axes", "task", "other", "ahead", "point", "env_step", "value")


@dataclass(frozen=True)
class Insides:
    """What stands in ``metrics.jsonl`` and ``diagnostics.jsonl`` of the cells that count, as means over cells.

    A mean is over those cells of an agent that know the value at that step; what none knows has no row. Rows stand in
    the order of ``env_step``, at one step in the order in which agents wrote them.
    """

    metrics: pd.DataFrame
    """Columns :data:`METRICS`, without counters, which tell nothing of an agent."""
    diagnostics: pd.DataFrame
    """Columns :data:`DIAGNOSTICS`; of tasks against tasks there is the last step only."""
    damaged: tuple[str, ...]
    """What is wrong with files that were left out."""


def read(results: Results) -> Insides:
    """Read what the agents of a study say of themselves. A damaged file is named and left out; its scores stay."""
    metrics, damaged_metrics = _gathered(results, training_metrics, _METRIC_ROW)
    diagnosed, damaged = _gathered(results, diagnostics, _DIAGNOSTIC_ROW)
    return Insides(
        _without_counters(metrics)[list(METRICS)], diagnosed[list(DIAGNOSTICS)], (*damaged_metrics, *damaged)
    )


def training_metrics(folder: Path, cell: Cell, study: Study) -> Iterator[tuple[Any, ...]]:
    """The metrics of one cell, thinned: metric, point (which sixtieth of the budget), env_step, value.

    Raises :class:`ResultsError` naming file and line for what cannot be read or is not what it should be.
    """
    kept: dict[tuple[str, int], tuple[int, float]] = {}
    for where, row in _lines(folder / "metrics.jsonl"):
        record = Record(row, where)
        env_step = record.integer("env_step")
        point = _point(env_step, study)
        for key in row:
            if key.startswith(_METRIC_PREFIX) and key not in _TOLD_ELSEWHERE:
                kept[key.removeprefix(_METRIC_PREFIX), point] = env_step, record.number(key)
    for (metric, point), (env_step, value) in kept.items():
        yield metric, point, env_step, value


def diagnostics(folder: Path, cell: Cell, study: Study) -> Iterator[tuple[Any, ...]]:
    """The diagnostics of one cell, thinned: as :data:`DIAGNOSTICS` without the agent, and the point before env_step.

    A cell trained on one task says of that task whatever has no task axis. Raises as :func:`training_metrics` does.
    """
    tasks = (*cell.tasks, *(task.name for task in study.held_out))
    kept: dict[tuple[str, str, int], tuple[str, int, Array]] = {}
    for where, row in _lines(folder / "diagnostics.jsonl"):
        record = Record(row, where)
        axes, env_step = _axes(record), record.integer("env_step")
        point = POINTS if axes == "task task" else _point(env_step, study)
        kept[record.text("name"), axes, point] = record.text("title"), env_step, _values(record, AXES[axes], len(tasks))
    for (name, axes, point), (title, env_step, values) in kept.items():
        if len(cell.tasks) == 1 and "task" not in AXES[axes]:
            axes, values = " ".join(("task", *AXES[axes])), values[None]
        for index, value in np.ndenumerate(values):
            if math.isfinite(value):
                yield name, title, axes, *_place(AXES[axes], index, tasks), point, env_step, float(value)


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An agent need not say anything."""
    return read_lines(path) if path.is_file() else iter(())


def _point(env_step: int, study: Study) -> int:
    return math.ceil(env_step * POINTS / study.env_steps)


def _axes(record: Record) -> str:
    found = record.items("axes")
    if tuple(found) not in AXES.values():
        raise ResultsError(f"{record.path}: 'axes' is {found}, expected one of {[*map(list, AXES.values())]}")
    return " ".join(found)


def _values(record: Record, axes: Sequence[str], tasks: int) -> Array:
    """The values as an array with the given axes; null is NaN."""
    if "values" not in record.content:
        raise ResultsError(f"{record.path}: the field 'values' is missing")
    try:
        values = np.array(record.content["values"], dtype=object)
    except ValueError:  # lists of unequal lengths
        values = np.array("")
    # NumPy would read "7" and true as numbers.
    if not all(value is None or type(value) in (int, float) for value in values.flat):
        raise ResultsError(f"{record.path}: 'values' holds something else than numbers in lists of equal lengths")
    sizes = {"task": f"{tasks} tasks", "horizon": "steps ahead"}
    found = [n for n, axis in zip(values.shape, axes, strict=False) if axis == "task"]
    if values.ndim != len(axes) or any(n != tasks for n in found):
        expected = ", ".join(sizes[axis] for axis in axes)
        raise ResultsError(f"{record.path}: 'values' has shape {list(values.shape)}, expected [{expected}]")
    return values.astype(np.float64)


def _place(axes: Sequence[str], index: Sequence[int], tasks: Sequence[str]) -> tuple[str, str, int]:
    """Task, other task and steps ahead of one value."""
    names = [tasks[at] for axis, at in zip(axes, index, strict=True) if axis == "task"]
    task, other, *_ = (*names, "", "")
    return task, other, index[-1] + 1 if "horizon" in axes else 0


def _gathered(
    results: Results, rows_of: Callable[[Path, Cell, Study], Iterator[tuple[Any, ...]]], columns: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Means over the cells of each agent, and what is wrong with the files that are left out."""
    frames, damaged = [], []
    path = results.path
    for agent in results.study.agents if path else ():
        told_by: list[tuple[Cell, pd.DataFrame]] = []
        for cell in results.cells:
            if path and cell.agent == agent and cell.counts and not cell.table:
                try:
                    rows = list(rows_of(path / cell.id, cell, results.study))
                except ResultsError as error:
                    damaged.append(told(error, path))
                    continue
                if rows:
                    told_by.append((cell, pd.DataFrame(rows, columns=list(columns))))
        if told_by:
            frames.append(_averaged(_as_far_as_all(told_by, results.study)).assign(agent=agent))
    if not frames:
        return pd.DataFrame(columns=["agent", *columns, "least", "most"]), damaged
    return pd.concat(frames, ignore_index=True), damaged


def _as_far_as_all(told_by: Sequence[tuple[Cell, pd.DataFrame]], study: Study) -> pd.DataFrame:
    """The rows of the cells that got as far as the shortest finished one, up to there."""
    ends = [_point(int(rows["env_step"].max()), study) for _, rows in told_by]
    finished = [end for (cell, _), end in zip(told_by, ends, strict=True) if cell.state == "done"]
    shortest = min(finished or ends)
    rows = pd.concat([of for (_, of), end in zip(told_by, ends, strict=True) if end >= shortest], ignore_index=True)
    kept = rows["point"] <= shortest
    if "axes" in rows:
        kept |= rows["axes"] == "task task"  # no curve, but each cell's last
    return rows[kept]


def _averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows alike in all but ``env_step`` and ``value`` become one: the mean, and the ``least`` and ``most`` of it.

    Cells are not evaluated at quite the same steps; a point stands at the last of them.
    """
    last_step = rows.groupby("point")["env_step"].transform("max")
    keys = [name for name in rows.columns if name not in ("env_step", "value")]
    grouped = rows.assign(env_step=last_step).groupby([*keys, "env_step"], sort=False)["value"]
    frame: pd.DataFrame = grouped.agg(value="mean", least="min", most="max").reset_index()
    return frame.sort_values("point", kind="stable")


def _without_counters(metrics: pd.DataFrame) -> pd.DataFrame:
    """Leaves out what rises by whole steps from row to row and is the same in every cell, such as the updates so far.

    Rows of metrics are means over updates, so halves count as whole.
    """

    def counts(of: pd.DataFrame) -> bool:
        same, whole = of["least"] == of["most"], (2 * of["value"]) % 1 == 0
        return len(of) > 1 and bool((same & whole).all() and (of["value"].diff().iloc[1:] > 0).all())

    left_out = [of.index for _, of in metrics.groupby(["agent", "metric"]) if counts(of)]
    return metrics.drop(index=np.concatenate(left_out)) if left_out else metrics


def last(found: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """The newest values of each diagnostic of each agent: ``values`` is a number or nested lists along its ``axes``.

    Along a task axis stand the ``tasks``, along the horizon the steps 1 to H; None is unknown.
    """
    records = []
    for keys, rows in found.groupby(["agent", "name", "title", "axes"], sort=False):
        newest = rows.drop_duplicates(["task", "other", "ahead"], keep="last")
        axes = AXES[str(keys[-1])]
        tasks = [task.name for task in study.evaluated if task.name in {*newest["task"], *newest["other"]}]
        place = {name: at for at, name in enumerate(tasks)}
        first = newest["ahead"] * 0  # an axis of one, so that a number is an array like the others
        at = [first, *(newest[column].map(place) for column in ("task", "other")[: axes.count("task")])]
        at += [newest["ahead"] - 1] if "horizon" in axes else []
        sizes = [len(tasks) if axis == "task" else int(newest["ahead"].max()) for axis in axes]
        values = np.full([1, *sizes], np.nan)
        values[tuple(of.to_numpy(dtype=int) for of in at)] = newest["value"].to_numpy()
        about: dict[str, Any] = dict(zip(("agent", "name", "title"), keys, strict=False))
        about |= {"axes": list(axes), "tasks": tasks, "env_step": int(newest["env_step"].max())}
        records.append({**about, "values": _plain(values[0].tolist())})
    return records


def _plain(values: Any) -> Any:
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return values if math.isfinite(values) else None

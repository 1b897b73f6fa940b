"""Results that did not come from this project: a tidy table becomes what :func:`analysis.frame.load` reads.

One row per evaluation, or per episode of it (the mean is taken). Needed are ``agent``, ``task``, ``seed`` and a score;
``env_step`` makes curves of it, ``seconds`` and ``updates`` let scores be drawn against them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import COLUMNS, Cell, Results
from analysis.study import ExpectedCell, Protocol, ResultsError, Study, Task

__all__ = ["SCORE_COLUMNS", "beside", "from_frame", "read_csv", "read_frame"]

SCORE_COLUMNS = ("score", "return", "success_any", "success_last", "success")
"""Columns that may hold the score; without a choice the first that is there."""

_ALIASES = {
    "algorithm": "agent", "algo": "agent", "method": "agent", "env": "task", "environment": "task", "env_id": "task",
    "step": "env_step", "steps": "env_step", "global_step": "env_step", "env_steps": "env_step",
    "timestep": "env_step", "timesteps": "env_step", "total_timesteps": "env_step", "num_timesteps": "env_step",
}  # fmt: skip
"""What other tools call the columns."""

LARGEST = 2**53
"""Whole numbers below this are floats of their own."""

_KEYS = ["agent", "task", "seed", "env_step"]
_OPTIONAL = ("seconds", "updates")
_NAMES = ("agent", "task", *(old for old, new in _ALIASES.items() if new in ("agent", "task")))
"""Columns whose text is a name, whatever it looks like: ``007``, ``None``."""


def read_csv(
    path: Path,
    *,
    bounds: tuple[float, float] | None = None,
    score: str | None = None,
    joint: bool = False,
) -> Results:
    """The table in a CSV file (also packed, such as ``.csv.gz``), named after it. See :func:`from_frame`."""
    path = Path(path)
    name = path.name.partition(".")[0] or path.name
    return from_frame(read_frame(path), name=name, bounds=bounds, score=score, joint=joint, where=str(path))


def read_frame(path: Path) -> pd.DataFrame:
    """The table in a CSV file, as it is but for names, which stay text. Raises :class:`ResultsError`."""
    try:
        return pd.read_csv(path, converters=dict.fromkeys(_NAMES, str))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, UnicodeError) as error:  # pandas' parser errors are ValueErrors
        raise ResultsError(f"{path}: is no table of comma-separated values ({error})") from None


def from_frame(
    frame: pd.DataFrame,
    *,
    bounds: tuple[float, float] | None = None,
    score: str | None = None,
    joint: bool = False,
    name: str = "table",
    where: str = "the table",
) -> Results:
    """The rows of ``frame`` as results of a study called ``name``.

    ``bounds``: the raw scores that are normalised to 0 and to 1, fixed by what is measured and never taken from the
    rows; without it the columns ``low`` and ``high`` say so, task by task. ``score``: the column that holds the score.
    ``joint``: one run is one agent on all tasks, so that whole runs are drawn. An agent is expected to have
    each of its seeds on every task; what is missing is named in the report. ``where`` begins the messages of
    :class:`~analysis.study.ResultsError`, raised for a table that lacks a column or holds what is no number.
    """
    frame = _renamed(frame, where)
    score = _score_column(frame, score, where)
    rows = _checked(frame, score, where)
    tasks = tuple(_task(rows, task, score, bounds, where) for task in dict.fromkeys(rows["task"]))
    expected = _expected(rows, tuple(task.name for task in tasks), name, joint=joint)
    evaluations = _evaluations(rows, expected)
    last = {str(cell): int(step) for cell, step in evaluations.groupby("cell")["env_step"].max().items()}
    study = Study(
        suite=name,
        version=1,
        mode="joint" if joint else "per_task",
        env_steps=max(last.values()),
        episodes=int(evaluations["episodes"].max()),
        agents=tuple(dict.fromkeys(rows["agent"])),
        seeds=tuple(sorted(set(rows["seed"]))),
        tasks=tasks,
        cells=expected,
    )
    return Results(None, study, tuple(_cell(cell, last) for cell in expected), evaluations)


def beside(results: Results, frame: pd.DataFrame, *, score: str | None = None, where: str = "the table") -> Results:
    """``results`` of a study with the agents of ``frame`` beside its own, on its tasks and normalised by its protocols.

    The score is in the column ``score``; without it in the one that a task's protocol scores, such as ``return``, or
    else in ``score``. What comes behind the study's last step is left out; a run that goes on has there the score on
    the straight line between its evaluations. Raises :class:`ResultsError` for a table that does not fit, and where
    the study is a sweep.
    """
    study, frame = results.study, _renamed(frame, where)
    if study.sweep is not None:
        raise ResultsError(f"{where}: cannot stand beside {study.suite}, whose agents are those of a sweep")
    rows = _checked(frame.assign(score=_as_scored(frame, study, score, where)), "score", where)
    if taken := [agent for agent in dict.fromkeys(rows["agent"]) if agent in study.agents]:
        raise ResultsError(f"{where}: {study.suite} has an agent {taken[0]!r} too; give that of the table another name")
    held_out = tuple(task.name for task in study.held_out)
    expected = _expected(rows, tuple(task.name for task in study.tasks), study.suite, joint=study.mode == "joint")
    steps = results.evaluations["env_step"]
    found = _until(_evaluations(rows, expected, held_out), int(steps.max()) if len(steps) else study.env_steps)
    last = {str(cell): int(step) for cell, step in found.groupby("cell")["env_step"].max().items()}
    return replace(
        results,
        study=replace(
            study,
            agents=(*study.agents, *dict.fromkeys(rows["agent"])),
            seeds=tuple(sorted({*study.seeds, *rows["seed"]})),
            cells=(*study.cells, *expected),
        ),
        cells=(*results.cells, *(replace(_cell(cell, last), table=Path(where).name) for cell in expected)),
        evaluations=pd.concat([results.evaluations, found], ignore_index=True) if len(steps) else found,
    )


def _renamed(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    names = {old: new for old, new in _ALIASES.items() if old in frame.columns and new not in frame.columns}
    found, frame = ", ".join(map(str, frame.columns)), frame.rename(columns=names)
    columns = frame.columns.tolist()
    for column in (*_KEYS, *_OPTIONAL, *SCORE_COLUMNS, "low", "high"):
        needed = column in ("agent", "task", "seed")
        if columns.count(column) > 1 or (needed and column not in columns):
            raise ResultsError(f"{where}: expected one column {column!r}, found {found}")
    if frame.empty:
        raise ResultsError(f"{where}: holds no row")
    if "suite" in frame.columns and frame["suite"].nunique(dropna=False) > 1:
        found = ", ".join(map(str, frame["suite"].unique()))
        raise ResultsError(f"{where}: holds several suites ({found}); keep the rows of one")
    return frame


def _score_column(frame: pd.DataFrame, score: str | None, where: str) -> str:
    candidates = SCORE_COLUMNS if score is None else (score,)
    chosen = next((name for name in candidates if name in frame.columns), None)
    if chosen is None:
        expected, found = " or ".join(candidates), ", ".join(map(str, frame.columns))
        raise ResultsError(f"{where}: expected a column {expected} with the scores, found {found}")
    return chosen


def _checked(frame: pd.DataFrame, score: str, where: str) -> pd.DataFrame:
    """The rows with text for agents and tasks and numbers for everything else, the score in column ``score``."""
    rows = pd.DataFrame({"agent": frame["agent"], "task": frame["task"]})
    for column in rows:
        empty = frame[column].isna() | (frame[column] == "")
        if empty.any():
            raise ResultsError(f"{where}: {column!r} is empty in row {_row(empty)}")
        rows[column] = rows[column].astype(str)
    rows["seed"] = _numbers(frame, "seed", where, whole=True)
    rows["env_step"] = _numbers(frame, "env_step", where, whole=True) if "env_step" in frame else 0
    rows["score"] = _numbers(frame, score, where)
    for column in _OPTIONAL:
        rows[column] = _numbers(frame, column, where, finite=False) if column in frame else np.nan
    for column in {"low", "high"} & set(frame.columns):
        rows[column] = _numbers(frame, column, where)
    return rows


def _numbers(frame: pd.DataFrame, column: str, where: str, *, whole: bool = False, finite: bool = True) -> Any:
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    wrong = numbers.isna() & frame[column].notna() if not finite else ~np.isfinite(numbers)
    if whole:
        # beyond, different whole numbers are one float, and their rows would be taken for one run's
        wrong |= (numbers < 0) | (numbers != numbers.round()) | (numbers >= LARGEST)
    if wrong.any():
        found, kind = frame[column][wrong].iloc[0], "whole number from 0 and below 2⁵³" if whole else "number"
        raise ResultsError(f"{where}: {column!r} in row {_row(wrong)} is {found}, expected a finite {kind}")
    return numbers.astype(int) if whole else numbers


def _row(wrong: Any) -> int:
    """Number of the first true row, counted from 1 below the header."""
    return int(np.flatnonzero(wrong)[0]) + 1


def _task(rows: pd.DataFrame, task: str, score: str, bounds: tuple[float, float] | None, where: str) -> Task:
    if bounds is None:
        if not {"low", "high"} <= set(rows.columns):
            raise ResultsError(
                f"{where}: which scores are normalised to 0 and to 1 is missing; give both bounds (--low and --high), "
                "or the columns low and high"
            )
        found = rows.loc[rows["task"] == task, ["low", "high"]].drop_duplicates()
        if len(found) > 1:
            raise ResultsError(f"{where}: task {task!r} has several bounds low and high, expected the same in each row")
        bounds = float(found["low"].iloc[0]), float(found["high"].iloc[0])
    low, high = bounds
    if not low < high:
        raise ResultsError(f"{where}: low {low:g} of task {task!r} is not below high {high:g}")
    return Task(task, "table", Protocol("as measured", None, None, score, low, high), engine="unknown")


def _expected(rows: pd.DataFrame, tasks: tuple[str, ...], name: str, *, joint: bool) -> tuple[ExpectedCell, ...]:
    """The runs of a whole table: each agent with each of its seeds on every task."""
    units = [(name, tasks)] if joint else [(task, (task,)) for task in tasks]
    return tuple(
        ExpectedCell(f"{unit}.{agent}.s{seed}", str(agent), seed, of_unit)
        for unit, of_unit in units
        for agent, of_agent in rows.groupby("agent", sort=False)
        for seed in sorted(set(of_agent["seed"]))
    )


def _evaluations(
    rows: pd.DataFrame, expected: tuple[ExpectedCell, ...], held_out: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Mean over the rows of each evaluation, with the columns of :data:`~analysis.frame.COLUMNS`."""
    grouped = rows.groupby(_KEYS)
    evaluations = grouped[["score", *_OPTIONAL]].mean()
    evaluations["episodes"] = grouped.size()
    of_cell = {(cell.agent, task, cell.seed): cell.id for cell in expected for task in (*cell.tasks, *held_out)}
    evaluations["cell"] = [of_cell[agent, task, seed] for agent, task, seed, _ in evaluations.index]
    return evaluations.reset_index().reindex(columns=COLUMNS)


def _as_scored(frame: pd.DataFrame, study: Study, score: str | None, where: str) -> pd.Series[Any]:
    """Of each row the column that holds what its task's protocol scores."""
    tasks = {task.name: task.protocol.score for task in study.evaluated}
    names = frame["task"].astype(str)
    if unknown := sorted(set(names) - set(tasks)):
        raise ResultsError(f"{where}: {study.suite} has no task {unknown[0]!r}; expected one of {', '.join(tasks)}")
    columns = {
        task: score or (of if of in frame.columns else "score") for task, of in tasks.items() if task in set(names)
    }
    if absent := [(task, column) for task, column in columns.items() if column not in frame.columns]:
        task, column = absent[0]
        expected = column if score else f"{tasks[task]} or {column}"
        raise ResultsError(f"{where}: expected a column {expected} with the scores of {task}")
    found = pd.Series(np.nan, index=frame.index, dtype=object)
    for task, column in columns.items():
        found = found.mask(names == task, frame[column])
    return found


def _until(evaluations: pd.DataFrame, end: int) -> pd.DataFrame:
    """The evaluations of each run up to the step ``end``, with one there where the run goes on."""
    ends = []
    for _, run in evaluations.groupby(["cell", "task"], sort=False):
        steps = run["env_step"].to_numpy(dtype=np.float64)
        if steps[0] < end < steps[-1] and end not in steps:
            there = {
                name: np.interp(end, steps, run[name].to_numpy(dtype=np.float64)) for name in ("score", *_OPTIONAL)
            }
            ends.append(run.iloc[:1].assign(env_step=end, **there))
    return pd.concat([evaluations[evaluations["env_step"] <= end], *ends], ignore_index=True).sort_values(
        ["cell", "task", "env_step"], kind="stable", ignore_index=True
    )


def _cell(cell: ExpectedCell, last: dict[str, int]) -> Cell:
    known = cell.id in last
    return Cell(
        cell.id,
        cell.agent,
        cell.seed,
        cell.tasks,
        state="done" if known else "missing",
        reason="" if known else "not in the table",
        env_step=last.get(cell.id, 0),
    )

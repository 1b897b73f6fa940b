"""Tables of what was run: rules of measuring, configurations, cells, and what training and tuning took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.report.markup import Table
from analysis.summary import Summary
from analysis.wording import SCORES


def protocols(summary: Summary) -> Table:
    """The rules of measuring, one row per protocol."""
    study = summary.results.study
    measures = [(*task.measure, task.options) for task in study.evaluated]
    rows: list[tuple[object, ...]] = [
        (p.name, engine, SCORES.get(p.score, p.score), p.low, p.high, p.action_repeat, p.decisions,
         measures.count((p, engine, options)), options)
        for p, engine, options in dict.fromkeys(measures)
    ]  # fmt: skip
    header: tuple[str, ...] = (
        "Protocol", "Engine", "Score", "0 means", "1 means", "Action repeat", "Decisions", "Tasks", "Options"
    )  # fmt: skip
    shown = slice(None if any(task.options for task in study.evaluated) else -1)
    run = "What a score is" if summary.results.tabular else "How an episode is run, and what its score is"
    return _plain("protocols", f"{run} normalised by.", header[shown], [row[shown] for row in rows], 3)


def compute(summary: Summary) -> Table:
    records = [vars(item) | {"parameters": _parameters(item.parameters)} for item in summary.compute]
    rows = tuple(
        (
            c.agent, str(c.cells), _hours(c.seconds), _hours(c.seconds_per_cell), f"{c.steps_per_second:,.0f}",
            "unknown" if c.updates is None else f"{c.updates:,.0f}", _parameters(c.parameters),
            "unknown" if c.peak_memory_mb is None else f"{c.peak_memory_mb:,.0f} MB",
        )
        for c in summary.compute
    )  # fmt: skip
    header = ("Agent", "Cells", "Training time", "Per cell (median)", "Steps/s (median)", "Updates per cell",
              "Parameters", "Peak memory")  # fmt: skip
    caption = (
        "What training cost: wall-clock time of the cells' training, evaluation not counted; environment steps per "
        "second, gradient updates, numbers that training moves."
    )
    return Table("compute", caption, pd.DataFrame(records), header, rows)


def tuning(summary: Summary) -> Table:
    """What finding the agents' values took, and what it brought."""
    records = [
        {
            "agent": of.agent, "suite": of.suite, "trials": of.trials, "measured": len(of.scores),
            "env_steps": of.env_steps, "hours": of.hours,
            "default": of.default, "best": max(of.scores, default=None),
            "expected_best_of_one": float(np.mean(of.scores)) if of.scores else None,
        }
        for of in summary.results.study.tuned
    ]  # fmt: skip
    rows = tuple(
        (
            str(r["agent"]), str(r["suite"]),
            f"{r['trials']}" + (f", {r['measured']} measured whole" if r["measured"] != r["trials"] else ""),
            f"{r['env_steps']:,}", f"{r['hours']:.2f} h",
            *("unknown" if r[key] is None else f"{r[key]:.3f}" for key in ("default", "best", "expected_best_of_one")),
        )
        for r in records
    )  # fmt: skip
    header = ("Agent", "Tuned in suite", "Trials", "Environment steps", "Training", "As it stood", "Best", "Mean")
    caption = (
        "What tuning took, and its scores: of the configuration as it stood, of the best, and the mean over "
        "the trials that were measured whole. They are of tuning's own seeds, and the best of many is a little lucky "
        "there."
    )
    return Table("tuning", caption, pd.DataFrame(records), header, rows, 2)


def hyperparameters(summary: Summary) -> Table:
    """Every value of every agent's configuration, and where it comes from."""
    found = [s for s in summary.results.study.settings if s.agent in summary.agents]
    rows = tuple((s.agent, s.field, s.value, s.set_by, s.about) for s in found)
    header = ("Agent", "Hyper-parameter", "Value", "Set by", "Meaning and origin")
    caption = "What every agent was run with, who set it, and where its default comes from."
    return Table("hyperparameters", caption, pd.DataFrame(map(vars, found)), header, rows, 5)


def _parameters(sizes: tuple[int, ...]) -> str:
    if not sizes:
        return "unknown"
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"


def cells(summary: Summary) -> Table:
    """Every expected cell and its state: where each number comes from."""

    def unit(tasks: tuple[str, ...]) -> str:
        return tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"

    rows = [(c.id, c.agent, c.seed, unit(c.tasks), c.state, f"{c.env_step:,}") for c in summary.results.cells]
    header = ("Cell", "Agent", "Seed", "Tasks", "State", "Environment steps")
    return _plain("cells", "Every cell of the study.", header, rows, 5)


def _plain(name: str, caption: str, header: tuple[str, ...], rows: Sequence[tuple[object, ...]], names: int) -> Table:
    def text(item: object) -> str:
        return "unknown" if item is None else f"{item:g}" if isinstance(item, float) else str(item)

    texts = tuple(tuple(map(text, row)) for row in rows)
    return Table(name, caption, pd.DataFrame(list(rows), columns=list(header)), header, texts, names)


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""What the page's own script works with: curves as plain numbers, and whose cells are behind each number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from analysis.figures import drawing, style
from analysis.report.markup import About, Table
from analysis.scores import Array, thinned
from analysis.stats import Band
from analysis.study import Study
from analysis.summary import Summary
from analysis.wording import AXIS_NAMES, SCORE_UNITS

__all__ = ["Text", "chart", "embedded", "linked"]

POINTS = 60
"""Points of a curve; the eye sees no more."""


def chart(summary: Summary) -> dict[str, Any] | None:
    """The curves by view: all tasks along each axis, then task by task along environment steps; None without curves.

    ``x``, ``y``, ``low`` and ``high`` of a curve are lists of one length; ``low`` and ``high`` are null where one run
    allows no interval.
    """
    views = [view for view in (*_aggregate(summary), *_tasks(summary)) if view["curves"]]
    if not views:
        return None
    known = summary.results.study.agents
    paint, dash = style.colours(known), style.dashes(known)
    agents = [
        {
            "name": agent,
            "class": drawing.agent_class(summary, agent),
            "colour": paint[agent],
            "dash": " ".join(f"{2 * length:g}" for length in dash[agent]),  # lines are about 2 pixels wide
        }
        for agent in summary.agents
    ]
    return {"agents": agents, "views": views}


def _aggregate(summary: Summary) -> Iterator[dict[str, Any]]:
    by_axis = {"env_step": summary.curves, **summary.other_axes}
    for axis, curves in by_axis.items():
        yield {
            "task": "",
            "title": "All tasks (IQM)",
            "axis": AXIS_NAMES[axis].capitalize(),
            "unit": "IQM of normalised score",
            "curves": [_curve(agent, of.steps, of.band) for agent, of in curves.items()],
        }


def _tasks(summary: Summary) -> Iterator[dict[str, Any]]:
    for task in summary.results.study.tasks:
        yield {
            "task": task.name,
            "title": task.name,
            "axis": AXIS_NAMES["env_step"].capitalize(),
            "unit": SCORE_UNITS.get(task.protocol.score, "Score"),
            "curves": [_curve(c.agent, c.steps, c.band) for c in summary.task_curves if c.task == task],
        }


def _curve(agent: str, steps: Array, band: Band) -> dict[str, Any]:
    shown = thinned(len(steps), POINTS)

    def numbers(values: Array | None) -> list[float] | None:
        return None if values is None else [float(f"{value:.4g}") for value in values[shown]]

    x = [float(step) for step in steps[shown]]
    return {"agent": agent, "x": x, "y": numbers(band.estimate), "low": numbers(band.low), "high": numbers(band.high)}


@dataclass(frozen=True)
class Text:
    """One field of a table on the page, and whose cells are behind it: nobody's where it is no number of the study."""

    text: str
    about: About | None = None


def linked(table: Table, study: Study) -> list[list[Text]]:
    """The rows of a table, each number with what it is about: told by the table, or by its row and column."""
    about = table.about or _by_name(table, study)
    return [
        [
            Text(text, behind if index >= table.names and any(sign.isdigit() for sign in text) else None)
            for index, (text, behind) in enumerate(zip(row, of_row, strict=True))
        ]
        for row, of_row in zip(table.rows, about, strict=True)
    ]


def _by_name(table: Table, study: Study) -> list[list[About | None]]:
    known = {*study.agents, *(task.name for task in study.evaluated)}
    heads = [_named(name, known) for name in table.header]
    rows = []
    for row in table.rows:
        of_row = {_named(text, known) for text in row}
        named = [{name for name in (*of_row, head) if name} for head in heads]
        rows.append([_about(names, study) if names else None for names in named])
    return rows


def _about(names: Set[str], study: Study) -> About:
    return About(
        tuple(agent for agent in study.agents if agent in names),
        tuple(task.name for task in study.evaluated if task.name in names),
    )


def _named(text: str, known: Set[str]) -> str | None:
    """The agent or task that a heading or name is: itself, or in ``ppo's 0.41`` and ``reach-v3 (held out)``."""
    forms = (text, text.partition("'s ")[0], text.removesuffix(" (held out)"))
    return next((form for form in forms if form in known), None)


def embedded(data: Any) -> str:
    """JSON fit to stand inside a ``<script>`` element: names in it cannot end the element."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

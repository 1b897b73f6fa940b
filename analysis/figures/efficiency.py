"""Figures of what scores cost: learning curves along each axis, steps-to-score ratios, seeds for an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

from analysis.efficiency import Curve, Speedup
from analysis.figures import drawing, style
from analysis.scores import AXES
from analysis.summary import Summary
from analysis.wording import AXIS_NAMES, listed

FARTHEST = 100.0
"""Ratios beyond this, or its inverse, are drawn there."""
MOST_PANELS = 4
"""In a row of ratios."""
MOST_THREEFOLD = 12
"""Tasks with ratios along every axis; of more the figure would be full."""
SHAPES = {"env_step": "o", "updates": "s", "seconds": "D"}


def sample_efficiency(summary: Summary) -> Figure | None:
    """IQM over runs and tasks against environment steps."""
    if not summary.curves:
        return None
    figure = drawing.new_figure(0.72 * style.WIDTH, 2.9)
    axes = figure.subplots()
    _draw_curves(axes, summary, summary.curves)
    axes.set(xlabel=f"Environment steps{_about(summary.curves)}", ylabel="IQM of normalised score")
    drawing.legend(figure, summary, summary.curves)
    return figure


def other_axes(summary: Summary) -> Figure | None:
    """The same against gradient updates and seconds, on logarithmic axes: agents differ by orders of magnitude."""
    if not summary.other_axes:
        return None
    figure = drawing.new_figure(style.WIDTH, 2.9)
    panels = figure.subplots(1, len(summary.other_axes), sharey=True, squeeze=False)[0]
    for axes, (axis, curves) in zip(panels, summary.other_axes.items(), strict=True):
        _draw_curves(axes, summary, curves)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_plain_below_one))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{AXIS_NAMES[axis].capitalize()}{_about(curves) if len(panels) == 1 else ''}")
    panels[0].set_ylabel("IQM of normalised score")
    shown = {agent for curves in summary.other_axes.values() for agent in curves}
    drawing.legend(figure, summary, [agent for agent in summary.agents if agent in shown])
    return figure


def _draw_curves(axes: Axes, summary: Summary, curves: Mapping[str, Curve]) -> None:
    for agent, of in curves.items():
        drawing.draw_band(axes, summary, agent, of.steps, of.band, marked=True)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _plain_below_one(value: float, _: object) -> str:
    """10k, but 0.1: EngFormatter's 100m is taken for metres or millions."""
    return f"{value:g}" if value < 1 else str(EngFormatter(sep="")(value))


def _about(curves: Mapping[str, Curve]) -> str:
    return drawing.about(of.band for of in curves.values())


def speedups(summary: Summary) -> Figure | None:
    """Ratios of the agent with the highest IQM to every other, over all tasks and task by task, along every axis.

    Of many tasks along environment steps alone.
    """
    if not summary.ranking:
        return None
    leader = summary.ranking[0]
    many = len(summary.results.study.tasks) > MOST_THREEFOLD
    found = [s for s in summary.speedups if s.agent == leader and not (many and s.task and s.axis != "env_step")]
    counted = [axis for axis in AXES if any(s.axis == axis for s in found)]
    references = [agent for agent in summary.agents if any(s.reference == agent for s in found)]
    rows = [None, *(task.name for task in summary.results.study.tasks if any(s.task == task.name for s in found))]
    if not references:
        return None
    columns = min(len(references), MOST_PANELS)
    lines = math.ceil(len(references) / columns)
    of_row = 0.15 if len(rows) > 20 else 0.24 if len(counted) == 1 or many else 0.34
    figure = drawing.new_figure(style.WIDTH, 0.8 + (0.5 + of_row * len(rows)) * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.ravel())
    for axes in panels[len(references) :]:
        axes.set_visible(False)
    paint = style.colours(summary.results.study.agents)[leader]
    for axes, reference in zip(panels, references, strict=False):
        for item in (s for s in found if s.reference == reference):
            at = counted.index(item.axis) - (len(counted) - 1) / 2 if item.task is None or not many else 0
            _draw_ratio(axes, rows.index(item.task) + 0.26 * at, item, paint)
        axes.axvline(1, color=style.INK, linewidth=0.8, linestyle=":")
        axes.set_title(drawing.wrapped(f"{reference}'s", 18), fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=False, axis="y")
    ends = np.array([axes.dataLim.intervalx for axes in panels[: len(references)]])
    # all panels share one axis; powers of ten alone would leave a short one without a number
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ends.max() < 20 * ends.min() else (1,)))
    whole = "all tasks (IQM)" if all(s.cut_at is None for s in found) else "all tasks (IQM, steps of all)"
    names = [whole if name is None else name for name in rows]
    panels[0].set_yticks(range(len(rows)), names, fontsize=8 if len(rows) <= 20 else 6)
    panels[0].invert_yaxis()
    told = listed(AXIS_NAMES[axis] for axis in counted)
    told = f"How many times fewer {told} {leader} needs to reach another's final score (95 % intervals)"
    figure.supxlabel(drawing.wrapped(told, 95), fontsize=8.5)
    if len(counted) > 1:
        drawing.place_legend(figure, [Line2D([], [], label=AXIS_NAMES[of], **_shape(of, paint)) for of in counted])
    return figure


def _shape(axis: str, paint: str) -> dict[str, Any]:
    """What stands for a ratio along an axis: filled for environment steps, hollow for what depends on more."""
    inside = paint if axis == "env_step" else "white"
    return {"color": paint, "linestyle": "", "marker": SHAPES[axis], "markerfacecolor": inside, "markersize": 4}


def _draw_ratio(axes: Axes, row: float, item: Speedup, paint: str) -> None:
    weight = 2.6 if item.task is None else 1.6
    low, high = item.low, item.high
    if low is not None and high is not None:
        left, right = _place(low, item), _place(high, item)
        axes.plot([left, right], [row, row], color=paint, alpha=0.4, linewidth=2 * weight, solid_capstyle="butt")
        if low < 1 / FARTHEST:
            axes.plot(left, row, marker="<", color=paint, markersize=5)
        if high > FARTHEST:
            axes.plot(right, row, marker=">", color=paint, markersize=5)
    shape = _shape(item.axis, paint)
    if item.ratio == 0 or np.isinf(item.ratio):
        shape["marker"] = "<" if item.ratio == 0 else ">"
    axes.plot(_place(item.ratio, item), row, **shape | {"markersize": 2.2 * weight})


def _place(ratio: float, item: Speedup) -> float:
    """Where a ratio of ``item`` is drawn: at the limit where no more than that is known."""
    known = item.below if ratio == 0 else item.above if np.isinf(ratio) else ratio
    return float(np.clip(known, 1 / FARTHEST, FARTHEST))


def predicted_intervals(summary: Summary) -> Figure | None:
    """Width of the interval of the IQM against the number of seeds."""
    known = {agent: of for agent, of in summary.predictions.items() if of}
    if not known:
        return None
    figure = drawing.new_figure(0.72 * style.WIDTH, 2.6)
    axes = figure.subplots()
    agents = summary.results.study.agents
    paint, dash = style.colours(agents), style.dashes(agents)
    for agent, of in known.items():
        seeds, widths = [p.seeds for p in of], [p.high - p.low for p in of]
        now = int(summary.scores[agent].runs_per_task.min())
        gid = drawing.agent_class(summary, agent)
        axes.plot(seeds, widths, color=paint[agent], linestyle=style.line_style(dash[agent]), gid=gid)
        axes.plot(now, np.interp(now, seeds, widths), marker="o", color=paint[agent], markersize=5, gid=gid)
    axes.set(xscale="log", ylim=(0, None), xlabel="Seeds", ylabel="Width of the 95 % interval")
    axes.set_xticks([2, 3, 5, 10, 20, 50, 100], ["2", "3", "5", "10", "20", "50", "100"])
    axes.xaxis.set_minor_locator(NullLocator())
    drawing.legend(figure, summary, known)
    return figure


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "sample_efficiency": sample_efficiency,
    "other_axes": other_axes,
    "speedups": speedups,
    "predicted_intervals": predicted_intervals,
}

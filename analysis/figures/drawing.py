"""What the figures of a report have in common: lines and bands of agents, and their legend."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis.figures import style
from analysis.stats import Band
from analysis.study import Protocol, Task
from analysis.summary import Summary
from analysis.wording import SCORE_UNITS

T = TypeVar("T")

MOST_LARGE = 12
"""Panels of tasks drawn in full size; more become small."""

DPI = 150
"""Of PNG files, and of the layout: text is not as wide at every resolution."""


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches whose parts find their places by themselves."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def render(figures: Mapping[str, Callable[[T], Figure | None]], of: T) -> dict[str, bytes]:
    """Every figure that ``of`` allows as ``{"name.pdf": bytes, …}``, PDF, SVG and PNG, the same bytes every time."""
    files: dict[str, bytes] = {}
    with matplotlib.rc_context(style.RC):
        for name, draw in figures.items():
            if (figure := draw(of)) is not None:
                files.update(_saved(figure, name))
    return files


def _saved(figure: Figure, name: str) -> dict[str, bytes]:
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once; a mere "none" would draw once more before each kind
    files = {}
    for kind, about in metadata.items():
        buffer = io.BytesIO()
        # Without a salt, the ids inside an SVG are random.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            paper = "white" if kind == "png" else "none"
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=about, facecolor=paper)
        files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def agent_class(summary: Summary, agent: str) -> str:
    """The name that marks an agent's lines inside an SVG, so that a page can hide them."""
    return f"agent-{summary.results.study.agents.index(agent)}"


def draw_band(
    axes: Axes, summary: Summary, agent: str, x: np.ndarray, band: Band, *, marked: bool = False, width: float = 1.6
) -> None:
    agents = summary.results.study.agents
    paint, dash = style.colours(agents)[agent], style.dashes(agents)[agent]
    gid = agent_class(summary, agent)
    if band.low is not None and band.high is not None:
        axes.fill_between(x, band.low, band.high, color=paint, alpha=0.18, linewidth=0, gid=gid)
    marker = style.markers(agents)[agent] if marked or len(x) == 1 else None
    axes.plot(
        x,
        band.estimate,
        color=paint,
        linestyle=style.line_style(dash),
        marker=marker,
        markevery=max(1, len(x) // 8),
        markersize=4,
        linewidth=width,
        gid=gid,
    )


def task_panels(tasks: Sequence[Task]) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per task, for raw scores against environment steps."""
    small = len(tasks) > MOST_LARGE
    columns = 2 if len(tasks) == 4 else min(len(tasks), 5 if small else 3)
    rows = math.ceil(len(tasks) / columns)
    width = style.WIDTH if columns > 1 else 0.72 * style.WIDTH
    figure = new_figure(width, 0.8 + (1.3 if small else 1.75) * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    units = {task.protocol.score for task in tasks}
    for axes, task in zip(panels, tasks, strict=False):
        axes.set_title(task.name, fontsize=6.5 if small else 8)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=6.5 if small else 7)
        if _is_share(task.protocol):
            axes.set(ylim=(-0.04, 1.04), yticks=(0, 0.5, 1))
        if len(units) > 1:
            axes.set_ylabel(task.protocol.score.replace("_", " "), fontsize=7)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    if len(units) == 1:
        figure.supylabel(SCORE_UNITS.get(next(iter(units)), "Score"), fontsize=8.5)
    return figure, panels[: len(tasks)]


def _is_share(protocol: Protocol) -> bool:
    """Whether the score is a rate of success. Any other, whatever it is normalised by, may lie outside 0 to 1."""
    return protocol.score.partition("_")[0] == "success" and (protocol.low, protocol.high) == (0, 1)


def panel_width(panels: Sequence[Axes]) -> float:
    """Width of a curve, in points, in so many panels."""
    return 0.9 if len(panels) > MOST_LARGE else 1.5


def about(bands: Iterable[Band]) -> str:
    return " (bands: 95 % bootstrap intervals over runs)" if any(band.low is not None for band in bands) else ""


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of so many signs: names may be long."""
    return textwrap.fill(text, width)


def row_height(names: Sequence[str]) -> float:
    """Inches for rows with such names beside them, at 8.5 points."""
    return max(0.28, 0.06 + 0.14 * max(name.count("\n") + 1 for name in names))


def legend(figure: Figure, summary: Summary, agents: Iterable[str]) -> None:
    """The agents' legend."""
    place_legend(figure, [handle(summary, agent, marked=True) for agent in agents])


def place_legend(figure: Figure, handles: Sequence[Artist], **how: Any) -> None:
    """One legend above the axes, where it covers no data; the figure grows by the lines beyond the first."""
    widest = 0.55 + 0.065 * max(len(str(handle.get_label())) for handle in handles)  # inches, at 8 points
    lines = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / widest)))
    figure.set_figheight(figure.get_figheight() + 0.17 * (lines - 1))
    figure.legend(handles=handles, loc="outside upper center", ncols=math.ceil(len(handles) / lines), fontsize=8, **how)


def handle(summary: Summary, agent: str, *, marked: bool = False) -> Line2D:
    """An agent's line as a legend shows it."""
    known = summary.results.study.agents
    return Line2D(
        [],
        [],
        color=style.colours(known)[agent],
        linestyle=style.line_style(style.dashes(known)[agent]),
        marker=style.markers(known)[agent] if marked else None,
        markersize=4,
        label=with_runs(summary, agent),
    )


def with_runs(summary: Summary, agent: str) -> str:
    """An agent's name with its runs per task and, where it has not played all, how many tasks those are."""
    runs = summary.scores[agent].runs_per_task
    played = runs[runs > 0]
    tasks = "" if len(played) == len(runs) else f", {len(played)} of {len(runs)} tasks"
    n = f"{played.min()}" if played.min() == played.max() else f"{played.min()}–{played.max()}"
    return f"{agent} (n = {n}{tasks})"

"""What the figures of a report have in common: lines and bands of agents, and their legend."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style
from analysis.stats import Band
from analysis.summary import Summary

DPI = 150
"""Of PNG files, and of the layout: text is not as wide at every resolution."""


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches whose parts find their places by themselves."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def saved(figure: Figure, name: str) -> dict[str, bytes]:
    """The figure as ``{"name.pdf": bytes, …}``, PDF, SVG and PNG, with the same bytes every time."""
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not once for each kind
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
    paint = style.colours(summary.results.study.agents)[agent]
    gid = agent_class(summary, agent)
    if band.low is not None and band.high is not None:
        axes.fill_between(x, band.low, band.high, color=paint, alpha=0.18, linewidth=0, gid=gid)
    marker = style.markers(summary.results.study.agents)[agent] if marked or len(x) == 1 else None
    axes.plot(
        x,
        band.estimate,
        color=paint,
        marker=marker,
        markevery=max(1, len(x) // 8),
        markersize=4,
        linewidth=width,
        gid=gid,
    )


def about(bands: Iterable[Band]) -> str:
    return " (bands: 95 % bootstrap intervals over runs)" if any(band.low is not None for band in bands) else ""


def legend(figure: Figure, summary: Summary, agents: Iterable[str]) -> None:
    """One legend above the axes, where it covers no data; the figure grows by the lines beyond the first."""
    paint, marker = style.colours(summary.results.study.agents), style.markers(summary.results.study.agents)
    handles = [
        Line2D([], [], color=paint[a], marker=marker[a], markersize=4, label=with_runs(summary, a)) for a in agents
    ]
    widest = 0.55 + 0.065 * max(len(str(handle.get_label())) for handle in handles)  # inches, at 8 points
    lines = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / widest)))
    figure.set_figheight(figure.get_figheight() + 0.17 * (lines - 1))
    figure.legend(handles=handles, loc="outside upper center", ncols=math.ceil(len(handles) / lines), fontsize=8)


def with_runs(summary: Summary, agent: str) -> str:
    runs = summary.scores[agent].runs_per_task
    runs = runs[runs > 0]
    return f"{agent} (n = {runs.min()})" if runs.min() == runs.max() else f"{agent} (n = {runs.min()}–{runs.max()})"

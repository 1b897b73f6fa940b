"""Figures of published curves, beside the study's own where the rules of measuring are the same, else apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import drawing, style
from analysis.published import PublishedCurve
from analysis.study import Task
from analysis.summary import Summary

FEW_POINTS = 8
"""Curves with no more points have each of them marked."""

DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (5, 1)), (0, (1, 3)), (0, (4, 1, 1, 1, 1, 1)))
"""Line styles of published curves, which are never solid; one for each source and agent."""


def published(summary: Summary) -> Figure | None:
    """Mean scores of the study's agents and, dashed, published ones measured by the same rules."""
    beside = [curve for curve in summary.published if curve.comparable]
    if not beside:
        return None
    figure, own = _drawn(beside), [item for item in summary.task_curves if item.task in {c.task for c in beside}]
    panels = {axes.get_title(): axes for axes in figure.axes}
    for item in own:
        drawing.draw_band(panels[item.task.name], summary, item.agent, item.steps, item.band, width=1.3)
    for axes in panels.values():
        axes.set_xlim(0, 1.02 * summary.results.study.env_steps)
    figure.supxlabel(f"Environment steps{drawing.about(item.band for item in own)}", fontsize=8.5)
    _legend(figure, [drawing.handle(summary, agent) for agent in dict.fromkeys(item.agent for item in own)], beside)
    return figure


def published_apart(summary: Summary) -> Figure | None:
    """Published curves of the study's tasks that were measured by other rules: for themselves."""
    apart = [curve for curve in summary.published if not curve.comparable]
    if not apart:
        return None
    figure = _drawn(apart)
    figure.supxlabel("Environment steps", fontsize=8.5)
    _legend(figure, [], apart)
    return figure


def _drawn(curves: Iterable[PublishedCurve]) -> Figure:
    by_task: dict[Task, list[PublishedCurve]] = {}
    for curve in curves:
        by_task.setdefault(curve.task, []).append(curve)
    figure, panels = drawing.task_panels(list(by_task))
    looks = _looks(curves)
    for axes, of_task in zip(panels, by_task.values(), strict=True):
        for curve in of_task:
            colour, dash = looks[curve.label]
            axes.plot(curve.steps, curve.mean, color=colour, linestyle=dash, linewidth=1.2, **_mark(curve))
    return figure


def _mark(curve: PublishedCurve) -> dict[str, Any]:
    """Marks where points lie far apart: what is between them nobody measured."""
    return {"marker": "o", "markersize": 3} if len(curve.steps) <= FEW_POINTS else {}


def _looks(curves: Iterable[PublishedCurve]) -> dict[str, tuple[str, Any]]:
    """Colour and dashes by label: the colour of our agent of that name, where there is one."""
    labels = {curve.label: curve.agent.lower().replace("-", "") for curve in curves}
    paint = style.colours(tuple(dict.fromkeys(labels.values())))
    return {
        label: (paint[agent], DASHES[index % len(DASHES)])
        for index, (label, agent) in enumerate(sorted(labels.items()))
    }


def _legend(figure: Figure, own: list[Line2D], curves: Iterable[PublishedCurve]) -> None:
    runs = {curve.label: curve.runs for curve in curves}
    handles = own + [
        Line2D([], [], color=colour, linestyle=dash, linewidth=1.2, label=f"{label}, n = {runs[label]}")
        for label, (colour, dash) in _looks(curves).items()
    ]
    drawing.place_legend(figure, handles, handlelength=3)


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {"published": published, "published_apart": published_apart}

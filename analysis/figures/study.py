"""Figures of a summary; :func:`analysis.figures.drawing.render` makes files of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import diagnostics, drawing, efficiency, published, search, style
from analysis.scores import thinned
from analysis.stats import Band, Estimate
from analysis.summary import Summary, TaskCurve

METRIC_TITLES = {
    "iqm": "IQM",
    "median": "Median",
    "mean": "Mean",
    "optimality_gap": "Optimality gap\n(lower is better)",
}
MOST_BESIDE = 4
"""Panels with words as titles in one row."""
LEAST_SPAN = 0.2
"""Normalised scores closer than this are not drawn far apart."""
NAME_WIDTH = 28
"""Signs of an agent's name, with its runs, in one line beside a panel."""
PANEL_POINTS = 60
"""Points of a curve in a small panel; more would only blur."""


def aggregates(summary: Summary) -> Figure | None:
    """Four metrics side by side, one row per agent, with intervals."""
    agents = summary.agents[::-1]
    if not agents:
        return None
    names = [drawing.wrapped(drawing.with_runs(summary, agent), NAME_WIDTH) for agent in agents]
    figure = drawing.new_figure(style.WIDTH, 1.15 + drawing.row_height(names) * len(agents))
    panels = figure.subplots(1, len(METRIC_TITLES), sharey=True)
    paint, rows = style.colours(summary.results.study.agents), range(len(agents))
    for axes, (metric, title) in zip(panels, METRIC_TITLES.items(), strict=True):
        for row, agent in zip(rows, agents, strict=True):
            _bar(axes, row, summary.aggregates[agent][metric], paint[agent])
        axes.set_title(title)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(_widened(*axes.dataLim.intervalx))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(list(rows), names)
    shown = any(value.low is not None for of in summary.aggregates.values() for value in of.values())
    figure.supxlabel(f"Normalised score{' (bars: 95 % bootstrap intervals over runs)' if shown else ''}", fontsize=8.5)
    return figure


def _bar(axes: Axes, row: int, value: Estimate, paint: str) -> None:
    if value.low is not None and value.high is not None:
        axes.barh(row, value.high - value.low, left=value.low, height=0.55, color=paint, alpha=0.35, linewidth=0)
    axes.plot([value.estimate, value.estimate], [row - 0.275, row + 0.275], color=paint, linewidth=2.2)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Limits with a margin that span at least :data:`LEAST_SPAN`."""
    margin = max(0.08 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    return low - margin, high + margin


def by_protocol(summary: Summary) -> Figure | None:
    """IQM of each protocol and engine in a panel of its own, one row per agent."""
    agents = summary.agents[::-1]
    measures = list(dict.fromkeys((s.protocol, s.engine) for s in summary.by_measure))
    if not measures:
        return None
    values = {(s.protocol, s.engine, s.agent): s.value for s in summary.by_measure}
    columns = min(len(measures), MOST_BESIDE)
    rows = math.ceil(len(measures) / columns)
    names = [drawing.wrapped(agent, NAME_WIDTH) for agent in agents]
    figure = drawing.new_figure(style.WIDTH, (1.15 + drawing.row_height(names) * len(agents)) * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    paint = style.colours(summary.results.study.agents)
    for axes in panels[len(measures) :]:
        axes.set_visible(False)
    for axes, (protocol, engine) in zip(panels, measures, strict=False):
        for row, agent in enumerate(agents):
            if (protocol, engine, agent) in values:
                _bar(axes, row, values[protocol, engine, agent], paint[agent])
        axes.set_title(f"{protocol}\n{engine}".replace(" (", "\n(", 1))  # what tells namesakes apart needs the room
        axes.grid(visible=False, axis="y")
        axes.set_xlim(_widened(*axes.dataLim.intervalx))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(range(len(agents)), names)
    figure.supxlabel("IQM of normalised score", fontsize=8.5)
    return figure


def sweep(summary: Summary) -> Figure | None:
    """IQM against the swept value, one line per agent that is swept."""
    found, points = summary.results.study.sweep, summary.sweep_points
    if found is None or not points:
        return None
    values = list(dict.fromkeys(str(point.value) for point in points))
    figure = drawing.new_figure(0.72 * style.WIDTH, 2.9)
    axes = figure.subplots()
    bases = list(dict.fromkeys(point.base for point in points))
    paint, marker, dash = style.colours(bases), style.markers(bases), style.dashes(bases)
    for index, base in enumerate(bases):
        aside = 0.06 * (index - (len(bases) - 1) / 2)  # so that intervals of one value stand beside each other
        of = [
            (values.index(str(p.value)) + aside, summary.aggregates[p.agent]["iqm"]) for p in points if p.base == base
        ]
        axes.plot(
            [place for place, _ in of],
            [value.estimate for _, value in of],
            color=paint[base],
            linestyle=style.line_style(dash[base]),
            marker=marker[base],
            markersize=4,
            label=base,
        )
        for place, value in of:
            if value.low is not None and value.high is not None:
                axes.vlines(place, value.low, value.high, color=paint[base], alpha=0.5, linewidth=2.5)
    axes.set_xticks(range(len(values)), values)
    axes.set(xlabel=found.key, ylabel="IQM of normalised score")
    drawing.place_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def generalisation(summary: Summary) -> Figure | None:
    """Mean score on the tasks trained on and on those held out."""
    agents = summary.generalisation[::-1]
    if not agents:
        return None
    figure = drawing.new_figure(0.72 * style.WIDTH, 1.15 + 0.4 * len(agents))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    paint = style.colours(summary.results.study.agents)
    for axes, part, title in zip(panels, ("trained", "held_out"), ("Tasks trained on", "Tasks held out"), strict=True):
        for row, item in enumerate(agents):
            _bar(axes, row, getattr(item, part), paint[item.agent])
        axes.set_title(title)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(range(len(agents)), [drawing.wrapped(item.agent, NAME_WIDTH) for item in agents])
    figure.supxlabel("Mean normalised score", fontsize=8.5)
    return figure


def profiles(summary: Summary) -> Figure | None:
    """Fraction of runs, and of tasks' means, above each score."""
    bands = summary.profiles["runs"]
    if not bands:
        return None
    figure = drawing.new_figure(style.WIDTH, 2.9)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, counted, title in zip(panels, ("runs", "tasks"), ("Runs", "Tasks, by their mean over runs"), strict=True):
        for agent, band in summary.profiles[counted].items():
            drawing.draw_band(axes, summary, agent, summary.thresholds, band)
        axes.set(title=title, ylim=(-0.02, 1.02))
        axes.set_xlim(summary.thresholds[0], summary.thresholds[-1])
    panels[0].set_ylabel("Fraction with score > τ")
    figure.supxlabel(f"Normalised score τ{drawing.about(bands.values())}", fontsize=8.5)
    drawing.legend(figure, summary, bands)
    return figure


def probability_of_improvement(summary: Summary) -> Figure | None:
    """How often a run of the row's agent beats one of the column's."""
    agents = summary.agents
    if not summary.improvements:
        return None
    values = np.full((len(agents), len(agents)), np.nan)
    labels = np.full(values.shape, "", dtype=object)
    for item in summary.improvements:
        place = agents.index(item.x), agents.index(item.y)
        values[place] = item.value.estimate
        interval = "no interval" if item.value.low is None else f"[{item.value.low:.2f}, {item.value.high:.2f}]"
        labels[place] = f"{item.value.estimate:.2f}\n{interval}"
    below = [drawing.wrapped(agent, 13) for agent in agents]
    figure = drawing.new_figure(1.7 + 1.05 * len(agents), 0.9 + drawing.row_height(below) + 0.52 * len(agents))
    axes = figure.subplots()
    sns.heatmap(
        values, vmin=0, vmax=1, cmap=sns.color_palette("PuOr_r", as_cmap=True), annot=labels, fmt="", ax=axes,
        cbar_kws={"label": "P(X > Y)"}, annot_kws={"fontsize": 7.5}, linewidths=1.5, linecolor="none",
        xticklabels=below, yticklabels=[drawing.wrapped(agent, NAME_WIDTH) for agent in agents],
    )  # fmt: skip
    axes.set(xlabel="Y", ylabel="X", title="Probability that a run of X beats a run of Y")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.tick_params(rotation=0)
    return figure


def task_curves(summary: Summary) -> Figure | None:
    """Mean score over runs against environment steps, one panel per task."""
    by_task: dict[str, list[TaskCurve]] = {}
    for item in summary.task_curves:
        by_task.setdefault(item.task.name, []).append(item)
    if not by_task:
        return None
    figure, panels = drawing.task_panels([items[0].task for items in by_task.values()])
    for axes, items in zip(panels, by_task.values(), strict=True):
        for item in items:
            shown = thinned(len(item.steps), PANEL_POINTS)
            band, width = _at(item.band, shown), drawing.panel_width(panels)
            drawing.draw_band(axes, summary, item.agent, item.steps[shown], band, width=width)
    figure.supxlabel(f"Environment steps{drawing.about(item.band for item in summary.task_curves)}", fontsize=8.5)
    drawing.legend(figure, summary, summary.agents)
    return figure


def _at(band: Band, points: np.ndarray) -> Band:
    if band.low is None or band.high is None:
        return Band(band.estimate[points])
    return Band(band.estimate[points], band.low[points], band.high[points])


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "aggregates": aggregates,
    "by_protocol": by_protocol,
    "sweep": sweep,
    "generalisation": generalisation,
    "profiles": profiles,
    "probability_of_improvement": probability_of_improvement,
    **efficiency.FIGURES,
    "task_curves": task_curves,
    **published.FIGURES,
    "tuning": search.study_figure,
    **diagnostics.FIGURES,
}

"""Figures of a search: what was tried, what it brought, and which values matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import drawing, style
from analysis.summary import Summary
from analysis.tuning import Field, Search, Trial, expected_best, sensitivity

COLUMNS = 3
SCORE = "Mean normalised final score"
UNITS = {"seconds": "Training seconds of a trial", "updates": "Gradient updates of a trial"}


def history(search: Search) -> Figure | None:
    """Every trial's score in its order, and the best so far among those that were run whole."""
    if not search.measured:
        return None
    figure, axes = _one()
    paint = _paint(search)
    marks: tuple[tuple[str, str, dict[str, Any], Callable[[Trial], bool]], ...] = (
        ("run whole", "o", {"color": paint}, lambda trial: trial.valid and not trial.diverged),
        ("ended early", "v", {"facecolors": "none", "edgecolors": paint}, lambda trial: trial.state == "pruned"),
        ("cells diverged", "X", {"color": style.PALETTE[6]}, lambda trial: trial.diverged > 0),
    )
    for name, marker, ink, fits in marks:
        of = [trial for trial in search.measured if fits(trial) and not trial.default]
        if of:
            axes.scatter([t.number for t in of], [t.score for t in of], marker=marker, s=22, label=name, **ink)
    if search.default is not None:
        _mark(axes, search.default.number, search.default.score)
    whole = [trial for trial in search.measured if trial.valid]
    if whole:
        so_far = np.maximum.accumulate([trial.score for trial in whole])
        axes.step([trial.number for trial in whole], so_far, where="post", color=paint, label="best so far")
    axes.set(xlabel="Trial", ylabel=SCORE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def expected_scores(search: Search) -> Figure | None:
    """Expected best score against the number of trials, beside that of the configuration as it stood."""
    if len(search.measured) < 2:
        return None
    figure, axes = _one()
    numbers = np.arange(1, len(search.measured) + 1)
    axes.plot(numbers, expected_best(search.scores, numbers), color=_paint(search), label="expected best")
    if search.default is not None:
        axes.axhline(search.default.score, color=style.INK, linestyle="--", linewidth=1.2, label="as it stood")
    axes.set(xlabel="Number of trials", ylabel=SCORE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure


def trade_off(search: Search) -> Figure | None:
    """Score against compute, with the trials that no other beats in both."""
    known = [trial for trial in search.measured if math.isfinite(trial.compute)]
    if len(known) < 2:
        return None
    figure, axes = _one()
    axes.scatter([t.compute for t in known], [t.score for t in known], s=22, color=_paint(search), alpha=0.55)
    front = search.front
    axes.plot(
        [t.compute for t in front], [t.score for t in front], "o-", color=_paint(search), markersize=5, label="front"
    )
    if search.default is not None:
        _mark(axes, search.default.compute, search.default.score)
    axes.set(xlabel=UNITS.get(search.objectives[1], search.objectives[1]), ylabel=SCORE)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure


def importance(search: Search) -> Figure | None:
    """The share of each field in what sets good trials apart, largest on top."""
    if not search.importance:
        return None
    ranked = sorted(search.importance.items(), key=lambda item: (item[1], item[0]))
    figure = drawing.new_figure(0.72 * style.WIDTH, 0.9 + 0.24 * len(ranked))
    axes = figure.subplots()
    axes.barh([name for name, _ in ranked], [share for _, share in ranked], height=0.6, color=_paint(search))
    axes.set(xlabel="Importance (share, PED-ANOVA)", xlim=(0, 1))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


def slices(search: Search) -> Figure | None:
    """Score against each field, one panel per field; later trials are darker."""
    if not search.measured:
        return None
    scale = Normalize(1, max(2, max(trial.number for trial in search.measured)))
    colours = sns.color_palette("crest", as_cmap=True)
    figure, panels = _panels(search.fields)
    for axes, field in zip(panels, search.fields, strict=True):
        of = [
            (place, trial)
            for trial in search.measured
            if (place := field.place(trial.values.get(field.name))) is not None
        ]
        numbers = [trial.number for _, trial in of]
        axes.scatter([x for x, _ in of], [t.score for _, t in of], c=numbers, cmap=colours, norm=scale, s=16)
        _mark_default(axes, search, field)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=figure.axes, label="Trial", pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supylabel("Score", fontsize=8.5)
    return figure


def sensitivities(search: Search) -> Figure | None:
    """Median and quartiles of the score along each field, while the others vary."""
    known = [(field, found) for field in search.fields if (found := sensitivity(search, field)) is not None]
    if not known:
        return None
    figure, panels = _panels([field for field, _ in known])
    paint = _paint(search)
    for axes, (field, found) in zip(panels, known, strict=True):
        low, median, high = found.quartiles.T
        axes.fill_between(found.places, low, high, color=paint, alpha=0.2, linewidth=0)
        axes.plot(found.places, median, "o-", color=paint, markersize=3.5)
        _mark_default(axes, search, field)
    figure.supylabel("Score (median, quartiles)", fontsize=8.5)
    return figure


def parallel(search: Search) -> Figure | None:
    """Parallel coordinates: one line per trial through its values to its score, better ones darker and on top."""
    known = [trial.score for trial in search.measured]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    if low == high:
        return None
    lines, scores = [], []
    for trial in sorted(search.measured, key=lambda of: (of.score, -of.number)):
        places = [field.place(trial.values.get(field.name)) for field in search.fields]
        height = (trial.score - low) / (high - low)
        points = [(x, y) for x, y in enumerate([*places, height]) if y is not None]
        lines.append(points)
        scores.append(trial.score)
    figure = drawing.new_figure(style.WIDTH, 3.0)
    axes = figure.subplots()
    colours, scale = sns.color_palette("crest", as_cmap=True), Normalize(low, high)
    axes.add_collection(
        LineCollection(lines, array=np.array(scores), cmap=colours, norm=scale, linewidth=1.1, alpha=0.85)
    )
    names = [*(field.name for field in search.fields), "score"]
    axes.set_xticks(range(len(names)), names)
    axes.set(xlim=(-0.3, len(names) - 0.7), ylim=(-0.12, 1.12), yticks=[])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for x, (bottom, top) in enumerate([*map(_ends, search.fields), (f"{low:.3g}", f"{high:.3g}")]):
        axes.annotate(bottom, (x, -0.03), ha="center", va="top", fontsize=7)
        axes.annotate(top, (x, 1.03), ha="center", va="bottom", fontsize=7)
    figure.colorbar(ScalarMappable(scale, colours), ax=axes, label="Score", pad=0.02)
    return figure


FIGURES: dict[str, Callable[[Search], Figure | None]] = {
    "history": history,
    "expected_best": expected_scores,
    "trade_off": trade_off,
    "importance": importance,
    "slices": slices,
    "sensitivity": sensitivities,
    "parallel": parallel,
}


def study_figure(summary: Summary) -> Figure | None:
    """Expected best score of each tuned agent of a study against the number of trials."""
    tuned = [of for of in summary.results.study.tuned if len(of.scores) > 1]
    if not tuned:
        return None
    figure, axes = _one()
    paint = style.colours(summary.results.study.agents)
    for of in tuned:
        numbers = np.arange(1, len(of.scores) + 1)
        axes.plot(numbers, expected_best(of.scores, numbers), color=paint[of.agent], label=of.agent)
        if of.default is not None:
            axes.plot([1], [of.default], marker="D", color=paint[of.agent], markersize=5, linestyle="none")
    axes.set(
        xlabel="Number of trials (diamonds: the configurations as they stood)", ylabel="Expected best tuning score"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=len(tuned), fontsize=8)
    return figure


def _one() -> tuple[Figure, Axes]:
    figure = drawing.new_figure(0.72 * style.WIDTH, 2.9)
    return figure, figure.subplots()


def _paint(search: Search) -> str:
    return style.colours((search.agent,))[search.agent]


def _panels(fields: Sequence[Field]) -> tuple[Figure, list[Axes]]:
    """A panel for each field, whose horizontal axis is the field's range."""
    columns = min(COLUMNS, len(fields))
    rows = math.ceil(len(fields) / columns)
    figure = drawing.new_figure(style.WIDTH * (0.72 if columns == 1 else 1), 0.6 + 1.5 * rows)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).ravel())
    for axes in panels[len(fields) :]:
        axes.set_visible(False)
    for axes, field in zip(panels, fields, strict=False):
        places, labels = _ticks(field)
        axes.set_xticks(places, labels, fontsize=6.5)
        axes.set_xlim(-0.06, 1.06)
        axes.set_title(field.name, fontsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", labelsize=6.5)
    return figure, panels[: len(fields)]


def _mark(axes: Axes, x: float, score: float) -> None:
    """The configuration as it stood."""
    axes.scatter([x], [score], marker="D", color=style.INK, s=30, zorder=4, label="as it stood")


def _mark_default(axes: Axes, search: Search, field: Field) -> None:
    place = field.place(field.default)
    if place is not None:
        axes.axvline(place, color=style.INK, linestyle="--", linewidth=0.9)


def _ticks(field: Field) -> tuple[list[float], list[str]]:
    """Places between 0 and 1 and the values there."""
    if field.choices:
        return [field.place(choice) or 0.0 for choice in field.choices], [_text(choice) for choice in field.choices]
    low, high = field.low or 0.0, field.high or 0.0
    middle = math.sqrt(low * high) if field.log else (low + high) / 2
    return [0.0, 0.5, 1.0], [_text(value) for value in (low, middle, high)]


def _ends(field: Field) -> tuple[str, str]:
    _, labels = _ticks(field)
    return labels[0], labels[-1]


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)

"""Figures of what agents say of themselves, drawn by the axes of the values: nothing here knows a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from analysis.figures import drawing, style
from analysis.scores import thinned
from analysis.stats import Band
from analysis.summary import Summary

MOST_METRICS = 40
MOST_COLUMNS = 6
"""Tasks with a column of their own; more are drawn as one."""
MOST_BANDS = 6
"""Agents with bands; more would cover each other."""
MOST_CURVED, MOST_MAPPED = 12, 6
"""Agents with panels of their own, of curves and of heat maps; of more the first are drawn."""
STAGES = 5
"""Moments of training in one panel of steps ahead."""
MOST_NAMED = 30
"""Tasks along a heat map that have their names written there."""
SPREAD = (0.1, 0.9)
"""Quantiles over tasks that a band lies between."""


def training_metrics(summary: Summary) -> Figure | None:
    """One panel per metric, one line per agent: the mean over its cells against environment steps."""
    found = _of_agents(summary, summary.insides.metrics)
    if found.empty:
        return None
    reporting = found.groupby("metric", sort=False)["agent"].nunique()
    names = sorted(reporting.sort_values(ascending=False, kind="stable").index[:MOST_METRICS])
    figure, panels = _panels(len(names), 5 if len(names) > 12 else 4, 1.1)
    for axes, name in zip(panels, names, strict=True):
        _lines(axes, summary, found[found["metric"] == name])
        axes.set_title(drawing.wrapped(name.replace("_", " "), 22), fontsize=7)
    _finish(figure, summary, found, "means over the cells of an agent")
    return figure


def diagnostics(summary: Summary) -> Figure | None:
    """What has a value, or one per task, against environment steps; one line per agent: the mean over seeds."""
    found = _diagnosed(summary, "", "task")
    if found.empty:
        return None
    tasks = _tasks(summary, found)
    if 1 < len(tasks) <= MOST_COLUMNS:
        return _task_by_task(summary, found, tasks)
    kinds = _kinds(found)
    figure, panels = _panels(len(kinds), 3, 1.2)
    for axes, (title, of) in zip(panels, kinds, strict=True):
        _lines(axes, summary, of)
        axes.set_title(drawing.wrapped(title, 30), fontsize=7.5)
    about = "means over seeds" if len(tasks) <= 1 else f"means over {len(tasks)} tasks and seeds"
    banded = len(tasks) > 1 and found["agent"].nunique() <= MOST_BANDS
    _finish(figure, summary, found, about + ("; bands: 10th to 90th percentile over tasks" if banded else ""))
    return figure


def _task_by_task(summary: Summary, found: pd.DataFrame, tasks: list[str]) -> Figure:
    """A row of panels for each diagnostic, a column for each task; what is of no task stands in the last rows."""
    kinds = sorted(_kinds(found), key=lambda kind: "" in set(kind[1]["task"]))
    figure, panels = _panels(len(kinds) * len(tasks), len(tasks), 0.85)
    for row, (title, of) in enumerate(kinds):
        at = row * len(tasks)
        panels[at].set_ylabel(drawing.wrapped(title, 13), fontsize=6)
        if "" in set(of["task"]):
            _lines(panels[at], summary, of)
            panels[at].set_title("all tasks", fontsize=7)
            _hide(panels, range(at + 1, at + len(tasks)), len(tasks))
            continue
        for axes, task in zip(panels[at:], tasks, strict=False):
            _lines(axes, summary, of[of["task"] == task])
            axes.set_title(drawing.wrapped(task, 18) if row == 0 else "", fontsize=7)
    _finish(figure, summary, found, "means over seeds")
    return figure


def horizon_diagnostics(summary: Summary) -> Figure | None:
    """Values against steps ahead in one panel per agent, one line per stage of training, over tasks and seeds."""
    found = _diagnosed(summary, "horizon", "task horizon")
    if found.empty:
        return None
    paint = sns.color_palette("crest", as_cmap=True)
    scale = Normalize(0, max(1, int(found["env_step"].max())))
    figure, panels = _agent_panels(found, MOST_CURVED, columns=4, height=1.35)
    for axes, agent, of in panels:
        steps = of["env_step"].unique()
        for step in steps[thinned(len(steps), STAGES)]:
            means = of[of["env_step"] == step].groupby("ahead")["value"].mean()
            gid = drawing.agent_class(summary, agent)
            axes.plot(means.index, means, "o-", color=paint(scale(step)), markersize=2.2, linewidth=1.2, gid=gid)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("Steps ahead (means over tasks and seeds)", fontsize=8.5)
    _bar(figure, ScalarMappable(scale, paint), "Environment steps", EngFormatter(sep=""))
    return figure


def task_similarity(summary: Summary) -> Figure | None:
    """Values of tasks against tasks at the last step, one heat map per agent: the mean over seeds."""
    found = _diagnosed(summary, "task task")
    if not (found["task"] != found["other"]).any():
        return None
    tasks = _tasks(summary, found)
    most = max(1.0, float(found["value"].abs().max()))
    paint, scale = sns.color_palette("PuOr_r", as_cmap=True), Normalize(-most, most)
    named = len(tasks) <= MOST_NAMED
    figure, panels = _agent_panels(found, MOST_MAPPED, columns=3, height=2.1 if named else 1.9)
    if named:
        figure.set_figheight(figure.get_figheight() + 0.05 * max(map(len, tasks)))
    for axes, _, of in panels:
        values = of.pivot_table(index="task", columns="other", values="value").reindex(index=tasks, columns=tasks)
        axes.imshow(values.to_numpy(), cmap=paint, norm=scale, interpolation="none", aspect="auto")
        axes.grid(visible=False)
        axes.set_xticks(range(len(tasks)) if named else [], tasks if named else [], rotation=90)
        axes.set_yticks(range(len(tasks)) if named else [], tasks if named else [])
        place = axes.get_subplotspec()
        bottom = place is not None and place.is_last_row()  # names are long: below all of them is enough
        axes.tick_params(length=0, labelsize=min(6.5, 110 / len(tasks)), labelbottom=bottom)
    if not named:
        figure.supxlabel(f"{len(tasks)} tasks, in the order of the suite", fontsize=8.5)
    _bar(figure, ScalarMappable(scale, paint), "", None)
    return figure


FIGURES: dict[str, Callable[[Summary], Figure | None]] = {
    "training_metrics": training_metrics,
    "diagnostics": diagnostics,
    "horizon_diagnostics": horizon_diagnostics,
    "task_similarity": task_similarity,
}


def _of_agents(summary: Summary, found: pd.DataFrame) -> pd.DataFrame:
    """Of agents with results, in their order: the others have no number of runs to show."""
    parts = [found[found["agent"] == agent] for agent in summary.agents]
    return pd.concat(parts) if parts else found.iloc[:0]


def _diagnosed(summary: Summary, *axes: str) -> pd.DataFrame:
    found = summary.insides.diagnostics
    return _of_agents(summary, found[found["axes"].isin(axes)])


def _tasks(summary: Summary, found: pd.DataFrame) -> list[str]:
    """Tasks with values, in the order of the suite."""
    known = {*found["task"], *found["other"]}
    return [task.name for task in summary.results.study.evaluated if task.name in known]


def _panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """``count`` panels of a ``height`` in inches, row by row, with a common horizontal axis."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = drawing.new_figure(style.WIDTH * (0.5 if columns == 1 else 1), 0.9 + height * rows)
    panels = list(figure.subplots(rows, columns, sharex=True, squeeze=False).ravel())
    _hide(panels, range(count, len(panels)), columns)
    return figure, panels[:count]


def _hide(panels: list[Axes], places: Iterable[int], columns: int) -> None:
    """Hide panels without content; what stands above them has to show the axis."""
    for place in places:
        panels[place].set_visible(False)
        if place >= columns:
            panels[place - columns].tick_params(labelbottom=True)


def _agent_panels(
    found: pd.DataFrame, most: int, columns: int, height: float
) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """A panel for each of the first ``most`` agents, with its rows; each name begins a new row of panels."""
    kinds = [(title, list(of.groupby("agent", sort=False))[:most]) for title, of in _kinds(found)]
    columns = min(columns, max(len(agents) for _, agents in kinds))
    figure, panels = _panels(sum(math.ceil(len(agents) / columns) for _, agents in kinds) * columns, columns, height)
    drawn, used = [], 0
    for title, agents in kinds:
        first = panels[used]
        first.set_ylabel(drawing.wrapped(title, 26), fontsize=7.5)
        for place, (agent, of) in enumerate(agents, start=used):
            panels[place].set_title(drawing.wrapped(str(agent), 20), fontsize=7.5)
            if place > used:
                panels[place].sharey(first)
            panels[place].tick_params(labelsize=6.5, labelleft=(place - used) % columns == 0)
            drawn.append((panels[place], str(agent), of))
        filled, used = used + len(agents), used + math.ceil(len(agents) / columns) * columns
        _hide(panels, range(filled, used), columns)
    return figure, drawn


def _kinds(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Titles and rows by name and title: agents may measure different things under one name."""
    return [(str(of["title"].iloc[0]), of) for _, of in found.groupby(["name", "title"], sort=False)]


def _lines(axes: Axes, summary: Summary, found: pd.DataFrame) -> None:
    """One line per agent, with a band where it is a mean over several tasks."""
    banded = "task" in found and found["agent"].nunique() <= MOST_BANDS
    for agent, of in found.groupby("agent", sort=False):
        values = of.groupby("env_step")["value"]
        mean = values.mean()
        band = Band(mean.to_numpy())
        if banded and of["task"].nunique() > 1:
            band = Band(mean.to_numpy(), *(values.quantile(part).to_numpy() for part in SPREAD))
        drawing.draw_band(axes, summary, str(agent), mean.index.to_numpy(), band, width=0.9)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=6.5)


def _finish(figure: Figure, summary: Summary, found: pd.DataFrame, about: str) -> None:
    figure.supxlabel(f"Environment steps ({about})", fontsize=8.5)
    drawing.legend(figure, summary, found["agent"].unique())


def _bar(figure: Figure, of: ScalarMappable, label: str, numbers: EngFormatter | None) -> None:
    bar = figure.colorbar(of, ax=figure.axes, format=numbers, label=label, aspect=12 * figure.get_figheight(), pad=0.02)
    bar.ax.tick_params(labelsize=6.5)

"""The tables of what came of a study, exact numbers beside the same as text; and all tables by name."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.published import PublishedCurve
from analysis.report import efficiency_tables, setup_tables
from analysis.report.markup import About, Table
from analysis.scores import AgentScores, Array
from analysis.seeds import NUMBERS, Separation
from analysis.stats import Estimate
from analysis.summary import Summary, TaskScore
from analysis.wording import INTERVAL, NO_INTERVAL, SCORES, interval


def aggregates(summary: Summary) -> Table:
    records, rows = [], []
    for agent, metrics in summary.aggregates.items():
        of = summary.scores[agent]
        for metric, value in metrics.items():
            records.append(
                {"agent": agent, "metric": metric, **_columns(value), "runs": num_runs(of.final), "tasks": of.num_tasks}
            )
        shown = [interval(value, 3) for value in metrics.values()]
        rows.append((agent, *shown, runs_text(of.runs_per_task), _of(of.num_tasks, len(of.tasks)), _at(summary, of)))
    header = ("Agent", "IQM", "Median", "Mean", "Optimality gap", "Runs", "Tasks", "At step")
    caption = (
        f"Normalised scores over all runs and tasks with {INTERVAL} intervals. The optimality gap is better when lower."
    )
    return Table("aggregates", caption, pd.DataFrame(records), header, tuple(rows))


def _at(summary: Summary, of: AgentScores) -> str:
    return "" if summary.results.tabular and not of.env_step else of.scored_at


def per_task(summary: Summary) -> Table:
    trained = {task.name for task in summary.results.study.tasks}
    records = [
        {
            "task": item.task.name, "agent": item.agent, "protocol": item.task.protocol.name,
            "engine": item.task.engine, "trained": item.task.name in trained,
            "env_step": item.env_step, "runs": item.runs, **_columns(item.raw), "normalised": item.normalised,
        }
        for item in summary.task_scores
    ]  # fmt: skip
    by_place = {(item.task.name, item.agent): item for item in summary.task_scores}
    rows = [
        (
            task.name if task.name in trained else f"{task.name} (held out)",
            SCORES.get(task.protocol.score, ""),
            *(_task_cell(by_place.get((task.name, a)), at_step=summary.steps_differ) for a in summary.agents),
        )
        for task in summary.results.study.evaluated
    ]
    caption = f"Mean score of each task at the final evaluation, not normalised, with {INTERVAL} interval and runs n."
    return Table("per_task", caption, pd.DataFrame(records), ("Task", "Score", *summary.agents), tuple(rows), 2)


def _task_cell(item: TaskScore | None, *, at_step: bool = False) -> str:
    if item is None:
        return "missing"
    digits = 0 if item.task.protocol.high - item.task.protocol.low >= 100 else 2
    step = f" at {item.env_step:,}" if at_step else ""
    if item.raw.low is None:
        return f"{item.raw.estimate:.{digits}f}{step} (n = {item.runs}, {NO_INTERVAL})"
    return f"{interval(item.raw, digits)}{step} (n = {item.runs})"


def probability_of_improvement(summary: Summary) -> Table:
    records = [
        {"x": i.x, "y": i.y, **_columns(i.value), "p_value": i.p_value, "p_adjusted": i.adjusted, "tasks": i.tasks}
        for i in summary.improvements
    ]
    shown = {(i.x, i.y): f"{interval(i.value)}, p = {_p_value(i.adjusted)}" for i in summary.improvements}
    caption = (
        "Probability that a run of the row's agent beats a run of the column's on the same task, averaged over tasks, "
        f"with {INTERVAL} interval (Newcombe's on tasks where all runs are apart); p of a permutation test that the "
        "two are alike, adjusted for all pairs (Holm)."
    )
    caption += _no_verdict(summary)
    rows = tuple((x, *(shown.get((x, y), "") for y in summary.agents)) for x in summary.agents)
    return Table("probability_of_improvement", caption, pd.DataFrame(records), ("Agent", *summary.agents), rows)


def _no_verdict(summary: Summary) -> str:
    """What to add to a caption where agents are compared that have not come equally far."""
    if not summary.steps_differ:
        return ""
    at = ", ".join(f"{agent} at {of.scored_at}" for agent, of in summary.scores.items())
    return f" Agents are scored at different environment steps, so this is no verdict: {at}."


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def breadth(summary: Summary) -> Table:
    """Scores while training, and on the worst task."""
    records = [
        {"agent": b.agent, "measure": measure, "task": task, **_columns(value)}
        for b in summary.breadth
        for measure, task, value in (("area", "", b.area), ("worst_task", b.worst_task, b.worst))
        if value is not None
    ]
    steps = {b.agent: summary.scores[b.agent].final_steps[b.worst_task] for b in summary.breadth}
    uneven = summary.steps_differ or any(of.uneven for of in summary.scores.values())
    at = {agent: f" at {step:,}" if uneven else "" for agent, step in steps.items()}
    rows = tuple(
        (b.agent, "" if b.area is None else interval(b.area, 3), interval(b.worst, 3), b.worst_task + at[b.agent])
        for b in summary.breadth
    )
    about = tuple((None, About((b.agent,)), About((b.agent,), (b.worst_task,)), None) for b in summary.breadth)
    caption = (
        "Area under the learning curve divided by its length (IQM over runs and tasks) and the mean score of the task "
        f"an agent is worst at, normalised, with {INTERVAL} intervals. That of the worst task is the task's own; "
        "chosen as the worst, it was a little unlucky too."
    )
    if uneven:
        caption += " Tasks whose runs are all under way do not count as the worst, unless none has come farther."
    header = ("Agent", "Area under the curve", "Worst task", "Which")
    return Table("breadth", caption, pd.DataFrame(records), header, rows, about=about)


def domains(summary: Summary) -> Table:
    """Each domain of a study that has several."""
    records = [{"domain": d.domain, "agent": d.agent, **_columns(d.value), "tasks": d.tasks} for d in summary.domains]
    shown = {(d.domain, d.agent): interval(d.value, 3) for d in summary.domains}
    names = dict.fromkeys(d.domain for d in summary.domains)
    rows = tuple((name, *(shown.get((name, agent), "missing") for agent in summary.agents)) for name in names)
    tasks = {name: tuple(t.name for t in summary.results.study.tasks if t.domain == name) for name in names}
    about = tuple((None, *(About((agent,), tasks[name]) for agent in summary.agents)) for name in names)
    caption = f"IQM of the normalised score over the runs and tasks of each domain, with {INTERVAL} interval."
    caption += _no_verdict(summary)
    return Table("domains", caption, pd.DataFrame(records), ("Domain", *summary.agents), rows, about=about)


def separations(summary: Summary) -> Table:
    """How many seeds would set neighbours apart."""
    records = [vars(s) for s in summary.separations]
    rows = tuple((s.agent, s.rival, str(s.seeds), _needed(s)) for s in summary.separations)
    caption = (
        f"How many seeds would do for the {INTERVAL} interval of the difference of two neighbours in the ranking to "
        "leave out 0, should their IQM and their spread stay as they are."
    )
    return Table("separations", caption, pd.DataFrame(records), ("Agent", "Next", "Seeds now", "Seeds needed"), rows, 2)


def _needed(s: Separation) -> str:
    if s.needed is None:
        return f"more than {NUMBERS[-1]}"
    return "as many as now" if s.needed == s.seeds else f"about {s.needed}"


def predicted_intervals(summary: Summary) -> Table:
    """Width of the interval to expect with more seeds."""
    found = [p for of in summary.predictions.values() for p in of]
    shown = {(p.seeds, p.agent): f"{p.high - p.low:.3f}" for p in found}
    agents = [agent for agent, of in summary.predictions.items() if of]
    rows = tuple((str(number), *(shown[number, agent] for agent in agents)) for number in NUMBERS if agents)
    caption = f"Width of the {INTERVAL} interval of the IQM to expect with so many seeds."
    return Table("predicted_intervals", caption, pd.DataFrame(map(vars, found)), ("Seeds", *agents), rows)


def published(summary: Summary) -> Table:
    """Other people's scores at the study's steps, beside its own."""
    known = [(c, *c.last) for c in summary.published if c.last is not None]
    labels = list(dict.fromkeys(curve.label for curve, _, _ in known))
    at = {(curve.task.name, curve.label): _published_cell(curve, step, mean) for curve, step, mean in known}
    records = [
        {"task": c.task.name, "agent": c.agent, "source": c.source.name, "measured": c.source.rules(c.task),
         "comparable": c.comparable, "env_step": step, "runs": c.runs, "mean": mean}
        for c, step, mean in known
    ]  # fmt: skip
    tasks = [task for task in summary.results.study.evaluated if any((task.name, label) in at for label in labels)]
    own = {(item.task.name, item.agent): item for item in summary.task_scores}
    rows = tuple(
        (
            task.name,
            *(_task_cell(own.get((task.name, agent)), at_step=True) for agent in summary.agents),
            *(at.get((task.name, label), "") for label in labels),
        )
        for task in tasks
    )
    about = tuple(
        (None, *(About((agent,), (task.name,)) for agent in summary.agents), *(None for _ in labels)) for task in tasks
    )
    of_one = " or of one agent per task" if summary.results.study.mode == "joint" else ""
    caption = (
        "Mean scores at this study's last step, and published ones at the last one published up to there, not "
        f"normalised. In brackets: measured by other rules{of_one}, not to be compared."
    )
    header = ("Task", *summary.agents, *labels)
    return Table("published", caption, pd.DataFrame(records), header, rows, about=about)


def _published_cell(curve: PublishedCurve, step: int, mean: float) -> str:
    digits = 0 if curve.task.protocol.high - curve.task.protocol.low >= 100 else 2
    text = f"{mean:.{digits}f} at {step:,} (n = {curve.runs})"
    return text if curve.comparable else f"({text})"


def final_scores(summary: Summary) -> Table:
    """One row per run and task that enters the aggregates, for other tools to start from."""
    ids = {(cell.agent, cell.seed, task): cell.id for cell in summary.results.cells for task in cell.tasks}
    records = []
    for agent, of in summary.scores.items():
        for row, column in np.argwhere(np.isfinite(of.final)):
            task, value = summary.results.study.tasks[column], float(of.final[row, column])
            records.append(
                {
                    "agent": agent, "task": task.name, "seed": of.seeds[row], "env_step": of.final_steps[task.name],
                    "score": float(task.protocol.raw(value)), "normalised": value, "protocol": task.protocol.name,
                    "cell": ids[agent, of.seeds[row], task.name],
                }
            )  # fmt: skip
    rows = tuple(
        (r["agent"], r["task"], str(r["seed"]), f"{r['score']:.4g}", f"{r['normalised']:.3f}") for r in records
    )
    header = ("Agent", "Task", "Seed", "Score", "Normalised")
    caption = "Final score of every run, the mean over its last evaluation."
    return Table("final_scores", caption, pd.DataFrame(records), header, rows, 3)


def curves(summary: Summary) -> Table:
    """The aggregate learning curves, point by point."""
    records = []
    for agent, of in summary.curves.items():
        band = of.band
        low, high = _or_nan(band.low, of.steps), _or_nan(band.high, of.steps)
        records += [
            {"agent": agent, "env_step": int(step), "iqm": float(iqm), "low": float(a), "high": float(b)}
            for step, iqm, a, b in zip(of.steps, of.estimate, low, high, strict=True)
        ]
    rows = tuple((str(r["agent"]), f"{r['env_step']:,}", f"{r['iqm']:.3f}") for r in records)
    header = ("Agent", "Environment steps", "IQM")
    caption = "IQM of the normalised score against environment steps."
    return Table("curves", caption, pd.DataFrame(records), header, rows)


def by_protocol(summary: Summary) -> Table:
    """Each protocol and engine of a study that has several."""
    records = [
        {"protocol": s.protocol, "engine": s.engine, "agent": s.agent, **_columns(s.value), "runs": s.runs,
         "tasks": s.tasks}
        for s in summary.by_measure
    ]  # fmt: skip
    shown = {(s.protocol, s.engine, s.agent): interval(s.value, 3) for s in summary.by_measure}
    measures = dict.fromkeys((s.protocol, s.engine) for s in summary.by_measure)
    rows = tuple((*m, *(shown.get((*m, agent), "missing") for agent in summary.agents)) for m in measures)
    study = summary.results.study
    tasks = {m: tuple(t.name for t in study.tasks if (study.labels[t.protocol], t.engine) == m) for m in measures}
    about = tuple((None, None, *(About((agent,), tasks[m]) for agent in summary.agents)) for m in measures)
    caption = f"IQM of the normalised score, each protocol and engine for itself, with {INTERVAL} interval."
    caption += _no_verdict(summary)
    header = ("Protocol", "Engine", *summary.agents)
    return Table("by_protocol", caption, pd.DataFrame(records), header, rows, 2, about)


def generalisation(summary: Summary) -> Table:
    """Trained against held-out tasks."""
    records = [
        {"agent": g.agent, "part": part, **_columns(value), "runs": g.runs}
        for g in summary.generalisation
        for part, value in (("trained", g.trained), ("held_out", g.held_out), ("gap", g.gap))
    ]
    rows = tuple(
        (g.agent, interval(g.trained, 3), interval(g.held_out, 3), interval(g.gap, 3), str(g.runs))
        for g in summary.generalisation
    )
    study = summary.results.study
    trained, held_out = (tuple(task.name for task in part) for part in (study.tasks, study.held_out))
    about = tuple(
        (None, About((g.agent,), trained), About((g.agent,), held_out), About((g.agent,)), None)
        for g in summary.generalisation
    )
    caption = (
        f"Mean normalised score on the {len(study.tasks)} tasks trained on and on the {len(study.held_out)} held out, "
        f"and the first minus the second, with {INTERVAL} intervals over whole runs."
    )
    header = ("Agent", "Trained", "Held out", "Gap", "Runs")
    return Table("generalisation", caption, pd.DataFrame(records), header, rows, about=about)


def sweep(summary: Summary) -> Table:
    """IQM against the swept value."""
    found, points = summary.results.study.sweep, summary.sweep_points
    records = [
        {"agent": p.base, "value": p.value, **_columns(summary.aggregates[p.agent]["iqm"]),
         "runs": num_runs(summary.scores[p.agent].final), "env_step": summary.scores[p.agent].env_step}
        for p in points
    ]  # fmt: skip
    key = "" if found is None else found.key
    steps = {summary.scores[p.agent].scored_at for p in points}
    at = {p.agent: f" at {summary.scores[p.agent].scored_at}" if len(steps) > 1 else "" for p in points}
    shown = {(p.base, str(p.value)): interval(summary.aggregates[p.agent]["iqm"], 3) + at[p.agent] for p in points}
    values, bases = dict.fromkeys(str(p.value) for p in points), dict.fromkeys(p.base for p in points)
    rows = tuple((value, *(shown.get((base, value), "missing") for base in bases)) for value in values)
    agents = {(p.base, str(p.value)): About((p.agent,)) for p in points}
    about = tuple((None, *(agents.get((base, value)) for base in bases)) for value in values)
    same = f"at {min(steps)} environment steps" if len(steps) == 1 else "at the environment steps that each has come to"
    caption = f"IQM of the normalised score against {key}, {same}, with {INTERVAL} interval."
    return Table("sweep", caption, pd.DataFrame(records), (key, *bases), rows, about=about)


def _columns(value: Estimate) -> dict[str, float | None]:
    return {"estimate": value.estimate, "low": value.low, "high": value.high}


def _or_nan(values: Array | None, like: Array) -> Array:
    return np.full_like(like, np.nan) if values is None else values


def num_runs(scores: Array) -> int:
    """Runs (seeds) with a score on at least one task."""
    return int(np.isfinite(scores).any(axis=1).sum())


def runs_text(runs_per_task: np.ndarray) -> str:
    low, high = int(runs_per_task.min()), int(runs_per_task.max())
    return str(low) if low == high else f"{low} to {high}"


def _of(number: int, total: int) -> str:
    return str(total) if number == total else f"{number} of {total}"


_TABLES = (
    aggregates,
    by_protocol,
    sweep,
    generalisation,
    per_task,
    breadth,
    domains,
    probability_of_improvement,
    efficiency_tables.efficiency,
    efficiency_tables.task_efficiency,
    efficiency_tables.steps_to_score,
    separations,
    predicted_intervals,
    published,
    final_scores,
    curves,
    setup_tables.compute,
    setup_tables.tuning,
    setup_tables.hyperparameters,
)
NAMES = tuple(make.__name__ for make in _TABLES)


def tables(summary: Summary) -> dict[str, Table]:
    """Every table that has rows, by name."""
    made = [make(summary) for make in _TABLES]
    return {table.name: table for table in made if len(table.frame)}

"""Write the report of a study: report.html, report.md, report.json, figures and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from analysis import diagnostics, integrity, stats
from analysis.figures import diagnostics as diagnostic_figures
from analysis.figures import drawing
from analysis.figures import study as study_figures
from analysis.figures.style import colours
from analysis.frame import load
from analysis.improvement import permutations
from analysis.report import interactive, methods, pages, setup_tables, tables
from analysis.report.headline import headline, speedup_sentences
from analysis.report.interactive import Text
from analysis.report.markup import About, Table
from analysis.summary import Summary, summarise
from analysis.wording import INTERVAL

FIGURES = {
    "aggregates": "Aggregate scores over all runs and tasks.",
    "by_protocol": "IQM of each protocol and engine for itself.",
    "sweep": "IQM over runs and tasks against the swept value, at the environment steps that the table names.",
    "generalisation": "Mean score on the tasks trained on and on those held out.",
    "profiles": "Performance profiles: fraction of runs above each score, averaged over tasks (left), and of tasks "
    "whose mean over runs is above it (right).",
    "probability_of_improvement": "Probability that a run of one agent beats a run of another on the same task.",
    "sample_efficiency": "Sample efficiency: IQM over runs and tasks against environment steps.",
    "speedups": "How many times fewer environment steps, gradient updates or seconds an agent needs than another to "
    "reach the final score of the latter: over all tasks (IQM) and task by task (mean). An arrow: no limit on that "
    "side is known, or it lies beyond 100.",
    "other_axes": "IQM over runs and tasks against gradient updates and seconds of training.",
    "predicted_intervals": "Width of the interval of the IQM to expect with so many seeds; filled where the study is.",
    "task_curves": "Mean score over runs against environment steps, task by task.",
    "published": "Published curves (means, never solid) beside the study's own, measured by the same rules. Where "
    "points are marked they are all that was published; nobody measured what lies between.",
    "published_apart": "Published curves measured by other rules than this study's, or of one agent per task where it "
    "has one for all: not to be compared with it.",
    "tuning": "Expected best score of n trials of tuning drawn from those seen (Dodge et al. 2019), on tuning's "
    "own seeds.",
    "training_metrics": "What agents log of their training, without counters: at most "
    f"{diagnostic_figures.MOST_METRICS} metrics, those that most agents log, as means over an agent's cells "
    "as far as every finished one goes.",
    "diagnostics": "What agents diagnose at evaluations, as means over seeds as far as every finished run goes.",
    "horizon_diagnostics": "What agents diagnose of predictions some steps ahead, as training goes on (light to dark), "
    f"for at most {diagnostic_figures.MOST_CURVED} agents.",
    "task_similarity": "How alike tasks are to an agent at its last evaluation, as a mean over seeds, for at most "
    f"{diagnostic_figures.MOST_MAPPED} agents.",
}

SECTIONS = (
    ("Aggregate scores", ("aggregates",), ("aggregates", "breadth")),
    ("Domain by domain", (), ("domains",)),
    ("Protocol by protocol", ("by_protocol",), ("by_protocol",)),
    ("Sweep", ("sweep",), ("sweep",)),
    ("Generalisation", ("generalisation",), ("generalisation",)),
    ("Performance profiles", ("profiles",), ()),
    ("Probability of improvement", ("probability_of_improvement",), ("probability_of_improvement",)),
    ("Sample efficiency", ("sample_efficiency", "speedups", "other_axes"), ("efficiency", "steps_to_score")),
    ("Task by task", ("task_curves",), ("per_task", "task_efficiency")),
    ("Beside published results", ("published", "published_apart"), ("published",)),
    ("How many seeds", ("predicted_intervals",), ("separations", "predicted_intervals")),
    ("Diagnostics: what the agents did inside", tuple(diagnostic_figures.FIGURES), ()),
    ("Tuning: how the agents' values were found", ("tuning",), ("tuning",)),
    ("Compute", (), ("compute",)),
    ("Hyper-parameters", (), ("hyperparameters",)),
)
"""Title, figures and tables of each part of the page."""

FOLDED = frozenset({"hyperparameters"})
"""Tables that the page unfolds when asked to."""


def write(results: Path, out: Path | None = None, *, env_step: int | None = None) -> Path:
    """Write the report of the study in ``results`` into ``out`` (default: ``results/report``).

    Agents are scored at ``env_step``, by default at their final evaluation. The same results give the same bytes.
    Returns the path of ``report.html``. Raises :class:`ResultsError` for results that cannot be read, and where the
    report cannot be written.
    """
    results = Path(results)
    return write_summary(summarise(load(results), env_step), results / "report" if out is None else Path(out))


def write_summary(summary: Summary, out: Path) -> Path:
    """Write the report on ``summary`` into ``out``. Returns and raises as :func:`write`."""
    pages.write_files(out, render(summary), {*FIGURES, *tables.NAMES})
    return out / "report.html"


def render(summary: Summary) -> dict[str, bytes]:
    """Every file of the report by its path inside the report's folder; the page comes last."""
    drawn = drawing.render(study_figures.FIGURES, summary)
    made = tables.tables(summary)
    found = pages.files_of(drawn, made)
    found["report.json"] = (
        json.dumps(document(summary), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    ).encode()
    context = _context(summary, made, pages.inlined(drawn, _captions(summary)))
    found["report.md"] = pages.template("report.md.j2").render(context).encode()
    found["report.html"] = pages.template("report.html.j2").render(context).encode()
    return found


def _context(summary: Summary, made: Mapping[str, Table], figures: Mapping[str, Markup]) -> dict[str, Any]:
    study, results = summary.results.study, summary.results
    paint = colours(study.agents)
    chart = interactive.chart(summary)
    return {
        "study": study,
        "title": _title(summary),
        "headline": Text(headline(summary), About(summary.ranking[:2]) if summary.ranking else None),
        "speedups": [
            Text(sentence, About((summary.ranking[0], reference)))
            for reference, sentence in speedup_sentences(summary).items()
        ],
        "paragraph": methods.paragraph(summary),
        "checks": integrity.checks(results, summary.scores, summary.insides.damaged),
        "notes": summary.notes,
        "missing": document_missing(summary),
        "measured": _measured(summary),
        "method": _method(summary),
        "protocols": setup_tables.protocols(summary),
        "cells": setup_tables.cells(summary),
        "cell_tasks": {cell.id: cell.tasks for cell in results.cells},
        "tables": {name: table for name, table in made.items() if table.rows},
        "linked": partial(interactive.linked, study=study),
        "videos": summary.videos,
        "chart": None if chart is None else Markup(interactive.embedded(chart)),
        "script": pages.script("tables.js", "report.js"),
        "figures": figures,
        "captions": _captions(summary),
        "sections": SECTIONS,
        "folded": FOLDED,
        "agents": [(drawing.agent_class(summary, agent), agent, paint[agent]) for agent in summary.agents],
    }


def _captions(summary: Summary) -> dict[str, str]:
    if not summary.steps_differ:
        return FIGURES
    name = "probability_of_improvement"
    return FIGURES | {name: f"{FIGURES[name]} Agents are scored at different environment steps: no verdict."}


def _title(summary: Summary) -> str:
    """Name of what was measured; a table has no version."""
    study = summary.results.study
    return study.suite if summary.results.tabular else f"{study.suite}, version {study.version}"


def _measured(summary: Summary) -> list[tuple[str, str]]:
    study = summary.results.study
    seeds = ", ".join(map(str, study.seeds))
    done = sum(cell.state == "done" for cell in summary.results.cells)
    mode = "one agent for all tasks" if study.mode == "joint" else "one agent per task"
    tabular = summary.results.tabular
    return [
        ("Table" if tabular else "Suite", _title(summary)),
        ("Tasks", f"{len(study.tasks)}, {mode}" + (f"; {len(study.held_out)} held out" if study.held_out else "")),
        ("Protocols", ", ".join(study.labels.values())),
        ("Seeds", f"{len(study.seeds)} ({seeds})"),
        *([] if tabular else [("Training", f"{study.env_steps:,} environment steps per cell")]),
        *([] if tabular else [("Evaluation", f"{study.episodes} episodes per task, apart from training")]),
        ("Scored", _scored(summary)),
        *_origins(summary),
        ("Cells", f"{len(summary.results.cells)}, {done} of them done"),
    ]


def _origins(summary: Summary) -> list[tuple[str, str]]:
    """Code and machines, as far as the cells say."""
    counted = [cell for cell in summary.results.cells if cell.counts]
    code = sorted({commit for cell in counted for commit in cell.commits})
    packages = sorted({package for cell in counted for package in cell.packages})
    machines = sorted({machine for cell in counted for machine in cell.machines})
    agents = sorted({f"{cell.agent}: {code}" for cell in counted for code in cell.agent_code})
    sources = ("commit " + ", ".join(code) if code else "", integrity.planned_only(counted).removesuffix("."))
    named = (
        ("Code", "; ".join(filter(None, sources))),
        ("Agents of other packages", "; ".join(agents)),
        ("Packages", ", ".join(" ".join(package) for package in packages)),
        ("Machine", "; ".join(machines)),
    )
    return [(name, value) for name, value in named if value]


def _scored(summary: Summary) -> str:
    steps = {agent: of.scored_at for agent, of in summary.scores.items()}
    if not steps:
        return "nothing yet"
    if not any(of.env_step for of in summary.scores.values()):
        return "as given, without environment steps"
    if len(set(steps.values())) == 1:
        return f"at {next(iter(steps.values()))} environment steps"
    return "at different environment steps: " + ", ".join(f"{agent} at {step}" for agent, step in steps.items())


def _method(summary: Summary) -> list[str]:
    drawing = (
        "whole runs are drawn with replacement, because the tasks of a joint run share one agent"
        if summary.results.study.mode == "joint"
        else "runs are drawn with replacement, separately for each task (stratified)"
    )
    labels = summary.results.study.labels
    mixed = [f"{labels[protocol]} ({engine})" for protocol, engine in summary.results.study.measures]
    several = (
        f"The suite asks for several protocols or engines, {', '.join(mixed)}: aggregates are over all tasks, and "
        "“Protocol by protocol” has each for itself."
    )
    bounds = (
        "that were given with the table. A run's score is the mean over the rows of its last evaluation"
        if summary.results.tabular
        else "of the protocol, fixed by the suite and never taken from the results. A run's score is the mean over its "
        "evaluation episodes"
    )
    return [
        *([several] if summary.by_measure else []),
        *_published(summary),
        f"Scores are normalised as (score − low) / (high − low) with the bounds {bounds}.",
        f"Intervals are {INTERVAL} percentile bootstrap intervals: {drawing}; {stats.RESAMPLES} resamples, "
        f"{stats.CURVE_RESAMPLES} for curves and profiles. They are widened for few runs (Hesterberg 2015, expanded "
        f"percentiles). {_coverage(joint=summary.results.study.mode == 'joint')}",
        "Where every run of one agent beats every run of another on a task, drawing runs again shows no spread: the "
        "interval of the probability of improvement counts that task with Newcombe's (2006, method 5), which is 0.64 "
        "to 1 for five runs each.",
        "p-values are of permutation tests of the probability of improvement, labels permuted within each task or for "
        f"whole runs, {permutations(len(summary.improvements) // 2)} times, adjusted for all pairs of agents "
        "(Holm).",
        "The generator of each interval is seeded by the names of the agent and the number, so a report made twice has "
        "the same bytes, and an agent that joins changes no other's numbers but the adjustment of p-values "
        "and, from 21 pairs on, how often labels are permuted.",
        "A missing run is left out and never counts as zero. A diverged run counts as 0 from its divergence on. IQM, "
        "median, mean, optimality gap and probability of improvement are defined as in rliable (Agarwal et al. 2021).",
    ]


def _coverage(*, joint: bool) -> str:
    """How often such intervals cover the truth: as benchmarks/coverage.py measures it."""
    if joint:
        return (
            "Here n runs are n numbers, however many tasks there are, and an interval cannot reach beyond them: in "
            "simulations of 10 tasks it covers the truth 33 to 52 times in 100 with two runs, 49 to 76 with three, 65 "
            "to 92 with five and 90 to 95 with ten, least where runs fail now and then. The difference of two agents "
            "that are alike leaves out 0 38 to 47 times in 100 with two runs, 15 to 22 with three and 4 to 7 with "
            "five. Read two and three runs as an impression."
        )
    return (
        "In simulations they cover the truth 88 to 96 times in 100 with 5 and 10 runs of several tasks and 85 to 95 "
        "times with three runs, least where scores are strongly skewed; the plain percentile interval of three runs 77 "
        "to 88 times. An interval cannot reach beyond the runs: for three runs of a single task it is about their "
        "range, which covers the truth 48 to 73 times."
    )


def _published(summary: Summary) -> list[str]:
    """Whose published results stand beside the study's own."""
    told = {(curve.source.name, curve.source.licence, curve.source.rules(curve.task)) for curve in summary.published}
    return [
        f"Published results: {name} (licence {licence}); measured: {rules}." for name, licence, rules in sorted(told)
    ]


def document(summary: Summary) -> dict[str, Any]:
    """The content of ``report.json``: every number with where it comes from; null where there is none."""
    study = summary.results.study
    drawn = "whole runs" if study.mode == "joint" else "runs of each task"
    made = tables.tables(summary)
    return {
        "suite": study.suite,
        "version": study.version,
        "mode": study.mode,
        "protocols": [vars(protocol) for protocol in study.protocols],
        "headline": headline(summary),
        "methods": methods.paragraph(summary),
        "seeds": list(study.seeds),
        "tasks": [task.name for task in study.tasks],
        "held_out": [task.name for task in study.held_out],
        "engines": {task.name: task.engine for task in study.evaluated},
        "evaluation_episodes": study.episodes,
        "budget_env_steps": study.env_steps,
        "env_step": {agent: of.env_step for agent, of in summary.scores.items()},
        "interval": {
            "confidence": stats.CONFIDENCE,
            "method": "percentile bootstrap",
            "drawn": drawn,
            "resamples": stats.RESAMPLES,
        },
        "aggregates": _records(made, "aggregates"),
        "by_protocol": _records(made, "by_protocol"),
        "sweep": _records(made, "sweep"),
        "generalisation": _records(made, "generalisation"),
        "probability_of_improvement": _records(made, "probability_of_improvement"),
        "breadth": _records(made, "breadth"),
        "domains": _records(made, "domains"),
        "efficiency": _records(made, "efficiency"),
        "task_efficiency": _records(made, "task_efficiency"),
        "separations": _records(made, "separations"),
        "predicted_intervals": _records(made, "predicted_intervals"),
        "steps_to_score": _records(made, "steps_to_score"),
        "per_task": _records(made, "per_task"),
        "published": _records(made, "published"),
        "diagnostics": diagnostics.last(summary.insides.diagnostics, study),
        "tuning": _records(made, "tuning"),
        "compute": _records(made, "compute"),
        "hyperparameters": _records(made, "hyperparameters"),
        "missing": document_missing(summary),
        "superseded": list(summary.results.superseded),
        "notes": summary.notes,
        "cells": [{"id": c.id, "state": c.state, "env_step": c.env_step} for c in summary.results.cells],
    }


def document_missing(summary: Summary) -> list[dict[str, Any]]:
    """Expected cells without a final score on some task, and why."""
    return [
        {"cell": cell.id, "agent": cell.agent, "seed": cell.seed, "state": cell.state, "reason": reason}
        for cell, reason in integrity.missing(summary.results, summary.scores)
    ]


def _records(made: Mapping[str, Table], name: str) -> list[dict[str, Any]]:
    if name not in made:
        return []
    rows = made[name].frame.astype(object).to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """A JSON value: NumPy numbers become Python's, NaN and infinity become null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Write the report of a search: report.html, figures and tables beside its trials."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import drawing
from analysis.figures.search import FIGURES, UNITS
from analysis.report import pages
from analysis.report.markup import Table
from analysis.tuning import Search, Trial, expected_best, read_search

CAPTIONS = {
    "history": "Scores of the trials in their order, and the best so far among those that were run whole.",
    "expected_best": "Expected best score of n trials drawn from those seen (Dodge et al. 2019): what a search of n "
    "trials would have found. Exact for random search; a sampler that learns begins worse and ends better.",
    "trade_off": "Score against compute; the line joins the trials that no other beats in both.",
    "importance": "How much each field sets the better trials apart from the others.",
    "slices": "Score against the value of each field, later trials darker; dashed: the value as it stood.",
    "sensitivity": "Quartiles of the score along each field while the others vary: a flat band means that the value "
    "matters little. Samplers that learn try good values more often, so that a band is no experiment.",
    "parallel": "One line for each trial, through its values to its score.",
}

SECTIONS = (
    ("Best found", (), ("best",)),
    ("What the search brought", ("history", "expected_best", "trade_off"), ("expected_best", "front")),
    ("Which values matter", ("importance", "sensitivity", "slices", "parallel"), ("importance",)),
    ("Trials", (), ("trials",)),
)
"""Title, figures and tables of each part of the page."""

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of trials in the table of expected best scores."""


def write(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the search in ``folder`` into ``out`` (default: ``folder/report``); returns its page.

    The same trials give the same bytes. Raises :class:`analysis.study.ResultsError`.
    """
    search = read_search(Path(folder))
    out = Path(folder) / "report" if out is None else Path(out)
    pages.write_files(out, render(search), {*FIGURES, *_TABLES})
    return out / "report.html"


def render(search: Search) -> dict[str, bytes]:
    """Every file of the report by its path inside the report's folder; the page comes last."""
    drawn = drawing.render(FIGURES, search)
    made = {name: table for name, make in _TABLES.items() if len((table := make(search)).frame)}
    files = pages.files_of(drawn, made)
    context = {
        "title": f"{search.suite}, version {search.version}: tuning {search.agent}",
        "headline": headline(search),
        "facts": _facts(search),
        "tables": made,
        "figures": pages.inlined(drawn, CAPTIONS),
        "captions": CAPTIONS,
        "sections": SECTIONS,
        "script": pages.script("tables.js"),
    }
    files["report.html"] = pages.template("tuning.html.j2").render(context).encode()
    return files


def headline(search: Search) -> str:
    """What was found, against what stood before; it says nothing of final runs."""
    best, stood = search.best, search.default
    if best is None:
        return "No trial was valid: there is nothing to choose."
    number = len(search.trials)
    found = f"The best of {number} trial{'s' if number > 1 else ''}, number {best.number}, scores {best.score:.3f}"
    if stood is None:
        return f"{found}; the configuration as it stood could not be measured."
    if best.number == stood.number:
        return f"{found}: it is the configuration as it stood."
    stood_there = f"the configuration as it stood {stood.score:.3f}"
    return f"{found}; {stood_there}. On seeds of tuning, where the best is a little lucky."


def _facts(search: Search) -> list[tuple[str, str]]:
    states = [trial.state for trial in search.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    diverged = sum(trial.diverged > 0 for trial in search.trials)
    again = f"; {search.repeats} further proposals repeated one of them and were not run" if search.repeats else ""
    unlucky = f"; {diverged} with diverged cells" if diverged else ""
    return [
        ("Trials", f"{len(states)}: {counts or 'none'}{unlucky}{again}"),
        ("Cost", f"{search.env_steps:,} environment steps, {search.seconds / 3600:.2f} hours of training"),
        ("Objectives", ", ".join(search.objectives)),
        ("Sampler, pruner", f"{search.sampler}, {search.pruner}"),
        ("Seeds of a trial", f"{', '.join(map(str, search.seeds))}, used by no final run"),
        ("Tasks of a trial", ", ".join(search.tasks)),
        ("Budget of a cell", f"{search.cell_env_steps:,} environment steps"),
        ("Made with", ", ".join(f"{name} {version}" for name, version in search.versions.items())),
    ]


def _best(search: Search) -> Table:
    """The values found beside those that stood."""
    best = search.best
    rows = (
        []
        if best is None
        else [(f.name, _text(f.default), _text(best.values.get(f.name, f.default))) for f in search.fields]
    )
    header = ("Field", "As it stood", "Best")
    caption = "The values of the best trial; the tuned suite file holds them."
    return Table("best", caption, pd.DataFrame(rows, columns=list(header)), header, tuple(rows))


def _expected(search: Search) -> Table:
    scores = search.scores
    numbers = np.array([n for n in SHOWN if n <= len(scores)] or [1])
    values = expected_best(scores, numbers) if len(scores) else np.array([])
    frame = pd.DataFrame({"trials": numbers[: len(values)], "expected_best": values})
    rows = tuple((str(n), f"{value:.4f}") for n, value in zip(numbers, values, strict=False))
    caption = "Expected best score against the number of trials, from the scores of all trials that were run whole."
    return Table("expected_best", caption, frame, ("Trials", "Expected best score"), rows, 0)


def _front(search: Search) -> Table:
    front = search.front if len(search.objectives) > 1 else ()
    unit = UNITS.get(search.objectives[-1], search.objectives[-1])
    records = [(str(t.number), f"{t.score:.4f}", f"{t.compute:,.0f}", _values(t)) for t in front]
    header = ("Trial", "Score", unit, "Values")
    frame = pd.DataFrame([(t.number, t.score, t.compute, _values(t)) for t in front], columns=list(header))
    return Table("front", "Trials that no other beats in score and compute alike.", frame, header, tuple(records))


def _importance(search: Search) -> Table:
    ranked = sorted(search.importance.items(), key=lambda item: (-item[1], item[0]))
    frame = pd.DataFrame(ranked, columns=["field", "share"])
    rows = tuple((name, f"{share:.3f}") for name, share in ranked)
    return Table("importance", "PED-ANOVA importance, as shares.", frame, ("Field", "Share"), rows)


def _trials(search: Search) -> Table:
    records = [
        {
            "trial": t.number, "state": t.state, "score": t.score, "compute": t.compute, "diverged": t.diverged,
            "env_steps": t.env_steps, "seconds": t.seconds, "message": t.message,
            **{f.name: _plain(t.values.get(f.name)) for f in search.fields},
        }
        for t in search.trials
    ]  # fmt: skip
    rows = tuple(
        (
            str(t.number),
            t.message or t.state,
            f"{t.score:.4f}" if math.isfinite(t.score) else "",
            f"{t.env_steps:,}",
            *(_text(t.values.get(f.name)) for f in search.fields),
        )
        for t in search.trials
    )
    header = ("Trial", "State", "Score", "Environment steps", *(f.name for f in search.fields))
    return Table(
        "trials",
        "Every trial; where a value is missing, it stayed as it stood.",
        pd.DataFrame(records),
        header,
        rows,
        2,
    )


_TABLES = {"best": _best, "expected_best": _expected, "front": _front, "importance": _importance, "trials": _trials}


def _values(trial: Trial) -> str:
    return ", ".join(f"{name}={_text(value)}" for name, value in trial.values.items())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, list) else value

"""A paragraph for a paper's section on methods, written from the data alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from analysis import stats
from analysis.study import Protocol
from analysis.summary import Summary

__all__ = ["paragraph"]

_SCORES = {
    "return": "the undiscounted return",
    "success_any": "success at any step",
    "success_last": "success at the last step",
}


def paragraph(summary: Summary) -> str:
    """What was compared, on what, how it was measured, and how the numbers were made."""
    study = summary.results.study
    joint = study.mode == "joint"
    runs = sorted({int(n) for of in summary.scores.values() for n in of.runs_per_task})
    sentences = [
        f"We compare {_listed(summary.agents)} on {_number(len(study.tasks), 'task')} of the {_source(summary)}, "
        f"one agent {'for all of them' if joint else 'per task'}, with "
        f"{_range(runs)} per agent{'' if joint else ' and task'}.",
        _training(summary),
        *(_measured(protocol, study.labels) for protocol in study.protocols),
        f"We report the interquartile mean (IQM), median, mean and optimality gap of normalised scores (Agarwal et al. "
        f"2021) with {stats.CONFIDENCE:.0%} bootstrap intervals of {stats.RESAMPLES:,} resamples, "
        f"{'of whole runs' if joint else 'stratified by task'}, their percentiles expanded for few runs (Hesterberg "
        "2015); agents are compared by the probability of improvement with permutation tests, adjusted for all pairs "
        "(Holm 1979).",
    ]
    # a joint run diverges once, on however many tasks
    if diverged := sum(cell.state == "diverged" for cell in summary.results.cells):
        verb = "counts" if diverged == 1 else "count"
        sentences.append(f"{_number(diverged, 'diverged run')} {verb} as 0 from the divergence on.")
    counted = [cell for cell in summary.results.cells if cell.counts]
    if commits := sorted({commit for cell in counted for commit in cell.commits}):
        sentences.append(f"Code: m3po-bench, commit {_listed(commits)}.")
    for agent, code in sorted({(cell.agent, code) for cell in counted for code in cell.agent_code}):
        sentences.append(f"{agent} is that of {code}.")
    return " ".join(sentence for sentence in sentences if sentence)


def _source(summary: Summary) -> str:
    study = summary.results.study
    return f"table {study.suite}" if summary.results.tabular else f"suite {study.suite} (version {study.version})"


def _training(summary: Summary) -> str:
    study = summary.results.study
    if not study.env_steps:
        return ""
    held = f" and {_number(len(study.held_out), 'held-out task')}" if study.held_out else ""
    steps = sorted({step for of in summary.scores.values() for step in of.final_steps.values()})
    at = f"at {steps[0]:,} steps" if len(steps) == 1 else f"at {steps[0]:,} to {steps[-1]:,} steps" if steps else ""
    if summary.results.tabular:
        return f"Final scores are those {at}."
    return (
        f"Each run takes {study.env_steps:,} environment steps, repeated actions counted; evaluations apart from "
        f"training score {_number(study.episodes, 'episode')} per task{held}, and final scores are those {at}."
        + "".join(f" Scores of {agent} are those of {table}." for agent, table in summary.results.tables.items())
    )


def _measured(protocol: Protocol, labels: Mapping[Protocol, str]) -> str:
    rules = []
    if protocol.decisions is not None:
        rules.append(f"episodes of {protocol.decisions} decisions")
    if protocol.action_repeat is not None:
        rules.append(f"an action repeat of {protocol.action_repeat}")
    score = _SCORES.get(protocol.score, f"what the table calls {protocol.score}")
    under = f"Under protocol {labels[protocol]}" if len(labels) > 1 else "Here"
    return (
        f"{under} a score is {score}{' of ' if rules else ''}{_listed(rules)}, "
        f"normalised so that {protocol.low:g} is 0 and {protocol.high:g} is 1."
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _range(runs: list[int]) -> str:
    if not runs:
        return "no run yet"
    return _number(runs[0], "run") if len(runs) == 1 else f"{runs[0]} to {_number(runs[-1], 'run')}"

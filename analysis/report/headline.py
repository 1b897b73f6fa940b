"""The first sentence of a report: who leads, and whether for certain. It never claims more."""

from __future__ import annotations

import math

from analysis import stats
from analysis.efficiency import Speedup
from analysis.report.efficiency_tables import speedup_text
from analysis.stats import Estimate
from analysis.summary import Summary
from analysis.wording import AXIS_NAMES


def headline(summary: Summary) -> str:
    """One plain sentence on the IQM of the agents that have runs on every task."""
    if not summary.agents:
        return "No scores yet."
    ranked = [(summary.aggregates[agent]["iqm"], agent) for agent in summary.ranking]
    if not ranked:
        return "No agent has results on every task yet, so no agent leads."
    value, leader = ranked[0]
    if len(ranked) == 1:
        return f"{leader}'s IQM is {_shown(value)}; no other agent has results on every task to compare it with."
    rival_value, rival = ranked[1]
    steps = [summary.scores[agent].scored_at for agent in (leader, rival)]
    if summary.scores[leader].final_steps != summary.scores[rival].final_steps:
        return (
            f"{leader}'s IQM is {_shown(value)} at {steps[0]} environment steps, {rival}'s {_shown(rival_value)} at "
            f"{steps[1]}, the highest of {len(ranked)} agents; scored at different steps, they are not compared."
        )
    if value.estimate == rival_value.estimate:
        return f"{leader} and {rival} share the highest IQM, {_shown(value)} and {_shown(rival_value)}."
    digits = 2 if f"{value.estimate:.2f}" != f"{rival_value.estimate:.2f}" else 4
    return (
        f"{leader}'s IQM {_shown(value, digits)} lies above {rival}'s {_shown(rival_value, digits)}, the next of "
        f"{len(ranked)} agents; {_verdict(value, rival_value, digits)}{_caveat(summary, leader, rival)}."
    )


def _shown(value: Estimate, digits: int = 2) -> str:
    if value.low is None or value.high is None:
        return f"{value.estimate:.{digits}f}"
    return f"{value.estimate:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _verdict(leader: Estimate, rival: Estimate, digits: int) -> str:
    lead = stats.difference(leader, rival)
    if lead.low is None:
        return "with a single run of a task there is no interval, so this does not show that it is better"
    if lead.leaves_out_zero:
        return f"the difference, {_shown(lead, digits)}, leaves out 0"
    return f"the difference, {_shown(lead, digits)}, may be none, so their IQMs do not separate the two"


def _caveat(summary: Summary, *agents: str) -> str:
    """That an interval of a handful of numbers promises more than it holds; nothing where there is none or enough."""
    joint = summary.results.study.mode == "joint"
    known = all(summary.aggregates[agent]["iqm"].low is not None for agent in agents)
    if not known or not any(stats.few(summary.scores[agent].final, whole_runs=joint) for agent in agents):
        return ""
    return ", but intervals of so few runs miss the truth more often than they say"


def speedup_sentences(summary: Summary) -> dict[str, str]:
    """How many times fewer environment steps the leading agent needs to reach each other's final IQM, by the other; and
    how many times fewer updates and seconds, where the score to reach is the same."""
    leader = next(iter(summary.ranking), None)
    found = [s for s in summary.speedups if s.agent == leader and s.task is None]
    sentences = {}
    for s in found:
        if s.axis != "env_step":
            continue
        goal = (s.reference, f"{s.target:.3f}", s.cut_at)
        others = [o for o in found if o.axis != s.axis and (o.reference, f"{o.target:.3f}", o.cut_at) == goal]
        counted = [f"{AXIS_NAMES[o.axis]} {speedup_text(o)}" for o in others if 0 < o.ratio < math.inf]
        sentences[s.reference] = _sentence(s) + (f" Times fewer {', '.join(counted)}." if counted else "")
    return sentences


def _sentence(s: Speedup) -> str:
    goal = f"{s.reference}'s final IQM {s.target:.2f}"
    if s.cut_at is not None:
        goal = f"{s.reference}'s IQM {s.target:.2f} at {s.cut_at:,.0f} steps"
    if s.ratio == 0:
        return f"{s.agent} does not reach {goal} within the steps of this study."
    interval, without = _interval(s)
    if math.isinf(s.ratio):
        least = f", with at least {s.above:.1f}× fewer environment steps" if 1 < s.above < math.inf else ""
        if s.low is not None and math.isfinite(s.low):  # not in every resample, so nothing bounds the ratio
            return f"{s.agent} reaches {goal} by its first evaluation; times fewer environment steps:{interval}."
        return f"{s.agent} reaches {goal} by its first evaluation{least}."
    if s.ratio < 1:
        return f"{s.agent} needs {1 / s.ratio:.1f}×{interval} as many environment steps to reach {goal}{without}."
    return f"{s.agent} reaches {goal} with {s.ratio:.1f}×{interval} fewer environment steps{without}."


def _interval(s: Speedup) -> tuple[str, str]:
    """The bounds in brackets, and what stands at the end of the sentence where there are none."""
    if s.low is None or s.high is None:
        return "", "; a single run allows no interval"
    slower = s.ratio < 1
    low, high = (s.high, s.low) if slower else (s.low, s.high)
    return f" [{_bound(low, slower)}, {_bound(high, slower)}]", ""


def _bound(ratio: float, slower: bool) -> str:
    """A bound of the ratio, as times fewer steps or, where the agent is slower, as times as many."""
    if ratio == 0:
        return "not reached"
    if math.isinf(ratio):
        return "there at the first evaluation"
    return f"{1 / ratio if slower else ratio:.1f}"

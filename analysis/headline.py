"""The first sentence of a report: who leads, and whether the intervals are apart. It never claims more."""

from __future__ import annotations

from analysis.stats import Estimate
from analysis.summary import Summary


def headline(summary: Summary) -> str:
    """One plain sentence on the IQM of the agents that have runs on every task."""
    if not summary.agents:
        return "No evaluations yet."
    ranked = [(summary.aggregates[agent]["iqm"], agent) for agent in summary.ranking]
    if not ranked:
        return "No agent has results on every task yet, so no agent leads."
    value, leader = ranked[0]
    if len(ranked) == 1:
        return f"{leader}'s IQM is {_shown(value)}; no other agent has results on every task to compare it with."
    rival_value, rival = ranked[1]
    if value.estimate == rival_value.estimate:
        return f"{leader} and {rival} share the highest IQM, {_shown(value)} and {_shown(rival_value)}."
    digits = 2 if f"{value.estimate:.2f}" != f"{rival_value.estimate:.2f}" else 4
    return (
        f"{leader}'s IQM {_shown(value, digits)} lies above {rival}'s {_shown(rival_value, digits)}, the next of "
        f"{len(ranked)} agents; {_verdict(value, rival_value)}."
    )


def _shown(value: Estimate, digits: int = 2) -> str:
    if value.low is None or value.high is None:
        return f"{value.estimate:.{digits}f}"
    return f"{value.estimate:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _verdict(leader: Estimate, rival: Estimate) -> str:
    if leader.low is None or rival.high is None:
        return "with a single run per task there is no interval, so this does not show that it is better"
    if leader.low > rival.high:
        return "the intervals are apart"
    return "the intervals overlap, so this study does not separate the two"

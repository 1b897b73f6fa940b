"""Tables of how soon agents learn: ratios of steps, updates and seconds, and steps to a score."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.efficiency import LEVELS, Speedup, StepsToScore
from analysis.report.markup import About, Table
from analysis.summary import Summary
from analysis.wording import AXIS_NAMES, INTERVAL, NO_INTERVAL, listed


def efficiency(summary: Summary) -> Table:
    """Steps-to-score ratios of the aggregate, along every axis."""
    found = [s for s in summary.speedups if s.task is None]
    # Finished runs end at different updates and seconds, and so may the score to reach: the head has that of the first
    # axis, in environment steps where there is one.
    goals: dict[str, str] = {}
    for s in found:
        goals.setdefault(s.reference, _goal(s))
    targets = {agent: goals[agent] for agent in summary.curves if agent in goals}
    shown = {
        (s.axis, s.agent, s.reference): speedup_text(s) + ("" if _goal(s) == goals[s.reference] else f" to {_goal(s)}")
        for s in found
    }
    rows = tuple(
        (AXIS_NAMES[axis].capitalize(), agent, *(shown.get((axis, agent, reference), "") for reference in targets))
        for axis in dict.fromkeys(s.axis for s in found)
        for agent in summary.curves
    )
    last = "final IQM of the latter" if all(s.cut_at is None for s in found) else "IQM that is named of the latter"
    caption = (
        "How many times fewer environment steps, gradient updates or seconds the row's agent needs than the column's "
        f"to reach the {last}, with {INTERVAL} interval. Agents whose IQM did not rise for certain have no column."
    )
    header = ("Counted in", "Agent", *targets.values())
    return Table("efficiency", caption, pd.DataFrame(map(_speedup_record, found)), header, rows, 2)


def _goal(s: Speedup) -> str:
    """``ppo's 0.412``, and where that is if it is not its final score."""
    return f"{s.reference}'s {s.target:.3f}" + ("" if s.cut_at is None else f" at {s.cut_at:,.0f}")


def task_efficiency(summary: Summary) -> Table:
    """Steps-to-score ratios task by task; shown of the leading agent."""
    found = [s for s in summary.speedups if s.task is not None]
    leader = next(iter(summary.ranking), "")
    of_leader = {(s.axis, s.task, s.reference): speedup_text(s) for s in found if s.agent == leader}
    references = [agent for agent in summary.agents if any(agent == reference for *_, reference in of_leader)]
    axes = dict.fromkeys(axis for axis, *_ in of_leader)
    places = [(axis, task.name) for axis in axes for task in summary.results.study.tasks]
    rows = tuple(
        (AXIS_NAMES[axis].capitalize(), task, *(of_leader.get((axis, task, reference), "") for reference in references))
        for axis, task in places
    )
    about = tuple(
        (None, None, *(About((reference, leader), (task,)) for reference in references)) for _, task in places
    )
    header = ("Counted in", "Task", *(f"{reference}'s final score" for reference in references))
    caption = (
        f"How many times fewer {listed(AXIS_NAMES[axis] for axis in axes)} {leader} needs than another agent to reach "
        f"the final mean score of that one on a task, with {INTERVAL} interval. All pairs are in task_efficiency.csv."
    )
    return Table("task_efficiency", caption, pd.DataFrame(map(_speedup_record, found)), header, rows, 2, about)


def _speedup_record(s: Speedup) -> dict[str, object]:
    return {
        "axis": s.axis, "task": s.task, "agent": s.agent, "reference": s.reference, "target": s.target,
        "reached": s.ratio > 0, "ratio": s.ratio if s.ratio > 0 else None, "low": s.low, "high": s.high,
        "below": s.below, "above": s.above if np.isfinite(s.above) else None, "cut_at": s.cut_at,
    }  # fmt: skip


def speedup_text(s: Speedup) -> str:
    """``2.1× [1.6, 3.0]``; ``not reached (below 0.5×)`` where the agent never gets there, ``at least 10.0×`` where it
    does by its first evaluation, or the interval where not all resamples do."""
    ratio = f"{s.ratio:.2f}×" if s.ratio > 0 else f"not reached (below {s.below:.2f}×)"
    if np.isinf(s.ratio):
        if s.low is None or np.isinf(s.low):
            return "there from the start" if np.isinf(s.above) else f"at least {s.above:.2f}×"
        ratio = "there at the first evaluation"
    if s.high == 0 or (s.high is None and s.ratio == 0):
        return ratio
    if s.low is None or s.high is None:
        return f"{ratio} ({NO_INTERVAL})"
    low = f"{s.low:.2f}" if s.low > 0 else "not reached"
    return f"{ratio} [{low}, {s.high:.2f}]" if np.isfinite(s.high) else f"{ratio} [{low}, no upper limit]"


def steps_to_score(summary: Summary) -> Table:
    records = [
        {"agent": s.agent, "target": s.target, "env_steps": s.steps, "low": s.low, "high": s.high,
         "first": s.first_step, "last": s.last_step}
        for s in summary.steps_to_score
    ]  # fmt: skip
    shown = {(s.agent, s.target): steps_text(s) for s in summary.steps_to_score}
    rows = tuple((agent, *(shown[agent, level] for level in LEVELS)) for agent in summary.curves)
    caption = (
        f"Environment steps until the IQM of the normalised score first reaches a level, with {INTERVAL} interval."
    )
    frame = pd.DataFrame(records).replace(np.inf, None) if records else pd.DataFrame()
    return Table("steps_to_score", caption, frame, ("Agent", *(f"IQM {level:g}" for level in LEVELS)), rows)


def steps_text(s: StepsToScore) -> str:
    """``12,000 [10,500, 14,000]``; ``> 50,000`` stands for not reached by then, ``≤ 1,000`` for there at the first
    evaluation."""

    def text(value: float) -> str:
        if np.isinf(value):
            return f"> {s.last_step:,.0f}"
        return f"≤ {value:,.0f}" if 0 < value <= s.first_step else f"{value:,.0f}"

    if s.low is None or s.high is None:
        return f"{text(s.steps)} ({NO_INTERVAL})" if np.isfinite(s.steps) else text(s.steps)
    outside = np.isinf(s.low) or 0 < s.high <= s.first_step
    return text(s.low) if outside else f"{text(s.steps)} [{text(s.low)}, {text(s.high)}]"

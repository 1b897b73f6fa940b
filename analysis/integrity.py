"""What is missing, uneven or mixed in a study, as plain sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.frame import Cell, Results
from analysis.scores import AgentScores

ENOUGH_RUNS = 5
"""Fewer runs make the intervals of most comparisons overlap (Agarwal et al. 2021 use three to ten and more)."""

SHOWN = 5
"""Names listed in one sentence before "and n more"."""


def missing(results: Results, scores: Mapping[str, AgentScores]) -> list[tuple[Cell, str]]:
    """Every expected cell that enters no final score on some task, and why."""
    found = []
    for cell in results.cells:
        absent = [task for task in cell.tasks if not _scored(scores.get(cell.agent), cell.seed, task)]
        if absent:
            found.append((cell, _why(cell, absent)))
    return found


def _scored(scores: AgentScores | None, seed: int, task: str) -> bool:
    if scores is None:
        return False
    return bool(np.isfinite(scores.final[scores.seeds.index(seed), scores.tasks.index(task)]))


def _why(cell: Cell, absent: list[str]) -> str:
    if not cell.counts or (cell.state == "pending" and cell.env_step == 0):
        return cell.reason or cell.state
    why = f"{cell.state} at {cell.env_step:,} environment steps, before the step that is scored"
    return why if len(absent) == len(cell.tasks) else f"{why}, on {_listed(absent)}"


def notes(results: Results, scores: Mapping[str, AgentScores]) -> list[str]:
    """Short sentences for the reader of a report; empty when the study is complete and even."""
    found = [
        *_averaged(results),
        *_beside(results),
        *_cells(results),
        *_agents(results, scores),
        *_mixtures(results),
        *_versions(results),
        *_machines(results),
    ]
    if results.superseded:
        count = len(results.superseded)
        found.append(f"{_count(count, 'cell')} no longer in the suite left out: {_listed(results.superseded)}.")
    return found


@dataclass(frozen=True)
class Check:
    """One thing a reader should not have to wonder about."""

    passed: bool
    sentence: str


def checks(results: Results, scores: Mapping[str, AgentScores], damaged: Sequence[str]) -> list[Check]:
    """What was looked at in a study, whether or not something is wrong with it."""
    cells, study = results.cells, results.study
    states = [cell.state for cell in cells]
    done, diverged = states.count("done"), states.count("diverged")
    runs = [int(n) for of in scores.values() for n in of.runs_per_task]
    if not set(study.agents) <= set(scores):
        runs.append(0)  # of an agent without any evaluation
    fewest = min(runs, default=0)
    commits, packages, unrecorded = _commits(cells), _package_mixtures(cells), planned_only(cells)
    agents = _agent_mixtures(cells)
    mixed = _mixtures(results)
    steps = {step for of in scores.values() for step in of.final_steps.values()}
    unlike = len(study.measures) > 1
    return [
        Check(done + diverged == len(cells), f"{done + diverged} of {_count(len(cells), 'cell')} finished."),
        Check(diverged == 0, f"{_count(diverged, 'cell')} diverged." if diverged else "No cell diverged."),
        Check(not damaged and "corrupt" not in states, _unless(damaged or "corrupt" in states, "damaged file")),
        Check("incompatible" not in states, _unless("incompatible" in states, "cell measured by other rules")),
        Check(
            fewest >= ENOUGH_RUNS,
            f"{_count(fewest, 'run')} at least of every agent and task"
            + ("." if fewest >= ENOUGH_RUNS else f": fewer than {ENOUGH_RUNS}, so that intervals are wide."),
        ),
        Check(len(steps) < 2, "Agents are scored at the same environment step." if len(steps) < 2 else
              "Agents are scored at different environment steps."),
        Check(not mixed, " ".join(mixed) or (
              "How agents were configured, trained and evaluated is not known." if results.tabular else
              f"Configuration, training and evaluation of {_listed(results.tables)} are not known."
              if results.tables else
              "Every agent has one configuration, one budget and one way of evaluation.")),
        Check(len(commits) < 2 and not agents and not unrecorded, unrecorded or " ".join(agents) or (
              "One version of the code." if len(commits) == 1 else
              f"{len(commits)} versions of the code." if commits else "The version of the code is not known.")),
        Check(not packages, " ".join(packages) or (
              "One version of every package." if any(cell.packages for cell in cells) else
              "The versions of packages are not known.")),
        Check(not unlike, "One protocol and one engine." if not unlike else
              f"{len(study.measures)} protocols or engines, also reported each for itself."),
        Check(not results.superseded, _unless(results.superseded, "cell of an earlier form of the suite")),
    ]  # fmt: skip


def _unless(found: object, what: str) -> str:
    return f"There is a {what}; see the notes above." if found else f"No {what}."


def unread(damaged: Sequence[str]) -> list[str]:
    """That files beside the scores are left out; nothing when there are none."""
    return [f"No score rests on them, but damaged files are not drawn: {_listed(damaged)}."] if damaged else []


def _averaged(results: Results) -> list[str]:
    """A column of steps that was not recognised would make a mean over training of a final score."""
    rows = results.evaluations["episodes"].max()
    if not results.tabular or results.evaluations["env_step"].any() or rows < 2:
        return []
    return [
        f"The table has no column env_step: up to {rows:g} rows of a run were taken for episodes of one evaluation, "
        "and their mean for its final score. If they are points of a learning curve, name that column env_step."
    ]


def _beside(results: Results) -> list[str]:
    """That some agents are not the study's own."""
    return [
        f"{agent} is from {table}: that it was measured as the study's agents were is not known, only assumed."
        for agent, table in results.tables.items()
    ]


def _cells(results: Results) -> list[str]:
    by_state: dict[str, list[Cell]] = defaultdict(list)
    for cell in results.cells:
        by_state[cell.state].append(cell)
    found = []
    for state in sorted(set(by_state) - {"done"}):
        cells = by_state[state]
        found.append(
            f"{_count(len(cells), 'cell')} of {len(results.cells)} {_STATES.get(state, state)}: {_reasons(cells)}."
        )
    incomplete = [cell for cell in results.cells if cell.incomplete]
    if incomplete:
        found.append(
            f"{_count(sum(cell.incomplete for cell in incomplete), 'evaluation')} left out because episodes are "
            f"missing, in {_listed(cell.id for cell in incomplete)}."
        )
    return found


_STATES = {
    "pending": "waiting to run",
    "running": "still running",
    "preempted": "stopped before the end",
    "failed": "failed and counted as missing",
    "diverged": "diverged and counted as 0 from there on",
    "corrupt": "damaged and counted as missing",
    "incompatible": "measured differently and left out",
}


def _reasons(cells: list[Cell]) -> str:
    return _listed(f"{cell.id} ({cell.reason})" if cell.reason else cell.id for cell in cells)


def _agents(results: Results, scores: Mapping[str, AgentScores]) -> list[str]:
    found = []
    without = [agent for agent in results.study.agents if agent not in scores]
    if without:
        found.append(f"No scores of {_listed(without)}.")
    for agent, of in scores.items():
        absent = [task for task, runs in zip(of.tasks, of.runs_per_task, strict=True) if not runs]
        if absent:
            found.append(
                f"{agent} has no score on {_listed(absent)}: its aggregates cover {of.num_tasks} of {len(of.tasks)} "
                "tasks, and it is left out of curves, profiles and the leading sentence."
            )
    single = [agent for agent, of in scores.items() if (of.runs_per_task == 1).any()]
    if single:
        others = any((scores[agent].runs_per_task > 1).any() for agent in single)
        scope = "over all tasks " if others else ""
        found.append(f"No intervals {scope}for {_listed(single)}: with a single run of a task there is none.")
    uneven = {agent: of.runs_per_task for agent, of in scores.items() if np.ptp(of.runs_per_task)}
    if uneven:
        parts = _listed(f"{agent} {runs.min()} to {runs.max()}" for agent, runs in uneven.items())
        found.append(f"Tasks differ in their number of runs: {parts}.")
    return found + _uneven_steps(results, scores)


def _uneven_steps(results: Results, scores: Mapping[str, AgentScores]) -> list[str]:
    found = []
    by_step: dict[tuple[int, str], list[str]] = defaultdict(list)
    for agent, of in scores.items():
        by_step[of.env_step, of.scored_at].append(agent)
    if len({step for of in scores.values() for step in of.final_steps.values()}) > 1:
        parts = [f"{_listed(agents)} at {shown}" for (_, shown), agents in sorted(by_step.items())]
        found.append(f"Agents are scored at different environment steps: {'; '.join(parts)}.")
    ends: dict[float, list[str]] = defaultdict(list)
    for agent, of in scores.items():
        if of.uneven and of.num_tasks == len(of.tasks) and of.steps.size:
            ends[of.steps[-1]].append(agent)
    found += [
        f"Curves of all tasks together end at {end:,.0f} environment steps for {_listed(agents)}, the last that every "
        "task has; areas, ratios and steps to a score of all tasks go no further."
        for end, agents in sorted(ends.items())
    ]
    last = results.evaluations.groupby(["agent", "task", "cell"])["env_step"].max()
    done = {cell.id for cell in results.cells if cell.state == "done"}
    last = last[last.index.get_level_values("cell").isin(done)]
    spread = last.groupby(["agent", "task"]).agg(["min", "max"])
    uneven = sorted({str(index[0]) for index in spread.index[spread["min"] != spread["max"]]})
    there = ", on the straight line between a run's evaluations" if results.tabular else ""
    return found + [
        f"Finished runs of {agent} end at different steps; the least of them is scored{there}." for agent in uneven
    ]


def _mixtures(results: Results) -> list[str]:
    """Differences between cells that should have been made alike."""
    started = [cell for cell in results.cells if cell.config_hash]
    found = []
    configs: dict[str, set[str]] = defaultdict(set)
    hashes: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
    for cell in started:
        configs[cell.agent].add(cell.config)
        hashes[cell.agent, cell.tasks].add(cell.config_hash)
    mixed = {agent for agent, of in configs.items() if len(of) > 1} | {
        key[0] for key, of in hashes.items() if len(of) > 1
    }
    found += [f"Cells of {agent} were made with different configurations." for agent in sorted(mixed)]
    budgets = sorted({cell.budget for cell in started if cell.budget is not None} - {results.study.env_steps})
    if budgets:
        shown = _listed(f"{budget:,}" for budget in budgets)
        found.append(
            f"Some cells were made for another budget ({shown}) than the study's {results.study.env_steps:,} steps."
        )
    episodes = sorted({cell.episodes for cell in started if cell.episodes is not None} - {results.study.episodes})
    if episodes:
        found.append(
            f"Some cells were evaluated with {_listed(map(str, episodes))} episodes, the study asks for "
            f"{results.study.episodes}."
        )
    names = [protocol.name for protocol in results.study.protocols]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(f"Tasks of the study use protocol {name} with different settings; see the table of protocols.")
    return found


def _versions(results: Results) -> list[str]:
    """Code and packages that changed while the study was made."""
    commits = _commits(results.cells)
    code = f"The cells were made by {len(commits)} versions of the code: {_listed(commits)}."
    return [*([code] if len(commits) > 1 else []), *_agent_mixtures(results.cells), *_package_mixtures(results.cells)]


def _machines(results: Results) -> list[str]:
    """That seconds of different agents are of different machines."""
    timed = set(results.evaluations.loc[results.evaluations["seconds"] > 0, "cell"])
    cells = [cell for cell in results.cells if cell.id in timed]
    machines = sorted({machine for cell in cells for machine in cell.machines})
    if len(machines) < 2 or len({cell.agent for cell in cells}) < 2:
        return []
    return [f"Seconds of training are of different machines and not to be compared: {'; '.join(machines)}."]


def planned_only(cells: Iterable[Cell]) -> str:
    """That what worked on cells was not recorded, only what planned them; nothing where it was."""
    found = [cell for cell in cells if cell.counts and cell.state != "pending" and cell.planned_by]
    if not found:
        return ""
    planners = _listed(sorted({cell.planned_by for cell in found}))
    return f"{_count(len(found), 'cell')} planned by commit {planners}; what did the work was not recorded."


def _commits(cells: Iterable[Cell]) -> list[str]:
    return sorted({commit for cell in cells for commit in cell.commits})


def _agent_mixtures(cells: Iterable[Cell]) -> list[str]:
    """Agents not all of whose work was done by one form of their code."""
    made: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        made[cell.agent].update(cell.agent_code)
    return [
        f"The cells of {agent} were made by {len(of)} versions of its code: {_listed(sorted(of))}."
        for agent, of in sorted(made.items())
        if len(of) > 1
    ]


def _package_mixtures(cells: Iterable[Cell]) -> list[str]:
    """Packages of which not all work was done with one version."""
    versions: dict[str, set[str]] = defaultdict(set)
    for name, version in (package for cell in cells for package in cell.packages):
        versions[name].add(version)
    return [
        f"The cells were made with {len(of)} versions of {name}: {_listed(sorted(of))}."
        for name, of in sorted(versions.items())
        if len(of) > 1
    ]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - SHOWN
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:SHOWN])} and {more} more"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""What commands print: the same facts as JSON values and as text."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from m3po.bench.display import STYLES, cell_table, duration, size, summary
from m3po.bench.experiment import Outcome, cores
from m3po.bench.plan import Plan, describe
from m3po.bench.study import Study, StudyFolder
from m3po.registry import RegistryError, agent_config, agent_names
from m3po.spaces import agent_spaces
from suites.catalog import load_suite, shipped_suites
from suites.errors import SuiteError
from suites.families import family, family_names

if TYPE_CHECKING:
    from analysis.compare import Change, Comparison
    from m3po.bench.doctor import Diagnosis
    from m3po.bench.pack import Packed
    from m3po.bench.tune import TuningOutcome
    from suites.checks import Finding

__all__ = [
    "View",
    "agent_view",
    "comparison_view",
    "doctor_view",
    "inventory_view",
    "plan_view",
    "run_summary",
    "status_view",
    "suite_view",
    "tune_view",
    "validation_view",
]


MOST_ROWS = 300
"""Cells that ``status`` lists one by one."""


@dataclass(frozen=True)
class View:
    """One answer in two forms."""

    data: Any
    text: RenderableType


def run_summary(outcome: Outcome, report: Path | None) -> View:
    """How a run ended, with the reasons of the cells that did not finish."""
    entries = [entry for entry in outcome.folder.entries() if entry.id in outcome.statuses]
    cells = [describe(cell, outcome.statuses[cell.id]) for cell in entries]
    lines = [summary(entries, outcome.statuses, 1) if not outcome.interrupted else _interrupted(outcome)]
    unlucky = [status for status in outcome.statuses.values() if status.state in ("failed", "diverged")]
    lines += [f"{status.state}: {status.id}: {status.message}" for status in unlucky]
    if report is not None:
        lines.append(f"report: {report}")
    return View({"cells": cells, "report": None if report is None else str(report)}, "\n".join(lines))


def _interrupted(outcome: Outcome) -> str:
    states = [status.state for status in outcome.statuses.values()]
    done = states.count("done") + states.count("diverged")
    return f"interrupted: {done} of {len(states)} cells are finished; run the same command again to go on"


def status_view(folder: StudyFolder) -> View:
    """Where every cell stands."""
    entries = folder.entries()
    statuses = folder.statuses(entries, int(folder.record()["budget"]["env_steps"]))
    # of a large grid, only what a reader may have to look after
    shown = [c for c in entries if len(entries) <= MOST_ROWS or statuses[c.id].state not in ("done", "pending")]
    table = cell_table([(cell, statuses[cell.id]) for cell in shown])
    messages = [Text(f"{status.id}: {status.message}") for status in statuses.values() if status.message]
    text = Group(table, *messages, Text(summary(entries, statuses, cores())))
    return View({"cells": [describe(cell, statuses[cell.id]) for cell in entries]}, text)


def pack_view(packed: Packed) -> View:
    """What went into the file, and what did not."""
    left_out = f", {packed.unfinished} unfinished left out" if packed.unfinished else ""
    text = f"{packed.path}: finished cells: {packed.cells}{left_out}; {packed.size / 1e6:.3g} MB"
    return View({**asdict(packed), "path": str(packed.path)}, text)


def plan_view(plan: Plan) -> View:
    """What is done and missing, and what the rest will cost."""
    table = _table(("cell", "state", "env steps", "why"))
    for cell in plan.cells:
        state = Text(cell["state"], style=STYLES[cell["state"]])
        table.add_row(cell["id"], state, f"{cell['env_step']:,} / {cell['env_steps']:,}", cell["message"])
    lines = [f"{plan.suite}: " + ", ".join(f"{count} {state}" for state, count in plan.counts.items())]
    lines += [
        f"{agent}: {speed['mean']:,.0f} env steps/s a cell ({speed['slowest']:,.0f} to {speed['fastest']:,.0f})"
        + (f", {size(plan.memory_mb[agent])} of memory so far" if agent in plan.memory_mb else "")
        for agent, speed in plan.speeds.items()
    ]
    lines.append(f"{plan.env_steps_left:,} env steps left, {plan.jobs} cells at a time: {_cost(plan)}")
    if plan.disk.now:
        at_end = "" if plan.disk.at_end is None else f", about {size(plan.disk.at_end)} at the end at most"
        lines.append(f"{size(plan.disk.now)} of disk so far{at_end}")
    return View(plan.as_json(), Group(table, Text("\n".join(lines))))


def _cost(plan: Plan) -> str:
    found = plan.estimate
    if found.seconds is None:
        return "time unknown, since not every agent has been measured; --measure does it, and keeps what they trained"
    return f"about {duration(found.seconds)} ({duration(found.low)} to {duration(found.high)})"


def validation_view(study: Study) -> View:
    """That a suite is valid, and how much it asks for."""
    suite = study.suite
    data = {"suite": suite.name, "version": suite.version, "tasks": len(study.tasks), "cells": len(study.cells)}
    text = f"{suite.name} (version {suite.version}) is valid: {len(study.tasks)} tasks, {len(study.cells)} cells"
    return View({**data, "valid": True, "warnings": list(study.warnings)}, text)


def doctor_view(diagnosis: Diagnosis) -> View:
    """What every check of every task came to; what is wrong follows in sentences."""
    from m3po.bench.doctor import MIN_EXPERT_SHARE  # with the diagnosis it is there; other commands need none of it

    checks = list(dict.fromkeys(finding.check for one in diagnosis.examinations for finding in one.findings))
    table = _table(("task", "family", "protocol", *checks))
    rows: list[dict[str, Any]] = []
    sentences = []
    for one in diagnosis.examinations:
        marks = {finding.check: _mark(finding) for finding in one.findings}
        row = {"task": one.task.name, "family": one.task.family, "protocol": one.task.protocol.name}
        table.add_row(*row.values(), *(marks.get(check, "–") for check in checks))
        rows.append({**row, "checks": marks, "faults": {finding.check: finding.fault for finding in one.faults}})
        sentences += [f"{one.task.name}: {finding.check}: {finding.fault}" for finding in one.faults]
    warnings = [warning for package in diagnosis.packages if (warning := package.warning) is not None]
    faulty = sum(bool(one.faults) for one in diagnosis.examinations)
    experts = [
        f"experts of {name}: {solved} of {played} evaluation episodes solved ({solved / played:.0%})"
        + (f"; expected {MIN_EXPERT_SHARE:.0%}" if name in diagnosis.weak_experts else "")
        for name, (solved, played) in diagnosis.experts.items()
    ]
    lines = [*sentences, *experts, *(f"warning: {warning}" for warning in warnings), _renderer(diagnosis)]
    in_order = diagnosis.exit_code == 0
    tasks = "1 task" if len(rows) == 1 else f"{len(rows)} tasks"
    lines.append(f"{tasks} in order" if in_order else f"{tasks} examined, {faulty} with faults")
    packages = [vars(package) for package in diagnosis.packages]
    data = {"tasks": rows, "packages": packages, "warnings": warnings, "renderer": diagnosis.renderer}
    data["experts"] = {name: {"solved": s, "played": p} for name, (s, p) in diagnosis.experts.items()}
    return View({**data, "ok": diagnosis.exit_code == 0}, Group(table, Text("\n".join(lines))))


def _mark(finding: Finding) -> str:
    if not finding.applies:
        return "–"
    if finding.solved is not None:
        return "/".join(map(str, finding.solved))
    return "ok" if finding.fault is None else "wrong"


def _renderer(diagnosis: Diagnosis) -> str:
    if diagnosis.renderer is not None:
        return f"renderer: {diagnosis.renderer}"
    wanted = "tasks with images need one" if diagnosis.renderer_missing else "only tasks with images need one"
    return f"renderer: none; {wanted} (Debian: libegl1 or libosmesa6)"


def inventory_view() -> View:
    """Agents, suites and families, with what is wrong with those that cannot be used."""
    agents = [{"name": name, "about": _about_agent(name)} for name in agent_names()]
    suites = [{"name": name, "about": _about_suite(path)} for name, path in shipped_suites().items()]
    families = [{"name": name, "about": _about_family(name)} for name in family_names()]
    data = {"agents": agents, "suites": suites, "families": families}
    table = _table(("kind", "name", "about"))
    for kind, rows in data.items():
        for row in rows:
            table.add_row(kind.removesuffix("s") if kind != "families" else "family", row["name"], row["about"])
    return View(data, table)


def _about_agent(name: str) -> str:
    try:
        return _first_sentence(agent_config(name))
    except RegistryError as error:
        return str(error)


def _about_suite(path: Path) -> str:
    try:
        return load_suite(str(path)).suite.description
    except SuiteError as error:
        return error.messages[0]


def _about_family(name: str) -> str:
    try:
        found = family(name)
    except SuiteError as error:
        return error.messages[0]
    rules = found.default_protocol or "stated by the suite"
    return f"{len(found.tasks())} tasks; sets: {', '.join(found.sets()) or 'none'}; protocol: {rules}"


def agent_view(name: str) -> View:
    """Every field of an agent's configuration: type, default, meaning."""
    config = agent_config(name)
    properties = config.model_json_schema().get("properties", {})
    fields = [
        {
            "field": key,
            "type": _type_name(field.annotation),
            "default": properties[key].get("default"),
            "about": config.about(key),
        }
        for key, field in config.model_fields.items()
    ]
    table = _table(("field", "type", "default", "about"))
    for row in fields:
        table.add_row(row["field"], row["type"], "" if row["default"] is None else str(row["default"]), row["about"])
    presets = {preset: dict(values) for preset, values in config.PRESETS.items()}
    lines = [f"preset {preset}: {_pairs(values) or 'the defaults'}" for preset, values in presets.items()]
    spaces = agent_spaces(name, config)
    lines += [f"search {key}: {space.model_dump_json(exclude_defaults=True)}" for key, space in spaces.items()]
    search = {key: space.model_dump(mode="json") for key, space in spaces.items()}
    data = {"agent": name, "about": _first_sentence(config), "fields": fields, "presets": presets, "search": search}
    return View(data, Group(Text(_first_sentence(config)), table, Text("\n".join(lines))))


def suite_view(study: Study) -> View:
    """A suite with everything resolved."""
    suite = study.suite
    table = _table(("task", "family", "engine", "protocol", "decisions × repeat", "score", "range"))
    for task in (*study.tasks, *study.held_out):
        rule = task.protocol
        name = f"{task.name} (held out)" if task in study.held_out else task.name
        episode, bounds = f"{rule.decisions} × {rule.action_repeat}", f"{rule.low:g} to {rule.high:g}"
        table.add_row(name, task.family, task.engine, rule.name, episode, rule.score, bounds)
    lines = [
        f"{suite.name}, version {suite.version}, {suite.mode}: {suite.description}".rstrip(": "),
        f"budget of a cell: {suite.budget.env_steps:,} env steps in {suite.budget.num_envs} environments; evaluation "
        f"every {suite.evaluation.every:,} env steps, {suite.evaluation.episodes} episodes a task",
    ]
    lines += [f"agent {name}: {_pairs(values) or 'the defaults'}" for name, values in suite.agents.items()]
    lines.append(f"{len(study.cells)} cells, seeds {', '.join(map(str, dict.fromkeys(c.seed for c in study.cells)))}")
    data = {
        "suite": suite.model_dump(mode="json"),
        "tasks": [task.model_dump(mode="json") for task in study.tasks],
        "held_out": [task.model_dump(mode="json") for task in study.held_out],
        "cells": [cell.entry.model_dump(mode="json") for cell in study.cells],
    }
    return View(data, Group(Text(lines[0]), table, Text("\n".join(lines[1:]))))


def tune_view(outcome: TuningOutcome) -> View:
    """The trials of every agent that was tuned, and the best of them."""
    table = _table(("agent", "trial", "state", "score", "values"))
    for one in outcome.found:
        for trial in one.trials:
            score = "" if trial.score is None else f"{trial.score:.4f}"
            table.add_row(one.agent, str(trial.number + 1), trial.state, score, _pairs(trial.values))
    data = {
        "agents": {
            one.agent: {
                "trials": [vars(trial) for trial in one.trials],
                "repeats": one.repeats,
                "best": None if one.best is None else vars(one.best),
                "cost": {"env_steps": one.env_steps, "hours": one.hours},
            }
            for one in outcome.found
        },
        "suite": None if outcome.suite_file is None else str(outcome.suite_file),
    }
    return View(data, Group(table, Text(outcome.sentence)))


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _first_sentence(thing: type) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def comparison_view(comparison: Comparison) -> View:
    """What differs between two studies, and the scores of both."""
    table = Table(title=f"Normalised scores on {len(comparison.tasks)} common tasks, 95 % intervals; * leaves out 0")
    for name in ("agent", "task", "before", "after", "after − before", "after / before", "runs", "env steps of a cell"):
        table.add_column(name, justify="left" if name in ("agent", "task") else "right", overflow="fold")
    for change in comparison.changes:
        table.add_row(*_change_row(change))
    stars = (
        "No star where a side has few runs: single tasks and joint studies need five each. Of rows in which nothing "
        "changed about one in twenty has a star by chance."
    )
    settings = "\n".join(comparison.settings) or "nothing differs in what was asked for"
    data = {
        "settings": list(comparison.settings),
        "tasks": list(comparison.tasks),
        "changes": [asdict(change) | {"apart": change.apart} for change in comparison.changes],
    }
    return View(data, Group(Text(settings), table, Text(stars)))


def _change_row(change: Change) -> list[str]:
    from analysis.wording import interval

    difference, ratio = change.contrast.difference, change.contrast.ratio
    return [
        change.agent,
        change.task or "IQM of all",
        interval(change.before),
        interval(change.after),
        interval(difference) + (" *" if change.apart else ""),
        "" if ratio is None else interval(ratio),
        " → ".join(map(str, change.runs)),
        " → ".join(f"{step:,}" for step in change.env_steps),
    ]

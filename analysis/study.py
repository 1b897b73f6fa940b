"""What a study meant to measure: the types of ``study.json``, checked while reading."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
"""Newest form of the store's files that this version reads."""


class ResultsError(Exception):
    """Results that cannot be read or a report that cannot be written; the message is meant for the user."""


@dataclass(frozen=True)
class Protocol:
    """How an episode was run and scored; ``low`` is normalised to 0 and ``high`` to 1."""

    name: str
    action_repeat: int | None
    decisions: int | None
    """Of an episode. Both are unknown where results came as a table."""
    score: str
    low: float
    high: float

    @property
    def rules(self) -> tuple[str, ...]:
        """All but the name, in words."""
        bounds = f"{self.low:.10g} to {self.high:.10g}"
        return f"action repeat {self.action_repeat}", f"{self.decisions} decisions", self.score, bounds

    def normalise(self, score: Any) -> Any:
        """(score − low) / (high − low), for a number or an array of raw scores."""
        return (score - self.low) / (self.high - self.low)

    def raw(self, normalised: Any) -> Any:
        """The raw score that is normalised to ``normalised``."""
        return self.low + normalised * (self.high - self.low)


@dataclass(frozen=True)
class Task:
    """One task and the protocol it is scored by."""

    name: str
    family: str
    protocol: Protocol
    engine: str = "native"
    """What simulated it."""
    options: str = ""
    """What its environment was asked for beyond that, such as images or hidden goals, as canonical JSON."""

    @property
    def domain(self) -> str:
        """What groups tasks in reports: in the control suite the body that moves, elsewhere the family."""
        return self.name.partition("-")[0] if self.family == "dm_control" else self.family

    @property
    def measure(self) -> tuple[Protocol, str]:
        """Protocol and engine: numbers that differ in either are never drawn as one."""
        return self.protocol, self.engine


@dataclass(frozen=True)
class SweepPoint:
    """One swept value and the agent that has it; ``base`` is what the agents of a sweep have in common."""

    agent: str
    base: str
    value: Any


@dataclass(frozen=True)
class Sweep:
    """Agents that differ in one value only."""

    key: str
    points: tuple[SweepPoint, ...]


@dataclass(frozen=True)
class Tuned:
    """What finding an agent's values by tuning took, on seeds (and perhaps tasks) of its own."""

    agent: str
    suite: str
    """The suite whose agent was tuned."""
    trials: int
    env_steps: int
    hours: float
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    default: float | None
    """Score of the configuration as it stood, where it could be measured."""
    scores: tuple[float, ...]
    """Scores of the trials that were measured."""


@dataclass(frozen=True)
class Setting:
    """One value of an agent's configuration: who set it, and what it means and where its default comes from."""

    agent: str
    field: str
    value: str
    set_by: str
    about: str


@dataclass(frozen=True)
class ExpectedCell:
    """A training run that the suite asks for."""

    id: str
    agent: str
    seed: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """The suite as it was run last: everything that must hold still for numbers to share a figure."""

    suite: str
    version: int
    mode: str
    env_steps: int
    """Budget of one cell, in environment steps."""
    episodes: int
    """Episodes per task and evaluation."""
    agents: tuple[str, ...]
    seeds: tuple[int, ...]
    tasks: tuple[Task, ...]
    """Those that were trained on."""
    cells: tuple[ExpectedCell, ...]
    held_out: tuple[Task, ...] = ()
    """Those that were only evaluated."""
    sweep: Sweep | None = None
    tuned: tuple[Tuned, ...] = ()
    """Agents whose values were found by tuning."""
    settings: tuple[Setting, ...] = ()
    """Of all agents, where known."""

    @property
    def evaluated(self) -> tuple[Task, ...]:
        """All tasks with scores."""
        return (*self.tasks, *self.held_out)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """The distinct protocols, in the order of the tasks."""
        return tuple(dict.fromkeys(task.protocol for task in self.evaluated))

    @property
    def labels(self) -> dict[Protocol, str]:
        """What to call each protocol: its name, and where several have the same, what they differ in."""
        found = {}
        for protocol in self.protocols:
            alike = zip(*(other.rules for other in self.protocols if other.name == protocol.name), strict=True)
            own = [rule for rule, of in zip(protocol.rules, alike, strict=True) if len(set(of)) > 1]
            found[protocol] = f"{protocol.name} ({', '.join(own)})" if own else protocol.name
        return found

    @property
    def measures(self) -> tuple[tuple[Protocol, str], ...]:
        """The distinct pairs of protocol and engine, in the order of the tasks."""
        return tuple(dict.fromkeys(task.measure for task in self.evaluated))

    def task(self, name: str) -> Task:
        return next(task for task in self.evaluated if task.name == name)


class Record:
    """A JSON object read from ``path`` (a file, or a line of it) whose fields are checked when they are asked for.

    Raises :class:`ResultsError` naming the file, the field, what was found and what was expected.
    """

    def __init__(self, content: Any, path: Path | str) -> None:
        if not isinstance(content, Mapping):
            raise ResultsError(f"{path}: expected a JSON object, found {_shown(content)}")
        self.content, self.path = content, path

    @classmethod
    def read(cls, path: Path) -> Record:
        try:
            record = cls(json.loads(path.read_bytes()), path)
        except OSError as error:
            raise ResultsError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError):
            raise ResultsError(f"{path}: is not valid JSON; restore the file, or remove it and run again") from None
        newest = record.content.get("format", FORMAT)
        if newest != FORMAT:
            raise ResultsError(f"{path}: has format {newest!r}, this version reads format {FORMAT}; update m3po-bench")
        return record

    def text(self, key: str) -> str:
        return str(self._typed(key, str, "a text"))

    def integer(self, key: str) -> int:
        return int(self._typed(key, int, "a whole number"))

    def number(self, key: str) -> float:
        value = float(self._typed(key, (int, float), "a number"))
        if not math.isfinite(value):
            raise ResultsError(f"{self.path}: {key!r} is {value}, expected a finite number")
        return value

    def items(self, key: str) -> list[Any]:
        return list(self._typed(key, list, "a list"))

    def records(self, key: str) -> list[Record]:
        return [Record(item, self.path) for item in self.items(key)]

    def integers(self, key: str) -> list[int]:
        return [item.integer(name) for name, item in self._named_items(key)]

    def numbers(self, key: str) -> list[float]:
        return [item.number(name) for name, item in self._named_items(key)]

    def _named_items(self, key: str) -> Iterator[tuple[str, Record]]:
        """Each item of a list as a record of one field, called as it stands in the list: ``seeds[0]``."""
        for index, item in enumerate(self.items(key)):
            yield f"{key}[{index}]", Record({f"{key}[{index}]": item}, self.path)

    def record(self, key: str) -> Record:
        return Record(self._typed(key, Mapping, "an object"), self.path)

    def _typed(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        if key not in self.content:
            raise ResultsError(f"{self.path}: the field {key!r} is missing")
        value = self.content[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ResultsError(f"{self.path}: {key!r} is {_shown(value)}, expected {expected}")
        return value


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def read_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each line of a JSON-lines file, behind where it stands (``file: line 3``); a torn last line is dropped.

    Raises :class:`ResultsError` where the file cannot be read or a line is no JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                yield f"{path}: line {number}", _object(line, f"{path}: line {number}")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror})") from None


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ResultsError(f"{where} is not a JSON object")
    return found


def read_study(folder: Path) -> Study:
    """Read ``study.json`` of a results folder. Raises :class:`ResultsError` where there is none or it is wrong."""
    path = folder / "study.json"
    if not path.is_file():
        raise ResultsError(_no_study(folder))
    record = Record.read(path)
    tasks = tuple(task_of(item) for item in record.records("tasks"))
    study = Study(
        suite=record.text("suite"),
        version=record.integer("version"),
        mode=record.text("mode"),
        env_steps=record.record("budget").integer("env_steps"),
        episodes=record.record("evaluation").integer("episodes"),
        agents=tuple(map(str, record.items("agents"))),
        seeds=tuple(record.integers("seeds")),
        tasks=tasks,
        cells=tuple(_expected_cell(item) for item in record.records("cells")),
        held_out=tuple(task_of(item) for item in record.records("held_out")) if "held_out" in record.content else (),
        sweep=_sweep(record.record("sweep")) if record.content.get("sweep") is not None else None,
        tuned=_tuned(record.record("tuned")) if "tuned" in record.content else (),
        settings=tuple(_settings(record.record("settings"))) if "settings" in record.content else (),
    )
    _check(study, path)
    return study


def task_of(record: Record) -> Task:
    """One entry of a ``tasks`` list, as ``study.json`` and ``cell.json`` hold it."""
    protocol = record.record("protocol")
    low, high = protocol.number("low"), protocol.number("high")
    options = record.record("options").content if "options" in record.content else {}
    if not low < high:
        raise ResultsError(
            f"{record.path}: protocol {protocol.text('name')!r} has low {low:g}, not below high {high:g}"
        )
    return Task(
        name=record.text("name"),
        family=record.text("family"),
        protocol=Protocol(
            name=protocol.text("name"),
            action_repeat=protocol.integer("action_repeat"),
            decisions=protocol.integer("decisions"),
            score=protocol.text("score"),
            low=low,
            high=high,
        ),
        engine=record.text("engine") if "engine" in record.content else "native",
        options=json.dumps(dict(options), sort_keys=True) if options else "",
    )


def _sweep(record: Record) -> Sweep:
    points = tuple(
        SweepPoint(point.text("agent"), point.text("base"), point.content.get("value"))
        for point in record.records("points")
    )
    return Sweep(record.text("key"), points)


def _tuned(record: Record) -> tuple[Tuned, ...]:
    found = []
    for agent in record.content:
        of = record.record(agent)
        found.append(
            Tuned(
                agent=agent,
                suite=of.text("suite"),
                trials=of.integer("trials"),
                env_steps=of.integer("env_steps"),
                hours=of.number("hours"),
                seeds=tuple(of.integers("seeds")),
                tasks=tuple(map(str, of.items("tasks"))),
                default=None if of.content.get("default") is None else of.number("default"),
                scores=tuple(of.numbers("scores")),
            )
        )
    return tuple(found)


def _settings(record: Record) -> Iterator[Setting]:
    for agent in record.content:
        for item in record.records(str(agent)):
            value = item.content.get("value")
            text = value if isinstance(value, str) else json.dumps(value)
            yield Setting(str(agent), item.text("field"), text, item.text("set_by"), item.text("about"))


def _expected_cell(record: Record) -> ExpectedCell:
    identifier = record.text("id")
    # The id becomes a path: it must stay inside the folder.
    if identifier in {"", ".", ".."} or any(character in identifier for character in "/\\\0"):
        raise ResultsError(f"{record.path}: the cell id {identifier!r} is not a folder name")
    return ExpectedCell(
        identifier, record.text("agent"), record.integer("seed"), tuple(map(str, record.items("tasks")))
    )


def _check(study: Study, path: Path) -> None:
    if not study.tasks:
        raise ResultsError(f"{path}: 'tasks' is empty, expected at least one task")
    if study.env_steps < 1:
        raise ResultsError(f"{path}: 'env_steps' of 'budget' is {study.env_steps}, expected a whole number from 1")
    for cell in study.cells:
        unknown = set(cell.tasks) - {task.name for task in study.tasks}
        if unknown:
            raise ResultsError(
                f"{path}: cell {cell.id!r} names tasks that are not in 'tasks': {', '.join(sorted(unknown))}"
            )
        if cell.agent not in study.agents or cell.seed not in study.seeds:
            raise ResultsError(f"{path}: cell {cell.id!r} has an agent or seed that is not in 'agents' or 'seeds'")


def _no_study(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: there is no such folder; expected a study's results, such as results/quick"
    studies = sorted(child.name for child in folder.iterdir() if (child / "study.json").is_file())
    if studies:
        return (
            f"{folder} holds {len(studies)} studies ({', '.join(studies)}); choose one, such as {folder / studies[0]}"
        )
    return f"{folder}: holds no study.json; expected a study's results, such as results/quick"

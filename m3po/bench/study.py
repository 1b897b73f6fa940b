"""From a suite to its cells: units of tasks × agents × seeds, checked as a whole before anything runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from m3po.api import AgentConfig
from m3po.bench.records import Cell, CellEntry, CellStatus
from m3po.bench.store import CellFolder, StoreError, explained, read_json, write_json, write_text
from m3po.bench.sweep import Sweep, Variant, check_sweep, sweep_of, variants
from m3po.registry import RegistryError, agent_config
from m3po.spaces import read_spaces
from suites.catalog import LoadedSuite, load_suite, shipped_suites
from suites.errors import SuiteError, nearest, unknown
from suites.spec import Budget, Stream, Suite, Task
from suites.vector import env_spec

__all__ = [
    "Study",
    "StudyFolder",
    "build_study",
    "check_names",
    "find_study",
    "make_cell",
    "numbered",
    "open_study",
    "to_yaml",
    "tuning_seeds",
    "units_of",
]

Fault: TypeAlias = tuple[tuple[str | int, ...], str]
"""Key path and sentence."""

SEED_OFFSET = 10_000
"""How far the seeds of tuning lie above the suite's, unless it names them."""

HASH_DIGITS = 16
ID_HASH_DIGITS = 8


def check_names(kind: str, named: Sequence[str], known: Sequence[str]) -> None:
    """Raise :class:`SuiteError` for the first of ``named`` that is not ``known``."""
    for name in named:
        if name not in known:
            raise SuiteError(unknown(kind, name, known))


@dataclass(frozen=True)
class Study:
    """A suite and all its cells."""

    suite: Suite
    tasks: tuple[Task, ...]
    """Those that agents train on."""
    held_out: tuple[Task, ...]
    """Those that are only evaluated."""
    units: tuple[tuple[Task, ...], ...]
    """What one agent trains on: all tasks in joint mode, else one task each."""
    entries: tuple[AgentEntry, ...]
    """The agents, those that a sweep makes among them."""
    sweep: Sweep | None
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was chosen for the user, in sentences."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Names shown."""
        return tuple(entry.name for entry in self.entries)

    def chosen(self, agents: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]) -> tuple[Cell, ...]:
        """Cells of the agents, tasks and seeds named, of all where none is; with one of the tasks, in joint mode.

        Raises :class:`SuiteError` for what the study does not have.
        """
        known_seeds = sorted({cell.seed for cell in self.cells})
        check_names("agent", agents, self.agents)
        check_names("task", tasks, [task.name for task in self.tasks])
        check_names("seed", [str(seed) for seed in seeds], [str(seed) for seed in known_seeds])
        return tuple(
            cell
            for cell in self.cells
            if (not agents or cell.agent in agents)
            and (not tasks or any(task.name in tasks for task in cell.tasks))
            and (not seeds or cell.seed in seeds)
        )


@dataclass(frozen=True)
class AgentEntry:
    """One agent of a suite: the name shown, the implementation, its configuration."""

    name: str
    agent_type: str
    config: AgentConfig
    budget: Budget

    def settings(self) -> Iterator[dict[str, Any]]:
        """Each field's value, who set it (``default``, ``preset …`` or ``suite``), and its meaning and origin."""
        config, values = self.config, self.config.model_dump(mode="json")
        preset = TypeAdapter(Any).dump_python(config.PRESETS[config.preset], mode="json")
        for name in type(config).model_fields:
            by = "default"
            if name in config.model_fields_set:
                by = f"preset {config.preset}" if preset.get(name, ...) == values[name] else "suite"
            yield {"field": name, "value": values[name], "set_by": by, "about": config.about(name)}


def open_study(source: str, overrides: Sequence[str] = ()) -> Study:
    """Load a suite and build its cells. Raises :class:`SuiteError` with everything that is wrong in one pass."""

    def faults(name: str, values: Mapping[str, Any]) -> list[Fault]:
        entry = read_agent(name, values, Budget(env_steps=1))
        return entry if isinstance(entry, list) else []

    return build_study(load_suite(source, overrides, faults))


def build_study(loaded: LoadedSuite) -> Study:
    """The cells of a suite. Raises :class:`SuiteError` with everything that is wrong, each with its position.

    No environment is made and no agent imported.
    """
    checker = _Checker(loaded)
    seeds = checker.seeds()
    units = checker.units()
    entries = checker.agents(units)
    checker.tuning()
    if checker.errors:
        raise SuiteError(checker.errors)
    cells = tuple(
        make_cell(loaded.suite, unit, entry, seed, held_out=loaded.held_out)
        for seed in seeds
        for unit in units
        for entry in entries
    )
    return Study(
        suite=loaded.suite,
        tasks=loaded.tasks,
        held_out=loaded.held_out,
        units=units,
        entries=tuple(entries),
        sweep=sweep_of(loaded.suite),
        cells=cells,
        warnings=tuple(checker.warnings),
        notes=loaded.notes,
    )


def make_cell(
    suite: Suite,
    tasks: tuple[Task, ...],
    entry: AgentEntry,
    seed: int,
    stream: Stream = "train",
    held_out: tuple[Task, ...] = (),
) -> Cell:
    """A cell with its id. Equal cells have equal ids; whatever of the configuration moves a result moves the id."""
    agent, agent_type, config = entry.name, entry.agent_type, entry.config
    meaning = {
        "suite_version": suite.version,
        "agent_type": agent_type,
        "config": config.model_dump(mode="json"),
        "mode": suite.mode,
        "tasks": [task.model_dump(mode="json") for task in tasks],
        "held_out": [task.model_dump(mode="json") for task in held_out],
        "budget": entry.budget.model_dump(mode="json"),
        "evaluation": suite.evaluation.model_dump(mode="json"),
        "stream": stream,
    }
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]
    unit = "joint" if suite.mode == "joint" else tasks[0].name
    identity = {"id": f"{unit}.{agent}.s{seed}.{digest[:ID_HASH_DIGITS]}", "suite": suite.name, "agent": agent}
    return Cell.model_validate({**meaning, **identity, "seed": seed, "config_hash": digest})


def units_of(suite: Suite, tasks: tuple[Task, ...]) -> tuple[tuple[Task, ...], ...]:
    """What one agent trains on: all ``tasks`` in joint mode, else one each."""
    return (tasks,) if suite.mode == "joint" else tuple((task,) for task in tasks)


def tuning_seeds(suite: Suite) -> tuple[int, ...]:
    """The seeds of a trial's cells, each once; on the stream ``tune`` they share no episode with the suite's."""
    declared = None if suite.tuning is None else suite.tuning.seeds
    if declared is None:
        return tuple(seed + SEED_OFFSET for seed in numbered(suite.seeds))
    if isinstance(declared, int):
        return tuple(range(SEED_OFFSET, SEED_OFFSET + declared))
    return tuple(dict.fromkeys(declared))


def numbered(seeds: int | tuple[int, ...]) -> tuple[int, ...]:
    """Seeds as a suite gives them, each once."""
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds))


@dataclass
class _Checker:
    """Collects all that is wrong with a suite in one pass."""

    loaded: LoadedSuite
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def seeds(self) -> tuple[int, ...]:
        """The seeds, each once."""
        declared = self.loaded.suite.seeds
        listed = () if isinstance(declared, int) else declared
        for seed in sorted({seed for seed in listed if listed.count(seed) > 1}):
            self.warnings.append(f"{self._where(('seeds',))}: seed {seed} is listed more than once; it runs once")
        return numbered(declared)

    def units(self) -> tuple[tuple[Task, ...], ...]:
        """The units of tasks."""
        return units_of(self.loaded.suite, self.loaded.tasks)

    def agents(self, units: Sequence[tuple[Task, ...]]) -> list[AgentEntry]:
        """The agents whose configuration is valid and can work with every unit."""
        entries: list[AgentEntry] = []
        names: set[str] = set()
        for variant in self._variants():
            if variant.name in names:
                self._error(variant.place, f"{variant.name!r} names two agents; rename one, or change a swept value")
                continue
            names.add(variant.name)
            entry = read_agent(variant.agent, variant.values, variant.budget)
            if isinstance(entry, AgentEntry):
                entry = replace(entry, name=variant.name)
                entries.append(entry)
                self._check_works(entry, units, variant.place)
                continue
            for path, sentence in entry:
                place = variant.place if variant.name != variant.agent else ("agents", *path)
                self._error(place, sentence)
        return entries

    def _variants(self) -> list[Variant]:
        """The agents of the suite, each as often as its sweep asks for."""
        suite, tasks = self.loaded.suite, self.loaded.tasks
        fewest = len(tasks) if suite.mode == "joint" else 1
        possible = {}
        for key, values in suite.sweep.items():
            try:
                check_sweep(suite, key, values, fewest)
                possible[key] = values
            except SuiteError as error:
                self._error(("sweep", key), str(error))
        return variants(suite.model_copy(update={"sweep": possible}))

    def tuning(self) -> None:
        """Check the sections ``tune``, ``tuning`` and ``tuned``: spaces that fit, seeds that no evaluation uses."""
        suite = self.loaded.suite
        for name, declared in suite.tune.items():
            if name not in suite.agents:
                self._error(("tune", name), unknown("agent", name, suite.agents))
                continue
            try:
                config_class = agent_config(str(suite.agents[name].get("agent", name)))
            except RegistryError:
                continue  # said where the agent is declared
            for path, sentence in read_spaces(name, config_class, declared)[1]:
                self._error(("tune", name, *path), sentence)
        if suite.tuning is not None:
            self._check_unused(("tuning", "seeds"), "tuning seeds", tuning_seeds(suite))
        for name, origin in suite.tuned.items():
            if name not in suite.agents:
                self._error(("tuned", name), unknown("agent", name, suite.agents))
            self._check_unused(("tuned", name, "seeds"), f"agent {name!r} was tuned on seeds", origin.seeds)

    def _check_unused(self, place: tuple[str | int, ...], what: str, seeds: Sequence[int]) -> None:
        """Seeds of tuning must not be those that judge what it found."""
        if common := sorted(set(seeds) & set(numbered(self.loaded.suite.seeds))):
            shown = ", ".join(map(str, common))
            self._error(
                place, f"{what}: {shown} judge the agents of this suite too; expected seeds that it does not use"
            )

    def _check_works(self, entry: AgentEntry, units: Sequence[tuple[Task, ...]], place: tuple[str | int, ...]) -> None:
        sentences: list[str] = []
        for unit in units:
            try:
                env_spec((*unit, *self.loaded.held_out))  # what the agent will be made for
                spec = env_spec(unit)
            except SuiteError as error:
                self._error(("tasks",), str(error))
                return
            sentences += entry.config.check(spec, entry.budget.num_envs, entry.budget.env_steps)
        for sentence in dict.fromkeys(sentences):
            self._error(place, f"agent {entry.name!r} cannot work: {sentence}")

    def _error(self, key_path: tuple[str | int, ...], sentence: str) -> None:
        self.errors.append(f"{self._where(key_path)}: {sentence}")

    def _where(self, key_path: tuple[str | int, ...]) -> str:
        return self.loaded.where(key_path)


def read_agent(name: str, values: Mapping[str, Any], budget: Budget) -> AgentEntry | list[Fault]:
    """An entry of the suite's section ``agents``, or all that is wrong with it, with key paths below ``agents``."""
    agent_type = str(values.get("agent", name))
    try:
        config_class = agent_config(agent_type)
    except RegistryError as error:
        return [((name, "agent") if "agent" in values else (name,), str(error))]
    try:
        config = config_class.model_validate({key: value for key, value in values.items() if key != "agent"})
    except ValidationError as error:
        return [((name, *fault["loc"]), _sentence(config_class, agent_type, fault)) for fault in error.errors()]
    return AgentEntry(name, agent_type, config, budget)


def _sentence(config_class: type[AgentConfig], agent_type: str, fault: Mapping[str, Any]) -> str:
    """What is wrong with one field of a configuration, for the user."""
    key = ".".join(map(str, fault["loc"]))
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return unknown(f"{agent_type} key", key, config_class.model_fields)
    if not key:
        return f"agent {agent_type!r}: {message}"
    return f"{key!r} of agent {agent_type!r} is {fault['input']!r}: {message[:1].lower()}{message[1:]}"


@dataclass(frozen=True)
class StudyFolder:
    """``results/<suite>``: the resolved suite, what cells it asks for, and their folders."""

    path: Path

    def create(self, study: Study, provenance: Mapping[str, Any]) -> list[CellFolder]:
        """Write down what is to be run; returns the folders of all cells. Raises :class:`StoreError`."""
        with explained("create", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "suite.yaml", to_yaml(study.suite.model_dump(mode="json", exclude_none=True)))
        write_json(self.path / "study.json", _record(study))
        write_json(self.path / "provenance.json", dict(provenance))
        folders = []
        for cell in study.cells:
            folder = CellFolder(self.path / cell.id)
            folder.create(cell.model_copy(update={"provenance": provenance}))
            folders.append(folder)
        return folders

    def record(self) -> dict[str, Any]:
        """``study.json``. Raises :class:`StoreError` where this is no study's folder."""
        path = self.path / "study.json"
        if not path.exists():
            raise StoreError(f"{self.path} is not the results folder of a study (it has no study.json)")
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != 1:
            raise StoreError(f"{path} cannot be understood; it is damaged or of another version")
        return record

    def entries(self) -> list[CellEntry]:
        """The cells the suite asked for when it was run last. Raises :class:`StoreError`."""
        try:
            return [CellEntry.model_validate(cell) for cell in self.record()["cells"]]
        except (KeyError, ValidationError) as error:
            raise StoreError(f"{self.path / 'study.json'} cannot be understood; run the suite again") from error

    def statuses(self, cells: Iterable[CellEntry], env_steps: int) -> dict[str, CellStatus]:
        """Where each cell stands; ``env_steps`` is the budget of cells that have not begun."""
        return {cell.id: CellFolder(self.path / cell.id).live_status(env_steps) for cell in cells}


def find_study(source: str, results: Path) -> StudyFolder:
    """The results folder that ``source`` names: a folder itself, or that of a suite given by path or name.

    Raises :class:`StoreError` where there are no results, or the folder holds several studies.
    """
    path = Path(source)
    if not os.path.isdir(path):  # unlike Path's, false for what cannot be a path
        if ".csv" in path.suffixes:
            there = "a table, which only m3po-bench report reads" if os.path.isfile(path) else "no such file"
            raise StoreError(f"{source}: {there}; {_studies_in(results)}")
        if not os.path.isfile(path) and source not in shipped_suites():
            match = nearest(source, shipped_suites())
            hint = f" (nearest: {match!r})" if match else ""
            raise StoreError(f"{source}: no such folder, and no suite{hint}; {_studies_in(results)}")
        suite = load_suite(source).suite.name
        if not (results / suite / "study.json").exists():
            raise StoreError(
                f"suite {suite!r} has no results in {results}; run it first, or name the folder with --results"
            )
        return StudyFolder(results / suite)
    if (path / "study.json").exists():
        return StudyFolder(path)
    studies = sorted(child.parent for child in path.glob("*/study.json"))
    if len(studies) == 1:
        return StudyFolder(studies[0])
    found = f"those of several studies ({', '.join(study.name for study in studies)}); name one" if studies else "none"
    raise StoreError(f"{path} should hold the results of a study, but holds {found}")


def _studies_in(results: Path) -> str:
    """Which studies there are to name, for who named none of them."""
    found = [str(path.parent) for path in sorted(results.glob("*/study.json"))]
    if not found:
        return f"there are no studies in {results} either; run a suite first, or name the folder of a study"
    return f"name the folder of a study ({', '.join(found)}), a suite file or a shipped suite with results"


def to_yaml(document: Mapping[str, Any]) -> str:
    """A YAML 1.2 document of plain values, keys in their order."""
    text = io.StringIO()
    yaml = YAML()  # the round-trip dumper keeps the order of keys
    yaml.dump(dict(document), text)
    return text.getvalue()


def _record(study: Study) -> dict[str, Any]:
    suite = study.suite
    return {
        "format": 1,
        "suite": suite.name,
        "version": suite.version,
        "mode": suite.mode,
        "budget": suite.budget.model_dump(mode="json"),
        "evaluation": suite.evaluation.model_dump(mode="json"),
        "agents": list(study.agents),
        "settings": {entry.name: list(entry.settings()) for entry in study.entries},
        "sweep": None if study.sweep is None else study.sweep.as_json(),
        "seeds": list(dict.fromkeys(cell.seed for cell in study.cells)),
        "tasks": [task.model_dump(mode="json") for task in study.tasks],
        "held_out": [task.model_dump(mode="json") for task in study.held_out],
        "tuned": {name: origin.model_dump(mode="json") for name, origin in suite.tuned.items()},
        "cells": [cell.entry.model_dump(mode="json") for cell in study.cells],
    }

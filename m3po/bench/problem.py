"""What is searched: the space, the cells of a trial, and all that must hold still for trials to be comparable."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from m3po.api import AgentConfig, SearchSpace
from m3po.bench.records import Cell
from m3po.bench.store import StoreError, read_json, write_json
from m3po.bench.study import AgentEntry, build_study, make_cell, numbered, tuning_seeds, units_of
from m3po.registry import agent_config
from m3po.spaces import FILE, agent_spaces, read_spaces
from suites.catalog import LoadedSuite
from suites.errors import SuiteError, unknown
from suites.spec import Budget, Suite, Task, Tuning
from suites.vector import env_spec

__all__ = ["Problem", "claim", "label"]


@dataclass(frozen=True)
class Problem:
    """What every trial shares."""

    suite: Suite
    """With the budget and the evaluation of a tuning cell."""
    settings: Tuning
    units: tuple[tuple[Task, ...], ...]
    """What a trial trains on."""
    final_units: tuple[tuple[Task, ...], ...]
    final_budget: Budget
    """What the best configuration will train on and for how long: it has to work there too."""
    agent: str
    agent_type: str
    values: Mapping[str, Any]
    config_class: type[AgentConfig]
    space: Mapping[str, SearchSpace]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, loaded: LoadedSuite, agent: str, settings: Tuning) -> Problem:
        """The problem of tuning ``agent`` as ``settings`` say. Raises :class:`SuiteError`."""
        build_study(loaded)
        suite = loaded.suite.model_copy(update={"tuning": settings})
        if agent not in suite.agents:
            raise SuiteError(f"{loaded.path}: {unknown('agent', agent, suite.agents)}")
        values = dict(suite.agents[agent])
        agent_type = str(values.pop("agent", agent))
        space = _space(suite, agent, agent_type)
        if not space:
            raise SuiteError(
                f"{loaded.path}: agent {agent!r} names nothing to search; add tune: {{{agent}: {{FIELD: {{low: 1e-5, "
                f"high: 1e-2, log: true}}}}}} with fields of its own (m3po-bench show agent {agent_type}), or {FILE} "
                "beside its configuration; or name other agents with --agent"
            )
        if swept := sorted({f"agents.{agent}.{name}" for name in space} & set(suite.sweep)):
            raise SuiteError(
                f"{loaded.where(('sweep', swept[0]))}: the suite sweeps {swept[0]}, and tuning would search it: "
                "what it found would be lost; tune a suite without this sweep, or say under tune what else to search"
            )
        cell = {
            "budget": suite.budget.model_copy(update={"env_steps": settings.env_steps or suite.budget.env_steps}),
            "evaluation": settings.evaluation or suite.evaluation,
        }
        units = units_of(suite, loaded.tuning or loaded.tasks)
        config_class = agent_config(agent_type)
        problem = cls(
            suite.model_copy(update=cell),
            settings,
            units,
            units_of(suite, loaded.tasks),
            suite.budget,
            agent,
            agent_type,
            values,
            config_class,
            space,
            _seeds(loaded, suite),
        )
        total, one = settings.total_env_steps, problem.num_cells * problem.suite.budget.env_steps
        if total is not None and total < one:
            raise SuiteError(
                f"tuning: total_env_steps ({total}) are less than one trial of {agent} takes ({one}: "
                f"{problem.num_cells} cells of {problem.suite.budget.env_steps}); raise them, or lower env_steps, "
                "seeds or tasks"
            )
        try:
            problem.cells({})
        except ValueError as error:
            raise SuiteError(
                f"{loaded.where(('agents', agent))}: agent {agent!r} cannot work as it stands in a trial of "
                f"{problem.suite.budget.env_steps} env steps: {error}"
            ) from error
        return problem

    def cells(self, values: Mapping[str, Any]) -> list[Cell]:
        """The cells of one trial. Raises ``ValueError`` with a sentence where this configuration cannot work."""
        try:
            config = self.config_class.model_validate({**self.values, **values})
        except ValidationError as error:
            raise ValueError(
                "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
            ) from error
        budget = self.suite.budget
        places = (("", self.units, budget), ("in the suite itself ", self.final_units, self.final_budget))
        for where, units, of in places:
            for unit in units:
                if sentences := config.check(env_spec(unit), of.num_envs, of.env_steps):
                    raise ValueError(where + "; ".join(sentences))
        entry = AgentEntry(self.agent, self.agent_type, config, budget)
        return [make_cell(self.suite, unit, entry, seed, stream="tune") for seed in self.seeds for unit in self.units]

    def defaults(self) -> dict[str, Any]:
        """Values of the searched fields as they stand, where the search space contains them."""
        config = self.config_class.model_validate(dict(self.values))
        found = {name: getattr(config, name) for name in self.space}
        return {name: value for name, value in found.items() if _contains(self.space[name], value)}

    def hopeless(self) -> list[tuple[str, Any, str]]:
        """Choices and ends of ranges that cannot work while everything else is as it stands, and why not."""
        found = []
        for name, space in self.space.items():
            ends = (space.low, space.high) if space.choices is None else space.choices
            for value in (int(end) if space.integer and end is not None else end for end in ends):
                try:
                    self.cells({name: value})
                except ValueError as error:
                    found.append((name, value, str(error)))
        return found

    @property
    def num_cells(self) -> int:
        """Cells of one trial."""
        return len(self.units) * len(self.seeds)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Environment steps at which a trial is looked at, the whole budget last; just that without a pruner of curves.

        Raises :class:`SuiteError` where the budget has no room for them.
        """
        whole, every = self.suite.budget.env_steps, self.suite.evaluation.every
        if self.settings.pruner in ("none", "wilcoxon"):
            return (whole,)
        factor, number = self.settings.reduction_factor, self.settings.rungs
        shares = [whole / factor ** (number - 1 - rung) for rung in range(number - 1)]
        found = (*(-int(-share // every) * every for share in shares), whole)  # up to a whole number of evaluations
        if list(found) != sorted(set(found)):
            raise SuiteError(
                f"tuning: {number} rungs of {', '.join(map(str, found))} environment steps, each at an evaluation, do "
                f"not grow; lower rungs or evaluation.every ({every}), or raise the budget of a cell ({whole})"
            )
        return found

    def meaning(self) -> dict[str, Any]:
        """All that must hold still for trials to be comparable, as JSON values."""
        how = {"objectives", "sampler", "pruner", "rungs", "reduction_factor"}
        return {
            "suite": self.suite.name,
            "suite_version": self.suite.version,
            "mode": self.suite.mode,
            "agent": self.agent,
            "agent_type": self.agent_type,
            "values": dict(self.values),
            "configuration": self.config_class.model_validate(dict(self.values)).model_dump(mode="json"),
            "space": {name: space.model_dump(mode="json") for name, space in self.space.items()},
            "budget": self.suite.budget.model_dump(mode="json"),
            "evaluation": self.suite.evaluation.model_dump(mode="json"),
            "tasks": [[task.model_dump(mode="json") for task in unit] for unit in self.units],
            "seeds": list(self.seeds),
            "search": self.settings.model_dump(mode="json", include=how),
        }


def claim(folder: Path, problem: Problem, storage: Literal["journal", "database"]) -> str:
    """Write down what is searched and where its trials are; returns an identifier that no other search has.

    Raises :class:`StoreError` where earlier trials searched something else.
    """
    path = folder / "tuning.json"
    meaning = {"format": 2, **problem.meaning(), "storage": storage}
    if not path.exists():
        write_json(path, {**meaning, "id": secrets.token_hex(4)})
    found = read_json(path)
    differing = sorted(key for key in meaning if found.get(key) != meaning[key])
    if differing:
        raise StoreError(
            f"the trials in {folder} were made with other {', '.join(differing)}; "
            "restore them, or move that folder away to start anew"
        )
    return str(found["id"])


def label(value: Any) -> Any:
    """A value as Optuna may store it: lists become text."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def searchable(suite: Suite) -> tuple[str, ...]:
    """Agents that name something to search; a floor such as ``random`` has nothing that could be set."""
    return tuple(
        agent for agent, values in suite.agents.items() if _space(suite, agent, str(values.get("agent", agent)))
    )


def _space(suite: Suite, agent: str, agent_type: str) -> Mapping[str, SearchSpace]:
    """What tuning varies: the suite's section ``tune`` for this agent, else what comes with it."""
    if agent in suite.tune:
        return read_spaces(agent, agent_config(agent_type), suite.tune[agent])[0]
    return agent_spaces(agent_type, agent_config(agent_type))


def _seeds(loaded: LoadedSuite, suite: Suite) -> tuple[int, ...]:
    seeds = tuning_seeds(suite)
    if common := sorted(set(seeds) & set(numbered(suite.seeds))):
        raise SuiteError(
            f"{loaded.where(('seeds',))}: tuning would use seeds of the suite ({', '.join(map(str, common))}); "
            "name others with tuning: {seeds: [...]}"
        )
    return seeds


def _contains(space: SearchSpace, value: Any) -> bool:
    if space.choices is not None:
        return label(value) in map(label, space.choices)
    low, high = space.low, space.high
    if not isinstance(value, int | float) or low is None or high is None:
        return False
    return low <= value <= high and (not space.integer or float(value).is_integer())

"""Sweeps: one agent of a suite becomes several, which differ in what is swept."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from suites.errors import SuiteError, unknown
from suites.spec import Budget, Suite

__all__ = ["Point", "Sweep", "Variant", "check_sweep", "sweep_of", "variants"]

NUM_ENVS = "budget.num_envs"


@dataclass(frozen=True)
class Variant:
    """An agent of the suite with the values a sweep gives it."""

    name: str
    """Shown: ``m3po-num_envs-8``; the agent's own where nothing is swept."""
    agent: str
    values: Mapping[str, Any]
    budget: Budget
    place: tuple[str | int, ...]
    """Key path of what makes it what it is."""


@dataclass(frozen=True)
class Point:
    """One value of a swept key and the agent that has it."""

    agent: str
    base: str
    """Name the agent has in the suite."""
    value: Any


@dataclass(frozen=True)
class Sweep:
    """What a figure against the swept values needs."""

    key: str
    """Last part of the key: ``num_envs``."""
    points: tuple[Point, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def check_sweep(suite: Suite, key: str, values: Sequence[Any], fewest_envs: int) -> None:
    """Raise :class:`SuiteError` where ``key`` cannot be swept or a value is none of it. Fields are checked later."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise SuiteError(f"sweep {key}: the value {value!r} is listed twice")
    if key == NUM_ENVS:
        wrong = [value for value in values if not isinstance(value, int) or value < fewest_envs]
        if wrong:
            raise SuiteError(f"sweep {key}: found {wrong[0]!r}; expected whole numbers from {fewest_envs} on")
        return
    parts = key.split(".")
    if len(parts) != 3 or parts[0] != "agents":
        raise SuiteError(f"sweep {key}: only {NUM_ENVS} and agents.<name>.<field> can be swept")
    if parts[1] not in suite.agents:
        raise SuiteError(f"sweep {key}: {unknown('agent', parts[1], suite.agents)}")


def variants(suite: Suite) -> list[Variant]:
    """Every agent of ``suite`` with every combination of the swept values that concern it."""
    found = []
    for agent, values in suite.agents.items():
        keys = [key for key in suite.sweep if _concerns(key, agent)]
        place: tuple[str | int, ...] = ("sweep", keys[0]) if keys else ("agents", agent)
        for chosen in itertools.product(*(suite.sweep[key] for key in keys)):
            swept = dict(zip(keys, chosen, strict=True))
            num_envs = swept.pop(NUM_ENVS, suite.budget.num_envs)
            fields = {key.rpartition(".")[2]: value for key, value in swept.items()}
            budget = suite.budget.model_copy(update={"num_envs": num_envs})
            found.append(Variant(_name(agent, keys, chosen), agent, {**values, **fields}, budget, place))
    return found


def sweep_of(suite: Suite) -> Sweep | None:
    """The sweep of a suite with exactly one swept key; several span no axis."""
    if len(suite.sweep) != 1:
        return None
    ((key, values),) = suite.sweep.items()
    agents = [agent for agent in suite.agents if _concerns(key, agent)]
    points = tuple(Point(_name(agent, [key], [value]), agent, value) for agent in agents for value in values)
    return Sweep(key.rpartition(".")[2], points)


def _concerns(key: str, agent: str) -> bool:
    return key == NUM_ENVS or key.split(".")[1] == agent


def _name(agent: str, keys: Sequence[str], values: Sequence[Any]) -> str:
    parts = [f"{key.rpartition('.')[2]}-{_text(value)}" for key, value in zip(keys, values, strict=True)]
    return "-".join([agent, *parts])


def _text(value: Any) -> str:
    """A value as a part of a name, which is a folder's too."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(value).lower() if isinstance(value, bool) else str(value))

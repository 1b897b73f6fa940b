"""Agents by name, found through entry points, ours like everybody else's.

A package offers an agent by two entry points of the same name: ``m3po.agents`` names the class (which may import
torch), ``m3po.configs`` names its configuration alone, so that a suite is checked without importing torch. The second
is optional: without it the agent's own ``Config`` is used.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from m3po.api import Agent, AgentConfig
from suites.errors import unknown

__all__ = ["RegistryError", "agent_class", "agent_config", "agent_names", "agent_offer"]

AGENTS = "m3po.agents"
CONFIGS = "m3po.configs"


class RegistryError(Exception):
    """An agent that is unknown, offered twice, or cannot be imported; the message says which and why."""


def agent_names() -> tuple[str, ...]:
    """Names of all agents offered by installed packages, sorted. Nothing is imported."""
    return tuple(sorted({point.name for point in entry_points(group=AGENTS)}))


def agent_offer(name: str) -> EntryPoint:
    """Where the agent called ``name`` comes from. Raises :class:`RegistryError`. Nothing is imported."""
    return _find(AGENTS, name)


def agent_class(name: str) -> type[Agent]:
    """The agent called ``name``. Raises :class:`RegistryError`."""
    loaded = _load(_find(AGENTS, name), "agent")
    missing = [
        method for method in ("Config", "act", "observe", "update", "save", "load") if not hasattr(loaded, method)
    ]
    if missing:
        raise RegistryError(f"agent {name!r} is not an agent: {_label(loaded)} has no {', '.join(missing)}")
    agent: type[Agent] = loaded
    return agent


def agent_config(name: str) -> type[AgentConfig]:
    """The configuration of the agent called ``name``, without importing the agent where its package allows it."""
    if name not in agent_names():
        raise RegistryError(unknown("agent", name, agent_names()))
    offered = [point for point in entry_points(group=CONFIGS) if point.name == name]
    config = _load(_find(CONFIGS, name), "configuration of agent") if offered else agent_class(name).Config
    if not (isinstance(config, type) and issubclass(config, AgentConfig)):
        raise RegistryError(f"configuration of agent {name!r}: {_label(config)} is not an AgentConfig")
    return config


def _find(group: str, name: str) -> EntryPoint:
    """The one entry point of this name; the same one seen twice (a package on the path twice) is no clash."""
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    if not points:
        raise RegistryError(unknown("agent", name, agent_names()))
    if len(points) > 1:
        owners = ", ".join(sorted(f"{point.value} from {_owner(point)}" for point in points.values()))
        raise RegistryError(f"agent {name!r} is offered more than once ({owners}); uninstall or rename one of them")
    return next(iter(points.values()))


def _load(point: EntryPoint, kind: str) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a plugin may fail in any way; it must not take the others down
        reason = f"{type(error).__name__}: {error}"
        raise RegistryError(f"{kind} {point.name!r} of {_owner(point)} cannot be imported: {reason}") from error


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _label(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', repr(thing))}"

"""Environment families: what one must offer, and how it is found.

A family is a class named in the entry-point group ``m3po.families``; ours are found the same way as anybody's::

    [project.entry-points."m3po.families"]
    my_family = "my_package.family:MyFamily"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from suites.errors import SuiteError, unknown
from suites.seeding import EpisodeSeed
from suites.spec import Task, TaskSpaces

GROUP = "m3po.families"


class TaskEnv(Protocol):
    """One environment playing one task. Does action repeat and the time limit of the task's protocol itself."""

    @property
    def spaces(self) -> TaskSpaces:
        """Of this task, as the family says them too."""
        ...

    def reset(self, seed: EpisodeSeed) -> NDArray[Any]:
        """Start the episode that ``seed`` names; returns its first observation.

        A pure function: the observation, and all that follows from given actions, is bit-equal whether this object
        is new or has lived through other episodes. Resuming a run relies on it.
        """
        ...

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[Any], float, bool, bool, bool | None]:
        """Take one decision, ``action`` ``[A]`` in [-1, 1].

        Returns the observation, the summed reward, terminated, truncated, and success after the decision's last
        environment step (``None`` where the task has no such notion).
        """
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """An environment that can be looked at."""

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """What a spectator sees now, uint8 ``[height, width, 3]``. Raises :class:`EnvError` without a renderer."""
        ...


@runtime_checkable
class Family(Protocol):
    """A family of tasks that share an engine and a default protocol."""

    name: str
    default_protocol: str
    """Name of the protocol of tasks that state none; empty where each must state one."""
    has_success: bool
    """Whether its environments report success."""

    def tasks(self) -> Sequence[str]:
        """Names of all tasks. Cheap: no engine is imported."""
        ...

    def sets(self) -> Mapping[str, Sequence[str]]:
        """Named sets of tasks. Cheap."""
        ...

    def spaces(self, task: Task) -> TaskSpaces:
        """Of a task, without building its environment where that is possible. Raises :class:`SuiteError`."""
        ...

    def make(self, task: Task) -> TaskEnv:
        """Build the environment of a task."""
        ...


def takes_any_name(found: Family) -> bool:
    """Whether tasks may have names that ``tasks()`` does not list: a family says so with ``any_name = True``.

    Its ``spaces`` then tells of every task whether it can be had.
    """
    return getattr(found, "any_name", False) is True


def make_pictured(task: Task) -> TaskEnv:
    """The environment of a task, to be looked at where it can be: then it is :class:`Pictured`.

    A family whose environments must know of it beforehand has a ``make_pictured`` beside ``make``.
    """
    found = family(task.family)
    env: TaskEnv = getattr(found, "make_pictured", found.make)(task)
    return env


def family_names() -> tuple[str, ...]:
    """Names of all installed families, broken ones too."""
    return tuple(sorted(_found()))


@cache
def family(name: str) -> Family:
    """The installed family called ``name``.

    Raises :class:`SuiteError` when it is unknown, given by two packages, or cannot be loaded (with the reason). The
    other families still work then.
    """
    found = _found()
    if name not in found:
        raise SuiteError(unknown("family", name, found))
    origins = {point.value: point for point in found[name]}
    if len(origins) > 1:
        givers = " and ".join(_origin(point) for point in origins.values())
        raise SuiteError(f"family {name!r} is given twice, by {givers}; uninstall one of them")
    (point,) = origins.values()
    try:
        loaded = point.load()()
    except Exception as error:  # a plugin may fail in any way; the user needs its name and the reason
        reason = f"{type(error).__name__}: {error}"
        raise SuiteError(f"family {name!r} from {_origin(point)} cannot be loaded ({reason})") from error
    if not isinstance(loaded, Family):
        raise SuiteError(f"family {name!r} from {_origin(point)} lacks part of the Family protocol of suites.families")
    return loaded


def spaces(task: Task) -> TaskSpaces:
    """The spaces of a task, from its family."""
    return family(task.family).spaces(task)


@cache
def installed_version(package: str) -> str | None:
    """The version of ``package`` that is installed; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _found() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _origin(point: EntryPoint) -> str:
    package = f"package {point.dist.name}" if point.dist else "an unknown package"
    return f"{package} ({point.value})"

"""Whether a task's environment keeps its promises: each check plays it and says in a sentence what is wrong.

The checks know the contract of :mod:`suites.families` and no simulator. What only a family knows it may offer through
:class:`HasExpert` (somebody who solves its tasks) and :class:`ShowsControl` (what its simulator was really given).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from suites.errors import SuiteError
from suites.families import Family, TaskEnv
from suites.seeding import EpisodeSeed
from suites.spec import Stream, Task

COMPARED = 100
"""Decisions of an episode that are compared or looked at."""

EPISODES = 5
"""Episodes of a run that are compared with those of another."""

BEGINNING = 10
"""Decisions by which two different episodes show that they are."""

MIN_SUCCESS = 0.8
"""Share of its episodes that an expert has to solve. Meta-World's own are not perfect: in 50 goals soccer's solves 42
and peg-insert-side's 44, in the package's environments as in ours."""

Policy: TypeAlias = Callable[[NDArray[Any]], NDArray[np.float32]]
"""From an observation ``[D]`` to an action ``[A]`` in [-1, 1]."""


@runtime_checkable
class HasExpert(Protocol):
    """A family that knows how its tasks are solved."""

    def expert(self, task: Task) -> Policy | None:
        """A policy for one episode after another; ``None`` where there is none for this task."""
        ...


@runtime_checkable
class ShowsControl(Protocol):
    """An environment that shows what its simulator was given."""

    def control(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The simulator's lower and upper bounds and the last action it was given, ``[A]`` each, in its own units."""
        ...


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    check: str
    fault: str | None
    """What is wrong, in a sentence; ``None`` when nothing is."""
    applies: bool = True
    """False where the family offers nothing that could be checked."""
    solved: tuple[int, int] | None = None
    """Of an expert: episodes solved and played."""


def examine(family: Family, task: Task, expert_episodes: int) -> tuple[Finding, ...]:
    """All checks of a task, in the order of :data:`CHECKS`; an exception in one is that check's finding.

    Of a task whose environment cannot be made that is the only finding.
    """
    findings = []
    for name, check in CHECKS.items():
        findings.append(_finding(name, partial(check, family, task)))
        if name == "make" and findings[0].fault is not None:
            return tuple(findings)
    return (*findings, expert(family, task, expert_episodes))


def makeable(family: Family, task: Task) -> str | None:
    """The environment can be made and closed."""
    family.make(task).close()
    return None


def repeatable(family: Family, task: Task) -> str | None:
    """One seed gives one episode, bit for bit, in a new environment and in one that lived through others."""
    first = EpisodeSeed("evaluate", 0, task.name, 0)
    with closing(family.make(task)) as env:
        once = _play(env, first, _actions(env, COMPARED))
        _play(env, EpisodeSeed("train", 1, task.name, 3), np.sign(_actions(env, COMPARED)))
        lived = _play(env, first, _actions(env, COMPARED))
    with closing(family.make(task)) as env:
        new = _play(env, first, _actions(env, COMPARED))
    # new environments first: where those differ, the other difference says nothing of its own
    for other, where in ((new, "in another new environment"), (lived, "in an environment that played others before")):
        if (number := _first_difference(once, other)) is not None:
            return f"the same seed gave another episode {where}, from observation {number} on"
    return None


def seeds_differ(family: Family, task: Task) -> str | None:
    """Not all episodes of a run are one and the same, and another base seed or stream gives others; 0 is a seed.

    Two of a run may be equal: where training draws from a fixed number of goals, one comes again now and then.
    """
    runs: tuple[tuple[Stream, int], ...] = (("evaluate", 0), ("evaluate", 1), ("train", 0))
    with closing(family.make(task)) as env:
        begun = [[_begin(env, stream, base, task.name, number) for number in range(EPISODES)] for stream, base in runs]
        if len(set(begun[0])) == 1:
            return f"episodes 0 to {EPISODES - 1} of stream evaluate, seed 0 are all the same"
    if begun[1] == begun[0]:
        return "seed 1 gives the same episodes as seed 0"
    return "the stream train has the same episodes as the stream evaluate" if begun[2] == begun[0] else None


def spaces_kept(family: Family, task: Task) -> str | None:
    """Under random actions: observations of the declared shape and type, all numbers finite."""
    declared = family.spaces(task)
    with closing(family.make(task)) as env:
        if env.spaces != declared:
            return f"the environment has the spaces {tuple(env.spaces)}; its family declares {tuple(declared)}"
        observation = env.reset(EpisodeSeed("train", 0, task.name, 0))
        for number, action in enumerate(_actions(env, COMPARED)):
            if (fault := _observation_fault(observation, declared.observation, declared.dtype)) is not None:
                return f"observation {number} {fault}"
            observation, reward, terminated, truncated, _ = env.step(action)
            if not np.isfinite(reward):
                return f"the reward of decision {number + 1} is {reward}; expected a finite number"
            if terminated or truncated:
                break
        fault = _observation_fault(observation, declared.observation, declared.dtype)
        return None if fault is None else f"the last observation {fault}"


def bounds_reached(family: Family, task: Task) -> str | None:
    """Actions of all 1 and all -1 are taken, and where the simulator can be asked they are its own bounds."""
    with closing(family.make(task)) as env:
        env.reset(EpisodeSeed("train", 0, task.name, 0))
        for bound, side in ((1, "upper"), (-1, "lower")):
            observation, *_, ended, cut, _ = env.step(np.full(env.spaces.action, bound, dtype=np.float32))
            if not np.isfinite(observation).all():
                return f"an action of all {bound} gave an observation that is not finite"
            if isinstance(env, ShowsControl):
                low, high, given = env.control()
                wanted = high if bound == 1 else low
                if not np.allclose(given, wanted, rtol=1e-6, atol=1e-6):
                    worst = int(np.argmax(np.abs(given - wanted)))
                    return f"an action of all {bound} reached {given[worst]:g}; the {side} bound is {wanted[worst]:g}"
            if ended or cut:
                env.reset(EpisodeSeed("train", 0, task.name, 1))
    return None


def length_kept(family: Family, task: Task) -> str | None:
    """Nothing but a termination ends an episode before the decisions its protocol states, and nothing goes on after."""
    wanted = task.protocol.decisions
    with closing(family.make(task)) as env:
        env.reset(EpisodeSeed("train", 0, task.name, 0))
        still = np.zeros(env.spaces.action, dtype=np.float32)
        for decision in range(1, wanted + 1):
            *_, terminated, truncated, _ = env.step(still)
            if terminated and truncated:
                return f"decision {decision} both terminated and truncated the episode; expected one of the two"
            if terminated:
                return None
            if truncated and decision < wanted:
                return f"the episode was truncated after {decision} decisions; its protocol states {wanted}"
    return None if truncated else f"the episode did not end after the {wanted} decisions its protocol states"


def expert(family: Family, task: Task, episodes: int) -> Finding:
    """The family's expert succeeds in at least :data:`MIN_SUCCESS` of the first ``episodes`` of evaluation."""
    try:
        policy = family.expert(task) if isinstance(family, HasExpert) else None
        if policy is None:
            return Finding("expert", None, applies=False)
        with closing(family.make(task)) as env:
            seeds = [EpisodeSeed("evaluate", 0, task.name, number) for number in range(episodes)]
            failed = [seed.episode for seed in seeds if not _succeeds(env, policy, seed)]
    except Exception as error:  # an expert may fail in any way, as an environment may
        return Finding("expert", f"{type(error).__name__}: {error}")
    solved, fault = episodes - len(failed), None
    if solved < MIN_SUCCESS * episodes:
        numbers = ", ".join(map(str, failed[:10])) + (", …" if len(failed) > 10 else "")
        fault = f"the expert solved {solved} of {episodes} evaluation episodes; not {numbers}"
    return Finding("expert", fault, solved=(solved, episodes))


CHECKS: dict[str, Callable[[Family, Task], str | None]] = {
    "make": makeable,
    "repeatable": repeatable,
    "seeds": seeds_differ,
    "spaces": spaces_kept,
    "bounds": bounds_reached,
    "length": length_kept,
}
"""Checks of every task, by the name a table gives them; ``expert`` comes after them."""


def _finding(name: str, check: Callable[[], str | None]) -> Finding:
    try:
        return Finding(name, check())
    except Exception as error:  # an environment may fail in any way, and that is what is looked for
        return Finding(name, f"{type(error).__name__}: {error}")


def _play(env: TaskEnv, seed: EpisodeSeed, actions: Iterable[NDArray[np.float32]]) -> list[NDArray[Any]]:
    """Observations of an episode's beginning, from the second on with reward and ends behind them."""
    rows = [np.ravel(env.reset(seed)).copy()]
    for action in actions:
        observation, *rest = env.step(action)
        rows.append(np.append(np.ravel(observation), np.array(rest[:3], dtype=np.float64)))
        if rest[1] or rest[2]:
            break
    return rows


def _begin(env: TaskEnv, stream: Stream, base: int, task_name: str, number: int) -> bytes:
    """An episode's beginning, bit for bit."""
    seed = EpisodeSeed(stream, base, task_name, number)
    return b"".join(row.tobytes() for row in _play(env, seed, _actions(env, BEGINNING)))


def _first_difference(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> int | None:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if not np.array_equal(a, b, equal_nan=True):
            return number
    return None if len(one) == len(other) else min(len(one), len(other))


def _actions(env: TaskEnv, decisions: int) -> NDArray[np.float32]:
    """The same random actions at every call, ``[decisions, A]``."""
    return np.random.default_rng(0).uniform(-1, 1, size=(decisions, env.spaces.action)).astype(np.float32)


def _observation_fault(observation: NDArray[Any], shape: tuple[int, ...], dtype: str) -> str | None:
    if observation.shape != shape or observation.dtype != dtype:
        return f"is {observation.dtype} {observation.shape}; its family declares {dtype} {shape}"
    if not np.isfinite(observation).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(observation))[0])
        return f"has {observation[index]} at {index}; expected finite numbers"
    return None


def _succeeds(env: TaskEnv, policy: Policy, seed: EpisodeSeed) -> bool:
    observation, ended = env.reset(seed), False
    while not ended:
        observation, _, terminated, truncated, success = env.step(policy(observation))
        if success is None:
            raise SuiteError("the family has an expert, but its environment reports no success")
        if success:
            return True
        ended = terminated or truncated
    return False

"""Comparing the engines of a task: EnvPool's copy beside the family's own environment. The rules are in
:mod:`suites.parity`, which makes a certificate of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from suites.families import family, spaces
from suites.pools import flat, make_pool, rescaled
from suites.seeding import EpisodeSeed
from suites.spec import Task, TaskSpaces

EPISODES = 128
"""Of each kind, on each engine."""
RANDOM_DECISIONS = 50
HOLD = 5
"""Decisions for which a random action is held: a tremor leads nowhere."""
EXPERT_DECISIONS = 300
"""What the expert has to succeed."""
SEEN_AT = (10, 50)
"""Decisions after which observation, reward and return are compared."""

ALPHA = 0.001
"""Chance that a true copy of a task is not certified."""
SUCCESS_MARGIN = 0.1
"""Largest difference of the expert's rates of success."""
SPREAD_TOLERANCE = 0.05
"""A shift by so many standard deviations of the native sample is no difference."""
TOLERANCE = 1e-3
"""Nor is one by so much in an observation (a millimetre), or by so much of the largest reward."""
DECISION_TOLERANCE = 1
"""Nor is one decision more or less until success."""
LARGEST_REWARD = {"metaworld": 10.0, "dm_control": 1.0}
GRIPPER = [3, 21]
"""Entries of Meta-World's observations that count ten centimetres as 1: how far the gripper is open, now and before."""

UNTIL_SUCCESS = "decisions until success"

Sample: TypeAlias = dict[str, NDArray[np.floating[Any]]]
"""What was measured, by name: ``[episodes, entries]``."""

Act: TypeAlias = Callable[[int, NDArray[np.float32]], NDArray[np.float32]]
"""From decision (1, 2, …) and observations ``[n, D]`` to actions ``[n, A]``."""


class Player(Protocol):
    """n environments of one task, stepping together; no two of their episodes are alike."""

    n: int

    def reset(self) -> NDArray[np.float32]:
        """Observations ``[n, D]``."""
        ...

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], Any, Any]:
        """Observations ``[n, D]``, rewards ``[n]`` and success ``[n]``."""
        ...


class Native:
    """The family's own environment."""

    n = 1

    def __init__(self, task: Task) -> None:
        self._name, self._episode = task.name, 0
        self._env = family(task.family).make(task)

    def reset(self) -> NDArray[np.float32]:
        # the base seed moves, not the episode: the episodes of one base share a set of goals
        self._episode += 1
        return self._env.reset(EpisodeSeed("train", self._episode, self._name, 0))[None]

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], Any, Any]:
        observation, reward, _, _, success = self._env.step(action[0])
        return observation[None], np.array([reward]), np.array([bool(success)])


class Pooled:
    """A pool of EnvPool."""

    n = 16

    def __init__(self, task: Task) -> None:
        self._name = task.name
        seeds = [EpisodeSeed("train", lane, task.name, 0).value for lane in range(self.n)]
        self._pool = make_pool(task, seeds, num_threads=1)
        self.spaces = TaskSpaces(self.reset().shape[1:], *self._pool.action_space.shape)

    def reset(self) -> NDArray[np.float32]:
        observation, _ = self._pool.reset()
        return flat(observation, self._name).astype(np.float32)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], Any, Any]:
        observation, reward, _, _, info = self._pool.step(rescaled(action, self._pool))
        success = info.get("success", np.zeros(self.n)) > 0
        return flat(observation, self._name).astype(np.float32), reward, success


def play(player: Player, act: Act, decisions: int) -> Sample:
    """What is measured in :data:`EPISODES` episodes.

    Those that ``player`` plays at once end when all have succeeded, but not before all is seen, or after ``decisions``.
    """
    blocks: list[Sample] = []
    while len(blocks) * player.n < EPISODES:
        observation = player.reset()
        block: Sample = {"first observation": observation}
        total, solved = np.zeros(player.n), np.full(player.n, decisions + 1.0)
        for decision in range(1, decisions + 1):
            observation, reward, success = player.step(act(decision, observation))
            total += reward
            solved[success] = np.minimum(solved[success], decision)
            if decision in SEEN_AT:
                block[f"observation after {decision} decisions"] = observation
                block[f"reward after {decision} decisions"] = reward[:, None]
                block[f"return of {decision} decisions"] = total[:, None].copy()
            if decision >= SEEN_AT[-1] and (solved <= decisions).all():
                break
        blocks.append(block | {UNTIL_SUCCESS: solved[:, None]})
    return {name: np.concatenate([block[name] for block in blocks], dtype=np.float64) for name in blocks[0]}


def shuffling(player: Player, task: Task) -> Act:
    """Random actions, each held for a while; other ones for each task and player."""
    generator = np.random.default_rng([EpisodeSeed("tune", 0, task.name, 0).value, player.n])
    held = np.zeros((player.n, spaces(task).action), np.float32)

    def act(decision: int, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        if decision % HOLD == 1:
            held[:] = generator.uniform(-1, 1, held.shape)
        return held

    return act


def expert(name: str) -> Act:
    """The package's scripted policy for a task of Meta-World."""
    from metaworld.policies import ENV_POLICY_MAP

    policy: Any = ENV_POLICY_MAP[name]

    def act(decision: int, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        wanted = [policy().get_action(row) for row in observation.astype(np.float64)]
        return np.clip(wanted, -1, 1).astype(np.float32)

    return act


def distance(first: NDArray[Any], second: NDArray[Any], tolerance: float = 0.0) -> float:
    """Of Kolmogorov and Smirnov: the largest gap between the distribution functions of two samples.

    Counted is what stays of it when either sample is shifted by ``tolerance`` towards the other.
    """
    first, second = np.sort(first), np.sort(second)

    def excess(low: NDArray[Any], high: NDArray[Any]) -> float:
        reached = np.searchsorted(low, low, side="right") / len(low)
        return float((reached - np.searchsorted(high, low + tolerance, side="right") / len(high)).max())

    return max(excess(first, second), excess(second, first), 0.0)


def critical(comparisons: int, first: int, second: int) -> float:
    """The distance that any of so many pairs of equal distributions exceeds with chance :data:`ALPHA` at most."""
    return float(np.sqrt(-np.log(ALPHA / comparisons / 2) / 2 * (first + second) / (first * second)))


def compare(native: Sample, pooled: Sample, family_name: str) -> tuple[dict[str, Any], list[str]]:
    """For each quantity the entry that differs most, and a sentence for each quantity that differs too much."""
    entries = sum(values.shape[1] for values in native.values())
    limit = critical(entries, *(len(sample["first observation"]) for sample in (native, pooled)))
    figures: dict[str, Any] = {"critical distance": round(limit, 3)}
    faults = []
    for name, values in native.items():
        tolerance = np.maximum(_tolerance(name, values.shape[1], family_name), SPREAD_TOLERANCE * values.std(axis=0))
        gaps = [distance(*columns) for columns in zip(values.T, pooled[name].T, tolerance, strict=True)]
        worst = int(np.argmax(gaps))
        means = [float(f"{sample[name][:, worst].mean():.4g}") for sample in (native, pooled)]
        figures[name] = {"entry": worst, "distance": round(gaps[worst], 3), "means": means}
        if gaps[worst] > limit:
            faults.append(
                f"{name}, entry {worst}: distance {gaps[worst]:.2f} where {limit:.2f} is critical, "
                f"mean {means[0]:g} and in EnvPool {means[1]:g}"
            )
    return figures, faults


def _tolerance(name: str, entries: int, family_name: str) -> NDArray[np.float64]:
    """The shift of each entry of a quantity that is no difference."""
    kind = name.split()[0]
    if kind == "decisions":
        return np.full(entries, DECISION_TOLERANCE)
    if kind in ("reward", "return"):
        terms = int(name.split()[2]) if kind == "return" else 1
        return np.full(entries, TOLERANCE * LARGEST_REWARD[family_name] * terms)
    tolerance = np.full(entries, TOLERANCE)
    if family_name == "metaworld":
        tolerance[GRIPPER] *= 10
    return tolerance


def measure(task: Task) -> dict[str, Any]:
    """The certificate of one task: ``certified``, ``reasons`` against it, and the figures of either kind of episode."""
    native, pooled = Native(task), Pooled(task)
    if pooled.spaces != spaces(task):
        return {"certified": False, "reasons": [f"spaces {tuple(pooled.spaces)}, natively {tuple(spaces(task))}"]}
    players: tuple[Player, Player] = (native, pooled)
    has_success = family(task.family).has_success
    samples = [play(player, shuffling(player, task), RANDOM_DECISIONS) for player in players]
    if not has_success:
        samples = [{name: sample[name] for name in sample if name != UNTIL_SUCCESS} for sample in samples]
    figures, faults = compare(samples[0], samples[1], task.family)
    certificate = {"random": figures}
    reasons = [f"random actions: {fault}" for fault in faults]
    if has_success:
        samples = [play(player, expert(task.name), EXPERT_DECISIONS) for player in players]
        certificate["expert"], faults = compare(samples[0], samples[1], task.family)
        rates = [float((sample[UNTIL_SUCCESS] <= EXPERT_DECISIONS).mean()) for sample in samples]
        certificate["expert"]["success"] = [round(rate, 3) for rate in rates]
        if abs(rates[0] - rates[1]) > SUCCESS_MARGIN:
            faults.append(f"succeeds in {rates[0]:.0%} of the episodes and in EnvPool in {rates[1]:.0%}")
        reasons += [f"expert: {fault}" for fault in faults]
    return {"certified": not reasons, "reasons": reasons, **certificate}

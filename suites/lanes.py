"""Many environments stepped one after another in one process, writing into arrays that may be shared."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from suites.errors import EnvError
from suites.families import TaskEnv, family
from suites.seeding import EpisodeSeed
from suites.spec import Episode, Stream, Task


class Layout(NamedTuple):
    """Sizes and types of :class:`Arrays`."""

    num_envs: int
    observation: tuple[int, ...]
    """Shape of one padded observation."""
    dtype: str
    """Of observations."""
    action: int


@dataclass(frozen=True)
class Arrays:
    """What passes between a vector environment and its engines, one row per environment.

    ``action`` ``[N, A]``; ``observation`` and ``next_observation`` ``[N, …]``; ``reward``, ``terminated`` and
    ``truncated`` ``[N]``. Padding of observations is zero and stays so.
    """

    action: NDArray[np.float32]
    observation: NDArray[Any]
    next_observation: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    @classmethod
    def over(cls, memory: Callable[[int], Any], layout: Layout) -> Self:
        """Lay the arrays over buffers; ``memory(size)`` gives ``size`` zeroed bytes."""
        N = layout.num_envs

        def array(dtype: str, *shape: int) -> NDArray[Any]:
            count = int(np.prod(shape))
            return np.frombuffer(memory(np.dtype(dtype).itemsize * count), dtype, count).reshape(shape)

        return cls(
            action=array("float32", N, layout.action),
            observation=array(layout.dtype, N, *layout.observation),
            next_observation=array(layout.dtype, N, *layout.observation),
            reward=array("float32", N),
            terminated=array("bool", N),
            truncated=array("bool", N),
        )


@dataclass(frozen=True)
class LaneSpec:
    """Which episodes an environment plays: those of ``task`` with index ``replica + j × replicas``."""

    env: int
    task: Task
    task_index: int
    replica: int
    replicas: int


@dataclass(frozen=True)
class Replay:
    """An episode in mid-flight: its index and the actions ``[length, A]`` taken so far."""

    env: int
    episode: int
    actions: NDArray[np.float32]


class Lanes:
    """The environments of ``specs``; they report through ``arrays``.

    ``tolerant``: one that fails to reset or to step, or gives numbers that are none, stands still until the next reset,
    and its episode says why.
    """

    def __init__(
        self, specs: Sequence[LaneSpec], arrays: Arrays, seed: int, stream: Stream, tolerant: bool = False
    ) -> None:
        self.arrays = arrays
        self._tolerant = tolerant
        self._lanes = [_Lane(spec, arrays, seed, stream, strict=tolerant) for spec in specs]
        self._playing = list(self._lanes)
        self._broken: list[Episode] = []
        self._seconds = dict.fromkeys(self._lanes, 0.0)

    def reset(self) -> None:
        """Start the first episode of every environment."""
        self._playing, self._broken = list(self._lanes), []
        for lane in self._lanes:
            self._try(lane, lane.start, lane.spec.replica)

    def send(self) -> None:
        """All is done in :meth:`receive`."""

    def receive(self) -> list[Episode]:
        """Take the decisions in ``arrays.action``; where an episode ends the next starts. Returns those that ended."""
        ended = []
        start = time.perf_counter()
        for lane in list(self._playing):
            episode = self._try(lane, lane.step)
            now = time.perf_counter()
            self._seconds[lane] += now - start
            start = now
            if episode is not None:
                ended.append(episode)
        broken, self._broken = self._broken, []
        return ended + broken

    def seconds(self) -> dict[int, float]:
        """How long stepping took so far, by environment."""
        return {lane.spec.env: seconds for lane, seconds in self._seconds.items()}

    def _try(self, lane: _Lane, act: Callable[..., Episode | None], *arguments: Any) -> Episode | None:
        try:
            return act(*arguments)
        except EnvError as error:
            if not self._tolerant:
                raise
            self._playing.remove(lane)
            self._broken.append(lane.give_up(str(error)))
            return None

    def replay(self, episodes: Iterable[Replay]) -> None:
        """Bring environments into the middle of episodes by playing them again; those held elsewhere are passed by."""
        by_env = {replay.env: replay for replay in episodes}
        for lane in self._lanes:
            self._try(lane, lane.replay, by_env[lane.spec.env])

    def close(self) -> None:
        """Close every environment."""
        for lane in self._lanes:
            lane.env.close()


class _Lane:
    """One environment and the account of the episode it is in.

    ``strict``: numbers that are not finite are its fault here; else whoever reads the arrays checks all at once.
    """

    def __init__(self, spec: LaneSpec, arrays: Arrays, seed: int, stream: Stream, *, strict: bool = False) -> None:
        self.spec, self._strict = spec, strict
        self._seed, self._stream = seed, stream
        self._decisions = spec.task.protocol.decisions
        try:
            self.env: TaskEnv = family(spec.task.family).make(spec.task)
        except Exception as error:
            raise EnvError(f"environment {spec.env} ({spec.task.name}) cannot be made: {_reason(error)}") from error
        self._shape, action_size = self.env.spaces
        self._arrays = arrays
        # a vector may be padded, an image never is: its first axis is as long as its height
        self._action = arrays.action[spec.env, :action_size]
        self._observation = arrays.observation[spec.env, : self._shape[0]]
        self._next_observation = arrays.next_observation[spec.env, : self._shape[0]]
        self._episode = self._length = 0
        self._return = 0.0
        self._success_any: bool | None = None

    def start(self, episode: int) -> None:
        self._episode, self._length, self._return, self._success_any = episode, 0, 0.0, None
        seed = EpisodeSeed(self._stream, self._seed, self.spec.task.name, episode)
        try:
            observation = self.env.reset(seed)
        except Exception as error:
            raise self._fault(f"failed in reset: {_reason(error)}") from error
        self._write(self._observation, observation)

    def step(self) -> Episode | None:
        try:
            observation, reward, terminated, truncated, success = self.env.step(self._action)
        except Exception as error:
            raise self._fault(f"failed in step: {_reason(error)}") from error
        self._length += 1
        if self._length >= self._decisions and not (terminated or truncated):
            raise self._fault(f"did not end after the {self._decisions} decisions its protocol states")
        if self._strict and not math.isfinite(reward):
            raise self._fault(f"gave the reward {reward}; expected a finite number")
        env, arrays = self.spec.env, self._arrays
        arrays.reward[env], arrays.terminated[env], arrays.truncated[env] = reward, terminated, truncated
        self._return += float(reward)
        if success is not None:
            self._success_any = bool(self._success_any or success)
        self._write(self._next_observation, observation)
        if not (terminated or truncated):
            self._observation[:] = observation
            return None
        ended = self._ended(success_any=self._success_any, success_last=success)
        self.start(self._episode + self.spec.replicas)
        return ended

    def give_up(self, fault: str) -> Episode:
        """Leave nothing behind in the arrays; returns the episode that cannot go on."""
        env, arrays = self.spec.env, self._arrays
        arrays.reward[env], arrays.terminated[env], arrays.truncated[env] = 0, False, False
        self._observation[:] = self._next_observation[:] = 0
        return self._ended(fault=fault)

    def _ended(self, **outcome: Any) -> Episode:
        return Episode(
            env=self.spec.env,
            task=self.spec.task_index,
            index=self._episode,
            episode_return=self._return,
            length=self._length,
            **outcome,
        )

    def replay(self, replay: Replay) -> None:
        self.start(replay.episode)
        for action in replay.actions:
            self._action[:] = action[: self._action.size]
            if self.step() is not None:
                raise self._fault(f"ended while its episode {replay.episode} was played again, and had not before")

    def _write(self, row: NDArray[Any], observation: NDArray[Any]) -> None:
        if observation.shape != self._shape:
            raise self._fault(f"gave an observation of shape {observation.shape}; expected {self._shape}")
        if self._strict and not np.isfinite(observation).all():
            raise self._fault("gave an observation with numbers that are not finite")
        row[:] = observation

    def _fault(self, what: str) -> EnvError:
        where = f"environment {self.spec.env} ({self.spec.task.name}), episode {self._episode}, step {self._length}"
        return EnvError(f"{where}: {what}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

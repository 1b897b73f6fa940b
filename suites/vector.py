"""The one vector environment: many environments of many tasks in padded spaces, exactly saved and resumed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from suites.engines import Engines
from suites.errors import EnvError, EnvWorkerError, SuiteError
from suites.families import spaces
from suites.lanes import LaneSpec, Layout, Replay
from suites.spec import EnvSpec, Episode, Stream, Task, VectorStep

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""Worker processes lost more often than that are no accident."""


def env_spec(tasks: Sequence[Task]) -> EnvSpec:
    """The padded spaces of ``tasks``, without building an environment.

    Raises :class:`SuiteError` for unknown tasks, and for images that are not all of one size and alone.
    """
    each = [spaces(task) for task in tasks]
    shapes = {found.observation for found in each}
    if len(shapes) > 1 and any(len(shape) > 1 for shape in shapes):
        raise SuiteError(f"one agent cannot see observations of the shapes {', '.join(map(str, sorted(shapes)))}")
    observation_sizes = np.array([int(np.prod(found.observation)) for found in each])
    action_sizes = np.array([found.action for found in each])
    D, A = int(observation_sizes.max()), int(action_sizes.max())
    return EnvSpec(
        observation_shape=max(shapes),
        observation_dtype=each[0].dtype,
        action_dim=A,
        observation_mask=np.arange(D) < observation_sizes[:, None],
        action_mask=np.arange(A) < action_sizes[:, None],
        max_episode_steps=np.array([task.protocol.decisions for task in tasks], dtype=np.int64),
        action_repeat=np.array([task.protocol.action_repeat for task in tasks], dtype=np.int64),
        task_names=tuple(task.name for task in tasks),
    )


class VectorEnv:
    """``num_envs`` environments; number i plays task i mod K. Use as a context manager, or call :meth:`close`.

    An ended episode's environment starts the next one in the same step (see :class:`VectorStep`). The environments of a
    task share its episodes 0, 1, 2 … out like cards: replica r of R plays r, r+R, r+2R …; so an episode depends on
    stream, ``seed``, task name and number alone, whatever ``num_envs``, ``num_processes`` or the order of tasks. With
    EnvPool it depends on the number of environments of its task too.

    ``num_processes`` share the stepping, this one included; however many they are, the results are the same bit for
    bit. ``spec`` gives wider spaces than the tasks need, of more tasks, whose numbers then count. ``tolerant``, for
    evaluations: an environment that fails stands still until the next reset, and its episode says why
    (``Episode.fault``), while the others play on.

    A worker process that dies or hangs is replaced and its episodes are played again up to where they were: the results
    do not change, and ``restarts`` counts it. Raises :class:`SuiteError` when the request is impossible,
    :class:`EnvError` when an environment breaks the contract, :class:`EnvWorkerError` when workers are lost more than
    :data:`MAX_RESTARTS` times; :meth:`state` still works then.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        num_envs: int,
        *,
        seed: int,
        stream: Stream,
        num_processes: int = 1,
        spec: EnvSpec | None = None,
        tolerant: bool = False,
    ) -> None:
        _check_request(tasks, num_envs, num_processes)
        self.spec = env_spec(tasks) if spec is None else spec
        self.num_envs = num_envs
        self.env_step = 0
        specs = _deal(tasks, num_envs, [self.spec.task_names.index(task.name) for task in tasks])
        self.task: NDArray[np.int64] = np.array([spec.task_index for spec in specs], dtype=np.int64)
        """Task of each environment, ``[N]``."""
        self._seed, self._stream = seed, stream
        self._first_episode = np.array([spec.replica for spec in specs], dtype=np.int64)
        self._replicas = np.array([spec.replicas for spec in specs], dtype=np.int64)
        self._engine_names = [spec.task.engine for spec in specs]
        self._env_steps_per_step = int(self.spec.action_repeat[self.task].sum())
        self._rows = np.arange(num_envs)
        # What state() needs to come back here: the episode each environment is in, and the actions taken in it.
        self._episode = self._first_episode.copy()
        self._length = np.zeros(num_envs, dtype=np.int64)
        longest = int(self.spec.max_episode_steps.max())
        self._taken = np.zeros((num_envs, longest, self.spec.action_dim), dtype=np.float32)
        self._last_observation: NDArray[Any] | None = None
        layout = Layout(num_envs, self.spec.observation_shape, self.spec.observation_dtype, self.spec.action_dim)
        self._make_engines = partial(Engines, specs, layout, seed, stream, num_processes, tolerant)
        self._engines = self._make_engines()
        self._arrays = self._engines.arrays
        self._playing: NDArray[np.bool_] = np.ones(num_envs, dtype=np.bool_)
        # Whether processes have equal shares is measured in the first episodes; an evaluation is not worth it.
        self._shared_out = tolerant
        self.restarts = 0
        """Times that worker processes were replaced."""
        self.stepping_since: float | None = None
        """``time.monotonic`` when the step or reset under way began, for whoever watches; ``None`` between them."""

    def reset(self) -> VectorStep:
        """Start the first episode of every environment, and the count of environment steps."""
        self.env_step = 0
        self._episode = self._first_episode.copy()
        self._length[:] = 0
        self._playing[:] = True
        self._robustly(Engines.reset)
        return self._start()

    def step(self, action: NDArray[np.float32]) -> VectorStep:
        """Take one decision in every environment: ``action`` float32 ``[N, A]`` in [-1, 1]; padding is ignored."""
        if self._last_observation is None:
            raise EnvError("step was called before reset")
        self._check_action(action)

        def take(engines: Engines) -> list[Episode]:
            engines.arrays.action[:] = action
            return engines.step()

        episodes = self._robustly(take)
        arrays = self._arrays
        self._check_numbers(some_ended=bool(episodes))
        self._taken[self._rows, self._length] = action
        self._length += self._playing
        self.env_step += self._env_steps_per_step
        self._last_observation = arrays.observation.copy()
        step = VectorStep(
            observation=arrays.observation.copy(),
            next_observation=arrays.next_observation.copy(),
            reward=arrays.reward.copy(),
            terminated=arrays.terminated.copy(),
            truncated=arrays.truncated.copy(),
            first=arrays.terminated | arrays.truncated,
            task=self.task.copy(),
            episodes=tuple(episodes),
        )
        if episodes:
            self._turn_over(episodes, step.first)
        return step

    def _turn_over(self, episodes: Sequence[Episode], ended: NDArray[np.bool_]) -> None:
        """Note which environments are in another episode now, and which stand still."""
        self._playing[[episode.env for episode in episodes if episode.fault is not None]] = False
        self._length[ended | ~self._playing] = 0
        self._episode[ended] += self._replicas[ended]
        if not self._shared_out and (self._episode > self._first_episode).all():
            self._shared_out = True
            if (seconds := self._engines.uneven()) is not None:
                self._robustly(lambda _: self._rebuild(seconds))

    def _robustly(self, act: Callable[[Engines], T]) -> T:
        """What ``act`` gives, with lost workers replaced, and open to whoever watches how long it takes."""
        lost = False
        while True:
            self.stepping_since = time.monotonic()
            try:
                if lost:  # in here, because the new ones may be lost too
                    self._rebuild()
                    lost = False
                return act(self._engines)
            except EnvWorkerError as error:
                if self.restarts >= MAX_RESTARTS:
                    raise
                self.restarts += 1
                logger.warning("%s; it is replaced (%d of %d times)", error, self.restarts, MAX_RESTARTS)
                lost = True
            finally:
                self.stepping_since = None

    def _rebuild(self, seconds: Mapping[int, float] | None = None) -> None:
        """New engines, in the middle of the episodes the old ones were in."""
        self._engines.close()
        self._engines = self._make_engines(seconds=seconds)
        self._arrays = self._engines.arrays
        self._engines.replay(self._in_flight())

    def _in_flight(self) -> list[Replay]:
        """The episodes under way and the actions taken in them."""
        return [
            Replay(env, int(episode), self._taken[env, :length].copy())
            for env, (episode, length) in enumerate(zip(self._episode, self._length, strict=True))
        ]

    def state(self) -> dict[str, Any]:
        """Everything needed to come back to this moment: JSON values and arrays.

        Holds the actions of the episodes in flight, not the simulator: :meth:`restore` plays them again, which is exact
        for every environment whose ``reset`` is the pure function the contract asks for.
        """
        if self._last_observation is None:
            raise EnvError("state was called before reset")
        return {
            **self._identity(),
            "env_step": self.env_step,
            "episode": self._episode.copy(),
            "length": self._length.copy(),
            "actions": np.concatenate([replay.actions for replay in self._in_flight()]),
            "observation": self._last_observation.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> VectorStep:
        """Come back to the moment of ``state``, bit for bit; returns what to act on next, with rewards of zero.

        Raises :class:`EnvError` when the state belongs to other tasks or seeds, or when playing the episodes again led
        elsewhere (as with another version of the simulator).
        """
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise EnvError(f"cannot restore: the state has {name} {state.get(name)!r}, this environment {mine!r}")
        self._episode = np.array(state["episode"], dtype=np.int64)
        self._length = np.array(state["length"], dtype=np.int64)
        actions = np.split(np.asarray(state["actions"], dtype=np.float32), np.cumsum(self._length)[:-1])
        for env, taken in enumerate(actions):
            self._taken[env, : len(taken)] = taken
        self._robustly(lambda engines: engines.replay(self._in_flight()))
        differs = (self._arrays.observation != state["observation"]).reshape(self.num_envs, -1).any(axis=1)
        if differs.any():
            where = ", ".join(self._place(env) for env in np.flatnonzero(differs)[:5])
            raise EnvError(
                f"playing the saved episodes again led elsewhere in {where}; "
                "use the package versions the state was saved with"
            )
        self.env_step = int(state["env_step"])
        return self._start()

    def close(self) -> None:
        """Close the environments and end the workers. May be called twice."""
        self._engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> VectorStep:
        arrays = self._arrays
        if not np.isfinite(arrays.observation).all():
            raise self._not_finite("observation", arrays.observation)
        self._last_observation = arrays.observation.copy()
        none: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        return VectorStep(
            observation=self._last_observation.copy(),
            next_observation=self._last_observation.copy(),
            reward=np.zeros(self.num_envs, dtype=np.float32),
            terminated=none.copy(),
            truncated=none.copy(),
            first=self._length == 0,
            task=self.task.copy(),
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "format": 1,
            "stream": self._stream,
            "seed": self._seed,
            "tasks": [self.spec.task_names[task] for task in self.task],
            "engines": self._engine_names,
            "num_envs": self.num_envs,
            "action_repeat": self.spec.action_repeat.tolist(),
            "max_episode_steps": self.spec.max_episode_steps.tolist(),
        }

    def _check_action(self, action: NDArray[np.float32]) -> None:
        expected = (self.num_envs, self.spec.action_dim)
        if not isinstance(action, np.ndarray) or action.shape != expected or action.dtype != np.float32:
            found = f"{action.dtype} {action.shape}" if isinstance(action, np.ndarray) else type(action).__name__
            raise EnvError(f"actions must be a float32 array of shape {expected}; found {found}")
        if not np.abs(action).max() <= 1:  # false for NaN too
            env, index = np.argwhere(~(np.abs(action) <= 1))[0]
            raise EnvError(f"{self._place(env)}: action[{index}] is {action[env, index]}; expected a number in [-1, 1]")

    def _check_numbers(self, *, some_ended: bool) -> None:
        arrays = self._arrays
        if not np.isfinite(arrays.reward).all():
            raise self._not_finite("reward", arrays.reward[:, None])
        if not np.isfinite(arrays.next_observation).all():
            raise self._not_finite("observation", arrays.next_observation)
        if some_ended and not np.isfinite(arrays.observation).all():
            raise self._not_finite("observation after reset", arrays.observation)

    def _not_finite(self, what: str, values: NDArray[Any]) -> EnvError:
        env, index = np.argwhere(~np.isfinite(values))[0]
        return EnvError(f"{self._place(env)}: {what}[{index}] is {values[env, index]}; expected a finite number")

    def _place(self, env: int) -> str:
        name = self.spec.task_names[self.task[env]]
        return f"environment {env} ({name}), episode {self._episode[env]}, step {self._length[env]}"


def _deal(tasks: Sequence[Task], num_envs: int, numbers: Sequence[int]) -> list[LaneSpec]:
    """Which environment plays which episodes of which task; ``numbers`` are the tasks' in the spec."""
    K = len(tasks)
    return [
        LaneSpec(
            env=env,
            task=tasks[env % K],
            task_index=numbers[env % K],
            replica=env // K,
            replicas=len(range(env % K, num_envs, K)),
        )
        for env in range(num_envs)
    ]


def _check_request(tasks: Sequence[Task], num_envs: int, num_processes: int) -> None:
    names = [task.name for task in tasks]
    if not names:
        raise SuiteError("a vector environment needs at least one task")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SuiteError(f"task names must differ; found twice: {', '.join(twice)}")
    if num_envs < len(names):
        raise SuiteError(f"{num_envs} environments cannot play {len(names)} tasks; give at least {len(names)}")
    if num_processes < 1:
        raise SuiteError(f"num_processes is {num_processes}; expected 1 (this process alone) or more")

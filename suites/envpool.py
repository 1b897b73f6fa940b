"""The engine of EnvPool: C++ copies of Meta-World and dm_control, faster per core than the packages themselves.

EnvPool saves no state, and has a seed for an environment instead of one for each episode; but its episodes are a pure
function of that seed, the number of resets before and the actions. So a new pool with the same seeds plays the same
episodes, and any moment can be reached again, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from suites.errors import EnvError, SuiteError
from suites.families import spaces
from suites.lanes import Arrays, LaneSpec, Replay
from suites.pools import flat, load, make_pool, pool_id, rescaled
from suites.seeding import EpisodeSeed
from suites.spec import Episode, Stream

EPISODES_PER_SEED = 50
"""Episodes of a task until its pool is made anew: as many as Meta-World has goals, and what bounds a restore."""


class PoolEngine:
    """The environments of ``specs``, a pool for each task; they report through ``arrays``.

    The environments of a task are evenly spaced, as :class:`suites.vector.VectorEnv` deals them.

    ``num_threads`` bounds the threads of each pool. The pools work at the same time, because a core that waits for one
    pool's answer could step another's: with many tasks all cores are used, whatever ``num_threads``.

    An episode depends on stream, ``seed``, task name and number, and on how many environments share the task. Raises
    :class:`SuiteError` where EnvPool is missing or lacks a task, :class:`EnvError` when an environment breaks its
    contract.
    """

    def __init__(self, specs: Sequence[LaneSpec], arrays: Arrays, seed: int, stream: Stream, num_threads: int) -> None:
        known = set(load().list_all_envs())
        by_task: dict[str, list[LaneSpec]] = {}
        for spec in specs:
            by_task.setdefault(spec.task.name, []).append(spec)
        for group in by_task.values():
            task = group[0].task
            if pool_id(task) not in known:
                raise SuiteError(f"{task.name}: EnvPool has no {pool_id(task)}; use engine: native")
        self._arrays = arrays
        alone = len(specs) == len(arrays.reward)
        self._rows = slice(None) if alone else np.array([spec.env for spec in specs])
        self._pools = [_Pool(group, arrays, seed, stream, num_threads) for group in by_task.values()]
        self._repeats = max(pool.repeats for pool in self._pools)

    def reset(self) -> None:
        """Start the first episode of every environment."""
        for pool in self._pools:
            pool.start(0)

    def send(self) -> None:
        """Begin to take the decisions in ``arrays.action``, without waiting."""
        for pool in self._pools:
            pool.send()

    def receive(self) -> list[Episode]:
        """Finish what :meth:`send` began; where an episode ended the next one has started. Returns those that ended."""
        for repeat in range(1, self._repeats + 1):
            for pool in self._pools:
                if repeat <= pool.repeats:
                    pool.collect(last=repeat == pool.repeats)
        self._arrays.observation[self._rows] = self._arrays.next_observation[self._rows]
        return [episode for pool in self._pools if pool.ended for episode in pool.finish()]

    def replay(self, episodes: Sequence[Replay]) -> None:
        """Bring environments into the middle of episodes by playing them again; those held elsewhere are passed by."""
        by_env = {replay.env: replay for replay in episodes}
        for pool in self._pools:
            pool.replay([by_env[spec.env] for spec in pool.specs])

    def close(self) -> None:
        """End the threads. May be called twice."""
        for pool in self._pools:
            pool.close()


class _Pool:
    """The environments of one task. Only the time limit ends their episodes, so all are at the same decision."""

    def __init__(self, specs: Sequence[LaneSpec], arrays: Arrays, seed: int, stream: Stream, num_threads: int) -> None:
        self.specs, self._seed, self._stream = specs, seed, stream
        self._task = specs[0].task
        self._num_threads = num_threads
        self.repeats = self._task.protocol.action_repeat
        (D,), A = spaces(self._task)
        # views, because with one environment for each of many tasks numpy's indexing is what a step costs
        rows = slice(specs[0].env, specs[-1].env + 1, specs[1].env - specs[0].env if len(specs) > 1 else 1)
        self._action, self._reward, self._truncated = (
            arrays.action[rows, :A],
            arrays.reward[rows],
            arrays.truncated[rows],
        )
        self._observation, self._next_observation = arrays.observation[rows, :D], arrays.next_observation[rows, :D]
        self._episodes_per_seed = max(1, EPISODES_PER_SEED // specs[0].replicas)
        self._pool: Any = None
        self._paid: Any = 0.0
        self._return: Any = 0.0
        # 0 or 1 for each environment, of the last step and of any; None where there is no such thing
        self._success: Any = None
        self._success_any: Any = 0

    def start(self, turn: int) -> None:
        """Begin, in a new pool, the episode every environment plays after ``turn`` others."""
        self.close()
        generation, resets = divmod(turn, self._episodes_per_seed)
        seeds = [self._env_seed(spec, generation) for spec in self.specs]
        self._pool = make_pool(self._task, seeds, self._num_threads)
        space = self._pool.action_space
        self._rescale = bool((space.low != -1).any() or (space.high != 1).any())  # quadruped alone
        for _ in range(resets + 1):
            observation, _ = self._pool.reset()
        self._begin(turn, observation)

    def send(self) -> None:
        self._pool.send(rescaled(self._action, self._pool) if self._rescale else self._action)

    def collect(self, *, last: bool) -> None:
        """Take in one step; before the decision's ``last`` one, begin the next with the same action.

        EnvPool's own ``frame_skip`` would repeat an action faster, but gives the last reward instead of the sum.
        """
        observation, reward, terminated, truncated, info = self._pool.recv()
        self._paid = self._paid + reward
        self._length += last
        self.ended = last and self._length == self._task.protocol.decisions
        if np.count_nonzero(terminated) or np.count_nonzero(truncated) != self.ended * len(self.specs):
            raise EnvError(
                f"{self._place()}: EnvPool gave terminated {terminated.tolist()} and truncated {truncated.tolist()}; "
                f"expected an end after {self._task.protocol.decisions} decisions and at no other time"
            )
        if not last:
            self.send()
            return
        self._next_observation[:] = flat(observation, self._task.name)
        self._reward[:] = self._paid
        if self.ended or self._length == 1:
            self._truncated[:] = self.ended
        self._return, self._paid = self._return + self._paid, 0.0
        if "success" in info:
            self._success = info["success"]
            self._success_any = np.maximum(self._success_any, self._success)
        if self.ended and not self._seeds_are_spent():
            self.send()  # EnvPool resets in the step after the last, and ignores its action

    def finish(self) -> list[Episode]:
        """The episodes that ended; the next ones have started then."""
        ended = self._records()
        if self._seeds_are_spent():
            self.start(self._turn + 1)
        else:
            observation, *_ = self._pool.recv()
            self._begin(self._turn + 1, observation)
        return ended

    def replay(self, replays: Sequence[Replay]) -> None:
        turns = {
            (replay.episode - spec.replica) // spec.replicas for spec, replay in zip(self.specs, replays, strict=True)
        }
        lengths = {len(replay.actions) for replay in replays}
        if len(turns) > 1 or len(lengths) > 1:
            raise EnvError(f"cannot restore {self._task.name}: its environments are at different decisions")
        self.start(turns.pop())
        actions = np.stack([replay.actions for replay in replays], axis=1)
        for action in actions:
            self._action[:] = action[:, : self._action.shape[1]]
            self.send()
            for repeat in range(1, self.repeats + 1):
                self.collect(last=repeat == self.repeats)
            self._observation[:] = self._next_observation

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _env_seed(self, spec: LaneSpec, generation: int) -> int:
        """Seed of an environment of the pool number ``generation``.

        Meta-World's is always the same: a run trains on a set of goals, and is evaluated on another, as with the
        package itself.
        """
        if self._task.family == "metaworld":
            return EpisodeSeed(self._stream, self._seed, self._task.name, 0).shared(spec.replica)
        first = spec.replica + generation * self._episodes_per_seed * spec.replicas
        return EpisodeSeed(self._stream, self._seed, self._task.name, first).value

    def _begin(self, turn: int, observation: Any) -> None:
        self._turn, self._length, self.ended = turn, 0, False
        self._paid = self._return = 0.0
        self._success = None
        self._success_any = 0
        self._observation[:] = flat(observation, self._task.name)

    def _seeds_are_spent(self) -> bool:
        return (self._turn + 1) % self._episodes_per_seed == 0

    def _records(self) -> list[Episode]:
        last, some = self._success, self._success_any
        return [
            Episode(
                env=spec.env,
                task=spec.task_index,
                index=spec.replica + self._turn * spec.replicas,
                episode_return=float(self._return[place]),
                length=self._length,
                success_any=None if last is None else bool(some[place]),
                success_last=None if last is None else bool(last[place]),
            )
            for place, spec in enumerate(self.specs)
        ]

    def _place(self) -> str:
        environments = ", ".join(str(spec.env) for spec in self.specs)
        return f"environments {environments} ({self._task.name}), turn {self._turn}, step {self._length}"

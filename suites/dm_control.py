"""The DeepMind control suite. Episodes end by the protocol's time limit, which is a truncation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suites.errors import SuiteError, unknown
from suites.seeding import EpisodeSeed
from suites.spec import Protocol, Task, TaskSpaces

# (D, A) of every task, so that a plan can be checked without building environments; a test compares with the package.
# Left out: lqr (unbounded actions, a different kind of problem) and quadruped-escape (needs a renderer).
SPACES: Mapping[str, tuple[int, int]] = {
    "acrobot-swingup": (6, 1),
    "acrobot-swingup_sparse": (6, 1),
    "ball_in_cup-catch": (8, 2),
    "cartpole-balance": (5, 1),
    "cartpole-balance_sparse": (5, 1),
    "cartpole-swingup": (5, 1),
    "cartpole-swingup_sparse": (5, 1),
    "cartpole-two_poles": (8, 1),
    "cartpole-three_poles": (11, 1),
    "cheetah-run": (17, 6),
    "dog-stand": (223, 38),
    "dog-walk": (223, 38),
    "dog-trot": (223, 38),
    "dog-run": (223, 38),
    "dog-fetch": (232, 38),
    "finger-spin": (9, 2),
    "finger-turn_easy": (12, 2),
    "finger-turn_hard": (12, 2),
    "fish-upright": (21, 5),
    "fish-swim": (24, 5),
    "hopper-stand": (15, 4),
    "hopper-hop": (15, 4),
    "humanoid-stand": (67, 21),
    "humanoid-walk": (67, 21),
    "humanoid-run": (67, 21),
    "humanoid-run_pure_state": (55, 21),
    "humanoid_CMU-stand": (137, 56),
    "humanoid_CMU-walk": (137, 56),
    "humanoid_CMU-run": (137, 56),
    "manipulator-bring_ball": (44, 5),
    "manipulator-bring_peg": (44, 5),
    "manipulator-insert_ball": (44, 5),
    "manipulator-insert_peg": (44, 5),
    "pendulum-swingup": (3, 1),
    "point_mass-easy": (4, 2),
    "point_mass-hard": (4, 2),
    "quadruped-walk": (78, 12),
    "quadruped-run": (78, 12),
    "quadruped-fetch": (90, 12),
    "reacher-easy": (6, 2),
    "reacher-hard": (6, 2),
    "stacker-stack_2": (49, 5),
    "stacker-stack_4": (63, 5),
    "swimmer-swimmer6": (25, 5),
    "swimmer-swimmer15": (61, 14),
    "walker-stand": (24, 6),
    "walker-walk": (24, 6),
    "walker-run": (24, 6),
}

# The 28 tasks usually reported.
DMC28 = (
    "acrobot-swingup",
    "ball_in_cup-catch",
    "cartpole-balance",
    "cartpole-balance_sparse",
    "cartpole-swingup",
    "cartpole-swingup_sparse",
    "cheetah-run",
    "dog-run",
    "dog-stand",
    "dog-trot",
    "dog-walk",
    "finger-spin",
    "finger-turn_easy",
    "finger-turn_hard",
    "fish-swim",
    "hopper-hop",
    "hopper-stand",
    "humanoid-run",
    "humanoid-stand",
    "humanoid-walk",
    "pendulum-swingup",
    "quadruped-run",
    "quadruped-walk",
    "reacher-easy",
    "reacher-hard",
    "walker-run",
    "walker-stand",
    "walker-walk",
)


class DMControl:
    """Tasks are named ``<domain>-<task>`` with dm_control's own names: ``cartpole-swingup_sparse``."""

    name = "dm_control"
    default_protocol = "dmc-1000"
    has_success = False

    def tasks(self) -> Sequence[str]:
        return tuple(SPACES)

    def sets(self) -> Mapping[str, Sequence[str]]:
        return {"dmc28": DMC28}

    def spaces(self, task: Task) -> TaskSpaces:
        if task.name not in SPACES:
            raise SuiteError(unknown("dm_control task", task.name, SPACES))
        if task.options:
            raise SuiteError(f"dm_control tasks take no options; found {', '.join(task.options)}")
        D, A = SPACES[task.name]
        return TaskSpaces((D,), A)

    def make(self, task: Task) -> ControlEnv:
        self.spaces(task)
        return ControlEnv(task.name, task.protocol)


class ControlEnv:
    """One dm_control task. Observations are flattened in the task's own order; actions are rescaled to its bounds."""

    def __init__(self, name: str, protocol: Protocol) -> None:
        # Nothing is rendered; without this, importing dm_control looks for a display.
        os.environ.setdefault("MUJOCO_GL", "disabled")
        from dm_control import suite

        domain, task = name.split("-", 1)
        # The time limit is the protocol's, not the suite's; the generator is replaced at every reset.
        self._env = suite.load(domain, task, task_kwargs={"random": 0, "time_limit": math.inf})
        self._protocol = protocol
        self._decisions = 0
        bounds = self._env.action_spec()
        self._low, self._range = bounds.minimum.astype(np.float64), (bounds.maximum - bounds.minimum).astype(np.float64)
        # quadruped alone has bounds other than ±1
        self._rescale = bool(np.any(bounds.minimum != -1) or np.any(bounds.maximum != 1))
        D = sum(int(np.prod(part.shape)) for part in self._env.observation_spec().values())
        self.spaces = TaskSpaces((D,), int(bounds.shape[0]))

    def reset(self, seed: EpisodeSeed) -> NDArray[np.float32]:
        self._decisions = 0
        # What a task mutates in its model (target positions, transparency) it sets anew in every reset, so the
        # generator is all that could carry over from earlier episodes.
        self._env.task._random = np.random.RandomState(seed.value)
        return _flat(self._env.reset().observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, bool | None]:
        control = action.astype(np.float64)
        if self._rescale:
            control = self._low + (control + 1) / 2 * self._range
        reward, terminated = 0.0, False
        for _ in range(self._protocol.action_repeat):
            time_step = self._env.step(control)
            reward += time_step.reward
            terminated = time_step.last()
            if terminated:
                break
        self._decisions += 1
        truncated = not terminated and self._decisions >= self._protocol.decisions
        return _flat(time_step.observation), reward, terminated, truncated, None

    def close(self) -> None:
        self._env.close()


def _flat(observation: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(part) for part in observation.values()], dtype=np.float32)

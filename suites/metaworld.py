"""Meta-World v3, built from its environment classes.

The package's own vector environments ignore the seed given to ``reset``, generate the goals of all tasks at every start
and fall back to another reward without a word. Here each environment gets its goals, time limit and seeds from us: 50
goals per task, fixed for a run and different between its training and its evaluation. They are visible in the
observation unless a task says ``goals: hidden``, as the meta-learning sets ML10 and ML45 are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suites.checks import Policy
from suites.errors import EnvError, SuiteError, unknown
from suites.seeding import EpisodeSeed
from suites.spec import Protocol, Task, TaskSpaces

SPACES = TaskSpaces(observation=(39,), action=4)
NUM_GOALS = 50

# The package's sets, as data so that listing them imports nothing; a test compares with the package.
MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
MT25 = (
    *MT10,
    "coffee-pull-v3",
    "pick-out-of-hole-v3",
    "disassemble-v3",
    "pick-place-wall-v3",
    "basketball-v3",
    "stick-pull-v3",
    "button-press-wall-v3",
    "faucet-open-v3",
    "door-lock-v3",
    "lever-pull-v3",
    "sweep-into-v3",
    "faucet-close-v3",
    "coffee-button-v3",
    "button-press-topdown-wall-v3",
    "dial-turn-v3",
)
MT50 = (
    "assembly-v3",
    "basketball-v3",
    "bin-picking-v3",
    "box-close-v3",
    "button-press-topdown-v3",
    "button-press-topdown-wall-v3",
    "button-press-v3",
    "button-press-wall-v3",
    "coffee-button-v3",
    "coffee-pull-v3",
    "coffee-push-v3",
    "dial-turn-v3",
    "disassemble-v3",
    "door-close-v3",
    "door-lock-v3",
    "door-open-v3",
    "door-unlock-v3",
    "hand-insert-v3",
    "drawer-close-v3",
    "drawer-open-v3",
    "faucet-open-v3",
    "faucet-close-v3",
    "hammer-v3",
    "handle-press-side-v3",
    "handle-press-v3",
    "handle-pull-side-v3",
    "handle-pull-v3",
    "lever-pull-v3",
    "pick-place-wall-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "plate-slide-v3",
    "plate-slide-side-v3",
    "plate-slide-back-v3",
    "plate-slide-back-side-v3",
    "peg-insert-side-v3",
    "peg-unplug-side-v3",
    "soccer-v3",
    "stick-push-v3",
    "stick-pull-v3",
    "push-v3",
    "push-wall-v3",
    "push-back-v3",
    "reach-v3",
    "reach-wall-v3",
    "shelf-place-v3",
    "sweep-into-v3",
    "sweep-v3",
    "window-open-v3",
    "window-close-v3",
)
ML10_TRAIN = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "sweep-v3",
    "basketball-v3",
)
ML10_TEST = ("drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3")
ML45_TEST = ("bin-picking-v3", "box-close-v3", "hand-insert-v3", "door-lock-v3", "door-unlock-v3")
ML45_TRAIN = tuple(name for name in MT50 if name not in ML45_TEST)
SETS: Mapping[str, Sequence[str]] = {
    "MT10": MT10,
    "MT25": MT25,
    "MT50": MT50,
    "ML10-train": ML10_TRAIN,
    "ML10-test": ML10_TEST,
    "ML45-train": ML45_TRAIN,
    "ML45-test": ML45_TEST,
}
GOALS = ("visible", "hidden")
"""Values of the option ``goals``; a hidden goal is zeros in the observation."""


class MetaWorld:
    """The 50 tasks of Meta-World v3 with reward version 2."""

    name = "metaworld"
    default_protocol = "metaworld-v3"
    has_success = True

    def tasks(self) -> Sequence[str]:
        return MT50

    def sets(self) -> Mapping[str, Sequence[str]]:
        return SETS

    def spaces(self, task: Task) -> TaskSpaces:
        if task.name not in MT50:
            raise SuiteError(unknown("Meta-World task", task.name, MT50))
        faults = [unknown("Meta-World option", name, ["goals"]) for name in task.options if name != "goals"]
        goals = task.options.get("goals", "visible")
        if goals not in GOALS:
            faults.append(f"option 'goals': found {goals!r}; expected {' or '.join(GOALS)}")
        if faults:
            raise SuiteError(faults)
        return SPACES

    def expert(self, task: Task) -> Policy | None:
        """The package's scripted policy, which needs to see the goal and to act at every step."""
        if task.options.get("goals", "visible") != "visible" or task.protocol.action_repeat > 1:
            return None
        from metaworld.policies import ENV_POLICY_MAP

        make_policy: Any = ENV_POLICY_MAP[task.name]
        policy = make_policy()

        def act(observation: NDArray[Any]) -> NDArray[np.float32]:
            action: NDArray[np.float64] = np.clip(policy.get_action(observation.astype(np.float64)), -1, 1)
            return action.astype(np.float32)

        return act

    def make(self, task: Task) -> SawyerEnv:
        self.spaces(task)
        return SawyerEnv(task.name, task.protocol, hidden_goals=task.options.get("goals") == "hidden")


CAMERA = "corner2"
"""Of the model's own cameras, the one that sees table and arm."""


class SawyerEnv:
    """One Meta-World task. Never terminates; truncates after the protocol's decisions."""

    spaces = SPACES

    def __init__(self, name: str, protocol: Protocol, *, hidden_goals: bool = False) -> None:
        # Nothing is rendered; without this, importing mujoco may look for a display.
        os.environ.setdefault("MUJOCO_GL", "disabled")
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        from suites.metaworld_speed import faster

        environment: Any = ALL_V3_ENVIRONMENTS[name]
        self._env = faster(environment)(reward_function_version="v2")
        if self._env.reward_function_version != "v2":
            raise EnvError(f"{name}: reward version {self._env.reward_function_version!r} where 'v2' was asked for")
        self._env.max_path_length = protocol.action_repeat * protocol.decisions
        self._env._partially_observable = hidden_goals
        del self._env.sawyer_observation_space  # cached before it was known whether the goal is hidden
        self._env._set_task_called = True
        self._protocol = protocol
        self._decisions = 0
        self._goals: dict[int, NDArray[np.float64]] = {}
        self._renderer: Any = None

    def reset(self, seed: EpisodeSeed) -> NDArray[np.float32]:
        self._decisions = 0
        # An evaluation goes through the goals in order, so that all agents meet the same; training draws.
        number = (seed.episode if seed.stream == "evaluate" else seed.value) % NUM_GOALS
        goal = self._goal(seed.shared(number))
        # The package's reset sets anew all that an episode moves in model, data and attributes; only the random
        # vector must be given.
        self._env._freeze_rand_vec = True
        self._env._last_rand_vec = goal.copy()
        observation, _ = self._env.reset()
        return observation.astype(np.float32)  # type: ignore[no-any-return]

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, bool | None]:
        reward, success = 0.0, False
        for _ in range(self._protocol.action_repeat):
            observation, step_reward, _, _, info = self._env.step(action)
            reward += float(step_reward)
            success = bool(info["success"])
        self._decisions += 1
        return observation.astype(np.float32), reward, False, self._decisions >= self._protocol.decisions, success

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """The table from the corner. Raises :class:`EnvError` where nothing can be rendered."""
        from suites.dm_control_pixels import open_renderer

        open_renderer()
        import mujoco

        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._env.model, height, width)
        self._renderer.update_scene(self._env.data, camera=CAMERA)
        image: NDArray[np.uint8] = self._renderer.render()[::-1, ::-1]  # the package's corner cameras hang upside down
        return image

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()

    def _goal(self, seed: int) -> NDArray[np.float64]:
        """The task's random vector (goal, object position) for a seed, drawn by the task's own rules."""
        if seed not in self._goals:
            self._env._freeze_rand_vec = False
            self._env.seeded_rand_vec = True
            self._env.np_random = np.random.default_rng(seed)
            # The task itself redraws what it cannot use (a goal on top of the object), so it must do the drawing.
            self._env.reset_model()
            self._goals[seed] = np.array(self._env._last_rand_vec)
        return self._goals[seed]

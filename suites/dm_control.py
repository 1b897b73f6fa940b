"""The DeepMind control suite, from state or from pixels. Episodes end by the protocol's time limit: a truncation."""

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


# The eleven that TD-MPC2 added; see dm_control_extra.py.
EXTRA: Mapping[str, tuple[int, int]] = {
    "ball_in_cup-spin": (8, 2),
    "cheetah-jump": (17, 6),
    "cheetah-run_back": (17, 6),
    "cheetah-run_backwards": (17, 6),
    "cheetah-run_front": (17, 6),
    "hopper-hop_backwards": (15, 4),
    "pendulum-spin": (3, 1),
    "reacher-three_easy": (8, 3),
    "reacher-three_hard": (8, 3),
    "walker-run_backwards": (24, 6),
    "walker-walk_backwards": (24, 6),
}
TASKS = {**SPACES, **EXTRA}

# TD-MPC2's sets: all of its tasks, and those of its multi-task agents.
DMC39 = (*DMC28, *EXTRA)
MT30 = tuple(name for name in DMC39 if not name.startswith(("dog-", "humanoid-", "quadruped-")))

PIXELS_PROTOCOL = "dmc-pixels"
IMAGE_SIZE = 64
LARGEST_IMAGE = 480
"""Height of the frame that dm_control's models render into."""


class DMControl:
    """Tasks are named ``<domain>-<task>`` with dm_control's own names: ``cartpole-swingup_sparse``.

    With the options ``{observation: pixels, size: 64}`` a task shows what a camera sees; 64 is the default size.
    """

    name = "dm_control"
    default_protocol = "dmc-1000"
    has_success = False

    def tasks(self) -> Sequence[str]:
        return tuple(TASKS)

    def sets(self) -> Mapping[str, Sequence[str]]:
        return {"dmc28": DMC28, "dmc39": DMC39, "mt30": MT30}

    def spaces(self, task: Task) -> TaskSpaces:
        if task.name not in TASKS:
            raise SuiteError(unknown("dm_control task", task.name, TASKS))
        size = _image_size(task)
        D, A = TASKS[task.name]
        return TaskSpaces((D,) if size is None else (size, size, 3), A)

    def make(self, task: Task) -> ControlEnv:
        self.spaces(task)
        return ControlEnv(task.name, task.protocol, _image_size(task))


def _image_size(task: Task) -> int | None:
    """Height and width of the images that ``task`` shows, ``None`` where it shows its state."""
    for option in task.options:
        if option not in ("observation", "size"):
            raise SuiteError(unknown("option of dm_control tasks", option, ("observation", "size")))
    observation, size = task.options.get("observation", "state"), task.options.get("size", IMAGE_SIZE)
    if observation not in ("state", "pixels"):
        raise SuiteError(f"observation: found {observation!r}; expected 'state' or 'pixels'")
    pixels = observation == "pixels"
    if not pixels and "size" in task.options:
        raise SuiteError("size: a state has none; expected 'observation: pixels' beside it")
    if type(size) is not int or not 1 <= size <= LARGEST_IMAGE:
        raise SuiteError(f"size: found {size!r}; expected a whole number of pixels from 1 to {LARGEST_IMAGE}")
    # Scores from images and from states are two things, and two protocols never share a figure.
    if pixels and task.protocol.name == DMControl.default_protocol:
        raise SuiteError(f"observation: pixels are not scored by {task.protocol.name!r}; expected {PIXELS_PROTOCOL!r}")
    if not pixels and task.protocol.name == PIXELS_PROTOCOL:
        raise SuiteError(f"protocol {PIXELS_PROTOCOL!r} needs the options {{observation: pixels}}; found a state")
    return size if pixels else None


class ControlEnv:
    """One dm_control task. States are flattened in the task's own order; actions are rescaled to its bounds.

    With ``image_size`` the observation is what the domain's usual camera sees. Raises :class:`EnvError` where nothing
    can be rendered.
    """

    def __init__(self, name: str, protocol: Protocol, image_size: int | None = None) -> None:
        self._env = _load(name, rendered=image_size is not None)
        self._image_size = image_size
        # As is usual: the first camera, but quadruped's is far away.
        self._camera = 2 if name.startswith("quadruped-") else 0
        self._protocol = protocol
        self._decisions = 0
        bounds = self._env.action_spec()
        self._low, self._range = bounds.minimum.astype(np.float64), (bounds.maximum - bounds.minimum).astype(np.float64)
        # quadruped alone has bounds other than ±1
        self._rescale = bool(np.any(bounds.minimum != -1) or np.any(bounds.maximum != 1))
        D = sum(int(np.prod(part.shape)) for part in self._env.observation_spec().values())
        shape = (D,) if image_size is None else (image_size, image_size, 3)
        self.spaces = TaskSpaces(shape, int(bounds.shape[0]))

    def reset(self, seed: EpisodeSeed) -> NDArray[Any]:
        self._decisions = 0
        # What a task mutates in its model (target positions, transparency) it sets anew in every reset, so the
        # generator is all that could carry over from earlier episodes.
        self._env.task._random = np.random.RandomState(seed.value)
        return self._observation(self._env.reset())

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[Any], float, bool, bool, bool | None]:
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
        return self._observation(time_step), reward, terminated, truncated, None

    def control(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The simulator's bounds and what its actuators were last given, ``[A]`` each."""
        return self._low, self._low + self._range, self._env.physics.data.ctrl.copy()

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """What the domain's usual camera sees. Raises :class:`EnvError` where nothing can be rendered."""
        from suites.dm_control_pixels import open_renderer

        open_renderer()
        image: NDArray[np.uint8] = self._env.physics.render(height, width, camera_id=self._camera)
        return image

    def close(self) -> None:
        self._env.close()
        self._env.physics.free()  # what it renders with, too: some renderers cannot be left to the interpreter's end

    def _observation(self, time_step: Any) -> NDArray[Any]:
        if self._image_size is not None:
            image: NDArray[np.uint8] = self._env.physics.render(
                self._image_size, self._image_size, camera_id=self._camera
            )
            return image
        return np.concatenate([np.ravel(part) for part in time_step.observation.values()], dtype=np.float32)


def _load(name: str, *, rendered: bool) -> Any:
    """dm_control's environment. The time limit is the protocol's; the generator is replaced at every reset."""
    if rendered:
        from suites.dm_control_pixels import open_renderer

        open_renderer()
    # Where nothing is rendered: without this, importing dm_control looks for a display.
    os.environ.setdefault("MUJOCO_GL", "disabled")
    if name in EXTRA:
        from suites import dm_control_extra

        return dm_control_extra.load(name)
    from dm_control import suite

    domain, task = name.split("-", 1)
    return suite.load(domain, task, task_kwargs={"random": 0, "time_limit": math.inf})

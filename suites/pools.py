"""EnvPool's pools: its names of our tasks, and the spaces that are the tasks' own.

EnvPool (the package ``envpool``) has Meta-World and dm_control in C++; how near it comes to them is measured by
:mod:`suites.parity`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suites.errors import EnvError, SuiteError
from suites.families import spaces
from suites.spec import Task

# EnvPool shows what any task of a domain might, in an order of its own; these are the parts a task of dm_control shows,
# in its order, where the two differ. A test compares with the package.
_DOG = (
    "joint_angles",
    "joint_velocites",
    "torso_pelvis_height",
    "z_projection",
    "torso_com_velocity",
    "inertial_sensors",
    "foot_forces",
    "touch_sensors",
    "actuator_state",
)
_HUMANOID = ("joint_angles", "head_height", "extremities", "torso_vertical", "com_velocity", "velocity")
_QUADRUPED = ("egocentric_state", "torso_velocity", "torso_upright", "imu", "force_torque")
PARTS: Mapping[str, tuple[str, ...]] = {
    "dog-stand": _DOG,
    "dog-walk": _DOG,
    "dog-trot": _DOG,
    "dog-run": _DOG,
    "finger-spin": ("position", "velocity", "touch"),
    "fish-upright": ("joint_angles", "upright", "velocity"),
    "fish-swim": ("joint_angles", "upright", "target", "velocity"),
    "humanoid-stand": _HUMANOID,
    "humanoid-walk": _HUMANOID,
    "humanoid-run": _HUMANOID,
    "humanoid-run_pure_state": ("position", "velocity"),
    "quadruped-walk": _QUADRUPED,
    "quadruped-run": _QUADRUPED,
    "quadruped-fetch": (*_QUADRUPED, "ball_state", "target_position"),
}


def load() -> ModuleType:
    """The package ``envpool``; :class:`SuiteError` says how to get it where it is missing."""
    try:
        import envpool
    except ImportError as error:
        raise SuiteError(
            f"engine envpool needs a package that cannot be imported ({error}); "
            "pip install 'm3po-bench[envpool]', or use engine: native"
        ) from error
    return envpool


def pool_id(task: Task) -> str:
    """EnvPool's name of a task: ``MetaWorld/DoorOpen-v3``, ``BallInCupCatch-v1``.

    Raises :class:`SuiteError` for families EnvPool does not have, and for images.
    """
    if len(spaces(task).observation) > 1:
        raise SuiteError(f"{task.name}: engine envpool shows states, not images; use engine: native")
    if task.family == "metaworld":
        return f"MetaWorld/{_camel(task.name.removesuffix('-v3'))}-v3"
    if task.family == "dm_control":
        return f"{_camel(task.name)}-v1"
    raise SuiteError(f"{task.name}: engine envpool has no family {task.family!r}; use engine: native")


def unavailable(task: Task) -> str | None:
    """Why EnvPool cannot simulate ``task`` here, or ``None`` where it can. Nothing is imported."""
    try:
        pool_id(task)
    except SuiteError as error:
        return str(error)
    if find_spec("envpool") is None:
        return "EnvPool is not installed; pip install 'm3po-bench[envpool]', or use engine: native"
    return None


def make_pool(task: Task, seeds: Sequence[int], num_threads: int) -> Any:
    """A pool of EnvPool with an environment of ``task`` for each seed; episodes last as long as the protocol says."""
    rules = task.protocol
    hidden = task.options.get("goals") == "hidden"
    options = {"partially_observable": hidden} if task.family == "metaworld" else {}
    try:
        return load().make(
            pool_id(task),
            env_type="gymnasium",
            num_envs=len(seeds),
            env_seed=[int(seed) % 2**31 for seed in seeds],  # a C int
            num_threads=min(num_threads, len(seeds)),
            max_episode_steps=rules.decisions * rules.action_repeat,
            **options,
        )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise EnvError(f"EnvPool cannot make {task.name}: {type(error).__name__}: {error}") from error


def flat(observation: NDArray[Any] | Mapping[str, NDArray[Any]], task_name: str) -> NDArray[Any]:
    """A pool's observations ``[n, D]``, in the order in which the task's own package flattens them."""
    if not isinstance(observation, Mapping):
        return observation
    names = PARTS.get(task_name, tuple(observation))
    return np.concatenate([observation[name].reshape(len(observation[name]), -1) for name in names], axis=1)


def rescaled(action: NDArray[np.float32], pool: Any) -> NDArray[np.float64]:
    """Actions ``[n, A]`` in [-1, 1], brought to the bounds of ``pool``."""
    low, high = pool.action_space.low, pool.action_space.high
    return low + (action.astype(np.float64) + 1) / 2 * (high - low)  # type: ignore[no-any-return]


def _camel(name: str) -> str:
    return "".join(part[0].upper() + part[1:] for part in re.split("[-_]", name))

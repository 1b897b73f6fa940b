"""Environments registered with gymnasium, by id: a suite file alone is enough to use one.

A suite may come from anybody, so an id may not name code: only what is registered already, by gymnasium or by an
installed package in the entry-point group ``gymnasium.envs``, is found, and ``module:id`` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suites.errors import EnvError, SuiteError, unknown
from suites.seeding import EpisodeSeed
from suites.spec import Task, TaskSpaces

if TYPE_CHECKING:
    import gymnasium

OURS = ("max_episode_steps", "disable_env_checker", "render_mode")
"""Arguments of ``gymnasium.make`` that a protocol decides or nobody needs."""

COMPATIBILITY = ("GymV21Environment-v0", "GymV26Environment-v0")
"""Ids that make an environment of another registry, named in their arguments, which would import modules."""


class GymnasiumIds:
    """A task's name is its id, or ``options: {id: …}`` gives it; other options go to the environment's constructor.

    Observations: a Box of floats, a Dict of such (flattened in the space's order), or an image. Actions: a bounded Box.
    Success: what ``info`` says under ``success`` or ``is_success``.
    """

    name = "gymnasium"
    default_protocol = ""  # length and range of scores differ between environments: a suite states them
    has_success = True
    any_name = True

    def tasks(self) -> Sequence[str]:
        return tuple(sorted(name for name in _ids() if "/" not in name))

    def sets(self) -> Mapping[str, Sequence[str]]:
        return {}

    def spaces(self, task: Task) -> TaskSpaces:
        with closing(self.make(task)) as env:
            return env.spaces

    def make(self, task: Task) -> GymnasiumEnv:
        return GymnasiumEnv(task)

    def make_pictured(self, task: Task) -> PicturedGymnasiumEnv:
        """One that can be looked at: gymnasium wants to know when it is made."""
        return PicturedGymnasiumEnv(task)


class GymnasiumEnv:
    """One environment; the protocol's time limit replaces the registered one."""

    def __init__(self, task: Task, *, render_mode: str | None = None) -> None:
        self._env = _make(task, render_mode)
        self._protocol = task.protocol
        self._decisions = 0
        try:
            self.spaces = TaskSpaces(
                _observation_shape(self._env.observation_space), _action_size(self._env.action_space)
            )
        except SuiteError as error:
            self._env.close()
            raise SuiteError(f"gymnasium task {task.name!r}: {error}") from None
        space: Any = self._env.action_space
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._control: NDArray[Any] = np.zeros_like(space.low)

    def reset(self, seed: EpisodeSeed) -> NDArray[Any]:
        self._decisions = 0
        observation, _ = self._env.reset(seed=seed.value)
        return self._entries(observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[Any], float, bool, bool, bool | None]:
        wanted = self._low + (action.astype(np.float64) + 1) / 2 * (self._high - self._low)
        # rounding must not lead out of the bounds
        self._control = np.clip(wanted, self._low, self._high).astype(self._control.dtype)
        reward, terminated, cut = 0.0, False, False
        for _ in range(self._protocol.action_repeat):
            observation, step_reward, terminated, cut, info = self._env.step(self._control)
            reward += float(step_reward)
            if terminated or cut:
                break
        self._decisions += 1
        truncated = not terminated and (bool(cut) or self._decisions >= self._protocol.decisions)
        return self._entries(observation), reward, bool(terminated), truncated, self._success(info)

    def control(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Lower and upper bounds of the action space and the action last given, ``[A]`` each."""
        return self._low, self._high, self._control

    def close(self) -> None:
        self._env.close()

    def _entries(self, observation: Any) -> NDArray[Any]:
        """A copy: an environment may give out the array it works in."""
        if isinstance(observation, Mapping):
            return np.concatenate([np.ravel(observation[key]) for key in self._env.observation_space], dtype=np.float32)  # type: ignore[attr-defined]
        return np.array(observation, dtype=self.spaces.dtype)

    def _success(self, info: Mapping[str, Any]) -> bool | None:
        success = info.get("success", info.get("is_success"))
        if success is None and self._protocol.score != "return":
            raise EnvError(
                f"protocol {self._protocol.name!r} scores success, but the environment's info has neither 'success' "
                "nor 'is_success'; score 'return'"
            )
        return None if success is None else bool(success)


class PicturedGymnasiumEnv(GymnasiumEnv):
    """One whose own renderer gives pictures."""

    def __init__(self, task: Task) -> None:
        from suites.dm_control_pixels import open_renderer

        with suppress(EnvError):  # not every environment draws with MuJoCo; one that does will say what it misses
            open_renderer()
        super().__init__(task, render_mode="rgb_array")

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """Its renderer's picture, as large as fits, on black. Raises :class:`EnvError` where there is none."""
        try:
            rendered = np.asarray(self._env.render())
        except Exception as error:  # a renderer may fail in any way; the user needs the reason
            raise EnvError(f"nothing can be rendered ({type(error).__name__}: {error})") from error
        if rendered.dtype != np.uint8 or rendered.ndim != 3 or rendered.shape[2] != 3:
            raise EnvError(
                f"found pictures of {rendered.dtype} {rendered.shape}; expected uint8 with the shape (height, width, 3)"
            )
        return _fitted(rendered, height, width)


def _fitted(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """``picture`` in its own proportions in the middle of ``[height, width, 3]``; nearest pixels are good enough."""
    of_rows, of_columns = picture.shape[:2]
    scale = min(height / of_rows, width / of_columns)
    rows, columns = max(1, int(of_rows * scale)), max(1, int(of_columns * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    shown = np.zeros((height, width, 3), np.uint8)
    from_rows = (np.arange(rows) + 0.5) * of_rows / rows
    from_columns = (np.arange(columns) + 0.5) * of_columns / columns
    shown[top : top + rows, left : left + columns] = picture[from_rows.astype(int)][:, from_columns.astype(int)]
    return shown


def _make(task: Task, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    import gymnasium

    found = _id(task)
    options = {key: value for key, value in task.options.items() if key != "id"}
    if reserved := [key for key in OURS if key in options]:
        raise SuiteError(f"gymnasium task {task.name!r}: options may not have {', '.join(reserved)}; leave it out")
    try:
        return gymnasium.make(found, max_episode_steps=-1, disable_env_checker=True, render_mode=render_mode, **options)
    except Exception as error:  # a constructor may fail in any way; the user needs the id and the reason
        raise SuiteError(f"gymnasium id {found!r} cannot be made ({type(error).__name__}: {error})") from error


def _id(task: Task) -> str:
    """The registered id of a task. Raises :class:`SuiteError`."""
    wanted = task.options.get("id", task.name)
    if not isinstance(wanted, str):
        raise SuiteError(f"gymnasium task {task.name!r}: options.id is {wanted!r}; expected an id such as Pendulum-v1")
    if ":" in wanted:
        raise SuiteError(
            f"gymnasium id {wanted!r} would import a module; expected the id of a registered environment. A package "
            "registers its ids through the entry-point group gymnasium.envs"
        )
    known = _ids()
    if wanted not in known:
        raise SuiteError("; ".join((unknown("gymnasium id", wanted, known), *_register_plugins())))
    return wanted


def _ids() -> tuple[str, ...]:
    import gymnasium

    _register_plugins()
    return tuple(name for name in gymnasium.registry if name not in COMPATIBILITY)


@cache
def _register_plugins() -> tuple[str, ...]:
    """Let installed packages register their ids: each entry point is a module that does, or a function.

    gymnasium itself stopped reading the group it gave the name to. Returns a sentence for each one that failed.
    """
    from gymnasium.envs import registration

    if hasattr(registration, "load_plugin_envs"):
        return ()
    faults = []
    for point in entry_points(group="gymnasium.envs"):
        try:
            register = point.load()
            if callable(register):
                register()
        except Exception as error:  # a plugin may fail in any way; the ids of the others still work
            faults.append(f"the ids of {point.value} are missing ({type(error).__name__}: {error})")
    return tuple(faults)


def _observation_shape(space: Any) -> tuple[int, ...]:
    from gymnasium.spaces import Box, Dict

    if isinstance(space, Dict):
        parts = {key: _observation_shape(part) for key, part in space.items()}
        if not all(_is_vector(part) for part in space.values()):
            raise SuiteError(f"found observations with the parts {parts}; expected vectors of floats alone")
        return (sum(shape[0] for shape in parts.values()),)
    if isinstance(space, Box) and (_is_vector(space) or _is_image(space)):
        return tuple(int(size) for size in space.shape)
    raise SuiteError(
        f"found observations {space}; expected a Box of floats with one axis, a Dict of such, or an image: a Box of "
        "uint8 with the shape (height, width, 3)"
    )


def _is_vector(space: Any) -> bool:
    return len(space.shape) == 1 and bool(np.issubdtype(space.dtype, np.floating))


def _is_image(space: Any) -> bool:
    return len(space.shape) == 3 and space.shape[-1] == 3 and space.dtype == np.uint8


def _action_size(space: Any) -> int:
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        raise SuiteError(f"found discrete actions {space}; agents here act in continuous ones (a Box)")
    if not isinstance(space, Box) or not _is_vector(space):
        raise SuiteError(f"found actions {space}; expected a Box of floats with one axis")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise SuiteError(f"found actions without bounds, {space}; expected a Box with finite bounds")
    return int(space.shape[0])

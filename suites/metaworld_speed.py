"""Meta-World's environment classes, about twice as fast and equal to the last bit.

Two thirds of a step of the package are not physics but small change: arrays of three numbers handled by functions made
for large ones. :func:`faster` makes a subclass of an environment class in which

* the methods all tasks share are written for few numbers (:class:`_Shared`), and
* the task's own methods are the package's, compiled code and all, reading other globals: ``np.linalg.norm``,
  ``np.clip``, ``Rotation`` and ``tolerance`` mean the functions of :mod:`suites.metaworld_scalars` there.

Nothing in the package's modules is changed, so whoever else uses them in the process sees what they always were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import mujoco
import numpy as np
from metaworld.utils import reward_utils
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from suites.metaworld_scalars import QuickRotation, clip, norm, tolerance

Array = NDArray[np.float64]

_HAND_DOWN = np.array([1.0, 0.0, 1.0, 0.0])
"""Orientation of the hand, a quaternion that MuJoCo normalises."""


@cache
def faster(environment: Any) -> Any:
    """A subclass of an environment class of Meta-World: what it does is the same, how long it takes is not."""
    module = vars(sys.modules[environment.__module__])
    seen = _with_replacements(module)
    own = {name: _reading(seen, module, member) for name, member in vars(environment).items() if name[:2] != "__"}
    result = type(environment.__name__, (_Shared, environment), own)
    seen[environment.__name__] = result  # tasks call their static methods by the name of their class
    return result


def _with_replacements(module: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a module's globals in which the slow functions are ours, by whatever name it knows them."""
    numpy = SimpleNamespace(**vars(np) | {"clip": clip, "linalg": SimpleNamespace(**vars(np.linalg) | {"norm": norm})})
    rewards = SimpleNamespace(**vars(reward_utils) | {"tolerance": tolerance})
    replaced = ((np, numpy), (reward_utils, rewards), (reward_utils.tolerance, tolerance), (Rotation, QuickRotation))
    by_identity = {id(slow): fast for slow, fast in replaced}
    return {name: by_identity.get(id(value), value) for name, value in module.items()}


def _reading(seen: dict[str, Any], module: Mapping[str, Any], member: Any) -> Any:
    """A member of a class of ``module`` whose functions read the globals ``seen``; anything else as it is."""

    def again(part: Any) -> Any:
        return _reading(seen, module, part)

    if isinstance(member, property):
        return property(again(member.fget), again(member.fset), again(member.fdel), member.__doc__)
    if isinstance(member, staticmethod):
        return staticmethod(again(member.__func__))
    if not isinstance(member, FunctionType):
        return member
    # A decorated method is a function of another module that holds the method in a cell.
    cells = tuple(
        CellType(again(cell.cell_contents)) if isinstance(cell.cell_contents, FunctionType) else cell
        for cell in member.__closure__ or ()
    )
    read = seen if member.__globals__ is module else member.__globals__
    result = FunctionType(member.__code__, read, member.__name__, member.__defaults__, cells)
    result.__kwdefaults__ = member.__kwdefaults__
    return result


class _Shared:
    """Methods of the package's ``SawyerXYZEnv`` and its bases, each with the meaning it has there.

    Positions that MuJoCo computes are looked up by name once; they are views of its memory and stay right.
    """

    data: Any
    model: Any
    frame_skip: int
    max_path_length: int
    curr_path_length: int
    action_scale: float
    mocap_low: Array
    mocap_high: Array
    obj_init_pos: Array
    init_tcp: Array
    sawyer_observation_space: Any
    evaluate_state: Callable[[Array, NDArray[np.float32]], tuple[float, dict[str, Any]]]
    reset_model: Callable[[], Array]
    _partially_observable: bool
    _get_pos_goal: Callable[[], Array]
    _get_pos_objects: Callable[[], Array]
    _get_quat_objects: Callable[[], Array]
    _prev_obs: Array
    _last_stable_obs: Array
    _still = False
    """Whether no time passes."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start an episode; ``seed`` and ``options`` are ignored, as in the package.

        It runs ``reset_model`` twice and forgets the state in between. What stays of the first run is where it put the
        scenery, which no simulated movement of the hand has a part in, so that there the hand need not be moved.
        """
        self.curr_path_length = 0
        self._still = True
        self.reset_model()
        self._still = False
        mujoco.mj_resetData(self.model, self.data)
        observation = self.reset_model()
        self._prev_obs = observation[:18].copy()
        observation[18:36] = self._prev_obs
        return observation, {}

    def step(self, action: NDArray[np.float32]) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One environment step, ``action`` ``[4]``. Raises ``ValueError`` after ``max_path_length`` steps.

        The package also moves the sites that mark the target, which the ``mj_forward`` after it undoes.
        """
        if self.curr_path_length >= self.max_path_length:
            raise ValueError(f"found a step after the last of {self.max_path_length}; reset the environment first")
        self.set_xyz_action(action[:3])
        self.do_simulation((action[-1], -action[-1]), self.frame_skip)
        self.curr_path_length += 1
        mujoco.mj_forward(self.model, self.data)
        low, high = self._observation_bounds
        observation = np.minimum(np.maximum(self._get_obs(), low), high)
        self._last_stable_obs = observation
        reward, info = self.evaluate_state(observation, action)
        return observation, reward, False, self.curr_path_length == self.max_path_length, info

    def set_xyz_action(self, action: NDArray[np.float32]) -> None:
        """Move the point that pulls the hand by ``action`` ``[3]``, within the workspace."""
        moved = np.minimum(np.maximum(action, -1), 1) * self.action_scale
        position = self.data.mocap_pos[0]
        np.minimum(np.maximum(position + moved, self.mocap_low), self.mocap_high, out=position)
        self.data.mocap_quat[:] = _HAND_DOWN

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        """Let ``n_frames`` substeps pass while the fingers are driven by ``ctrl`` ``[2]``.

        The package then has ``mj_rnePostConstraint`` compute forces between bodies. No task and no sensor reads them,
        and MuJoCo does not start from them.
        """
        if not self._still:
            self.data.ctrl[:] = ctrl
            mujoco.mj_step(self.model, self.data, n_frames)

    def get_endeff_pos(self) -> Array:
        return self.get_body_com("hand")

    def get_body_com(self, body_name: str) -> Array:
        position = self._bodies.get(body_name)
        if position is None:
            position = self._bodies[body_name] = self.data.body(body_name).xpos
        return position

    def _get_site_pos(self, site_name: str) -> Array:
        return self._site(site_name).copy()

    @property
    def tcp_center(self) -> Array:
        center: Array = (self._site("rightEndEffector") + self._site("leftEndEffector")) / 2.0
        return center

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both fingers press on a geom."""
        contact = self.data.contact
        left, right = self._pads
        left_force = right_force = 0
        for number, (first, second) in enumerate(contact.geom.tolist()):
            if object_geom_id in (first, second):
                other = second if first == object_geom_id else first
                if other == left:
                    left_force += self.data.efc_force[contact.efc_address[number]]
                elif other == right:
                    right_force += self.data.efc_force[contact.efc_address[number]]
        return left_force > 0 and right_force > 0

    def _get_curr_obs_combined_no_goal(self) -> Array:
        """Hand, opening of the gripper, then position and orientation of each object: ``[18]``, padded with zeros."""
        opening = norm(self.get_body_com("rightclaw") - self.get_body_com("leftclaw")) / 0.1
        positions, orientations = self._get_pos_objects(), self._get_quat_objects()
        observation = np.zeros(18)
        observation[:3] = self.get_endeff_pos()
        observation[3] = clip(opening, 0.0, 1.0)
        for number in range(len(positions) // 3):
            start = 4 + 7 * number
            observation[start : start + 3] = positions[3 * number : 3 * number + 3]
            observation[start + 3 : start + 7] = orientations[4 * number : 4 * number + 4]
        return observation

    def _get_obs(self) -> Array:
        """What is seen now, what was seen before, and the goal: ``[39]``."""
        goal = np.zeros(3) if self._partially_observable else self._get_pos_goal()
        current = self._get_curr_obs_combined_no_goal()
        observation = np.concatenate((current, self._prev_obs, goal))
        self._prev_obs = current
        return observation

    def _gripper_caging_reward(
        self,
        action: NDArray[np.float32],
        obj_pos: Array,
        obj_radius: float,
        pad_success_thresh: float,
        object_reach_radius: float,
        xz_thresh: float,
        desired_gripper_effort: float = 1.0,
        high_density: bool = False,
        medium_density: bool = False,
    ) -> float:
        """How well the fingers are around an object at ``obj_pos`` ``[3]``, and how firmly they close: 0 … 1."""
        object_y, initial_y = obj_pos.item(1), self.obj_init_pos.item(1)

        def caging_of(pad: str) -> Any:
            y = self.get_body_com(pad).item(1)
            margin = abs(abs(y - initial_y) - pad_success_thresh)
            return tolerance(abs(y - object_y), (obj_radius, pad_success_thresh), margin, "long_tail")

        caging_y = reward_utils.hamacher_product(caging_of("leftpad"), caging_of("rightpad"))
        tcp = self.tcp_center
        margin = norm(self.obj_init_pos[::2] - self.init_tcp[::2]) - xz_thresh
        caging_xz = tolerance(norm(tcp[::2] - obj_pos[::2]), (0, xz_thresh), margin, "long_tail")
        caging = reward_utils.hamacher_product(caging_y, caging_xz)
        closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
        reward: Any = reward_utils.hamacher_product(caging, closed if caging > 0.97 else 0.0)
        if high_density:
            reward = (reward + caging) / 2
        if medium_density:
            margin = abs(norm(self.obj_init_pos - self.init_tcp) - object_reach_radius)
            reward = (reward + tolerance(norm(obj_pos - tcp), (0, object_reach_radius), margin, "long_tail")) / 2
        return reward  # type: ignore[no-any-return]

    @cached_property
    def _bodies(self) -> dict[str, Array]:
        return {}

    @cached_property
    def _sites(self) -> dict[str, Array]:
        return {}

    @cached_property
    def _pads(self) -> tuple[int, int]:
        return self.data.geom("leftpad_geom").id, self.data.geom("rightpad_geom").id

    @cached_property
    def _observation_bounds(self) -> tuple[Array, Array]:
        return self.sawyer_observation_space.low, self.sawyer_observation_space.high

    def _site(self, name: str) -> Array:
        position = self._sites.get(name)
        if position is None:
            position = self._sites[name] = self.data.site(name).xpos
        return position

"""The eleven tasks that TD-MPC2 (Hansen et al., ICLR 2024) added to the DeepMind control suite.

Bodies, observations and start states are those of the suite's own domains; what differs is said at each task. A reward
is a function of the domain's physics with values in [0, 1]. Importing this module imports the simulator.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from dm_control import suite
from dm_control.rl import control
from dm_control.suite import common, reacher
from dm_control.utils.rewards import tolerance

from suites.errors import EnvError

Physics: TypeAlias = Any
"""A domain's ``dm_control.suite`` physics."""


class Variant(NamedTuple):
    """A task of the suite with another reward."""

    base: str
    """``<domain>-<task>`` of the suite."""
    reward: Callable[[Physics], float]
    start: Callable[[Any, Physics], None] | None = None
    """From task and physics: another way to begin an episode."""
    floor: tuple[str, float] | None = None
    """The floor's name and half its length, where the suite's does not reach far enough back. Contacts do not depend on
    it, but a camera sees it end."""


def load(name: str, time_limit: float = math.inf) -> Any:
    """The environment of the extra task ``name``, like ``dm_control.suite.load``; ``time_limit`` in seconds."""
    if name in THREE_LINKS:
        physics = reacher.Physics.from_xml_string(three_link_model(), common.ASSETS)
        return control.Environment(physics, reacher.Reacher(THREE_LINKS[name], random=0), time_limit=time_limit)
    variant = VARIANTS[name]
    domain, task = variant.base.split("-")
    env = suite.load(domain, task, task_kwargs={"random": 0, "time_limit": time_limit})
    env.task.get_reward = variant.reward
    if variant.start is not None:
        env.task.initialize_episode = partial(variant.start, env.task)
    if variant.floor is not None:
        floor, length = variant.floor
        env.physics.named.model.geom_size[floor, 0] = length
    return env


def walk_backwards(physics: Physics, speed: float = 1.0) -> float:
    """Walker: stand upright and move backwards with ``speed`` in m/s; a sixth is for standing alone."""
    upright = (1 + physics.torso_upright()) / 2
    standing = (3 * _high(physics.torso_height(), 1.2) + upright) / 4
    return float(standing * (5 * _share(-physics.horizontal_velocity(), speed) + 1) / 6)


def run_backwards(physics: Physics) -> float:
    """Cheetah: 8 m/s backwards, 0.8 of what running forwards asks for."""
    return _share(-physics.speed(), 8.0)


def run_on_one_foot(physics: Physics, lifted: str) -> float:
    """Cheetah: 6 m/s forwards with torso and the foot ``lifted`` 1.2 m high; a sixth is for the pose alone.

    ``ffoot`` is the front foot, ``bfoot`` the back one.
    """
    pose = (3 * _high(_height(physics, lifted), 1.2) + 2 * _high(_height(physics, "torso"), 1.2)) / 5
    return float(pose * (5 * _share(physics.speed(), 6.0) + 1) / 6)


def jump(physics: Physics) -> float:
    """Cheetah: torso and feet 1.2 m high, at less than 0.5 m/s in either direction."""
    still = tolerance(physics.speed(), (-0.5, 0.5), margin=0.5, value_at_margin=0, sigmoid="linear")
    torso = _height(physics, "torso")
    high = sum(_high((torso + _height(physics, foot)) / 2, 1.2) for foot in ("bfoot", "ffoot")) / 2
    return float((5 * high + still) / 6)


def hop_backwards(physics: Physics) -> float:
    """Hopper: 1 m/s backwards (half of what hopping forwards asks for) while standing 0.6 m high."""
    return float(tolerance(physics.height(), (0.6, 2)) * _share(-physics.speed(), 1.0))


def spin_ball(physics: Physics) -> float:
    """Ball in cup: swing the ball, 0.5 m away from the target and 6 m/s fast; nothing while it is in the cup."""
    distance = _share(float(np.linalg.norm(physics.ball_to_target())), 0.5)
    speed = _share(float(np.linalg.norm(physics.named.data.qvel[["ball_x", "ball_z"]])), 6.0)
    return float((1 - physics.in_target()) * (distance + 2 * speed) / 3)


def start_in_cup(task: Any, physics: Physics) -> None:
    """Begin an episode of ``ball_in_cup-spin``: nine times in ten with the ball in the cup, else anywhere free."""
    anywhere = task.random.uniform() < 0.1
    while True:
        physics.named.data.qpos["ball_x"] = task.random.uniform(-0.2, 0.2)
        physics.named.data.qpos["ball_z"] = task.random.uniform(0.2, 0.5)
        physics.after_reset()
        if physics.data.ncon == 0 and (anywhere or physics.in_target()):
            return


def spin_pole(physics: Physics) -> float:
    """Pendulum: turn at 9 rad/s in either direction."""
    return _share(float(np.linalg.norm(physics.angular_velocity())), 9.0)


THREE_LINKS = {"reacher-three_easy": 0.05, "reacher-three_hard": 0.015}
"""Radius of the target in m, as in reacher's easy and hard. Reward and start are reacher's too; the arm is another."""


def three_link_model() -> str:
    """The reacher's model with three links of 0.09 m instead of two of 0.12 m, its two inner joints within ±80°."""
    root = ElementTree.fromstring(common.read_model("reacher.xml"))
    world, actuators = _part(root, "worldbody"), _part(root, "actuator")
    arm, finger = _part(world, "body[@name='arm']"), _part(world, ".//body[@name='finger']")
    world.remove(arm)
    actuators.clear()
    parent, position = world, "0 0 .01"
    # the last capsule reaches into the finger, as in the suite's own model
    for link, joint, length in (("upper_arm", "shoulder", 0.09), ("forearm", "elbow", 0.09), ("hand", "wrist", 0.1)):
        parent = ElementTree.SubElement(parent, "body", name=link, pos=position)
        capsule = {"type": "capsule", "fromto": f"0 0 0 {length} 0 0", "size": ".01", "material": "self"}
        ElementTree.SubElement(parent, "geom", capsule, name=link)
        limits = {} if joint == "shoulder" else {"limited": "true", "range": "-80 80"}
        ElementTree.SubElement(parent, "joint", limits, name=joint)
        ElementTree.SubElement(actuators, "motor", name=joint, joint=joint)
        position = ".09 0 0"
    finger.set("pos", position)
    parent.append(finger)
    return ElementTree.tostring(root, encoding="unicode")


def _part(model: ElementTree.Element, path: str) -> ElementTree.Element:
    found = model.find(path)
    if found is None:
        raise EnvError(f"the reacher of the installed dm_control has no {path!r}; expected that of dm_control 1.0.28")
    return found


def _share(value: float, target: float) -> float:
    """``value`` as a share of ``target``: 0 below none, 1 from ``target`` on."""
    return float(tolerance(value, (target, math.inf), margin=target, value_at_margin=0, sigmoid="linear"))


def _high(height: float, target: float) -> float:
    """1 from ``target`` on, falling like a bell to 0.1 at half of it."""
    return float(tolerance(height, (target, math.inf), margin=target / 2))


def _height(physics: Physics, body: str) -> float:
    return float(physics.named.data.xpos[body, "z"])


VARIANTS = {
    "ball_in_cup-spin": Variant("ball_in_cup-catch", spin_ball, start=start_in_cup),
    "cheetah-jump": Variant("cheetah-run", jump, floor=("ground", 200)),
    "cheetah-run_back": Variant("cheetah-run", partial(run_on_one_foot, lifted="ffoot"), floor=("ground", 200)),
    "cheetah-run_backwards": Variant("cheetah-run", run_backwards, floor=("ground", 200)),
    "cheetah-run_front": Variant("cheetah-run", partial(run_on_one_foot, lifted="bfoot"), floor=("ground", 200)),
    "hopper-hop_backwards": Variant("hopper-hop", hop_backwards),
    "pendulum-spin": Variant("pendulum-swingup", spin_pole),
    "walker-run_backwards": Variant("walker-walk", partial(walk_backwards, speed=8.0), floor=("floor", 500)),
    "walker-walk_backwards": Variant("walker-walk", walk_backwards, floor=("floor", 500)),
}

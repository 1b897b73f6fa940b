import math

import numpy as np
import pytest

from suites.dm_control import DMC28, DMC39, EXTRA, MT30
from suites.families import family
from suites.seeding import EpisodeSeed
from tests.suites.purity import assert_reset_is_pure
from tests.suites.tasks import task

BELL = 0.1
"""What dm_control's Gaussian tolerance gives at its margin: at a share x of the margin it gives 0.1 ** x²."""


def make(name, **rules):
    return family("dm_control").make(task("dm_control", name, **rules))


class Posed:
    """An extra task in hand-set states."""

    def __init__(self, name):
        self.env = make(name)._env
        self.physics = self.env.physics
        self.env.reset()

    def reward(self, qpos=(), qvel=()):
        """Reward with the named joints so, all others and all velocities at 0."""
        data = self.physics.named.data
        data.qpos[:], data.qvel[:] = 0, 0
        for joint, value in dict(qpos).items():
            data.qpos[joint] = value
        for joint, value in dict(qvel).items():
            data.qvel[joint] = value
        self.physics.forward()
        return self.env.task.get_reward(self.physics)


def z(posed, body):
    return posed.physics.named.data.xpos[body, "z"]


@pytest.mark.parametrize("name", EXTRA)
def test_sizes_are_as_listed_and_reset_is_pure(name):
    env = make(name)
    assert (env.spaces.observation[0], env.spaces.action) == EXTRA[name]
    assert_reset_is_pure(env, name)
    env.close()


@pytest.mark.parametrize("name", EXTRA)
def test_rewards_lie_in_0_to_1_and_episodes_never_terminate(name):
    env = make(name, decisions=200)
    rng = np.random.default_rng(0)
    env.reset(EpisodeSeed("train", 0, name, 0))
    steps = [env.step(rng.choice([-1, 1], size=env.spaces.action).astype(np.float32)) for _ in range(200)]
    assert all(0 <= reward <= 1 for _, reward, *_ in steps)
    assert [terminated for _, _, terminated, *_ in steps] == [False] * 200
    assert steps[-1][3]


def test_the_sets_are_tdmpc2s():
    from suites import dm_control_extra

    assert set(EXTRA) == {*dm_control_extra.VARIANTS, *dm_control_extra.THREE_LINKS}
    assert len(EXTRA) == 11
    assert set(DMC39) == {*DMC28, *EXTRA}
    assert len(set(MT30)) == 30
    # all but dog (4), humanoid (3) and quadruped (2)
    assert {name.split("-")[0] for name in set(DMC39) - set(MT30)} == {"dog", "humanoid", "quadruped"}


@pytest.mark.parametrize(("name", "speed"), [("walker-walk_backwards", 1.0), ("walker-run_backwards", 8.0)])
def test_walker_stands_and_moves_backwards(name, speed):
    walker = Posed(name)
    # At 0 it stands upright with its torso 1.3 m high: 1 for the pose; (5 share + 1) / 6 for the speed.
    for velocity, share in ((-2 * speed, 1), (-speed, 1), (-speed / 2, 0.5), (0, 0), (speed, 0)):
        assert walker.reward(qvel={"rootx": velocity}) == pytest.approx((5 * share + 1) / 6)
    # The torso 0.6 m lower than the wanted 1.2 m, a full margin: (3 × 0.1 + 1 upright) / 4 for the pose.
    assert walker.reward({"rootz": -0.7}, {"rootx": -speed}) == pytest.approx((3 * BELL + 1) / 4)
    # Head down at full height: (3 + 0) / 4.
    assert walker.reward({"rootz": 1, "rooty": math.pi}, {"rootx": -speed}) == pytest.approx(3 / 4)


def test_cheetah_runs_backwards():
    cheetah = Posed("cheetah-run_backwards")
    for velocity, share in ((-10, 1), (-8, 1), (-2, 0.25), (0, 0), (8, 0)):  # of 8 m/s
        assert cheetah.reward(qvel={"rootx": velocity}) == pytest.approx(share)


@pytest.mark.parametrize(("name", "lifted", "other"), [("front", "bfoot", "ffoot"), ("back", "ffoot", "bfoot")])
def test_cheetah_runs_on_one_foot(name, lifted, other):
    cheetah = Posed(f"cheetah-run_{name}")
    # At 0 the torso is 0.7 m high and the feet lower; raised by 2 m all are above 1.2 m.
    for velocity, share in ((7, 1), (6, 1), (3, 0.5), (0, 0), (-6, 0)):
        assert cheetah.reward({"rootz": 2}, {"rootx": velocity}) == pytest.approx((5 * share + 1) / 6)
    # Torso at 1.2 m: full marks for it (2 of 5), for the foot what 0.6 m of margin leave.
    pose = cheetah.reward({"rootz": 0.5}, {"rootx": 6})
    assert z(cheetah, "torso") == pytest.approx(1.2)
    assert pose == pytest.approx((3 * BELL ** ((1.2 - z(cheetah, lifted)) / 0.6) ** 2 + 2) / 5)
    assert abs(z(cheetah, lifted) - z(cheetah, other)) > 0.01, "the pose does not tell the feet apart"


def test_cheetah_jumps():
    cheetah = Posed("cheetah-jump")
    # Everything above 1.2 m: 5 of 6 for the height, 1 for being within ±0.5 m/s, falling to 0 at ±1 m/s.
    for velocity, still in ((0, 1), (0.5, 1), (-0.5, 1), (0.75, 0.5), (-0.75, 0.5), (1, 0), (3, 0)):
        assert cheetah.reward({"rootz": 2}, {"rootx": velocity}) == pytest.approx((5 + still) / 6)
    # The mean of torso and each foot is what has to be high.
    found = cheetah.reward({"rootz": 0.3})
    heights = [(z(cheetah, "torso") + z(cheetah, foot)) / 2 for foot in ("bfoot", "ffoot")]
    bells = [BELL ** ((1.2 - height) / 0.6) ** 2 for height in heights]
    assert found == pytest.approx((5 * sum(bells) / 2 + 1) / 6)


def test_hopper_hops_backwards():
    hopper = Posed("hopper-hop_backwards")
    for velocity, share in ((-2, 1), (-1, 1), (-0.5, 0.5), (0, 0), (1, 0)):  # of 1 m/s
        assert hopper.reward(qvel={"rootx": velocity}) == pytest.approx(share)
    # Bent at hip and knee the torso is less than 0.6 m above the foot: nothing, however fast.
    assert hopper.reward({"hip": -2.5, "knee": 2.5}, {"rootx": -2}) == 0
    assert hopper.physics.height() < 0.6


def test_the_ball_spins_around_the_cup():
    cup = Posed("ball_in_cup-spin")

    def spin(x, height, speed_x, speed_z):
        reward = cup.reward({"ball_x": x, "ball_z": height}, {"ball_x": speed_x, "ball_z": speed_z})
        return reward, float(np.linalg.norm(cup.physics.ball_to_target()))

    # (share of 0.5 m + 2 × share of 6 m/s) / 3; 3.6 and 4.8 make 6.
    for speeds, share in (((0, 0), 0), ((6, 0), 1), ((3.6, -4.8), 1), ((-1.8, 2.4), 0.5)):
        reward, distance = spin(0.1, -0.2, *speeds)
        assert distance > 0.5, "the ball is not far away"
        assert reward == pytest.approx((1 + 2 * share) / 3)
    reward, distance = spin(0.2, 0.2, 0, 0)
    assert 0 < distance < 0.5
    assert reward == pytest.approx(distance / 0.5 / 3)
    # In the cup it earns nothing, however fast.
    _, below = spin(0, 0, 0, 0)
    assert spin(0, below, 6, 0)[0] == 0
    assert cup.physics.in_target()


def test_nine_balls_in_ten_begin_in_the_cup():
    env = make("ball_in_cup-spin")
    inside = 0
    for episode in range(200):
        env.reset(EpisodeSeed("train", 0, "ball_in_cup-spin", episode))
        inside += env._env.physics.in_target()
    # binomial, n = 200, p slightly above 0.9: three standard deviations are 0.064
    assert 0.83 < inside / 200 < 0.98


def test_the_pendulum_spins_in_both_directions():
    pendulum = Posed("pendulum-spin")
    for velocity, share in ((0, 0), (4.5, 0.5), (-4.5, 0.5), (9, 1), (-20, 1)):  # of 9 rad/s
        assert pendulum.reward(qvel={"hinge": velocity}) == pytest.approx(share)


@pytest.mark.parametrize(("name", "radius"), [("reacher-three_easy", 0.05), ("reacher-three_hard", 0.015)])
def test_three_links_reach_a_target(name, radius):
    reacher = Posed(name)
    model, data = reacher.physics.named.model, reacher.physics.named.data
    # Three links of 0.09 m: stretched along x, and with all after the first turned by 90°.
    reacher.reward()
    np.testing.assert_allclose(data.geom_xpos["finger", :2], [0.27, 0], atol=1e-12)
    reacher.reward({"elbow": math.pi / 2})
    np.testing.assert_allclose(data.geom_xpos["finger", :2], [0.09, 0.18], atol=1e-12)
    assert [bool(limited) for limited in reacher.physics.model.jnt_limited] == [False, True, True]
    np.testing.assert_allclose(reacher.physics.model.jnt_range[1:], np.deg2rad([[-80, 80]] * 2))
    # Reached where the spheres touch: the finger's radius is 0.01 m.
    for distance, reward in ((radius + 0.009, 1), (radius + 0.011, 0)):
        model.geom_pos["target", :2] = (0.27 - distance, 0)
        assert reacher.reward() == reward


def test_the_floor_reaches_as_far_back_as_anyone_runs():
    for name, floor in (("walker-run_backwards", "floor"), ("cheetah-run_backwards", "ground")):
        env = make(name)._env
        model = env.physics.named.model
        # 1000 steps at the wanted 8 m/s
        assert model.geom_size[floor, 0] - model.geom_pos[floor, 0] > 1000 * env.control_timestep() * 8

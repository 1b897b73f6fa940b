import numpy as np
import pytest

from suites.dm_control import DMC28, SPACES
from suites.errors import SuiteError
from suites.families import family
from suites.seeding import EpisodeSeed
from tests.suites.purity import assert_reset_is_pure
from tests.suites.tasks import task

pytestmark = pytest.mark.filterwarnings("ignore:`in1d` is deprecated")


def make(name, **rules):
    return family("dm_control").make(task("dm_control", name, **rules))


def seed(name, episode=0):
    return EpisodeSeed("train", 0, name, episode)


@pytest.mark.parametrize("name", SPACES)
def test_sizes_are_as_listed_and_reset_is_pure(name):
    env = make(name)
    assert (env.spaces.observation[0], env.spaces.action) == SPACES[name]
    assert_reset_is_pure(env, name)
    env.close()


def test_the_table_lists_the_packages_tasks():
    from dm_control import suite

    left_out = {"lqr-lqr_2_1", "lqr-lqr_6_2", "quadruped-escape"}
    assert set(SPACES) == {f"{domain}-{name}" for domain, name in suite.ALL_TASKS} - left_out
    assert len(set(DMC28)) == 28
    assert set(DMC28) <= set(SPACES)


def test_observations_are_flattened_in_the_tasks_own_order():
    from dm_control import suite

    ours = make("reacher-easy").reset(seed("reacher-easy"))
    theirs = suite.load("reacher", "easy", task_kwargs={"random": seed("reacher-easy").value}).reset().observation
    # declared order: position 2, to_target 2, velocity 2
    expected = np.concatenate([theirs["position"], theirs["to_target"], theirs["velocity"]]).astype(np.float32)
    np.testing.assert_array_equal(ours, expected)


def test_an_episode_is_truncated_at_its_time_limit_and_never_terminates():
    env = make("cartpole-swingup", action_repeat=2)
    env.reset(seed("cartpole-swingup"))
    action = np.zeros(1, dtype=np.float32)
    ends = [env.step(action)[2:4] for _ in range(500)]  # 1000 environment steps / 2
    assert ends[:-1] == [(False, False)] * 499
    assert ends[-1] == (False, True)


def test_action_repeat_sums_rewards():
    once, twice = make("cartpole-balance"), make("cartpole-balance", action_repeat=2)
    once.reset(seed("cartpole-balance")), twice.reset(seed("cartpole-balance"))
    action = np.array([0.3], dtype=np.float32)
    first, second, both = once.step(action), once.step(action), twice.step(action)
    assert both[1] == first[1] + second[1]
    np.testing.assert_array_equal(both[0], second[0])


def test_quadrupeds_own_bounds_are_reached():
    env = make("quadruped-walk")
    env.reset(seed("quadruped-walk"))
    bounds = env._env.action_spec()
    assert bounds.maximum.max() == pytest.approx(1.1)
    for action, expected in ((1, bounds.maximum), (-1, bounds.minimum)):
        env.step(np.full(12, action, dtype=np.float32))
        np.testing.assert_allclose(env._env.physics.data.ctrl, expected, rtol=1e-12)


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(SuiteError, match="nearest: 'cartpole-swingup_sparse'"):
        make("cartpole-swingup-sparse")

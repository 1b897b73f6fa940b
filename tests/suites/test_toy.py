import numpy as np
import pytest

from suites.errors import SuiteError
from suites.families import family
from suites.seeding import EpisodeSeed
from tests.suites.tasks import task


def test_reach_is_solved_by_walking_to_the_goal():
    env = family("toy").make(task("toy", "toy-reach"))
    position, goal = env.reset(EpisodeSeed("train", 0, "toy-reach", 0))
    success = truncated = False
    while not truncated:
        action = np.array([np.clip((goal - position) / 0.2, -1, 1)], dtype=np.float32)
        (position, goal), reward, terminated, truncated, success = env.step(action)
        assert not terminated
    assert success
    assert reward == pytest.approx(0, abs=1e-3)


def test_terminate_ends_outside_the_box():
    env = family("toy").make(task("toy", "toy-terminate"))
    env.reset(EpisodeSeed("train", 0, "toy-terminate", 0))
    steps = [env.step(np.ones(2, dtype=np.float32)) for _ in range(4)]
    # from at least -0.5, eight moves of 0.2 leave the box; from at most 0.5, three do not reach 1.5
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(np.ones(2, dtype=np.float32)))
    assert steps[-1][2:] == (True, False, True)
    assert len(steps) <= 9


def test_action_repeat_sums_rewards():
    once, twice = (family("toy").make(task("toy", "toy-reach", action_repeat=repeat)) for repeat in (1, 2))
    seed, action = EpisodeSeed("train", 0, "toy-reach", 0), np.array([0.5], dtype=np.float32)
    once.reset(seed), twice.reset(seed)
    first, second, both = once.step(action), once.step(action), twice.step(action)
    assert both[1] == first[1] + second[1]
    np.testing.assert_array_equal(both[0], second[0])


def test_unknown_tasks_and_options_are_refused():
    with pytest.raises(SuiteError, match="nearest: 'toy-reach'"):
        family("toy").spaces(task("toy", "toy-raech"))
    with pytest.raises(SuiteError, match="take no options; found wind"):
        family("toy").make(task("toy", "toy-reach").model_copy(update={"options": {"wind": 1}}))

"""The faster classes against the package's own, to the last bit."""

import numpy as np
import pytest

from suites.metaworld import MT50

pytestmark = pytest.mark.filterwarnings("ignore:Constant")


def original(name):
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return ALL_V3_ENVIRONMENTS[name]


def faster(environment):
    # Imported late because it imports the simulator, which a test of images may want to prepare.
    from suites import metaworld_speed

    return metaworld_speed.faster(environment)


def build(environment):
    env = environment(reward_function_version="v2")
    env._partially_observable = False
    del env.sawyer_observation_space
    env._set_task_called = True
    return env


def start(env, seed):
    """Reset to the episode of a random vector that the task draws by its own rules, from out of another's scenery."""
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    vectors = []
    for number in (seed, seed + 1000):
        env.np_random = np.random.default_rng(number)
        env.reset_model()
        vectors.append(np.array(env._last_rand_vec))
    env._freeze_rand_vec, env._last_rand_vec = True, vectors[0]
    return env.reset()[0]


def expert_with_noise(name, seed):
    """A policy that mostly follows the package's expert, so that hand and objects meet, and sometimes flails."""
    from metaworld.policies import ENV_POLICY_MAP

    expert, rng = ENV_POLICY_MAP[name](), np.random.default_rng(seed)

    def act(observation, step):
        noise = rng.uniform(-1, 1, size=4)
        # Actions out of bounds are clipped by the environment, all but the fingers' effort.
        action = 2 * noise if step % 20 >= 17 else np.clip(expert.get_action(observation), -1, 1) + 0.02 * noise
        return action.astype(np.float32)

    return act


STATE = ("qpos", "qvel", "qacc_warmstart", "mocap_pos", "mocap_quat", "ctrl")
SCENERY = ("body_pos", "body_quat", "site_pos", "geom_pos", "eq_data")


def assert_same_inside(package, ours):
    for holder, fields in (("data", STATE), ("model", SCENERY)):
        for name in fields:
            expected, found = (getattr(getattr(env, holder), name) for env in (package, ours))
            np.testing.assert_array_equal(found, expected, err_msg=name)


def assert_same_episode(name, package, ours, *, seed, steps):
    """Play the same episode twice and return the set of pairs (success, grasp) that occurred."""
    expected = start(package, seed)
    np.testing.assert_array_equal(start(ours, seed), expected)
    assert_same_inside(package, ours)
    act, seen = expert_with_noise(name, seed), set()
    for step in range(steps):
        action = act(expected, step)
        expected, *expected_rest = package.step(action)
        observation, *rest = ours.step(action)
        np.testing.assert_array_equal(observation, expected, err_msg=f"step {step}")
        assert rest == expected_rest, f"step {step}"
        assert list(rest[-1]) == list(expected_rest[-1])
        seen.add((bool(rest[-1]["success"]), bool(rest[-1]["grasp_success"])))
    assert_same_inside(package, ours)
    return seen


@pytest.mark.parametrize("name", MT50)
def test_every_task_is_the_packages(name):
    package, ours = build(original(name)), build(faster(original(name)))
    assert_same_episode(name, package, ours, seed=0, steps=80)
    # Another goal in the same objects: a reset must undo what the first episode moved, as the package's does.
    assert_same_episode(name, package, ours, seed=1, steps=5)
    package.close()
    ours.close()


def test_the_compared_episodes_hold_grasps_and_successes():
    name = "pick-place-v3"
    seen = assert_same_episode(name, build(original(name)), build(faster(original(name))), seed=0, steps=150)
    assert seen >= {(False, False), (False, True), (True, True)}


def test_what_is_out_of_bounds_is_clipped_as_in_the_package():
    observations = []
    for environment in (original("reach-v3"), faster(original("reach-v3"))):
        env = build(environment)
        start(env, 0)
        env._target_pos = np.array([9.0, -9.0, 0.2])
        observations.append(env.step(np.zeros(4, dtype=np.float32))[0])
    np.testing.assert_array_equal(observations[1], observations[0])
    assert np.abs(observations[1][-3:]).max() < 1


def test_the_episodes_end_is_the_packages():
    envs = [build(original("reach-v3")), build(faster(original("reach-v3")))]
    still = np.zeros(4, dtype=np.float32)
    for env in envs:
        env.max_path_length = 2
        start(env, 0)
        assert [env.step(still)[3] for _ in range(2)] == [False, True]
        with pytest.raises(ValueError, match="reset"):
            env.step(still)


def test_the_tasks_own_methods_read_ours():
    """Otherwise all would be equal because nothing was replaced."""
    own = faster(original("push-v3"))
    assert own.compute_reward.__code__ is original("push-v3").compute_reward.__code__
    read = own.compute_reward.__globals__
    assert read["reward_utils"].tolerance.__module__ == read["np"].linalg.norm.__module__ == "suites.metaworld_scalars"
    (wrapped,) = [cell.cell_contents for cell in own.evaluate_state.__closure__]
    assert wrapped.__globals__ is read  # through the package's decorator too
    box = faster(original("box-close-v3"))
    assert box.compute_reward.__globals__["SawyerBoxCloseEnvV3"] is box  # which calls its static methods by this name


def test_the_package_stays_as_it_was():
    from metaworld.envs import sawyer_push_v3
    from metaworld.utils import reward_utils
    from scipy.spatial.transform import Rotation

    faster(original("push-v3"))
    assert sawyer_push_v3.np is np
    assert sawyer_push_v3.Rotation is Rotation
    assert sawyer_push_v3.reward_utils is reward_utils
    assert reward_utils.tolerance.__module__ == "metaworld.utils.reward_utils"
    assert sawyer_push_v3.SawyerPushEnvV3 is original("push-v3")
    assert original("push-v3").compute_reward.__globals__ is vars(sawyer_push_v3)


def test_a_class_is_made_once():
    assert faster(original("push-v3")) is faster(original("push-v3"))

"""Known traps of the packages, each shown to be there and shown not to be ours.

Where a package stops being a trap its half of a test fails: then a workaround can go. Other traps have their test with
the adapter: the reward version that falls back without a word and the goal that stays hidden (test_metaworld.py), the
bounds of quadruped's actions (test_dm_control.py), resuming in mid-flight (test_vector.py).
"""

import gymnasium as gym
import metaworld
import numpy as np
import pytest
from metaworld.policies import ENV_POLICY_MAP

from suites import checks
from suites.families import family
from suites.seeding import EpisodeSeed
from suites.vector import VectorEnv
from tests.suites.tasks import task

pytestmark = pytest.mark.filterwarnings("ignore")  # the packages warn of one another

STILL = np.zeros(4, dtype=np.float32)


def package(**options):
    """The package's own way to reach-v3."""
    return gym.make("Meta-World/MT1", env_name="reach-v3", **options)


def reach(**rules):
    return task("metaworld", "reach-v3", **rules)


def goals(observations):
    return [tuple(goal) for goal in np.reshape(observations, (-1, 39))[:, -3:]]


def test_the_seed_of_reset_counts():
    """Meta-World ignores it: what the constructor was given decides alone."""
    first, second = (package(seed=1).reset(seed=seed)[0] for seed in (7, 8))
    np.testing.assert_array_equal(first, second)
    same_seed, other_constructor = package(seed=1).reset(seed=7)[0], package(seed=2).reset(seed=7)[0]
    assert not np.array_equal(same_seed, other_constructor)

    assert checks.repeatable(family("metaworld"), reach()) is None
    assert checks.seeds_differ(family("metaworld"), reach()) is None


def test_0_is_a_seed():
    """Meta-World's ids for lists of tasks take it for none, and start from anywhere."""

    def theirs(seed):
        env = gym.make_vec("Meta-World/custom-mt-envs", vector_strategy="sync", envs_list=["reach-v3"], seed=seed)
        drawn = [env.envs[0].action_space.sample() for _ in range(2)]
        env.close()
        return drawn

    assert np.array_equal(theirs(1), theirs(1))
    assert not np.array_equal(theirs(0), theirs(0))

    def ours():
        with VectorEnv([reach()], 2, seed=0, stream="train") as env:
            return env.reset().observation

    np.testing.assert_array_equal(ours(), ours())


def test_parallel_copies_have_goals_of_their_own():
    """Meta-World's copies of a task all play the same goals in the same order."""
    theirs = gym.make_vec("Meta-World/MT1", env_name="reach-v3", num_envs=4, seed=1)
    assert len(set(goals(theirs.reset(seed=[1, 2, 3, 4])[0]))) == 1
    theirs.close()

    with VectorEnv([reach()], 4, seed=1, stream="evaluate") as env:
        assert len(set(goals(env.reset().observation))) == 4


def test_training_and_evaluation_have_different_goals():
    """Meta-World's id of the training split gives the other split: its entry point binds the split too late."""
    benchmark = metaworld.ML1("reach-v3", seed=1)
    drawn = gym.make_vec("Meta-World/ML1-train", env_name="reach-v3", seed=1, meta_batch_size=1)
    theirs = {one.data for one in drawn.envs[0].get_wrapper_attr("tasks")}
    drawn.close()
    assert theirs == {one.data for one in benchmark.test_tasks}
    assert not theirs & {one.data for one in benchmark.train_tasks}

    def ours(stream, seed):
        env = family("metaworld").make(reach())
        return set(goals([env.reset(EpisodeSeed(stream, seed, "reach-v3", number)) for number in range(60)]))

    assert not ours("train", 1) & ours("evaluate", 1)
    assert not ours("train", 1) & ours("tune", 1)


def test_an_episode_is_as_long_as_its_protocol():
    """Meta-World takes a longer limit and ends at 500 all the same."""
    theirs = package(seed=1, max_episode_steps=600)
    theirs.reset()
    assert [theirs.step(STILL)[3] for _ in range(500)].index(True) == 499

    assert checks.length_kept(family("metaworld"), reach(decisions=600)) is None
    assert checks.length_kept(family("dm_control"), task("dm_control", "reacher-easy", decisions=1200)) is None


def test_the_last_steps_success_and_successor_are_not_lost():
    """Meta-World's vector environments for many tasks put them into ``final_info`` and ``final_obs``."""
    length = 120  # the expert is at the goal long before, and stays
    theirs = gym.make_vec(
        "Meta-World/custom-mt-envs", vector_strategy="sync", envs_list=["reach-v3"], seed=1, max_episode_steps=length
    )
    expert, (observation, _) = ENV_POLICY_MAP["reach-v3"](), theirs.reset()
    for _ in range(length):
        observation, _, _, truncated, info = theirs.step(np.clip(expert.get_action(observation[0]), -1, 1)[None])
    theirs.close()
    assert truncated.all()
    assert "success" not in info, "where it was at every step before"
    assert info["final_info"]["success"][0]
    assert not np.array_equal(observation[0], info["final_obs"][0])

    with VectorEnv([reach(decisions=length)], 1, seed=1, stream="train") as env:
        alone = family("metaworld").make(reach(decisions=length))
        alone.reset(EpisodeSeed("train", 1, "reach-v3", 0))
        step = env.reset()
        for _ in range(length):
            action = np.clip(expert.get_action(step.observation[0].astype(np.float64)), -1, 1).astype(np.float32)
            step, successor = env.step(action[None]), alone.step(action)[0]
    (episode,) = step.episodes
    assert episode.success_last
    assert episode.success_any
    np.testing.assert_array_equal(step.next_observation[0], successor)
    assert not np.array_equal(step.observation[0], successor)

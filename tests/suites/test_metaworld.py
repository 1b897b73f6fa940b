import numpy as np
import pytest

from suites.errors import EnvError, SuiteError
from suites.families import family
from suites.metaworld import NUM_GOALS, SETS
from suites.seeding import EpisodeSeed
from tests.suites.purity import assert_reset_is_pure
from tests.suites.tasks import task


def make(name, *, options=None, **rules):
    return family("metaworld").make(task("metaworld", name, **rules).model_copy(update={"options": options or {}}))


@pytest.mark.parametrize("name", SETS["MT50"])
def test_reset_is_pure(name):
    env = make(name)
    assert env.spaces == ((39,), 4)
    assert_reset_is_pure(env, name)
    env.close()


def test_the_sets_are_the_packages():
    from metaworld import env_dict

    expected = {"MT10": env_dict.MT10_V3, "MT25": env_dict.MT25_V3, "MT50": env_dict.MT50_V3}
    for name, parts in {"ML10": env_dict.ML10_V3, "ML45": env_dict.ML45_V3}.items():
        expected |= {f"{name}-{part}": tasks for part, tasks in parts.items()}
    assert {name: sorted(tasks) for name, tasks in SETS.items()} == {name: sorted(x) for name, x in expected.items()}
    for name in ("MT10", "MT25", "MT50", "ML10-train", "ML10-test"):
        assert list(SETS[name]) == list(expected[name])
    assert list(SETS["MT50"]) == list(env_dict.ALL_V3_ENVIRONMENTS)
    assert family("metaworld").sets() is SETS


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("name", ["reach-v3", "drawer-open-v3", "window-close-v3"])
def test_the_scripted_expert_succeeds(name):
    from metaworld.policies import ENV_POLICY_MAP

    env, expert = make(name), ENV_POLICY_MAP[name]()
    observation = env.reset(EpisodeSeed("evaluate", 0, name, 0))
    for _ in range(150):
        action = np.clip(expert.get_action(observation.astype(np.float64)), -1, 1).astype(np.float32)
        observation, reward, _, _, success = env.step(action)
        assert 0 <= reward <= 10  # the range of reward version 2
        if success:
            return
    pytest.fail("150 steps of the expert did not lead to success")


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("name", ["pick-place-v3", "push-v3"])
def test_touching_is_what_the_package_says(name):
    from metaworld.policies import ENV_POLICY_MAP
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    env, expert = make(name), ENV_POLICY_MAP[name]()
    observation = env.reset(EpisodeSeed("evaluate", 0, name, 0))
    seen = set()
    for _ in range(80):
        action = np.clip(expert.get_action(observation.astype(np.float64)), -1, 1).astype(np.float32)
        observation, *_ = env.step(action)
        touching = env._env.touching_main_object
        assert touching == SawyerXYZEnv.touching_object(env._env, env._env._get_id_main_object())
        seen.add(bool(touching))
    assert seen == {True, False}


def test_a_task_has_50_goals_in_a_stream_and_others_in_the_next():
    env = make("reach-v3")

    def goals(stream, base, episodes):
        return {tuple(env.reset(EpisodeSeed(stream, base, "reach-v3", episode))[-3:]) for episode in episodes}

    in_order = [goals("evaluate", 0, [episode]) for episode in range(NUM_GOALS)]
    evaluation = set().union(*in_order)
    assert len(evaluation) == NUM_GOALS  # evaluation goes through all of them
    assert goals("evaluate", 0, [NUM_GOALS + 3]) == in_order[3]  # and then again
    assert not evaluation & goals("train", 0, range(10))
    assert not evaluation & goals("evaluate", 1, range(10))
    # 60 draws out of 50 meet 50 (1 - (49/50)^60) = 35 of them on average; were goals not fixed, there would be 60
    assert 25 <= len(goals("train", 0, range(60))) <= NUM_GOALS


def test_the_goal_is_visible_and_stays_so():
    env = make("reach-v3")
    first = env.reset(EpisodeSeed("train", 0, "reach-v3", 0))
    assert np.any(first[-3:] != 0)
    np.testing.assert_array_equal(env.step(np.zeros(4, dtype=np.float32))[0][-3:], first[-3:])


def test_a_hidden_goal_is_zeros_and_changes_nothing_else():
    visible, hidden = make("push-v3", options={"goals": "visible"}), make("push-v3", options={"goals": "hidden"})
    assert hidden.spaces == visible.spaces
    seed, action = EpisodeSeed("train", 0, "push-v3", 0), np.array([0.3, 0.2, -0.1, 1], dtype=np.float32)
    shown, seen = visible.reset(seed), hidden.reset(seed)
    for _ in range(3):
        assert np.any(shown[-3:] != 0)
        np.testing.assert_array_equal(seen, np.append(shown[:-3], [0, 0, 0]))
        (shown, *expected), (seen, *rest) = visible.step(action), hidden.step(action)
        assert rest == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"goal": "hidden"}, "unknown Meta-World option 'goal'; nearest: 'goals'"),
        ({"goals": "none"}, "option 'goals': found 'none'; expected visible or hidden"),
        ({"goals": ["hidden"]}, r"found \['hidden'\]"),
    ],
)
def test_another_option_is_refused(options, sentence):
    with pytest.raises(SuiteError, match=sentence):
        make("push-v3", options=options)


def test_an_episode_may_be_longer_than_the_packages_500_steps():
    env = make("reach-v3", decisions=501)
    env.reset(EpisodeSeed("train", 0, "reach-v3", 0))
    ends = [env.step(np.zeros(4, dtype=np.float32))[2:4] for _ in range(501)]
    assert ends == [(False, False)] * 500 + [(False, True)]


def test_action_repeat_sums_rewards():
    once, twice = make("reach-v3"), make("reach-v3", action_repeat=2)
    seed, action = EpisodeSeed("train", 0, "reach-v3", 0), np.array([0.3, 0.2, -0.1, 1], dtype=np.float32)
    np.testing.assert_array_equal(once.reset(seed), twice.reset(seed))
    first, second, both = once.step(action), once.step(action), twice.step(action)
    assert both[1] == first[1] + second[1]
    np.testing.assert_array_equal(both[0], second[0])


def test_another_reward_version_is_refused(monkeypatch):
    from metaworld import env_dict

    class OldReward(env_dict.ALL_V3_ENVIRONMENTS["reach-v3"]):
        def __init__(self, **options):
            super().__init__(**{**options, "reward_function_version": "v1"})

    monkeypatch.setitem(env_dict.ALL_V3_ENVIRONMENTS, "reach-v3", OldReward)
    with pytest.raises(EnvError, match="reward version 'v1' where 'v2' was asked for"):
        make("reach-v3")


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(SuiteError, match="nearest: 'drawer-open-v3'"):
        make("draw-open-v3")

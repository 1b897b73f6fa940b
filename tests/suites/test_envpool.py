import sys

import numpy as np
import pytest

from suites import envpool as engine
from suites.errors import EnvError, SuiteError
from suites.pools import flat, make_pool
from suites.protocols import protocol
from suites.spec import Task
from suites.vector import VectorEnv
from tests.suites.tasks import task
from tests.suites.test_vector import actions, assert_equal, play

pytest.importorskip("envpool", reason="the optional package envpool is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:`in1d` is deprecated")


def pooled(family: str, name: str, **rules: int) -> Task:
    return task(family, name, **rules).model_copy(update={"engine": "envpool"})


REACH = pooled("metaworld", "reach-v3", decisions=4)
DRAWER = pooled("metaworld", "drawer-close-v3", decisions=4)
WALKER = pooled("dm_control", "walker-walk", decisions=4)
TASKS = (REACH, WALKER)
IMAGES = WALKER.model_copy(update={"options": {"observation": "pixels"}, "protocol": protocol("dmc-pixels")})


def vector(tasks=TASKS, num_envs=4, **options):
    return VectorEnv(tasks, num_envs, **{"seed": 0, "stream": "train", **options})


def by_hand(made: Task, seeds: list[int], moves: np.ndarray):
    """A pool's rows ``(observation, reward)`` for one step of ``moves`` ``[steps, n, A]`` after another."""
    pool = make_pool(made, seeds, 1)
    first, _ = pool.reset()
    rows = [(flat(first, made.name), None)]
    for move in moves:
        observation, reward, *_ = pool.step(move)
        rows.append((flat(observation, made.name), reward))
    pool.close()
    return rows


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The seeds each task's last pool was made with."""
    given: dict[str, list[int]] = {}

    def remember(made, seeds, num_threads):
        given[made.name] = list(seeds)
        return make_pool(made, seeds, num_threads)

    monkeypatch.setattr(engine, "make_pool", remember)
    return given


def test_steps_are_the_pools_and_an_end_shows_where_the_action_really_led(seeds):
    with vector((WALKER,), 2) as env:
        first, moves = env.reset(), actions(env, 6)
        steps = play(env, moves)
    # EnvPool resets in the step after the last: the fifth step of this hand is a reset
    rows = by_hand(WALKER, seeds["walker-walk"], moves[[0, 1, 2, 3, 3, 4, 5]])
    observations = [observation.astype(np.float32) for observation, _ in rows]
    rewards = [reward.astype(np.float32) for _, reward in rows[1:]]
    np.testing.assert_array_equal(first.observation, observations[0])
    np.testing.assert_array_equal([step.next_observation for step in steps], observations[1:5] + observations[6:])
    np.testing.assert_array_equal([step.observation for step in steps], observations[1:4] + observations[5:])
    np.testing.assert_allclose([step.reward for step in steps], rewards[:4] + rewards[5:], rtol=1e-6)
    assert [step.truncated.tolist() for step in steps] == [[ended, ended] for ended in (0, 0, 0, 1, 0, 0)]
    assert not any(step.terminated.any() for step in steps)
    assert [[episode.index for episode in step.episodes] for step in steps] == [[], [], [], [0, 1], [], []]
    assert {(episode.length, episode.success_any) for episode in steps[3].episodes} == {(4, None)}
    returns = [episode.episode_return for episode in steps[3].episodes]
    np.testing.assert_allclose(returns, np.sum(rewards[:4], axis=0), rtol=1e-6)


def test_a_repeated_action_is_paid_for_every_time(seeds):
    twice = pooled("dm_control", "cheetah-run", decisions=3, action_repeat=2)
    with vector((twice,), 2) as env:
        env.reset()
        moves = actions(env, 3)
        steps = play(env, moves)
    rows = by_hand(twice, seeds["cheetah-run"], moves.repeat(2, axis=0))
    sums = [rows[odd][1] + rows[odd + 1][1] for odd in (1, 3, 5)]
    np.testing.assert_allclose([step.reward for step in steps], sums, rtol=1e-6)
    np.testing.assert_array_equal(
        [step.next_observation for step in steps], np.float32([rows[i][0] for i in (2, 4, 6)])
    )
    assert [step.truncated.all() for step in steps] == [False, False, True]


def test_actions_are_rescaled_to_the_tasks_bounds(seeds):
    quadruped = pooled("dm_control", "quadruped-walk", decisions=4)
    with vector((quadruped,), 1) as env:
        env.reset()
        step = env.step(np.ones((1, 12), np.float32))
    bounds = np.array([[1, 1.1, 0.8] * 4])  # yaw, lift, extension of each leg
    (_, (observation, _)) = by_hand(quadruped, seeds["quadruped-walk"], bounds[None])
    np.testing.assert_array_equal(step.observation, observation.astype(np.float32))


def test_reset_plays_the_same_episodes_again_and_seeds_and_streams_play_others():
    with vector() as env, vector(seed=1) as other, vector(stream="evaluate") as evaluation:
        first = [env.reset(), *play(env, actions(env, 9))]
        dealt = [(episode.env, episode.index) for step in first for episode in step.episodes]
        assert dealt == [(0, 0), (1, 0), (2, 1), (3, 1), (0, 2), (1, 2), (2, 3), (3, 3)]
        assert_equal(first, [env.reset(), *play(env, actions(env, 9))])
        assert (first[0].observation != other.reset().observation).any(axis=1).all()
        assert (first[0].observation != evaluation.reset().observation).any(axis=1).all()


def test_neither_threads_nor_the_order_of_tasks_matter():
    with vector() as env, vector(num_processes=2) as threads, vector(TASKS[::-1]) as swapped:
        steps = [env.reset(), *play(env, actions(env, 9))]
        assert_equal(steps, [threads.reset(), *play(threads, actions(env, 9))])
        others = [swapped.reset(), *play(swapped, actions(env, 9)[:, [1, 0, 3, 2]])]
        for step, other in zip(steps, others, strict=True):
            np.testing.assert_array_equal(step.next_observation, other.next_observation[[1, 0, 3, 2]])
            np.testing.assert_array_equal(step.reward, other.reward[[1, 0, 3, 2]])


@pytest.mark.parametrize("moment", [0, 3, 4, 18])
def test_a_restored_run_goes_on_bit_for_bit(moment, monkeypatch):
    """Beside native environments, in the middle of episodes, and past the episode that made the pools anew."""
    monkeypatch.setattr(engine, "EPISODES_PER_SEED", 4)  # two environments share a task: two episodes a pool
    tasks = (REACH, task("toy", "toy-terminate"), WALKER.model_copy(update={"protocol": DRAWER.protocol}))
    with vector(tasks, 6) as env:
        env.reset()
        moves = actions(env, 26)
        play(env, moves[:moment])
        state = env.state()
        going_on = play(env, moves[moment:])
        with vector(tasks, 6) as other:
            step = other.restore(state)
            np.testing.assert_array_equal(step.observation, state["observation"])
            assert_equal(going_on, play(other, moves[moment:]))


def starts(tasks, num_envs, episodes):
    """First observations of the environments' episodes, ``[episodes, num_envs, D]``."""
    with vector(tasks, num_envs) as env:
        seen = [env.reset().observation]
        while len(seen) < episodes:
            step = env.step(np.zeros((num_envs, env.spec.action_dim), np.float32))
            seen += [step.observation] if step.first.all() else []
    return np.array(seen)


def test_meta_world_has_a_set_of_goals_and_dm_control_starts_anywhere(monkeypatch):
    monkeypatch.setattr(engine, "EPISODES_PER_SEED", 6)
    goals = starts((REACH,), 2, 9)[:, :, -3:]
    np.testing.assert_array_equal(goals[0:3], goals[3:6])
    np.testing.assert_array_equal(goals[0:3], goals[6:9])
    assert len(np.unique(goals.reshape(-1, 3), axis=0)) == 6
    assert len(np.unique(starts((WALKER,), 2, 9).reshape(18, -1), axis=0)) == 18


def test_success_is_told_at_any_step_and_at_the_last():
    from metaworld.policies import ENV_POLICY_MAP

    policy = ENV_POLICY_MAP["reach-v3"]()
    with vector((pooled("metaworld", "reach-v3", decisions=100),), 3) as env:
        step = env.reset()
        for decision in range(100):
            # one reaches the goal and stays, one goes away again, and one stands still
            there, back = (policy.get_action(step.observation[i].astype(np.float64)) for i in (0, 1))
            move = [there, back if decision < 60 else [0, -1, 1, 0], np.zeros(4)]
            step = env.step(np.clip(move, -1, 1).astype(np.float32))
    outcomes = [(episode.success_any, episode.success_last) for episode in step.episodes]
    assert outcomes == [(True, True), (True, False), (False, False)]


def test_an_end_at_the_wrong_time_is_a_fault(monkeypatch):
    longer = pooled("dm_control", "walker-walk", decisions=9)
    monkeypatch.setattr(engine, "make_pool", lambda made, seeds, threads: make_pool(longer, seeds, threads))
    with vector((WALKER,), 1) as env:
        env.reset()
        with pytest.raises(EnvError, match=r"walker-walk.*step 4.*expected an end after 4 decisions"):
            play(env, actions(env, 4))


def test_what_envpool_lacks_is_said():
    with pytest.raises(SuiteError, match=r"toy-reach: engine envpool has no family 'toy'; use engine: native"):
        vector((pooled("toy", "toy-reach"),))
    with pytest.raises(SuiteError, match=r"walker-walk: engine envpool shows states, not images; use engine: native"):
        vector((IMAGES,), 1)
    with pytest.raises(SuiteError, match=r"pendulum-spin: EnvPool has no PendulumSpin-v1; use engine: native"):
        vector((pooled("dm_control", "pendulum-spin"),), 1)


def test_goals_are_hidden_where_the_task_says_so():
    hidden = REACH.model_copy(update={"options": {"goals": "hidden"}})
    assert not starts((hidden,), 1, 2)[:, 0, -3:].any()
    assert starts((REACH,), 1, 2)[:, 0, -3:].all()


def test_without_the_package_the_user_hears_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(SuiteError, match=r"pip install 'm3po-bench\[envpool\]'"):
        vector()

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from suites.engines import Engines
from suites.errors import EnvError, EnvWorkerError, SuiteError
from suites.lanes import LaneSpec, Layout
from suites.toy import Reach
from suites.vector import MAX_RESTARTS, VectorEnv, env_spec
from suites.workers import WorkerEngine, _deal
from tests.suites.tasks import task

TOYS = (task("toy", "toy-reach"), task("toy", "toy-terminate"))


def actions(env, steps, seed=0):
    size = (steps, env.num_envs, env.spec.action_dim)
    return np.random.default_rng(seed).uniform(-1, 1, size=size).astype(np.float32)


def play(env, moves):
    return [env.step(action) for action in moves]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        for name, value in vars(one).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def toys(num_envs=4, tasks=TOYS, **options):
    return VectorEnv(tasks, num_envs, **{"seed": 0, "stream": "train", **options})


def test_spaces_are_padded_and_the_masks_say_where():
    spec = env_spec((*TOYS, task("dm_control", "cheetah-run", action_repeat=2)))
    assert (spec.observation_shape, spec.action_dim, spec.num_tasks) == ((17,), 6, 3)
    assert spec.observation_mask.sum(axis=1).tolist() == [2, 3, 17]
    assert spec.action_mask.sum(axis=1).tolist() == [1, 2, 6]
    assert spec.observation_mask[0].tolist() == [True] * 2 + [False] * 15
    assert spec.max_episode_steps.tolist() == [20, 20, 500]
    assert spec.action_repeat.tolist() == [1, 1, 2]


def test_padded_observations_are_zero_and_padded_actions_without_effect():
    with toys() as env, toys() as other:
        env.reset(), other.reset()
        moves = actions(env, 25)
        changed = moves.copy()
        changed[:, ~env.spec.action_mask[env.task]] *= -0.5
        steps = play(env, moves)
        assert_equal(steps, play(other, changed))
        padding = ~env.spec.observation_mask[env.task]
        assert all(np.all(step.observation[padding] == 0) for step in steps)


def test_an_ended_episode_shows_its_true_successor_and_the_next_ones_start():
    with toys(2) as env:
        env.reset()
        steps = play(env, actions(env, 20))
    last = steps[-1]
    assert (last.terminated[0], last.truncated[0], last.first[0]) == (False, True, True)
    # The successor continues the episode: the goal is still the old one; the observation has the next episode's.
    assert last.next_observation[0, 1] == steps[-2].observation[0, 1] != last.observation[0, 1]
    assert all(np.array_equal(step.observation[0], step.next_observation[0]) for step in steps[:-1])
    episode = last.episodes[0]
    assert (episode.env, episode.task, episode.index, episode.length) == (0, 0, 0, 20)
    assert episode.episode_return == pytest.approx(sum(float(step.reward[0]) for step in steps), abs=1e-5)


def test_termination_and_success_are_reported():
    with toys(2) as env:
        env.reset()
        steps = play(env, np.ones((20, 2, 2), dtype=np.float32))
    ended = next(step for step in steps if step.terminated[1])
    assert not ended.truncated[1]
    (episode,) = ended.episodes
    assert (episode.env, episode.task, episode.success_any, episode.success_last) == (1, 1, True, True)
    assert episode.episode_return == -episode.length


def test_success_any_remembers_and_success_last_does_not():
    with toys(1, TOYS[:1]) as env:
        step = env.reset()
        for _ in range(19):  # to the goal, and at the very end away from it
            gap = step.observation[:, 1:2] - step.observation[:, :1]
            step = env.step(np.clip(np.c_[gap / 0.2], -1, 1).astype(np.float32))
        direction = -np.sign(step.observation[:, :1])
        (episode,) = env.step(direction.astype(np.float32)).episodes
    assert (episode.success_any, episode.success_last) == (True, False)


def test_env_step_counts_decisions_times_repeat():
    tasks = (task("toy", "toy-reach", action_repeat=2), task("toy", "toy-terminate"))
    with toys(3, tasks) as env:
        env.reset()
        play(env, actions(env, 4))
        assert env.env_step == 4 * (2 + 1 + 2)  # environments 0 and 2 repeat twice
        env.reset()
        assert env.env_step == 0


def first_observations(env, episodes):
    """Observation at the start of each episode, by task name and episode number."""
    step = env.reset()
    number = np.arange(env.num_envs) // env.spec.num_tasks
    found = {}
    while len(found) < episodes * env.spec.num_tasks:
        for i in np.flatnonzero(step.first):
            name = env.spec.task_names[env.task[i]]
            found.setdefault((name, int(number[i])), step.observation[i, env.spec.observation_mask[env.task[i]]])
            number[i] += env.num_envs // env.spec.num_tasks
        step = env.step(np.zeros((env.num_envs, env.spec.action_dim), dtype=np.float32))
    return {key: value.tolist() for key, value in found.items() if key[1] < episodes}


def test_episodes_depend_neither_on_the_number_of_environments_nor_on_the_order_of_tasks():
    with toys(2) as two, toys(6) as six, toys(2, TOYS[::-1]) as reversed_order:
        reference = first_observations(two, 6)
        assert len({str(value) for value in reference.values()}) == 12
        assert first_observations(six, 6) == reference
        assert first_observations(reversed_order, 6) == reference


@pytest.mark.parametrize("other", [{"seed": 1}, {"stream": "evaluate"}, {"stream": "tune"}])
def test_another_seed_or_stream_gives_other_episodes(other):
    with toys() as env, toys() as same, toys(**other) as different:
        observation = env.reset().observation
        np.testing.assert_array_equal(observation, same.reset().observation)
        assert np.all(np.any(observation != different.reset().observation, axis=1))


REAL = (
    task("dm_control", "reacher-easy", action_repeat=2, decisions=12),
    task("metaworld", "drawer-open-v3", decisions=10),
    *TOYS,
)


def test_results_do_not_depend_on_the_number_of_processes():
    with toys(5, REAL) as local, toys(5, REAL, num_processes=3) as shared:
        moves = actions(local, 26)
        assert_equal([local.reset()], [shared.reset()])
        assert_equal(play(local, moves), play(shared, moves))
        assert local.env_step == shared.env_step


@pytest.mark.parametrize("num_processes", [1, 2])
def test_restoring_continues_bit_for_bit(num_processes):
    with toys(5, REAL, num_processes=num_processes) as env:
        moves = actions(env, 33)
        env.reset()
        play(env, moves[:17])  # in mid-flight for all, in the second episode of some
        state = env.state()
        expected, env_step = play(env, moves[17:]), env.env_step
    with toys(5, REAL) as resumed:
        step = resumed.restore(state)
        np.testing.assert_array_equal(step.observation, state["observation"])
        np.testing.assert_array_equal(step.first, state["length"] == 0)
        assert not step.reward.any()
        assert not (step.terminated | step.truncated).any()
        for name, value in resumed.state().items():
            np.testing.assert_array_equal(value, state[name], err_msg=name)
        assert_equal(play(resumed, moves[17:]), expected)
        assert resumed.env_step == env_step


def test_restoring_goes_back_in_the_same_object():
    with toys() as env:
        env.reset()
        moves = actions(env, 30)
        play(env, moves[:7])
        state = env.state()
        expected = play(env, moves[7:])
        env.restore(state)
        assert_equal(play(env, moves[7:]), expected)


def test_a_state_of_another_run_is_refused():
    with toys() as env, toys(seed=1) as other:
        env.reset()
        with pytest.raises(EnvError, match="the state has seed 0, this environment 1"):
            other.restore(env.state())


def test_a_replay_that_leads_elsewhere_is_refused(monkeypatch):
    with toys() as env:
        env.reset()
        play(env, actions(env, 3))
        state = env.state()
    step = Reach.step
    monkeypatch.setattr(Reach, "step", lambda self, action: step(self, action * np.float32(0.9)))
    with toys() as changed, pytest.raises(EnvError, match="led elsewhere in environment 0 \\(toy-reach\\)"):
        changed.restore(state)


@pytest.mark.parametrize(
    ("tasks", "num_envs", "num_processes", "sentence"),
    [
        (TOYS, 1, 0, "1 environments cannot play 2 tasks; give at least 2"),
        ((), 1, 0, "at least one task"),
        ((TOYS[0], TOYS[0]), 2, 0, "found twice: toy-reach"),
        (TOYS, 2, 0, "num_processes is 0"),
    ],
)
def test_an_impossible_request_is_refused(tasks, num_envs, num_processes, sentence):
    with pytest.raises(SuiteError, match=sentence):
        toys(num_envs, tasks, num_processes=num_processes)


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (np.zeros((4, 3), dtype=np.float32), r"float32 array of shape \(4, 2\); found float32 \(4, 3\)"),
        (np.zeros((4, 2)), "found float64"),
        ([[0, 0]] * 4, "found list"),
        (
            np.full((4, 2), np.nan, dtype=np.float32),
            r"environment 0 \(toy-reach\), episode 0, step 1: action\[0\] is nan",
        ),
        (np.full((4, 2), 1.001, dtype=np.float32), r"action\[0\] is 1.00.*; expected a number in \[-1, 1\]"),
    ],
)
def test_a_bad_action_is_named(action, sentence):
    with toys() as env:
        env.reset()
        play(env, actions(env, 1))
        with pytest.raises(EnvError, match=sentence):
            env.step(action)


def test_stepping_before_reset_is_refused():
    with toys() as env, pytest.raises(EnvError, match="before reset"):
        env.step(np.zeros((4, 2), dtype=np.float32))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((np.array([np.nan, 0], np.float32), 0.0, False, False, None), r"observation\[0\] is nan; expected a finite"),
        ((np.zeros(2, np.float32), np.inf, False, False, None), r"reward\[0\] is inf; expected a finite"),
        ((np.zeros(3, np.float32), 0.0, False, False, None), r"shape \(3,\); expected \(2,\)"),
        (ZeroDivisionError("oh"), r"failed in step: ZeroDivisionError: oh"),
    ],
)
def test_a_broken_environment_is_named_at_once(monkeypatch, answer, sentence):
    def step(self, action):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with toys() as env:
        env.reset()
        monkeypatch.setattr(Reach, "step", step)
        with pytest.raises(EnvError, match=rf"environment 0 \(toy-reach\), episode 0, step \d: .*{sentence}"):
            env.step(np.zeros((4, 2), dtype=np.float32))


def test_an_episode_that_overruns_its_protocol_is_named(monkeypatch):
    monkeypatch.setattr(Reach, "step", lambda self, action: (np.zeros(2, np.float32), 0.0, False, False, None))
    with toys() as env:
        env.reset()
        with pytest.raises(EnvError, match="did not end after the 20 decisions"):
            play(env, actions(env, 21))


def worker(env):
    return env._engines._engines[0]._workers[0]


def test_a_dead_worker_is_replaced_and_nothing_of_the_results_changes(monkeypatch):
    monkeypatch.setattr("suites.workers.REPLY_SECONDS", 120.0)
    with toys(num_processes=2) as env, toys() as undisturbed:
        env.reset(), undisturbed.reset()
        moves = actions(env, 40)
        played = play(env, moves[:25])  # the second episode of some is under way
        os.kill(worker(env)._process.pid, signal.SIGKILL)
        started = time.monotonic()
        played += play(env, moves[25:])
        assert time.monotonic() - started < 60, "as if it were hung"
        assert env.restarts == 1
        assert_equal(played, play(undisturbed, moves))
        assert env.env_step == undisturbed.env_step


def test_where_writes_are_seen_out_of_order_messages_hand_steps_over(monkeypatch):
    monkeypatch.setattr("suites.workers.ORDERED", False)
    with toys(5, num_processes=2) as env, toys(5) as undisturbed:
        env.reset(), undisturbed.reset()
        moves = actions(env, 26)
        assert_equal(play(env, moves), play(undisturbed, moves))
        assert worker(env)._steps == 0, "no counter was used"


def test_a_worker_that_dies_in_a_reset_is_replaced_too():
    with toys(num_processes=2) as env, toys() as undisturbed:
        env.reset(), undisturbed.reset()
        play(env, actions(env, 5))
        os.kill(worker(env)._process.pid, signal.SIGKILL)
        assert_equal([env.reset()], [undisturbed.reset()])
        moves = actions(env, 8)
        assert_equal(play(env, moves), play(undisturbed, moves))
        assert env.restarts == 1


def test_workers_that_die_while_they_take_over_are_replaced_too(monkeypatch):
    """In the middle of episodes, and while a saved moment is restored."""
    replay, deaths = WorkerEngine.replay, itertools.chain([True, False, True], itertools.repeat(False))

    def dies(engine, episodes):
        if next(deaths):
            os.kill(engine._workers[0]._process.pid, signal.SIGKILL)
        replay(engine, episodes)

    monkeypatch.setattr(WorkerEngine, "replay", dies)
    with toys(num_processes=2) as env, toys() as undisturbed, toys(num_processes=2) as restored:
        env.reset(), undisturbed.reset()
        moves = actions(env, 8)
        play(env, moves[:5]), play(undisturbed, moves[:5])
        os.kill(worker(env)._process.pid, signal.SIGKILL)
        assert_equal(play(env, moves[5:]), play(undisturbed, moves[5:]))
        assert env.restarts == 2
        assert_equal([restored.restore(env.state())], [undisturbed.restore(undisturbed.state())])
        assert restored.restarts == 1


def test_a_hung_worker_says_where_and_is_replaced(faulty, monkeypatch, capfd):
    monkeypatch.setattr("suites.workers.REPLY_SECONDS", 1.0)
    with toys(2, (faulty("hangs"), TOYS[0]), num_processes=2) as env:
        env.reset()
        play(env, actions(env, 3))  # hangs at its third step, once
        assert env.restarts == 1
    said = capfd.readouterr().err
    assert "in step" in said
    assert "faulty.py" in said


def test_workers_lost_again_and_again_are_no_accident(monkeypatch):
    with toys(num_processes=2) as env:
        env.reset()
        moves = actions(env, 20)
        for _ in range(MAX_RESTARTS):
            os.kill(worker(env)._process.pid, signal.SIGKILL)
            play(env, moves[:1])
        os.kill(worker(env)._process.pid, signal.SIGKILL)
        with pytest.raises(EnvWorkerError, match=r"died \(exit code -9\); it held toy-reach, toy-terminate"):
            play(env, moves[:1])
        state = env.state()
    with toys() as replacement:
        replacement.restore(state)
        assert replacement.env_step == MAX_RESTARTS * env.num_envs


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize(
    ("fault", "said", "length"),
    [
        ("fails in reset", "failed in reset: ValueError: as asked", 0),
        ("fails in step", "failed in step: ValueError: as asked", 2),
        ("is infinite", "gave the reward inf; expected a finite number", 3),
        ("sees nothing", "gave an observation with numbers that are not finite", 3),
    ],
)
def test_in_an_evaluation_a_failing_environment_stands_still_and_the_others_play_on(
    faulty, fault, said, length, num_processes
):
    with (
        toys(2, (faulty(fault), TOYS[0]), num_processes=num_processes, tolerant=True) as env,
        toys(1, TOYS[:1]) as alone,
    ):
        for _ in range(2):  # the next evaluation tries again
            env.reset(), alone.reset()
            moves = actions(env, 25)
            steps, expected = play(env, moves), play(alone, moves[:, 1:, :1])
            found = [episode for step in steps for episode in step.episodes]
            (broken,) = [episode for episode in found if episode.fault is not None]
            assert (broken.task, broken.length) == (0, length)
            assert said in broken.fault
            assert [e.episode_return for e in found if e.task == 1] == [
                e.episode_return for step in expected for e in step.episodes
            ]
            assert not steps[-1].observation[0].any()


@pytest.fixture
def faulty(plugin, tmp_path):
    """Makes tasks that go wrong as told: a point on a line, as in toy-reach, from a package of its own."""
    code = f"""
import time
from pathlib import Path
from suites.toy import Reach, Toy

class Faulty(Toy):
    name = "faulty"
    default_protocol = "toy-20"
    def spaces(self, task):
        return Reach.spaces
    def make(self, task):
        return Env(task.protocol, task.options["fault"])

class Env(Reach):
    def __init__(self, protocol, fault):
        super().__init__(protocol)
        self.fault = fault
    def reset(self, seed):
        if self.fault == "fails in reset":
            raise ValueError("as asked")
        return super().reset(seed)
    def step(self, action):
        if self._decisions == 2 and self.fault == "fails in step":
            raise ValueError("as asked")
        once = Path({str(tmp_path)!r}) / "hung"
        if self._decisions == 2 and self.fault == "hangs" and not once.exists():
            once.touch()
            time.sleep(1000)
        observation, reward, *rest = super().step(action)
        if self._decisions == 3 and self.fault == "sees nothing":
            observation = observation * float("nan")
        if self._decisions == 3 and self.fault == "is infinite":
            reward = float("inf")
        return observation, reward, *rest
"""
    plugin("faulty", "faulty = faulty:Faulty", code)
    return lambda fault: task("toy", "toy-reach").model_copy(
        update={"family": "faulty", "name": "faulty", "options": {"fault": fault}}
    )


def test_a_fault_in_a_worker_is_told():
    good = LaneSpec(env=0, task=TOYS[0], task_index=0, replica=0, replicas=1)
    bad = LaneSpec(env=1, task=task("toy", "toy-raech"), task_index=1, replica=0, replicas=1)
    with pytest.raises(EnvError, match=r"environment 1 \(toy-raech\) cannot be made: .* nearest: 'toy-reach'"):
        Engines([good, bad], Layout(2, (2,), "float32", 1), 0, "train", 2)


def test_no_worker_outlives_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from suites.vector import VectorEnv\n"
        "from tests.suites.tasks import task\n"
        "if __name__ == '__main__':\n"
        "    env = VectorEnv([task('toy', 'toy-reach')], 3, seed=0, stream='train', num_processes=3)\n"
        "    print(*[worker._process.pid for worker in env._engines._engines[0]._workers], flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.kill()
    until = time.monotonic() + 60
    while any(map(running, workers)):
        assert time.monotonic() < until, "a worker lives on"
        time.sleep(0.05)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_get_equal_shares_by_what_was_measured():
    any_task = task("toy", "toy-reach")
    specs = [LaneSpec(env, any_task, env, 0, 1) for env in range(4)]
    seconds = {0: 5.0, 1: 4.0, 2: 3.0, 3: 3.0}
    # the longest first, each to whoever has least to do: 5, 4, then 3 to the second (7), then 3 to the first (8)
    assert [[spec.env for spec in part] for part in _deal(specs, 2, seconds)] == [[0, 3], [1, 2]]


def test_sharing_the_work_out_again_changes_no_result(monkeypatch):
    dealt = []
    monkeypatch.setattr("suites.workers.WORTH_DEALING_AGAIN", 0.0)
    rebuild = VectorEnv._rebuild
    monkeypatch.setattr(
        VectorEnv, "_rebuild", lambda self, seconds=None: (dealt.append(seconds), rebuild(self, seconds))
    )
    with toys(6, num_processes=2) as env, toys(6) as undisturbed:
        env.reset(), undisturbed.reset()
        moves = actions(env, 50)
        assert_equal(play(env, moves), play(undisturbed, moves))
    (seconds,) = dealt
    assert sorted(seconds) == list(range(6)), "once, by the time of every environment"
    assert min(seconds.values()) > 0


def test_closing_twice_is_harmless_and_leaves_no_process():
    env = toys(num_processes=2)
    pid = env._engines._engines[0]._workers[0]._process.pid
    env.close(), env.close()
    assert not running(pid)


@pytest.mark.parametrize(
    ("num_tasks", "num_envs", "num_processes"), [(10, 10, 2), (2, 8, 2), (2, 4, 4), (3, 8, 3), (1, 5, 2)]
)
def test_processes_get_equal_shares_and_replicas_are_spread(num_tasks, num_envs, num_processes):
    any_task = task("toy", "toy-reach")
    specs = [LaneSpec(env, any_task, env % num_tasks, env // num_tasks, 0) for env in range(num_envs)]
    parts = _deal(specs, num_processes)
    assert sorted(spec.env for part in parts for spec in part) == list(range(num_envs))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if num_tasks == num_processes:
        assert all(len({spec.task_index for spec in part}) > 1 for part in parts if len(part) > 1)

"""How fast environments step: our vector environment on both engines beside what can be had without it.

Random actions and whole episodes, so that resets count too. Steps are environment steps, action repeat included.
Without us are: free processes, which share the tasks and never wait for each other (the ceiling of the machine);
gymnasium's AsyncVectorEnv over the package's own environments; EnvPool's pools, one a task, driven by hand.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
from _processes import family_of, resident
from _table import Measurement, options, show

from suites.catalog import load_suite
from suites.families import family
from suites.seeding import EpisodeSeed
from suites.spec import Task
from suites.vector import VectorEnv

PROCESSES = 2
CONTROL_TASKS = ("cartpole-swingup", "reacher-easy", "walker-walk", "cheetah-run")


def random_actions(num_envs: int, size: int) -> np.ndarray:
    """A cycle of actions ``[64, N, A]``."""
    return np.random.default_rng(0).uniform(-1, 1, (64, num_envs, size)).astype(np.float32)


def rate(env: VectorEnv, episodes: int) -> float:
    """Environment steps per second over ``episodes`` whole episodes of every environment.

    An episode before these does not count: at its end a vector environment may deal out its work again, once.
    """
    actions = random_actions(env.num_envs, env.spec.action_dim)
    length = int(env.spec.max_episode_steps.max())
    env.reset()
    for decision in range(length):
        env.step(actions[decision % len(actions)])
    before, start = env.env_step, time.perf_counter()
    for decision in range(length * episodes):
        env.step(actions[decision % len(actions)])
    return (env.env_step - before) / (time.perf_counter() - start)


def vector_env(tasks: Sequence[Task], episodes: int, num_processes: int) -> float:
    """Steps per second of our vector environment with one environment per task."""
    with VectorEnv(tasks, len(tasks), seed=0, stream="train", num_processes=num_processes) as env:
        return rate(env, episodes)


def free_processes(tasks: Sequence[Task], episodes: int, step_freely: Callable[..., None] | None = None) -> float:
    """Steps per second of processes that share the tasks and never wait for each other; by default ours alone."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=step_freely or ours_freely, args=(tasks[part::PROCESSES], episodes, barrier, rates))
        for part in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def ours_freely(tasks: Sequence[Task], episodes: int, barrier: Any, rates: Any) -> None:
    """The environments behind the vector environment, one after another."""
    envs = [(task, family(task.family).make(task)) for task in tasks]
    actions = random_actions(len(envs), max(env.spaces.action for _, env in envs))
    barrier.wait(timeout=300)
    start, env_steps = time.perf_counter(), 0
    for episode in range(episodes):
        for task, env in envs:
            env.reset(EpisodeSeed("train", 0, task.name, episode))
        for decision in range(max(task.protocol.decisions for task in tasks)):
            for index, (task, env) in enumerate(envs):
                env.step(actions[decision % len(actions), index])
                env_steps += task.protocol.action_repeat
    rates.put(env_steps / (time.perf_counter() - start))


def package_freely(tasks: Sequence[Task], episodes: int, barrier: Any, rates: Any) -> None:
    """Meta-World's own environments as they are, one after another."""
    envs = [_package_env(task.name)() for task in tasks]
    actions = random_actions(len(envs), 4)
    barrier.wait(timeout=300)
    start = time.perf_counter()
    for _ in range(episodes):
        for env in envs:
            env.reset()
        for decision in range(500):
            for index, env in enumerate(envs):
                env.step(actions[decision % len(actions), index])
    rates.put(500 * episodes * len(envs) / (time.perf_counter() - start))


def async_vector_env(tasks: Sequence[Task], decisions: int) -> float:
    """Steps per second of gymnasium's AsyncVectorEnv, one process for each of Meta-World's own environments."""
    from gymnasium.vector import AsyncVectorEnv

    env = AsyncVectorEnv([_package_env(task.name) for task in tasks], context="spawn")
    try:
        actions = random_actions(len(tasks), 4)
        env.reset(seed=0)
        start = time.perf_counter()
        for decision in range(decisions):
            env.step(actions[decision % len(actions)])
        return decisions * len(tasks) / (time.perf_counter() - start)
    finally:
        env.close()


class _package_env:  # noqa: N801 - a function that can be sent to another process
    """Makes one of the package's environments as it is, goals drawn anew at every reset."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> Any:
        from gymnasium.spaces import Box
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        env = ALL_V3_ENVIRONMENTS[self.name](reward_function_version="v2")
        env._freeze_rand_vec, env._set_task_called, env._partially_observable = False, True, False
        del env.sawyer_observation_space
        # goals lie in other ranges from task to task, and the vector environment wants one space for all
        env.observation_space = Box(-np.inf, np.inf, (39,), np.float64)
        return env


def pools_by_hand(tasks: Sequence[Task], decisions: int) -> float:
    """Steps per second of EnvPool, one pool of one environment a task: all are sent their actions, then all answer."""
    import envpool

    from suites.pools import pool_id

    pools = [
        envpool.make_gymnasium(pool_id(task), num_envs=1, num_threads=1, seed=0, partially_observable=False)
        for task in tasks
    ]
    actions = random_actions(len(tasks), 4)
    for pool in pools:
        pool.async_reset()
        pool.recv()
    start = time.perf_counter()
    for decision in range(decisions):
        for index, pool in enumerate(pools):
            pool.send(actions[decision % len(actions), [index]])
        for pool in pools:
            pool.recv()
    elapsed = time.perf_counter() - start
    for pool in pools:
        pool.close()
    return decisions * len(tasks) / elapsed


def apart(measure: Callable[..., float], *arguments: Any) -> float:
    """Measure in a process of its own, so that nothing of another measurement is left in its memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def construction(tasks: Sequence[Task]) -> tuple[float, float]:
    """Seconds to build the vector environment with its workers, and MB of all processes once it steps."""
    start = time.perf_counter()
    with VectorEnv(tasks, len(tasks), seed=0, stream="train", num_processes=PROCESSES) as env:
        env.reset()
        seconds = time.perf_counter() - start
        env.step(random_actions(env.num_envs, env.spec.action_dim)[0])
        return seconds, sum(map(resident, family_of(multiprocessing.current_process().pid or 0)))


def _construction_seconds(tasks: Sequence[Task]) -> float:
    return construction(tasks)[0]


def _construction_memory(tasks: Sequence[Task]) -> float:
    return construction(tasks)[1]


def meta_world(suite: str, episodes: int) -> list[Measurement]:
    """Both engines on a suite of joint tasks, beside what there is without us."""
    tasks = load_suite(suite).tasks
    decisions = 500 * episodes
    alone = apart(vector_env, tasks, episodes, 1)
    before = apart(free_processes, tasks, episodes)
    ours = apart(vector_env, tasks, episodes, PROCESSES)
    ceiling = (before + apart(free_processes, tasks, episodes)) / 2
    stock = apart(async_vector_env, tasks, decisions)
    is_mt50 = suite == "mt50"
    package = apart(free_processes, tasks, episodes, package_freely)
    rows = [
        Measurement(f"{suite}: {PROCESSES} free processes, Meta-World's own code", package, "steps/s"),
        Measurement(f"{suite}: AsyncVectorEnv, {len(tasks)} processes", stock, "steps/s"),
        Measurement(f"{suite}: one process", alone, "steps/s"),
        Measurement(f"{suite}: {PROCESSES} free processes (ceiling)", ceiling, "steps/s"),
        Measurement(f"{suite}: vector environment, native", ours, "steps/s"),
        Measurement(f"{suite}: native / ceiling", ours / ceiling, "share", ">= 0.85"),
        Measurement(f"{suite}: native / AsyncVectorEnv", ours / stock, "times", ">= 2.2" if is_mt50 else None),
    ]
    if find_spec("envpool") is not None:
        fast = [task.model_copy(update={"engine": "envpool"}) for task in tasks]
        before = apart(pools_by_hand, tasks, decisions)
        pooled = apart(vector_env, fast, episodes, PROCESSES)
        by_hand = (before + apart(pools_by_hand, tasks, decisions)) / 2
        rows += [
            Measurement(f"{suite}: EnvPool by hand", by_hand, "steps/s"),
            Measurement(f"{suite}: vector environment, envpool", pooled, "steps/s"),
            Measurement(f"{suite}: envpool / by hand", pooled / by_hand, "share", ">= 0.85"),
            Measurement(f"{suite}: envpool / AsyncVectorEnv", pooled / stock, "times", ">= 3.8" if is_mt50 else None),
        ]
    if is_mt50:
        rows += [
            Measurement("mt50: construction", apart(_construction_seconds, tasks), "s", "< 10"),
            Measurement(
                "mt50: memory of all processes (PSS)", apart(_construction_memory, tasks) / 1024, "GB", "< 2.5"
            ),
        ]
    return rows


def main() -> int:
    arguments = options(__doc__)
    rows = meta_world("mt10", 1 if arguments.quick else 6)
    if not arguments.quick:
        rows += meta_world("mt50", 2)
    control = {task.name: task for task in load_suite("dmc28").tasks}
    for name in CONTROL_TASKS[:1] if arguments.quick else CONTROL_TASKS:
        speed = apart(vector_env, [control[name]], 1 if arguments.quick else 20, 1)
        rows.append(Measurement(f"{name}: one process, one environment", speed, "steps/s"))
    return show("Stepping environments", rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())

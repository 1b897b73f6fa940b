"""How fast environments step: one process, free processes as the ceiling, and the vector environment's workers.

Random actions and whole episodes, so that resets count too. Steps are environment steps, action repeat included.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _table import Measurement, options, show

from suites.catalog import load_suite
from suites.spec import Task
from suites.vector import VectorEnv

PROCESSES = 2
CONTROL_TASKS = ("cartpole-swingup", "reacher-easy", "walker-walk", "cheetah-run")


def rate(env: VectorEnv, episodes: int) -> float:
    """Environment steps per second over ``episodes`` whole episodes of every environment."""
    actions = np.random.default_rng(0).uniform(-1, 1, (64, env.num_envs, env.spec.action_dim)).astype(np.float32)
    decisions = int(env.spec.max_episode_steps.max()) * episodes
    env.reset()
    start = time.perf_counter()
    for decision in range(decisions):
        env.step(actions[decision % len(actions)])
    return env.env_step / (time.perf_counter() - start)


def one_vector_env(tasks: Sequence[Task], episodes: int, num_processes: int) -> float:
    """Steps per second of one vector environment with one environment per task."""
    with VectorEnv(tasks, len(tasks), seed=0, stream="train", num_processes=num_processes) as env:
        return rate(env, episodes)


def free_processes(tasks: Sequence[Task], episodes: int) -> float:
    """Steps per second of processes that share the tasks and never wait for each other: the ceiling of the machine."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=_step_freely, args=(tasks[part::PROCESSES], episodes, barrier, rates))
        for part in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def _step_freely(tasks: Sequence[Task], episodes: int, barrier: Any, rates: Any) -> None:
    with VectorEnv(tasks, len(tasks), seed=0, stream="train") as env:
        barrier.wait(timeout=300)
        rates.put(rate(env, episodes))


def building(tasks: Sequence[Task]) -> float:
    """Seconds to build one environment, the mean over ``tasks``; the engine is imported before."""
    one_vector_env(tasks[:1], 1, 1)
    start = time.perf_counter()
    with VectorEnv(tasks, len(tasks), seed=0, stream="train") as env:
        env.reset()
    return (time.perf_counter() - start) / len(tasks)


def measure(suite: str, episodes: int) -> list[Measurement]:
    """One process, the ceiling and the workers for a suite of joint tasks."""
    tasks = load_suite(suite).tasks
    alone = one_vector_env(tasks, episodes, 1)
    ceiling = free_processes(tasks, episodes)
    workers = one_vector_env(tasks, episodes, PROCESSES)
    return [
        Measurement(f"{suite}: one process", alone, "steps/s"),
        Measurement(f"{suite}: {PROCESSES} free processes (ceiling)", ceiling, "steps/s"),
        Measurement(f"{suite}: vector environment, {PROCESSES} workers", workers, "steps/s"),
        Measurement(f"{suite}: workers / ceiling", workers / ceiling, "share", ">= 0.85"),
        Measurement(f"{suite}: building one environment", building(tasks), "s"),
    ]


def main() -> int:
    arguments = options(__doc__)
    rows = measure("mt10", 1 if arguments.quick else 8)
    if not arguments.quick:
        rows += measure("mt50", 2)
    control = {task.name: task for task in load_suite("dmc28").tasks}
    for name in CONTROL_TASKS[:1] if arguments.quick else CONTROL_TASKS:
        speed = one_vector_env([control[name]], 1 if arguments.quick else 20, 1)
        rows.append(Measurement(f"{name}: one process, one environment", speed, "steps/s"))
    return show("Stepping environments", rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())

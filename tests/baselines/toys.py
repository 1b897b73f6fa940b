"""Spaces and tasks that tests of several agents share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3po.api import Agent, EnvSpec, transition
from suites.protocols import protocol
from suites.spec import Task
from suites.vector import VectorEnv

TASKS = [
    Task(name="toy-reach", family="toy", protocol=protocol("toy-20")),
    Task(name="toy-terminate", family="toy", protocol=protocol("toy-20")),
]


def spec_of(observation_sizes: Sequence[int], action_sizes: Sequence[int], action_repeat: int = 1) -> EnvSpec:
    """Padded spaces of tasks with so many observation and action entries each, and episodes of ten decisions."""
    K, D, A = len(observation_sizes), max(observation_sizes), max(action_sizes)
    return EnvSpec(
        observation_shape=(D,),
        observation_dtype="float32",
        action_dim=A,
        observation_mask=np.arange(D) < np.array(observation_sizes)[:, None],
        action_mask=np.arange(A) < np.array(action_sizes)[:, None],
        max_episode_steps=np.full(K, 10, np.int64),
        action_repeat=np.full(K, action_repeat, np.int64),
        task_names=tuple(f"task-{k}" for k in range(K)),
    )


def train(agent: Agent, env: VectorEnv, env_steps: int) -> None:
    """The loop of :mod:`m3po.api`, from the first reset of ``env``."""
    step, carry = env.reset(), agent.initial_carry(env.num_envs)
    while env.env_step < env_steps:
        decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
        following = env.step(decision.action)
        agent.observe(transition(step, decision, following))
        agent.update()
        step, carry = following, decision.carry


def mean_returns(agent: Agent, tasks: Sequence[Task] = TASKS) -> list[float]:
    """Mean return of each task over 20 evaluation episodes."""
    K = len(tasks)
    with VectorEnv(tasks, 20 * K, seed=0, stream="evaluate") as env:
        step, done = env.reset(), np.zeros(20 * K, np.bool_)
        returns, carry = np.zeros(20 * K), agent.initial_carry(20 * K)
        while not done.all():
            decision = agent.act(carry, step.observation, step.first, step.task, explore=False)
            step, carry = env.step(decision.action), decision.carry
            returns += np.where(done, 0, step.reward)
            done |= step.terminated | step.truncated
        return [float(returns[env.task == k].mean()) for k in range(K)]

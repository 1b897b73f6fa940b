"""SAC learns tasks that take seconds."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.sac.agent import SAC
from baselines.sac.config import SACConfig
from m3po.api import transition
from suites.protocols import protocol
from suites.spec import Task
from suites.vector import VectorEnv

TASKS = [
    Task(name="toy-reach", family="toy", protocol=protocol("toy-20")),
    Task(name="toy-terminate", family="toy", protocol=protocol("toy-20")),
]


def mean_returns(agent: SAC) -> list[float]:
    """Mean return of each task over 20 evaluation episodes."""
    K = len(TASKS)
    with VectorEnv(TASKS, 20 * K, seed=0, stream="evaluate") as env:
        step, done = env.reset(), np.zeros(20 * K, np.bool_)
        returns = np.zeros(20 * K)
        while not done.all():
            step = env.step(agent.act(None, step.observation, step.first, step.task, explore=False).action)
            returns += np.where(done, 0, step.reward)
            done |= step.terminated | step.truncated
        return [float(returns[env.task == k].mean()) for k in range(K)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", [{}, {"heads": "per_task", "temperature": "per_task", "initialisation": "he"}], ids=["shared", "per_task"]
)
def test_learns_two_tasks_at_once(form: dict[str, str]) -> None:
    with VectorEnv(TASKS, 4, seed=0, stream="train") as env:
        config = SACConfig(
            hidden=(32, 32),
            batch_size=32,
            learning_rate=3e-3,
            updates_per_step=0.5,
            gamma=0.95,
            # At 1 the entropy of staying in the box is worth more than leaving it.
            initial_temperature=0.1,
            **form,
        )
        agent = SAC(env.spec, config, seed=0, device="cpu")
        step = env.reset()
        while env.env_step < 3_000:
            decision = agent.act(None, step.observation, step.first, step.task, explore=True)
            following = env.step(decision.action)
            agent.observe(transition(step, decision, following))
            agent.update()
            step = following
    reach, terminate = mean_returns(agent)
    # Standing still costs 11.7, moving straight to the goal about 1.3; leaving the box from within 0.5 takes at most 5
    # steps at full speed, and staying costs 20.
    assert reach > -3
    assert terminate > -7

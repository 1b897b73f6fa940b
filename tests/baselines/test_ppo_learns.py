"""PPO learns a task that takes seconds."""

from __future__ import annotations

import pytest

from baselines.ppo.agent import PPO
from baselines.ppo.config import PPOConfig
from suites.vector import VectorEnv
from tests.baselines.toys import TASKS, mean_returns, train


@pytest.mark.slow
def test_learns_two_tasks_at_once() -> None:
    with VectorEnv(TASKS, 8, seed=0, stream="train") as env:
        config = PPOConfig(preset="small", learning_rate=3e-3, hidden=(32,))
        agent = PPO(env.spec, config, seed=0, device="cpu")
        train(agent, env, 25_000)
    reach, terminate = mean_returns(agent)
    # The distance d of two points uniform on [-1, 1] has density (2 − d)/2. Standing still costs 20 E[min(1, d)] =
    # 20 (1/3 + 1/4) = 11.7; moving 0.2 a step costs about E[d²/0.4 − d/2] = (2/3)/0.4 − 1/3 = 1.3.
    # Leaving the box from within 0.5 takes at most 5 steps at full speed; staying costs 20.
    assert reach > -3
    assert terminate > -7

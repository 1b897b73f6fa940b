"""The random agent is uniform, in training and in evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baselines.random.agent import RandomAgent
from baselines.random.config import RandomConfig
from tests.baselines.toys import spec_of


def agent_for(action_dim: int, seed: int = 0) -> RandomAgent:
    return RandomAgent(spec_of([2], [action_dim]), RandomConfig(), seed=seed, device="cpu")


def actions(explore: bool, decisions: int = 500) -> NDArray[np.float32]:
    """``[decisions, 4, 3]`` actions on one observation that never changes."""
    agent = agent_for(3)
    carry, first = agent.initial_carry(4), np.ones(4, np.bool_)
    chosen = []
    for _ in range(decisions):
        observation = np.arange(8, dtype=np.float32).reshape(4, 2)
        decision = agent.act(carry, observation, first, np.zeros(4, np.int64), explore=explore)
        carry, first = decision.carry, np.zeros(4, np.bool_)
        chosen.append(decision.action)
    return np.stack(chosen)


def test_actions_are_uniform_and_independent() -> None:
    for explore in (True, False):
        drawn = actions(explore).reshape(500, -1)
        # Uniform on [-1, 1] has mean 0 and variance 1/3; over 6000 draws the mean's deviation is √(1/3/6000) = 0.0075
        # and the variance's √(4/45/6000) = 0.0038. Four deviations are allowed.
        assert abs(drawn.mean()) < 0.030
        assert abs(drawn.var() - 1 / 3) < 0.016
        # Correlations of 500 draws deviate by 1/√500 = 0.045.
        correlation = np.corrcoef(drawn, rowvar=False) - np.eye(drawn.shape[1])
        assert np.abs(correlation).max() < 0.2


def test_evaluation_depends_on_the_seed() -> None:
    observation, first, task = np.ones((1, 2), np.float32), np.ones(1, np.bool_), np.zeros(1, np.int64)
    one, two = (
        agent_for(3, seed).act(np.zeros(1, np.int64), observation, first, task, explore=False) for seed in (0, 1)
    )
    assert not np.array_equal(one.action, two.action)

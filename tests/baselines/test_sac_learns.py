"""SAC learns tasks that take seconds."""

from __future__ import annotations

import pytest

from baselines.sac.agent import SAC
from baselines.sac.config import SACConfig
from suites.vector import VectorEnv
from tests.baselines.toys import TASKS, mean_returns, train


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
        train(agent, env, 3_000)
    reach, terminate = mean_returns(agent)
    # Standing still costs 11.7, moving straight to the goal about 1.3; leaving the box from within 0.5 takes at most 5
    # steps at full speed, and staying costs 20.
    assert reach > -3
    assert terminate > -7

"""M3PO learns tasks that take seconds, in both of its forms."""

from __future__ import annotations

from typing import Any

import pytest

from m3po.algorithm.agent import M3PO
from suites.vector import VectorEnv
from tests.baselines.toys import TASKS, mean_returns, train

from .conftest import tiny

FRESH = {
    "actor_data": "fresh",
    "trust_region": "clip",
    "planner": "none",
    "rollout_size": 256,
    "epochs": 8,
    "updates_per_step": 0.02,
    "kl_target": 0.1,
    "entropy_coef": 0.003,
}


@pytest.mark.slow
@pytest.mark.parametrize(("form", "env_steps"), [({}, 1_600), (FRESH, 12_000)], ids=["replay", "fresh"])
def test_learns_two_tasks_at_once(form: dict[str, Any], env_steps: int) -> None:
    base = {"hidden": 32, "batch": 32, "samples": 16, "model_lr": 3e-3, "actor_lr": 3e-3}
    config = tiny(**{**base, "updates_per_step": 0.25, "learning_starts": 100, "replay_capacity": 100_000, **form})
    with VectorEnv(TASKS, 8, seed=0, stream="train") as env:
        agent = M3PO(env.spec, config, seed=0, device="cpu")
        train(agent, env, env_steps)
    planned = mean_returns(agent)
    # Beside a planner that knows the reward an actor may learn nothing, so it is asked alone too.
    agent.config = config.model_copy(update={"planner": "none"})
    for reach, terminate in (planned, mean_returns(agent)):
        # Standing still costs 11.7, moving straight to the goal about 1.3; leaving the box from within 0.5 takes at
        # most 5 steps at full speed, and staying costs 20. Three seeds ended at -3.8 and -5.1 or above; with the
        # gradient of either actor turned round, reach ended at -15.4.
        assert reach > -5
        assert terminate > -7

"""Every agent this package brings passes the public contract, found as the harness finds it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from m3po.api import PARAMETERS, UPDATES, EnvSpec, transition
from m3po.testing import check_agent
from suites.vector import VectorEnv
from tests.baselines.toys import TASKS

# So small that each agent updates several times within the battery's few decisions.
M3PO = {
    "latent": 8,
    "hidden": 8,
    "bins": 11,
    "task_embedding": 4,
    "samples": 8,
    "batch": 4,
    "updates_per_step": 0.1,
    "learning_starts": 24,
    "rollout_size": 18,
}
TINY: Mapping[str, Mapping[str, Any]] = {
    "random": {},
    "ppo": {"hidden": (8,), "rollout_size": 24, "minibatch_size": 8, "epochs": 2},
    "sac": {"hidden": (8,), "batch_size": 4, "learning_starts": 4, "updates_per_step": 0.4},
    "m3po": M3PO,
    "dreamerv3": {
        "deter": 8,
        "hidden": 8,
        "stoch": 2,
        "classes": 4,
        "blocks": 2,
        "units": 8,
        "layers": 1,
        "bins": 11,
        "batch_size": 2,
        "batch_length": 4,
        "imagination": 3,
        "train_ratio": 1.0,
        "warmup": 5,
        "learning_starts": 24,
        "replay_capacity": 60,
    },
}
OURS = ("baselines.", "m3po.")
AGENTS = {point.name: point for point in entry_points(group="m3po.agents") if point.value.startswith(OURS)}


@pytest.mark.parametrize("name", AGENTS)
def test_built_in_agent_passes(name: str) -> None:
    agent_class = AGENTS[name].load()
    check_agent(agent_class, agent_class.Config(**TINY[name]), learns=name != "random")


@pytest.mark.parametrize(
    "form", [{"preset": "paper", "horizon": 2, "epochs": 1, "minibatches": 2}, {"discrepancy": "reward"}], ids=str
)
def test_other_forms_of_m3po_pass(form: Mapping[str, Any]) -> None:
    agent_class = AGENTS["m3po"].load()
    check_agent(agent_class, agent_class.Config(**M3PO, **form))


@pytest.mark.parametrize("name", sorted(set(AGENTS) - {"random"}))
def test_an_agent_of_vectors_says_so_when_it_is_shown_images(name: str) -> None:
    images = EnvSpec(
        observation_shape=(64, 64, 3),
        observation_dtype="uint8",
        action_dim=1,
        observation_mask=np.ones((1, 64 * 64 * 3), np.bool_),
        action_mask=np.ones((1, 1), np.bool_),
        max_episode_steps=np.array([500]),
        action_repeat=np.array([2]),
        task_names=("cartpole-swingup",),
    )
    sentences = AGENTS[name].load().Config().check(images, num_envs=8, env_steps=1_000_000)
    assert sentences == [f"{name} learns from vectors; these observations are images of 64 x 64 x 3"]


@pytest.mark.parametrize("name", sorted(set(AGENTS) - {"random"}))
def test_an_agent_of_ours_tells_its_gradient_updates_and_its_size(name: str) -> None:
    agent_class = AGENTS[name].load()
    told: list[float] = []
    sizes: set[float] = set()
    with VectorEnv(TASKS[:1], 3, seed=0, stream="train") as env:
        agent = agent_class(env.spec, agent_class.Config(**TINY[name]), seed=0, device="cpu")
        step, carry = env.reset(), agent.initial_carry(3)
        for _ in range(32):
            decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
            following = env.step(decision.action)
            agent.observe(transition(step, decision, following))
            if metrics := agent.update():
                told.append(metrics[UPDATES])
                sizes.add(metrics[PARAMETERS])
            step, carry = following, decision.carry
    assert told[0] >= 1
    assert all(before < after for before, after in pairwise(told))
    assert len(sizes) == 1
    assert sizes.pop() > 10

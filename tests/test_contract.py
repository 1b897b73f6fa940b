"""Every agent this package brings passes the public contract, found as the harness finds it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from m3po.api import PARAMETERS, UPDATES, EnvSpec
from m3po.testing import check_agent
from tests.builtin import AGENTS, M3PO, SEEING, TINY, lived


@pytest.mark.parametrize("name", AGENTS)
def test_built_in_agent_passes(name: str) -> None:
    agent_class = AGENTS[name].load()
    config = agent_class.Config(**TINY[name])
    check_agent(agent_class, config, learns=name != "random", images=name in SEEING)


@pytest.mark.parametrize(
    "form", [{"preset": "paper", "horizon": 2, "epochs": 1, "minibatches": 2}, {"discrepancy": "planning"}], ids=str
)
def test_other_forms_of_m3po_pass(form: Mapping[str, Any]) -> None:
    agent_class = AGENTS["m3po"].load()
    check_agent(agent_class, agent_class.Config(**M3PO, **form))


@pytest.mark.parametrize("name", sorted(set(AGENTS) - set(SEEING)))
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
    told = [moment.metrics for moment in lived(name) if moment.metrics]
    updates = [metrics[UPDATES] for metrics in told]
    sizes = {metrics[PARAMETERS] for metrics in told}
    assert updates[0] >= 1
    assert all(before < after for before, after in pairwise(updates))
    assert len(sizes) == 1
    assert sizes.pop() > 10

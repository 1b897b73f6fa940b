"""Small spaces, batches and agents for the tests of M3PO."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from m3po.algorithm.config import M3POConfig
from m3po.api import EnvSpec

OBSERVATION = 37
"""A size nothing else has, so that a map back to it would show."""


def make_spec(tasks: int = 2, observation: int = OBSERVATION, action: int = 3) -> EnvSpec:
    """K tasks; each but the first lacks its last observation entries and its last action entry."""
    observation_mask = np.ones((tasks, observation), bool)
    action_mask = np.ones((tasks, action), bool)
    observation_mask[1:, -5:] = False
    action_mask[1:, -1:] = False
    return EnvSpec(
        observation_shape=(observation,),
        observation_dtype="float32",
        action_dim=action,
        observation_mask=observation_mask,
        action_mask=action_mask,
        max_episode_steps=np.full(tasks, 500),
        action_repeat=np.ones(tasks, np.int64),
        task_names=tuple(f"task{k}" for k in range(tasks)),
    )


def tiny(**changes: Any) -> M3POConfig:
    """A configuration whose updates take milliseconds."""
    base: dict[str, Any] = {
        "latent": 16,
        "hidden": 16,
        "batch": 8,
        "samples": 8,
        "rollout_size": 32,
        "learning_starts": 0,
        "task_embedding": 4,
        "replay_capacity": 1000,
        "updates_per_step": 0.1,
    }
    return M3POConfig(**(base | changes))


def make_batch(spec: EnvSpec, horizon: int = 3, size: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """A replayed batch ``[H, B, ...]`` in which nothing ends."""
    g = torch.Generator().manual_seed(seed)
    task = (torch.arange(size) % spec.num_tasks).expand(horizon, size).clone()
    observation = torch.randn(horizon + 1, size, spec.observation_size, generator=g)
    nothing = torch.zeros(horizon, size, dtype=torch.bool)
    return {
        "observation": observation[:-1].clone(),
        "next_observation": observation[1:].clone(),
        "action": torch.rand(horizon, size, spec.action_dim, generator=g) * 2 - 1,
        "reward": torch.rand(horizon, size, generator=g),
        "terminated": nothing.clone(),
        "truncated": nothing.clone(),
        "first": nothing.clone(),
        "task": task,
    }


@pytest.fixture
def spec() -> EnvSpec:
    return make_spec()

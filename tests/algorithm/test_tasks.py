"""Joint training: the order of tasks in a suite means nothing, and none sees another's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from m3po.algorithm.agent import M3PO
from m3po.algorithm.config import M3POConfig
from m3po.algorithm.losses import model_loss, replayed_policy_loss
from m3po.api import EnvSpec

from .conftest import make_batch, make_spec, tiny
from .test_policy_update import rollout

ORDER = [2, 0, 1]
"""Which task stands where in the other suite."""


def permuted(spec: EnvSpec) -> EnvSpec:
    """The same tasks in another order."""
    return replace(
        spec,
        observation_mask=spec.observation_mask[ORDER],
        action_mask=spec.action_mask[ORDER],
        max_episode_steps=spec.max_episode_steps[ORDER],
        action_repeat=spec.action_repeat[ORDER],
        task_names=tuple(spec.task_names[k] for k in ORDER),
    )


def both() -> tuple[M3PO, M3PO]:
    """Agents of one seed for the two orders; episodes, and so discounts, differ between tasks."""
    spec = replace(make_spec(tasks=3), max_episode_steps=np.array([100, 200, 500]))
    return tuple(M3PO(each, tiny(), seed=3, device="cpu") for each in (spec, permuted(spec)))  # type: ignore[return-value]


def test_the_order_of_tasks_changes_no_decision() -> None:
    one, other = both()
    observation = np.random.default_rng(0).normal(size=(3, one.spec.observation_size)).astype(np.float32)
    first = np.ones(3, bool)
    for agent in (one, other):
        # Untrained actors say nearly nothing; let them speak.
        torch.manual_seed(0)
        torch.nn.init.orthogonal_(list(agent.model.actor.modules())[-1].weight)
    a = one.act(one.initial_carry(3), observation, first, np.arange(3), explore=False).action
    b = other.act(other.initial_carry(3), observation[ORDER], first, np.arange(3), explore=False).action
    np.testing.assert_allclose(a[ORDER], b, atol=1e-5)
    assert np.abs(a[0] - a[1]).max() > 1e-3


def test_the_order_of_tasks_changes_no_loss() -> None:
    losses = []
    where = torch.tensor(np.argsort(ORDER))
    for agent, place in zip(both(), (torch.arange(3), where), strict=True):
        batch = make_batch(make_spec(tasks=3), size=12)
        batch["task"] = place[batch["task"]]
        noise = torch.randn(batch["action"].shape, generator=torch.Generator().manual_seed(0))
        model = model_loss(agent.model, agent.target, batch, agent.gamma, noise, agent.config, terminates=False)
        task, latents = batch["task"].flatten(), model.latents.flatten(0, 1)
        old = agent._bound(task).prior(latents)
        policy, _ = replayed_policy_loss(
            agent._bound(task), old, latents, noise.flatten(0, 1), torch.ones(len(task)), 1.0, 0.01
        )
        losses.append([loss.total.item() for loss in (model, policy)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_the_bonus_lasts_as_many_steps_of_each_trained_task_as_of_one_alone() -> None:
    def beta(tasks: int, trained: int) -> float:
        """After 16 steps of each of ``trained`` tasks."""
        config = tiny(rollout_size=16 * trained, discrepancy_coef=1.0, discrepancy_steps=64)
        agent = M3PO(make_spec(tasks), config, seed=0, device="cpu")
        for transition in rollout(agent, 16, num_envs=trained):
            agent.observe(transition)
            agent.update()
        return agent.beta

    assert beta(tasks=1, trained=1) == 0.75
    assert beta(tasks=2, trained=2) == 0.75
    assert beta(tasks=3, trained=2) == 0.75  # the third is held out


def test_the_preset_for_many_tasks_replays_as_many_steps_as_the_default() -> None:
    many, default = M3POConfig(preset="mt"), M3POConfig()
    assert many.updates_per_step < default.updates_per_step
    assert many.batch * many.updates_per_step == default.batch * default.updates_per_step


def test_an_agent_resumed_with_tasks_held_out_acts_as_it_would_have(tmp_path: Path) -> None:
    """Three tasks of which two are trained: learning starts after 10 steps of each, so after 20 and not 30."""
    spec = make_spec(tasks=3)
    agent, other = (M3PO(spec, tiny(learning_starts=10), seed=0, device="cpu") for _ in range(2))
    trained = replace(make_spec(tasks=2), task_names=spec.task_names[:2])
    for transition in rollout(M3PO(trained, tiny(), seed=0, device="cpu"), 6):
        agent.observe(transition)  # 24 steps of four environments
    agent.save(tmp_path, agent.initial_carry(4))
    carry = other.load(tmp_path)
    observation, first = np.ones((4, spec.observation_size), np.float32), np.ones(4, bool)
    decisions = [a.act(carry, observation, first, np.array([0, 1, 0, 1]), explore=True).action for a in (agent, other)]
    np.testing.assert_array_equal(*decisions)

"""PPO: what goes into its losses, computed by hand."""

from __future__ import annotations

import math
import re
import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.ppo.agent import PPO, _Batch
from baselines.ppo.config import PPOConfig
from m3po.api import EnvSpec, Metrics, Transition
from tests.baselines.toys import spec_of

ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of a standard normal


def spec_for(num_tasks: int = 1, D: int = 3, A: int = 2, action_repeat: int = 1) -> EnvSpec:
    return spec_of([D] * num_tasks, [A] * num_tasks, action_repeat)


def tiny(spec: EnvSpec | None = None, **values: Any) -> PPO:
    config = PPOConfig(**{"hidden": (8,), "rollout_size": 8, "minibatch_size": 8, "epochs": 1, **values})
    return PPO(spec or spec_for(), config, seed=0, device="cpu")


class Feeder:
    """Feeds an agent made-up transitions of two environments and keeps what was seen."""

    def __init__(self, agent: PPO, num_envs: int = 2) -> None:
        self.agent = agent
        self.generator = np.random.default_rng(5)
        self.task = np.arange(num_envs) % agent.num_tasks
        self.observations: list[NDArray[np.float32]] = []
        self.actions: list[NDArray[np.float32]] = []

    def step(
        self, reward: float = 0.0, *, terminated: bool = False, truncated: bool = False, mean: Any = 0.0
    ) -> Metrics:
        N = len(self.task)
        D = self.agent.observation_mask.shape[1]
        observation = (mean + self.generator.normal(size=(N, D))).astype(np.float32)
        none = np.zeros(N, np.bool_)
        decision = self.agent.act(None, observation, none, self.task, explore=True)
        self.observations.append(observation)
        self.actions.append(decision.extras["action"])
        self.agent.observe(
            Transition(
                observation=observation,
                action=decision.action,
                reward=np.full(N, reward, np.float32),
                next_observation=observation + 1,
                terminated=none | terminated,
                truncated=none | truncated,
                first=none,
                task=self.task,
                extras=decision.extras,
            )
        )
        return self.agent.update()


def capture_batch(agent: PPO, monkeypatch: pytest.MonkeyPatch) -> list[_Batch]:
    """Lets the agent make its batches, and keeps them in place of learning from them."""
    batches: list[_Batch] = []

    def keep(batch: _Batch) -> Metrics:
        batches.append(batch)
        return {}

    monkeypatch.setattr(agent, "_optimise", keep)
    return batches


def constant_value(agent: PPO, value: float) -> None:
    with torch.no_grad():
        agent.model.critic[-1].weight.zero_()
        agent.model.critic[-1].bias.fill_(value)


def test_first_gradient_step_has_a_ratio_of_one() -> None:
    feeder = Feeder(tiny(normalize_observation=False))
    metrics = [feeder.step(reward=float(t)) for t in range(4)][-1]
    # One minibatch, one epoch: the policy is still the one that acted, so KL = 0, nothing is clipped, and the objective
    # is the mean of the normalised advantages, 0. Two standard normal action entries.
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["clip_fraction"] == 0
    assert metrics["policy_loss"] == pytest.approx(0, abs=1e-6)
    assert metrics["entropy"] == pytest.approx(2 * ENTROPY, rel=1e-6)
    assert metrics["learning_rate"] == 3e-4
    assert metrics["updates"] == 1


def test_a_critic_in_a_thread_beside_learns_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    for wide, in_main in ((math.inf, True), (0, False)):
        monkeypatch.setattr("baselines.ppo.agent._WIDE", wide)
        agent = tiny(epochs=3, minibatch_size=4)
        seen, gradient = set(), agent._critic_gradient

        def noted(minibatch: _Batch, seen: set[bool] = seen, gradient: Any = gradient) -> Tensor:
            seen.add(threading.current_thread() is threading.main_thread())
            return gradient(minibatch)

        monkeypatch.setattr(agent, "_critic_gradient", noted)
        feeder = Feeder(agent)
        metrics = [feeder.step(reward=float(t)) for t in range(8)][3::4]
        assert seen == {in_main}
        learned.append((metrics, [p.tolist() for p in agent.model.parameters()]))
    assert learned[0] == learned[1]


def test_log_prob_is_that_of_the_policy_that_acted(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny()
    feeder = Feeder(agent)
    for _ in range(4):
        feeder.step(reward=1.0, mean=3.0)  # statistics move, and the policy
    batches = capture_batch(agent, monkeypatch)
    feeder.observations.clear()
    feeder.actions.clear()
    first, expected = np.zeros(2, np.bool_), []
    std = agent.model.log_std[0].detach().exp().numpy()
    for _ in range(4):
        before = len(feeder.actions)
        # The mean as the agent sees it now: its own answer without exploration (far from the limits of ±1).
        state = feeder.generator.bit_generator.state
        observation = (3.0 + feeder.generator.normal(size=(2, 3))).astype(np.float32)
        feeder.generator.bit_generator.state = state
        mean = agent.act(None, observation, first, feeder.task, explore=False).action
        feeder.step(mean=3.0)
        z = (feeder.actions[before] - mean) / std
        expected.append((-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - np.log(std)).sum(-1))
    (batch,) = batches
    assert np.allclose(batch.log_prob, np.concatenate(expected), atol=1e-5)
    # And the features are those of the statistics after this rollout.
    rows = np.concatenate(feeder.observations)
    assert batch.features.numpy() == pytest.approx(
        ((rows - agent.observation_moments.mean.numpy()) / np.sqrt(agent.observation_moments.var.numpy())), abs=1e-4
    )


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # V = 2 everywhere, γ = 0.9, λ = 0, reward 1: δ = 1 + 0.9·2 − 2 = 0.8, also through a truncation ...
        ({}, 0.8),
        ({"truncated": True}, 0.8),
        # ... but a termination has no future: 1 − 2 = −1.
        ({"terminated": True}, -1.0),
    ],
)
def test_only_termination_cuts_the_bootstrap(
    how: dict[str, bool], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = tiny(gamma=0.9, lam=0.0, scale_reward=False, normalize_advantage="none")
    constant_value(agent, 2.0)
    batches = capture_batch(agent, monkeypatch)
    feeder = Feeder(agent)
    for _ in range(4):
        feeder.step(reward=1.0, **how)
    assert batches[0].advantage.numpy() == pytest.approx(expected)
    assert batches[0].target.numpy() == pytest.approx(expected + 2)


def test_value_of_the_true_successor_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny(lam=0.0, gamma=1.0, normalize_observation=False, scale_reward=False, normalize_advantage="none")
    batches = capture_batch(agent, monkeypatch)
    feeder = Feeder(agent)
    for _ in range(4):
        feeder.step(truncated=True)
    rows = torch.from_numpy(np.concatenate(feeder.observations))
    with torch.no_grad():
        # The feeder's successor is observation + 1, never the next row's observation.
        expected = agent.model.value(rows + 1) - agent.model.value(rows)
    assert torch.allclose(batches[0].advantage, expected, atol=1e-6)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny(gamma=0.5, lam=0.0, normalize_advantage="none")
    constant_value(agent, 0.0)
    batches = capture_batch(agent, monkeypatch)
    feeder = Feeder(agent)
    for t in range(4):
        feeder.step(reward=1.0, truncated=t == 1)
    # Discounted returns of each environment: 1, 1 + 0.5·1 = 1.5, then the episode ended: 1, 1.5. Deviation 0.25.
    assert batches[0].advantage.numpy() == pytest.approx(1 / 0.25, rel=1e-3)
    # The accumulators go on into the next rollout: 1 + 0.5·1.5 = 1.75.
    feeder.step(reward=1.0)
    assert agent.discounted_return == pytest.approx(1.75)


def test_statistics_are_per_task() -> None:
    agent = tiny(spec_for(num_tasks=2))
    feeder = Feeder(agent)
    for _ in range(4):
        feeder.step(mean=np.array([[0.0], [10.0]]))
    seen = np.stack(feeder.observations)  # [T, N, D], environment n plays task n
    # The moments begin as 1e-4 of an observation 0, which adds 1e-4 · 10² / 4 to a variance.
    assert agent.observation_moments.mean.numpy() == pytest.approx(seen.mean(0), abs=1e-3)
    assert agent.observation_moments.var.numpy() == pytest.approx(seen.var(0), abs=3e-3)


def test_a_task_that_is_not_trained_on_is_normalised_as_the_trained_ones_together() -> None:
    spec = spec_for(num_tasks=3)
    # The first entry is in both trained tasks, the second in one of them, the third in the held-out task alone.
    spec.observation_mask[:] = [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    agent = tiny(spec)
    feeder = Feeder(agent)
    for _ in range(3):
        feeder.step(mean=np.array([[0.0], [10.0]]))
    assert agent.center[2].tolist() == [0, 0, 0]
    assert agent.scale[2].tolist() == pytest.approx([1, 1, 1])
    feeder.step(mean=np.array([[0.0], [10.0]]))
    seen = np.stack(feeder.observations)  # [T, N, D], environment n plays task n
    both, one = seen[..., 0].ravel(), seen[:, 0, 1]
    assert agent.center[2].tolist() == pytest.approx([both.mean(), one.mean(), 0], abs=1e-3)
    assert (1 / agent.scale[2]).tolist() == pytest.approx([both.std(), one.std(), 1], abs=3e-3)
    # Those that are trained keep their own.
    assert agent.center[:2, 0].tolist() == pytest.approx(seen.mean(0)[:, 0].tolist(), abs=1e-3)
    assert (1 / agent.scale[:2, 0]).tolist() == pytest.approx(seen.std(0)[:, 0].tolist(), abs=3e-3)


def test_tasks_are_told_apart_by_their_code() -> None:
    agent = tiny(spec_for(num_tasks=2))
    same = np.ones((2, 3), np.float32)
    action = agent.act(None, same, np.ones(2, np.bool_), np.array([0, 1]), explore=False).action
    assert not np.array_equal(action[0], action[1])


def test_tasks_explore_by_deviations_of_their_own() -> None:
    agent = tiny(spec_for(num_tasks=2))
    with torch.no_grad():
        agent.model.log_std.copy_(torch.tensor([[-9.0, -9.0], [0.0, 0.0]]))
    agent._refresh()
    same, first, task = np.ones((400, 3), np.float32), np.ones(400, np.bool_), np.arange(400) % 2
    drawn = agent.act(None, same, first, task, explore=True).extras["action"]
    # e⁻⁹ and 1; of 200 draws the deviation is uncertain by a twentieth
    assert drawn[task == 0].std(axis=0).max() < 1e-3
    assert drawn[task == 1].std(axis=0) == pytest.approx(1, abs=0.2)


def test_learning_rate_falls_linearly_in_environment_steps() -> None:
    feeder = Feeder(tiny(spec_for(action_repeat=2), learning_rate=1e-3, anneal_env_steps=64))
    rates = [m["learning_rate"] for m in (feeder.step() for _ in range(20)) if m]
    # A rollout of 8 transitions is 16 environment steps, a quarter of 64.
    assert rates == pytest.approx([7.5e-4, 5e-4, 2.5e-4, 0, 0])


def test_epochs_end_when_the_policy_moved_too_far() -> None:
    agent = tiny(minibatch_size=4, epochs=5, learning_rate=0.1, target_kl=1e-6, normalize_observation=False)
    feeder = Feeder(agent)
    for t in range(4):
        feeder.step(reward=float(t))
    # The first gradient step sees the policy that acted (KL 0); the second sees a moved one and is the last.
    assert agent.optimizer.steps == 2


def test_value_clip_takes_the_larger_error() -> None:
    agent = tiny(value_clip=0.5)
    constant_value(agent, 1.0)
    one = torch.ones(1)
    minibatch = _Batch(
        torch.ones(1, 3), torch.zeros(1, dtype=torch.int64), one, one, one, value=0 * one, advantage=one, target=2 * one
    )
    # V = 1 errs by (1 − 2)² = 1; near the old value 0 it is 0.5, which errs by (0.5 − 2)² = 2.25.
    assert agent._critic_gradient(minibatch).item() == pytest.approx(2.25)


def test_advantages_are_normalised_within_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny(spec_for(num_tasks=2), normalize_advantage="task")
    batches, feeder = capture_batch(agent, monkeypatch), Feeder(agent)
    for t in range(4):
        feeder.step(reward=float(t))
    (batch,) = batches
    for task in (0, 1):
        advantage = batch.advantage[batch.task == task]
        assert advantage.mean() == pytest.approx(0, abs=1e-6)
        assert advantage.std(correction=0) == pytest.approx(1, abs=1e-3)


def test_explained_variance_of_targets_that_do_not_vary_is_zero() -> None:
    agent = tiny(gamma=0.0, lam=0.0)
    constant_value(agent, 0.0)
    feeder = Feeder(agent)
    assert [feeder.step() for _ in range(4)][-1]["explained_variance"] == 0


def test_minibatch_larger_than_a_rollout_is_refused() -> None:
    feeder = Feeder(tiny(rollout_size=7, minibatch_size=7))
    with pytest.raises(ValueError, match=r"2 environments has 6 transitions, less than minibatch_size \(7\)"):
        feeder.step()


@pytest.mark.parametrize(
    ("values", "num_envs", "env_steps", "expected"),
    [
        ({}, 8, 100_000, []),
        ({"rollout_size": 100, "minibatch_size": 98}, 8, 1000, ["minibatch_size is 98.*only 96 transitions"]),
        ({"rollout_size": 4}, 8, 1000, ["less than one step of 8 environments"]),
        ({}, 8, 4095, ["one rollout takes 4096 environment steps, more than the whole budget of 4095"]),
        ({"anneal_env_steps": 5000}, 8, 10_000, ["reaches 0 after 5000"]),
    ],
)
def test_check_finds_impossible_plans(
    values: dict[str, Any], num_envs: int, env_steps: int, expected: list[str]
) -> None:
    sentences = PPOConfig(**values).check(spec_for(action_repeat=2), num_envs, env_steps)
    assert len(sentences) == len(expected)
    for sentence, pattern in zip(sentences, expected, strict=True):
        assert re.search(pattern, sentence)


@pytest.mark.parametrize("preset", PPOConfig.PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert PPOConfig(preset=preset).check(spec_for(), 10, 10**6) == []


def test_what_is_given_wins_over_the_preset() -> None:
    assert PPOConfig(preset="mt", epochs=3).epochs == 3


@pytest.mark.parametrize("normalize", [True, False])
def test_what_acts_is_the_policy_that_learns(normalize: bool) -> None:
    spec = spec_for(num_tasks=2)
    spec.observation_mask[1, 2] = spec.action_mask[1, 1] = False
    agent = tiny(spec, learning_rate=0.1, normalize_observation=normalize)
    feeder = Feeder(agent)
    for _ in range(8):  # two updates
        feeder.step(reward=1.0, mean=3.0)
    observation = np.array([[3, 3, 3], [3, 30, 3]], np.float32)  # 30 is beyond the limit of normalised ones
    task = np.array([1, 0])
    decision = agent.act(None, observation, np.zeros(2, np.bool_), task, explore=False)
    index = torch.from_numpy(task)
    features = agent._features(torch.from_numpy(observation), index)
    mean = agent.model.policy(features, index).mean * agent.action_mask[index]
    # the same float32 arithmetic, summed in another order
    np.testing.assert_allclose(decision.action, mean.detach().clamp(-1, 1).numpy(), atol=1e-6)

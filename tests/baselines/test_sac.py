"""SAC: what it acts on, when it learns, and what goes into its losses, computed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.sac.agent import SAC
from baselines.sac.config import SACConfig
from baselines.sac.networks import ReluNets
from baselines.sac.replay import Batch
from m3po.api import EnvSpec, Metrics, Transition
from m3po.testing import check_agent
from tests.baselines.toys import spec_of


def spec_for(action_sizes: tuple[int, ...] = (2,), D: int = 3, action_repeat: int = 1) -> EnvSpec:
    return spec_of([D] * len(action_sizes), action_sizes, action_repeat)


def tiny(spec: EnvSpec | None = None, **values: Any) -> SAC:
    config = SACConfig(**{"hidden": (8,), "batch_size": 4, "learning_starts": 3, **values})
    return SAC(spec or spec_for(), config, seed=0, device="cpu")


class Feeder:
    """Feeds an agent made-up transitions of N environments."""

    def __init__(self, agent: SAC, num_envs: int = 1) -> None:
        self.agent = agent
        self.generator = np.random.default_rng(5)
        self.task = np.arange(num_envs) % agent.spec.num_tasks

    def step(self) -> Metrics:
        N, D = len(self.task), self.agent.spec.observation_size
        observation, next_observation = self.generator.normal(size=(2, N, D)).astype(np.float32)
        none = np.zeros(N, np.bool_)
        decision = self.agent.act(None, observation, none, self.task, explore=True)
        reward = self.generator.normal(size=N).astype(np.float32)
        self.agent.observe(
            Transition(observation, decision.action, reward, next_observation, none, ~none, none, self.task)
        )
        return self.agent.update()


@torch.no_grad()
def constant(nets: ReluNets, *values: float) -> None:
    """Let member e of ``nets`` answer ``values[e]`` whatever it is asked."""
    nets.weights[-1].zero_()
    nets.biases[-1].copy_(torch.tensor(values)[:, None, None].expand_as(nets.biases[-1]))


def batch(spec: EnvSpec, task: list[int], reward: float = 0.0, terminated: float = 0.0) -> Batch:
    B, draw = len(task), torch.Generator().manual_seed(3)
    observation, next_observation = torch.randn(2, B, spec.observation_size, generator=draw)
    mask = torch.from_numpy(spec.action_mask[task])
    return Batch(
        observation,
        mask * torch.rand(B, spec.action_dim, generator=draw),
        torch.full((B,), reward),
        next_observation,
        torch.full((B,), terminated),
        torch.tensor(task),
    )


@pytest.mark.parametrize(("terminated", "target"), [(0.0, 1 + 0.5 * 3), (1.0, 1.0)])
def test_target_bootstraps_from_the_lower_critic_unless_terminated(terminated: float, target: float) -> None:
    # So cold that entropy counts for nothing.
    agent = tiny(gamma=0.5, initial_temperature=1e-12)
    constant(agent.critics, 0.0, 0.0)
    constant(agent.targets, 3.0, 7.0)
    metrics = agent._learn(batch(agent.spec, [0] * 4, reward=1.0, terminated=terminated))
    # Two critics that say 0, each with half its squared error.
    assert metrics[0].item() == pytest.approx(target**2)


def test_truncation_is_no_termination() -> None:
    agent = tiny()
    Feeder(agent).step()  # truncated
    assert agent.replay is not None
    assert agent.replay.sample(4, agent.sampling, agent.device).terminated.tolist() == [0.0] * 4


def test_entropy_counts_in_target_and_objective() -> None:
    warm, cold = (tiny(gamma=1.0, initial_temperature=alpha) for alpha in (0.5, 1e-12))
    for agent in (warm, cold):
        constant(agent.critics, 0.0, 0.0)
        constant(agent.targets, 0.0, 0.0)
        # The same distribution everywhere: mean 0 and log σ = −1 for two entries.
        constant(agent.actor, 0.0)
        with torch.no_grad():
            agent.actor.biases[-1][..., 2:] = -1.0
    rows = batch(warm.spec, [0] * 4000)
    critic_loss, actor_loss, *_, entropy, value = warm._learn(rows).tolist()
    assert actor_loss == pytest.approx(-0.5 * entropy - value)
    # The target is −α log π of the next action: about α times the entropy, apart from the spread of log π.
    assert critic_loss > (0.5 * entropy) ** 2 * 0.9
    assert cold._learn(rows)[0].item() == pytest.approx(0)


def test_targets_follow_slowly() -> None:
    agent = tiny(tau=0.25)
    old = [p.clone() for p in agent.targets.parameters()]
    agent._learn(batch(agent.spec, [0] * 4, reward=1.0))
    for target, before, now in zip(agent.targets.parameters(), old, agent.critics.parameters(), strict=True):
        assert torch.allclose(target, 0.75 * before + 0.25 * now)


def test_gradients_are_shortened_where_asked() -> None:
    agent = tiny(max_grad_norm=1e-3)
    agent._learn(batch(agent.spec, [0] * 4, reward=100.0))
    assert torch.linalg.vector_norm(agent.critic_optimizer.gradient).item() == pytest.approx(1e-3, rel=1e-3)
    assert torch.linalg.vector_norm(agent.actor_optimizer.gradient).item() <= 1e-3
    # Temperatures are left alone, as in Meta-World+.
    assert agent.temperature_optimizer.gradient.abs().item() > 1e-2


def test_target_entropy_is_minus_the_tasks_own_action_size() -> None:
    assert tiny(spec_for((1, 3))).target_entropy.tolist() == [-1, -3]


def test_each_task_has_its_own_temperature() -> None:
    agent = tiny(spec_for((1, 1)), temperature="per_task", learning_rate=0.1)
    agent.target_entropy = torch.tensor([-50.0, 50.0])
    agent._learn(batch(agent.spec, [0, 1]))
    # Entropy above its target lowers log α by Adam's first step, the learning rate; below, it rises by it.
    assert agent.temperature.log.tolist() == pytest.approx([-0.1, 0.1])
    shared = tiny(spec_for((1, 1)), learning_rate=0.1)
    shared.target_entropy = torch.tensor([-50.0, 20.0])
    shared._learn(batch(shared.spec, [0, 1]))
    assert shared.temperature.log.tolist() == pytest.approx([-0.1])


def test_actions_are_uniform_until_each_task_had_its_share() -> None:
    agent = tiny(spec_for((1, 1)), learning_starts=3)
    feeder = Feeder(agent, num_envs=4)
    with torch.no_grad():
        agent.actor.biases[-1][..., :1] = 9.0  # the policy's own actions are about 1
    # Two environments of each task: two decisions after the first step, four after the second.
    observation, task = np.zeros((4, 3), np.float32), feeder.task
    for expected_uniform in (True, True, False):
        action = agent.act(None, observation, task > 9, task, explore=True).action
        assert (np.abs(action) < 0.9).any() == expected_uniform
        feeder.step()


@pytest.mark.parametrize(
    ("tasks", "num_envs", "updates_per_step", "expected"),
    [
        # learning_starts is 3: steps 4, 5, 6 learn.
        (1, 1, 1.0, [0, 0, 0, 1, 2, 3]),
        # Two decisions a step: after two steps there were four.
        (1, 2, 1.0, [0, 0, 2, 4, 6, 8]),
        (1, 1, 0.5, [0, 0, 0, 0, 1, 1]),
        # One decision of each of the two tasks in a step.
        (2, 2, 1.0, [0, 0, 0, 1, 2, 3]),
        # Three environments for two tasks: 1.5 of each task; after two steps there were three.
        (2, 3, 1.0, [0, 0, 1, 3, 4, 6]),
    ],
)
def test_each_decision_of_a_task_earns_its_gradient_steps(
    tasks: int, num_envs: int, updates_per_step: float, expected: list[int]
) -> None:
    agent = tiny(spec_for((1,) * tasks), updates_per_step=updates_per_step)
    feeder = Feeder(agent, num_envs)
    taken = []
    for _ in expected:
        feeder.step()
        taken.append(agent.critic_optimizer.steps)
    assert taken == expected


def test_metrics_are_means_over_the_gradient_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny()
    feeder = Feeder(agent, num_envs=2)
    assert feeder.step() == {}
    feeder.step()
    losses = iter((1.0, 3.0))
    monkeypatch.setattr(agent, "_learn", lambda rows: torch.full((6,), next(losses)))
    assert feeder.step()["critic_loss"] == 2.0


@pytest.mark.parametrize(
    "form",
    [
        {"updates_per_step": 0.4},
        {"heads": "per_task", "temperature": "per_task", "initialisation": "he", "max_grad_norm": 1.0},
    ],
    ids=["shared", "per_task"],
)
def test_the_forms_pass_the_contract(form: dict[str, Any]) -> None:
    check_agent(SAC, SACConfig(hidden=(8,), batch_size=4, learning_starts=4, **form))


@pytest.mark.parametrize(("heads", "expected"), [("shared", 1), ("per_task", 3)])
def test_heads_are_those_asked_for(heads: str, expected: int) -> None:
    agent = tiny(spec_for((1, 2, 1)), heads=heads)
    assert agent.actor.heads == agent.critics.heads == agent.targets.heads == expected


@pytest.mark.parametrize("heads", ["shared", "per_task"])
def test_what_acts_is_the_policy_that_learns(heads: str) -> None:
    spec = spec_for((2, 1))
    spec.observation_mask[1, 2] = False
    agent = tiny(spec, heads=heads, learning_rate=0.05, hidden=(8, 8))
    feeder = Feeder(agent, num_envs=2)
    for _ in range(6):
        feeder.step()
    observation, task = np.array([[1, 2, 9], [1, 2, 9]], np.float32), np.array([1, 0])
    action = agent.act(None, observation, task > 9, task, explore=False).action
    where = torch.from_numpy(task)
    x = torch.cat([torch.from_numpy(observation * spec.observation_mask[task]), agent.code[where]], 1)
    policy = agent.actor.policy(x, where)
    # The same float32 arithmetic, summed in another order.
    expected = torch.tanh(policy.mean) * agent.action_mask[where]
    np.testing.assert_allclose(action, expected.detach().numpy(), atol=1e-6)
    # Exploring draws around it with the policy's own deviation.
    drawn = [agent.act(None, observation, task > 9, task, explore=True).action for _ in range(999)]
    spread = (policy.std * agent.action_mask[where]).detach().numpy()
    np.testing.assert_allclose(np.arctanh(drawn).std(0), spread, rtol=0.1)


def test_tasks_are_told_apart_by_their_code() -> None:
    agent = tiny(spec_for((2, 2)))
    action = agent.act(None, np.ones((2, 3), np.float32), np.ones(2, np.bool_), np.array([0, 1]), explore=False).action
    assert not np.array_equal(action[0], action[1])


def test_a_loaded_agent_has_the_replay_it_had(tmp_path: Path) -> None:
    agent, other = tiny(replay_capacity=4), tiny(replay_capacity=4)
    feeder = Feeder(agent)
    for _ in range(6):  # the ring has gone round
        feeder.step()
    agent.save(tmp_path, None)
    other.load(tmp_path)
    assert agent.replay is not None
    assert other.replay is not None
    np.testing.assert_array_equal(agent.replay.ring, other.replay.ring)
    assert (agent.replay.head, agent.replay.rows) == (other.replay.head, other.replay.rows) == (2, 4)


@pytest.mark.parametrize(
    ("values", "num_envs", "env_steps", "expected"),
    [
        ({}, 1, 10_000, []),
        # 100 decisions of each of two tasks with action repeat 2.
        ({}, 2, 400, ["take 400 environment steps.*lower learning_starts .100."]),
        ({"replay_capacity": 7}, 8, 10_000, ["replay_capacity is 7, less than one step of 8 environments"]),
    ],
)
def test_check_finds_impossible_plans(
    values: dict[str, Any], num_envs: int, env_steps: int, expected: list[str]
) -> None:
    sentences = SACConfig(**values).check(spec_for((1, 1), action_repeat=2), num_envs, env_steps)
    assert len(sentences) == len(expected)
    for sentence, pattern in zip(sentences, expected, strict=True):
        assert re.search(pattern, sentence)


@pytest.mark.parametrize("preset", SACConfig.PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert SACConfig(preset=preset).check(spec_for((1, 2)), 10, 10**6) == []

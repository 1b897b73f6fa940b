"""TD-MPC2: what it acts on, when it learns, and what goes into its losses, computed by hand."""

from __future__ import annotations

import math
import re
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.tdmpc2.agent import TDMPC2, LastPlan
from baselines.tdmpc2.config import TDMPC2Config
from baselines.tdmpc2.model import Network
from m3po.api import PARAMETERS, UPDATES, EnvSpec, Metrics, Transition
from m3po.kit.nets import last_linear
from m3po.kit.symlog import symlog
from m3po.testing import check_agent
from tests.baselines.toys import spec_of
from tests.kit.test_symlog import two_hot

TINY = {
    "enc_dim": 8,
    "mlp_dim": 8,
    "latent_dim": 8,
    "task_dim": 4,
    "num_q": 2,
    "iterations": 2,
    "num_samples": 12,
    "num_pi_trajs": 4,
    "num_elites": 4,
    "batch_size": 4,
    "seed_steps": 6,
    "seed_episodes": 0,
}
H, B = 3, 4


def tiny(spec: EnvSpec | None = None, seed: int = 0, **values: Any) -> TDMPC2:
    config = TDMPC2Config(**{**TINY, **values})
    return TDMPC2(spec or spec_of([3], [2]), config, seed=seed, device="cpu")


class Feeder:
    """Feeds an agent made-up transitions of N environments."""

    def __init__(self, agent: TDMPC2, num_envs: int = 1) -> None:
        self.agent = agent
        self.generator = np.random.default_rng(5)
        self.task = np.arange(num_envs) % agent.spec.num_tasks
        self.carry = agent.initial_carry(num_envs)
        self.action = np.zeros((num_envs, agent.spec.action_dim), np.float32)

    def step(self, *, terminated: bool = False) -> Metrics:
        N, D = len(self.task), self.agent.spec.observation_size
        observation, next_observation = self.generator.normal(size=(2, N, D)).astype(np.float32)
        none = np.zeros(N, np.bool_)
        decision = self.agent.act(self.carry, observation, none, self.task, explore=True)
        self.action, self.carry = decision.action, decision.carry
        reward = self.generator.normal(size=N).astype(np.float32)
        self.agent.observe(
            Transition(observation, decision.action, reward, next_observation, none | terminated, none, none, self.task)
        )
        return self.agent.update()


def batch(spec: EnvSpec, **rows: Tensor) -> dict[str, Tensor]:
    """Subsequences ``[H, B, ...]`` in which nothing ends, or as ``rows`` say; tasks take turns."""
    draw = torch.Generator().manual_seed(3)
    task = torch.arange(B) % spec.num_tasks
    observation = torch.randn(H + 1, B, spec.observation_size, generator=draw)
    never = torch.zeros(H, B, dtype=torch.bool)
    return {
        "observation": observation[:-1],
        "next_observation": observation[1:],
        "action": torch.from_numpy(spec.action_mask)[task] * torch.rand(H, B, spec.action_dim, generator=draw),
        "reward": torch.rand(H, B, generator=draw),
        "terminated": never,
        "truncated": never,
        "task": task.expand(H, B),
        **rows,
    }


def at(t: int, b: int = 0) -> Tensor:
    """True in step t of subsequence b only."""
    flags = torch.zeros(H, B, dtype=torch.bool)
    flags[t, b] = True
    return flags


@torch.no_grad()
def constant(network: Network, value: float) -> None:
    """Let a two-hot ``network`` answer ``value`` whatever it is asked."""
    layer = last_linear(network)
    layer.weight.zero_()
    bins = torch.linspace(-10, 10, layer.out_features)
    # Near −∞ where there is no weight.
    layer.bias.copy_(two_hot(symlog(torch.tensor([value])), bins)[0].clamp(min=1e-30).log())


def losses(agent: TDMPC2, rows: dict[str, Tensor]) -> Any:
    """The model's losses, with the same noise in every call."""
    agent.noise.manual_seed(0)
    return agent._model_loss(rows, agent.model.rows(rows["task"][0]))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("step", [0, 1])
def test_steps_behind_an_end_do_not_count(end: str, step: int) -> None:
    agent = tiny(dropout=0.0)
    agent.terminates = True
    plain = batch(agent.spec, **{end: at(step)})
    changed = {name: rows.clone() for name, rows in plain.items()}
    for name in ("observation", "next_observation", "action", "reward"):
        changed[name][step + 1 :, 0] = 0.5
    changed["terminated"][step + 1 :, 0] = True
    found, expected = losses(agent, changed), losses(agent, plain)
    assert torch.equal(found.total, expected.total)
    # What comes before does: where the step that ended really led.
    before = {name: rows.clone() for name, rows in changed.items()}
    before["next_observation"][step, 0] = 5.0
    assert losses(agent, before).total != expected.total
    improved, other = (tiny(dropout=0.0), tiny(dropout=0.0))
    for each, loss in ((improved, found), (other, expected)):
        each._improve_policy(loss, agent.model.rows(plain["task"][0]))
    assert torch.equal(improved.policy_optimizer.parameters, other.policy_optimizer.parameters)


def test_the_models_loss_is_that_of_the_paper() -> None:
    agent = tiny(dropout=0.0, num_q=3, consistency_coef=20.0, reward_coef=0.1, value_coef=0.3)
    for network in (agent.model.reward, *agent.model.critics):
        torch.nn.init.normal_(last_linear(network).weight, generator=torch.Generator().manual_seed(1))
    rows = batch(agent.spec)
    found = losses(agent, rows)

    model, know, task = agent.model, agent.model.rows(rows["task"][0]), rows["task"][0]
    agent.noise.manual_seed(0)
    following = model.encode(rows["next_observation"], task, know)
    target = agent._td_target(following, rows["reward"], rows["terminated"], know)
    z = model.encode(rows["observation"][0], task, know)
    consistency, reward, value = torch.zeros(3)
    for t, weight in enumerate((1.0, 0.5, 0.25)):
        a = rows["action"][t]
        reward_p = torch.log_softmax(model.reward_logits(z, a, know), -1)
        reward = reward + weight * -(two_hot(symlog(rows["reward"][t]), model.bins) * reward_p).sum(-1).mean() / H
        for head in range(3):
            value_p = torch.log_softmax(model.q_logits(z, a, know, heads=[head])[0], -1)
            value = value + weight * -(two_hot(symlog(target[t]), model.bins) * value_p).sum(-1).mean() / (3 * H)
        z = model.next(z, a, know)
        consistency = consistency + weight * ((z - following[t]) ** 2).mean() / H
    torch.testing.assert_close(found.parts["consistency_loss"], consistency.detach())
    torch.testing.assert_close(found.parts["reward_loss"], reward.detach())
    torch.testing.assert_close(found.parts["value_loss"], value.detach())
    torch.testing.assert_close(found.total, 20 * consistency + 0.1 * reward + 0.3 * value)


def test_latents_learn_no_target() -> None:
    agent = tiny(consistency_coef=1.0, reward_coef=0.0, value_coef=0.0)
    rows = batch(agent.spec)
    # Only h(s₀) and d learn of consistency: with s₀ alike everywhere, changing it is all that h can do.
    rows["observation"] = torch.zeros_like(rows["observation"])
    losses(agent, rows).total.backward()
    first = agent.model.encoder.first
    assert first.weight.grad is not None
    # The gradient of W is that of the output times the input, which is 0 at s₀ and would not be at s'.
    assert not first.weight.grad.any()
    assert first.bias.grad.any()


@pytest.mark.parametrize(
    ("ends", "bootstraps"), [({}, True), ({"truncated": at(1)}, True), ({"terminated": at(1)}, False)]
)
def test_target_bootstraps_from_the_lower_head_unless_terminated(ends: dict[str, Tensor], bootstraps: bool) -> None:
    agent = tiny(num_q=3)
    for critic, value in zip(agent.target, (7.0, 3.0, 50.0), strict=True):
        constant(critic, value)
    for critic in agent.model.critics:
        constant(critic, -20.0)
    agent._heads = lambda: [0, 1]  # type: ignore[method-assign]
    rows = batch(agent.spec, reward=torch.ones(H, B), **ends)
    know = agent.model.rows(rows["task"][0])
    latent = agent.model.encode(rows["next_observation"], rows["task"][0], know)
    target = agent._td_target(latent, rows["reward"], rows["terminated"], know)
    # Episodes of ten decisions: the discount (2 − 1)/2 is raised to 0.95.
    assert target[0].tolist() == pytest.approx([1 + 0.95 * 3] * B, rel=1e-4)
    assert target[1, 0].item() == pytest.approx(1 + 0.95 * 3 * bootstraps, rel=1e-4)


def test_each_task_has_its_own_discount_in_targets() -> None:
    spec = spec_of([3, 3], [2, 2])
    spec.max_episode_steps[:] = (500, 100)
    agent = tiny(spec)
    for critic in agent.target:
        constant(critic, 10.0)
    rows = batch(spec, reward=torch.zeros(H, B))
    know = agent.model.rows(rows["task"][0])
    latent = agent.model.encode(rows["next_observation"], rows["task"][0], know)
    target = agent._td_target(latent, rows["reward"], rows["terminated"], know)
    assert target[0].tolist() == pytest.approx([9.9, 9.5, 9.9, 9.5], rel=1e-4)


def test_scale_follows_the_range_of_values_and_is_never_below_one() -> None:
    agent = tiny(tau=0.01)
    agent._update_scale(torch.arange(101.0))
    # P₉₅ − P₅ = 95 − 5: S = 0.99 · 1 + 0.01 · 90.
    assert agent.scale.item() == pytest.approx(1.89)
    narrow = tiny(tau=0.01)
    narrow._update_scale(torch.linspace(0, 0.1, 101))
    assert narrow.scale.item() == 1.0


def policy_step(agent: TDMPC2, rows: dict[str, Tensor], noise: float = 0.0) -> dict[str, Tensor]:
    """A step of the policy on ``rows`` where all noise is ``noise``."""
    loss = losses(agent, rows)
    agent._normal = lambda *shape: torch.full(shape, noise)  # type: ignore[method-assign]
    return agent._improve_policy(loss, agent.model.rows(rows["task"][0]))


@torch.no_grad()
def fixed_policy(agent: TDMPC2, log_std: float) -> None:
    """A mean of 0 and one σ everywhere."""
    layer = last_linear(agent.model.actor)
    layer.weight.zero_()
    # log σ = −10 + 6 (tanh + 1).
    layer.bias[agent.spec.action_dim :] = math.atanh((log_std + 10) / 6 - 1)


def test_entropy_is_scaled_by_the_actions_a_task_has() -> None:
    for sizes, expected_actions in (([2], [2, 2]), ([2, 1], [2, 1])):
        agent = tiny(spec_of([3] * len(sizes), sizes), entropy_coef=1.0)
        fixed_policy(agent, log_std=-1.0)
        found = policy_step(agent, batch(agent.spec))
        # At u = mean: −log N = log σ + log √(2π) for each action, times their number; Q is 0.
        of_one = -1 + 0.5 * math.log(2 * math.pi)
        entropy = sum(of_one * actions**2 for actions in expected_actions) / len(expected_actions)
        # Weights 1, ½, ¼, ⅛ of the four latents.
        assert found["policy_loss"].item() == pytest.approx(-entropy * 1.875 / 4, rel=1e-4)
        # tanh's own slope is 1 at 0, so that the entropy reported is the plain sum.
        plain = sum(of_one * actions for actions in expected_actions) / len(expected_actions)
        assert found["entropy"].item() == pytest.approx(plain, rel=1e-4)


def test_the_policy_climbs_the_mean_of_two_heads_over_their_scale() -> None:
    agent = tiny(num_q=3, entropy_coef=0.0)
    for critic, value in zip(agent.model.critics, (3.0, 5.0, 100.0), strict=True):
        constant(critic, value)
    agent._heads = lambda: [0, 1]  # type: ignore[method-assign]
    agent.scale.fill_(2.0)
    found = policy_step(agent, batch(agent.spec))
    # Values are all 4, a range of 0: S = 0.99 · 2 + 0.01 · 1.
    assert found["policy_value"].item() == pytest.approx(4.0, rel=1e-4)
    assert found["policy_loss"].item() == pytest.approx(-4 / 1.99 * 1.875 / 4, rel=1e-4)


def test_the_policys_step_moves_the_policy_alone() -> None:
    agent = tiny(spec_of([3, 3], [2, 2]))
    for critic in agent.model.critics:
        torch.nn.init.normal_(last_linear(critic).weight, generator=torch.Generator().manual_seed(1))
    rows = batch(agent.spec)
    loss = losses(agent, rows)
    for optimizer in agent._optimizers:
        optimizer.zero_grad()
    before = [optimizer.parameters.clone() for optimizer in agent._optimizers]
    agent._improve_policy(loss, agent.model.rows(rows["task"][0]))
    encoder, world, policy = (
        not torch.equal(optimizer.parameters, old) for optimizer, old in zip(agent._optimizers, before, strict=True)
    )
    assert (encoder, world, policy) == (False, False, True)
    assert not agent.world_optimizer.gradient.any()


class OneBatch:
    """A replay that always gives the same."""

    def __init__(self, rows: dict[str, Tensor]) -> None:
        self.rows = rows

    def sample(self, *_: Any) -> dict[str, Tensor]:
        return self.rows


def learn(agent: TDMPC2, **rows: Tensor) -> dict[str, Tensor]:
    agent.replay = OneBatch(batch(agent.spec, **rows))  # type: ignore[assignment]
    return agent._learn()


def test_targets_follow_slowly() -> None:
    agent = tiny(tau=0.25)
    old = [p.clone() for p in agent.target.parameters()]
    learn(agent)
    moved = False
    for target, before, now in zip(agent.target.parameters(), old, agent.model.critics.parameters(), strict=True):
        assert torch.allclose(target, 0.75 * before + 0.25 * now, atol=1e-7)
        moved |= not torch.equal(before, now)
    assert moved
    assert not any(p.requires_grad for p in agent.target.parameters())


def test_model_and_encoder_are_clipped_together_and_the_policy_apart() -> None:
    agent = tiny(grad_clip=1e-3)
    found = learn(agent, reward=torch.full((H, B), 100.0))
    assert found["grad_norm"] > 1e-2
    together = torch.cat([agent.encoder_optimizer.gradient, agent.world_optimizer.gradient])
    assert torch.linalg.vector_norm(together).item() == pytest.approx(1e-3, rel=1e-2)
    assert torch.linalg.vector_norm(agent.policy_optimizer.gradient).item() <= 1e-3 * 1.01


def test_step_sizes_are_the_official_ones() -> None:
    agent = tiny(learning_rate=1e-3, enc_lr_scale=0.3)
    rates = [optimizer.learning_rate for optimizer in agent._optimizers]
    assert rates == pytest.approx([3e-4, 1e-3, 1e-3])
    assert [optimizer.eps for optimizer in agent._optimizers] == [1e-8, 1e-8, 1e-5]


def test_everything_but_the_target_is_trained() -> None:
    agent = tiny(spec_of([3, 3], [2, 2]))
    assert sum(optimizer.parameters.numel() for optimizer in agent._optimizers) == sum(
        p.numel() for p in agent.model.parameters()
    )


def test_embeddings_stay_within_the_unit_ball() -> None:
    agent = tiny(spec_of([3, 3], [2, 2]))
    with torch.no_grad():
        agent.model.embedding.fill_(3.0)
    learn(agent)
    assert agent.model.embedding.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], rel=1e-3)


def test_terminations_are_modelled_from_the_first_one_on() -> None:
    agent = tiny()
    feeder = Feeder(agent)
    for _ in range(7):
        before = feeder.step()
    after = feeder.step(terminated=True)
    assert "termination_loss" not in before
    assert "termination_loss" in after
    head = sum(p.numel() for p in agent.model.termination.parameters())
    # Numbers that training moves: the head is one of them only from then on.
    assert after[PARAMETERS] - before[PARAMETERS] == head
    assert after[PARAMETERS] == sum(p.numel() for p in agent.model.parameters())


def test_termination_loss_is_cross_entropy_at_the_state_reached() -> None:
    agent = tiny()
    agent.terminates = True
    with torch.no_grad():
        last_linear(agent.model.termination).weight.zero_()
        last_linear(agent.model.termination).bias.fill_(math.log(3))  # a probability of 3/4
    found = losses(agent, batch(agent.spec, terminated=at(2)))
    # Eleven of twelve steps go on, log 4 each; one ends, log 4/3.
    expected = (11 * math.log(4) + math.log(4 / 3)) / 12
    assert found.parts["termination_loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("num_envs", "updates_per_step", "expected"),
    [
        # Six decisions are the seed's; their six updates come at once, then one with each decision.
        (1, 1.0, [0, 0, 0, 0, 0, 6, 7, 8]),
        (1, 0.5, [0, 0, 0, 0, 0, 3, 3, 4]),
        # Three environments: two steps are six decisions, but subsequences of three steps begin a step later.
        (3, 1.0, [0, 0, 9, 12]),
    ],
)
def test_each_decision_earns_its_updates(num_envs: int, updates_per_step: float, expected: list[int]) -> None:
    agent = tiny(updates_per_step=updates_per_step)
    feeder, taken, told = Feeder(agent, num_envs), [], []
    for _ in expected:
        metrics = feeder.step()
        taken.append(agent.updates)
        told.append(metrics.get(UPDATES))
    assert taken == expected
    assert [t for t in told if t is not None] == [n for m, n in zip([0, *expected], expected, strict=False) if n > m]


@pytest.mark.parametrize(
    ("updates_per_step", "expected"),
    [
        # Two environments of two tasks. Twelve decisions are the seed's; each call has its own two updates, and two
        # more until none is owed.
        (1.0, [0, 0, 0, 0, 0, 4, 8, 12, 16, 20, 22, 24]),
        (0.5, [0, 0, 0, 0, 0, 2, 4, 6, 8, 10, 11, 12]),
        # A call earns one or none.
        (0.25, [0, 0, 0, 0, 0, 2, 2, 4, 4, 5, 5, 6]),
    ],
)
def test_joint_suites_make_up_for_the_seed_little_by_little(updates_per_step: float, expected: list[int]) -> None:
    agent = tiny(spec_of([3, 3], [2, 2]), seed_steps=12, updates_per_step=updates_per_step)
    feeder, taken = Feeder(agent, num_envs=2), []
    for _ in expected:
        feeder.step()
        taken.append(agent.updates)
    assert taken == expected


def test_what_the_seed_is_still_owed_outlives_a_checkpoint(tmp_path: Path) -> None:
    spec = spec_of([3, 3], [2, 2])
    agent, other = (tiny(spec, seed_steps=12, seed=seed) for seed in (0, 1))
    feeder = Feeder(agent, num_envs=2)
    for _ in range(7):
        feeder.step()
    agent.save(tmp_path, feeder.carry)
    resumed = Feeder(other, num_envs=2)
    resumed.carry = other.load(tmp_path)
    resumed.generator.bit_generator.state = feeder.generator.bit_generator.state
    for expected in (12, 16, 20, 22):
        assert feeder.step() == resumed.step()
        assert agent.updates == other.updates == expected


def test_metrics_are_means_over_the_updates() -> None:
    agent = tiny(seed_steps=3, updates_per_step=2 / 3)
    feeder = Feeder(agent)
    values = deque([torch.tensor(1.0), torch.tensor(3.0)])
    agent._learn = lambda: {"grad_norm": values.popleft()}  # type: ignore[method-assign]
    feeder.step(), feeder.step()
    assert feeder.step()["grad_norm"] == 2.0


def test_the_seed_is_episodes_of_each_task_but_not_too_few() -> None:
    lengths = np.array([500, 100])
    assert TDMPC2Config().seed_decisions(lengths) == 5 * 600
    assert TDMPC2Config().seed_decisions(np.array([100])) == 1000


def test_tasks_that_are_not_trained_on_have_no_part_in_the_seed(tmp_path: Path) -> None:
    spec = spec_of([3, 3, 3], [2, 2, 2])  # episodes of ten decisions
    agent, other = (tiny(spec, seed_steps=0, seed_episodes=1) for _ in range(2))
    feeder, plans = Feeder(agent, num_envs=2), []  # of the first two tasks
    for _ in range(12):
        feeder.step()
        plans.append(bool(feeder.carry.mean.any()))
    assert plans == [False] * 10 + [True] * 2
    agent.save(tmp_path, feeder.carry)
    other.load(tmp_path)
    assert other.seed_decisions == agent.seed_decisions == 20


def test_actions_are_uniform_until_the_seed_is_gathered() -> None:
    agent = tiny(seed_steps=6)
    feeder = Feeder(agent, num_envs=3)
    plans = []
    for _ in range(4):
        feeder.step()
        plans.append(bool(feeder.carry.mean.any()))
    assert plans == [False, False, True, True]
    many = tiny(seed_steps=10_000)
    observation, task = np.zeros((3000, 3), np.float32), np.zeros(3000, np.int64)
    action = many.act(many.initial_carry(3000), observation, task > 0, task, explore=True).action
    # Uniform in [−1, 1]: a deviation of 1/√3; 3000 give it to ± 0.006, five of them.
    assert np.abs(action).max() <= 1
    assert action.std(0) == pytest.approx([1 / math.sqrt(3)] * 2, abs=0.03)


def test_the_next_plan_begins_with_the_rest_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tiny(seed_steps=0)
    began: list[Tensor] = []
    found = torch.arange(1.0, 1 + H * 2 * 2).view(H, 2, 2) / 20

    def recorded(model: Any, latent: Tensor, rows: Any, mean: Tensor, *_: Any, **__: Any) -> Any:
        began.append(mean)
        return LastPlanLike(found[0], found)

    monkeypatch.setattr("baselines.tdmpc2.agent.plan", recorded)
    observation, task, carry = np.zeros((2, 3), np.float32), np.zeros(2, np.int64), agent.initial_carry(2)
    carry = agent.act(carry, observation, np.array([True, True]), task, explore=True).carry
    carry = agent.act(carry, observation, np.array([False, True]), task, explore=True).carry
    assert not began[0].any()
    # The first environment goes on: steps 1 and 2 of the plan, then nothing; the second begins anew.
    assert torch.equal(began[1][:, 0], torch.stack([found[1, 0], found[2, 0], torch.zeros(2)]))
    assert not began[1][:, 1].any()
    assert carry.age.tolist() == [2, 1]


class LastPlanLike:
    def __init__(self, action: Tensor, mean: Tensor) -> None:
        self.action, self.mean = action, mean


def test_evaluation_is_a_function_of_what_it_sees() -> None:
    agent = tiny()
    observation = np.ones((3, 3), np.float32)

    def actions(num_envs: int, age: int) -> Any:
        plan, none = agent.initial_carry(num_envs), np.zeros(num_envs, np.bool_)
        carry = LastPlan(plan.mean, plan.age + age)
        task = np.zeros(num_envs, np.int64)
        return agent.act(carry, observation[:num_envs], none, task, explore=False).action

    np.testing.assert_allclose(actions(3, 0)[:2], actions(2, 0), atol=1e-5)
    assert np.array_equal(actions(3, 0), actions(3, 0))
    # Chance differs from step to step, as it does in training: what it does to a plan must not be the same each time.
    assert len({actions(1, age).tobytes() for age in range(10)}) == 10
    assert len(np.unique(actions(3, 0), axis=0)) == 3
    noise = agent._noise(torch.tensor([0, 5]), explore=False)
    # The second environment in its sixth decision reads what the first one reads in its seventh.
    later = agent._noise(torch.tensor([6, 0]), explore=False)
    assert torch.equal(noise.candidates[..., 1, :], later.candidates[..., 0, :])
    assert not torch.equal(noise.candidates[..., 0, :], noise.candidates[..., 1, :])


def test_a_loaded_agent_has_the_replay_and_the_plan_it_had(tmp_path: Path) -> None:
    agent, other = tiny(replay_capacity=8), tiny(replay_capacity=8, seed=1)
    feeder = Feeder(agent)
    for _ in range(10):  # the ring has gone round
        feeder.step(terminated=True)
    agent.save(tmp_path, feeder.carry)
    carry = other.load(tmp_path)
    assert torch.equal(carry.mean, feeder.carry.mean)
    assert torch.equal(carry.age, feeder.carry.age)
    assert other.terminates
    for each in (agent, other):
        assert each.replay is not None
    drawn = [each.replay.sample(20, H, each.sampling) for each in (agent, other)]  # type: ignore[union-attr]
    for name, rows in drawn[0].items():
        assert torch.equal(rows, drawn[1][name])
    assert agent._learn()["grad_norm"] == other._learn()["grad_norm"]


def test_another_form_passes_the_contract() -> None:
    form = {"num_pi_trajs": 0, "num_q": 3, "horizon": 1, "enc_layers": 3, "gamma": 0.9, "iterations": 1, "dropout": 0.0}
    check_agent(TDMPC2, TDMPC2Config(**{**TINY, "seed_steps": 24, "updates_per_step": 0.1, **form}))


@pytest.mark.parametrize(
    ("values", "num_envs", "env_steps", "expected"),
    [
        ({}, 1, 10_000, []),
        # Two tasks with ten decisions an episode need 1000 decisions all the same; action repeat 2.
        ({}, 2, 2000, ["2000 environment steps are 1000 decisions, but learning starts after 1000.*seed_steps"]),
        ({"seed_steps": 0, "seed_episodes": 60}, 2, 2000, ["after 1200"]),
        ({"replay_capacity": 23}, 8, 10_000, ["23 transitions over 8 environments holds no subsequence of 3"]),
    ],
)
def test_check_finds_impossible_plans(
    values: dict[str, Any], num_envs: int, env_steps: int, expected: list[str]
) -> None:
    sentences = TDMPC2Config(**values).check(spec_of([3, 3], [1, 1], action_repeat=2), num_envs, env_steps)
    assert len(sentences) == len(expected)
    for sentence, pattern in zip(sentences, expected, strict=True):
        assert re.search(pattern, sentence)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latent_dim": 12}, r"'latent_dim' \(12\) must be a multiple of 'simnorm_dim' \(8\)"),
        ({"num_elites": 600}, r"'num_elites' \(600\) must not exceed 'num_samples' \(512\)"),
        ({"min_std": 3.0}, r"'min_std' \(3.0\) must not exceed 'max_std' \(2.0\)"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TDMPC2Config(**values)


@pytest.mark.parametrize("preset", TDMPC2Config.PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert TDMPC2Config(preset=preset).check(spec_of([3, 3], [1, 2]), 10, 10**6) == []


def test_the_preset_for_many_tasks_replays_as_many_steps_as_the_default() -> None:
    many, default = TDMPC2Config(preset="mt"), TDMPC2Config()
    assert many.updates_per_step < default.updates_per_step
    assert many.batch_size * many.updates_per_step == default.batch_size * default.updates_per_step

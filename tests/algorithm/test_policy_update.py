"""The trust region and whose likelihood it is. (Known errors of other code: 2, 4, 6.)"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from m3po.algorithm.agent import M3PO, LastPlan
from m3po.algorithm.losses import fresh_policy_loss, replayed_policy_loss
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import EnvSpec, Transition
from m3po.kit.distributions import Gaussian, gaussian_kl
from m3po.kit.nets import last_linear
from m3po.kit.planning import Candidates, Plan

from .conftest import make_batch, make_spec, tiny

FRESH: dict[str, Any] = {"actor_data": "fresh", "trust_region": "clip", "discrepancy": "reward"}


def rollout(agent: M3PO, rows: int, num_envs: int = 4, seed: int = 0) -> list[Transition]:
    """Let the agent act on random observations and keep what it would be shown."""
    rng, spec = np.random.default_rng(seed), agent.spec
    task = np.arange(num_envs) % spec.num_tasks
    carry, seen = agent.initial_carry(num_envs), []
    observation = rng.normal(size=(num_envs, spec.observation_size)).astype(np.float32)
    for t in range(rows):
        first = np.full(num_envs, t == 0)
        decision = agent.act(carry, observation, first, task, explore=True)
        following = rng.normal(size=observation.shape).astype(np.float32)
        reward = decision.action[:, 0].copy()
        nothing = np.zeros(num_envs, bool)
        seen.append(
            Transition(observation, decision.action, reward, following, nothing, nothing, first, task, decision.extras)
        )
        observation, carry = following, decision.carry
    return seen


def test_before_any_step_only_the_acting_policys_ratio_is_one(spec: EnvSpec) -> None:
    agent = M3PO(spec, tiny(**FRESH, rollout_size=999), seed=0, device="cpu")
    for transition in rollout(agent, 6):
        agent.observe(transition)
    assert agent.fresh is not None
    rows = {k: torch.from_numpy(np.stack([r[k] for r in agent.fresh.rows])) for k in agent.fresh.rows[0]}
    flat = agent.fresh._targets(rows, agent.beta, terminates=False)
    loss = agent.fresh._policy_loss(flat, agent.beta, 1.0, terminates=False)
    assert loss.kl.item() == pytest.approx(0.0, abs=1e-5)
    # The planner acted: pretending that the prior did is the error, and it is far from a ratio of one.
    model = TaskModel(agent.model, flat["task"], agent.gamma[flat["task"]], terminates=False)
    acted = Gaussian(flat["acting_mean"], flat["acting_std"])
    assert gaussian_kl(acted, model.prior(flat["latent"]), model.action_mask).mean().item() > 0.1


def test_gradients_reach_the_actor_through_the_planner(spec: EnvSpec) -> None:
    agent = M3PO(
        spec, tiny(**FRESH, likelihood="planner", rollout_size=24, updates_per_step=1e-9), seed=0, device="cpu"
    )
    before = [p.clone() for p in agent.model.actor.parameters()]
    improved = ("actor", "model_free", "augmented")
    others = [p.clone() for n, p in agent.model.named_parameters() if not n.startswith(improved)]
    for transition in rollout(agent, 6):
        agent.observe(transition)
        agent.update()
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.model.actor.parameters(), strict=True))
    after = [p for n, p in agent.model.named_parameters() if not n.startswith(improved)]
    assert all(torch.equal(a, b) for a, b in zip(others, after, strict=True))


def test_each_environment_closes_its_own_advantage(spec: EnvSpec) -> None:
    """Error 2: one bootstrap value for all. Changing environment 0's last successor moves only its advantages."""
    agent = M3PO(spec, tiny(**FRESH, discrepancy_coef=0.0, rollout_size=999), seed=0, device="cpu")
    torch.nn.init.normal_(last_linear(agent.model.model_free).weight)
    for transition in rollout(agent, 4):
        agent.observe(transition)
    assert agent.fresh is not None
    rows = {k: torch.from_numpy(np.stack([r[k] for r in agent.fresh.rows])) for k in agent.fresh.rows[0]}
    before = agent.fresh._targets(rows, 0.0, terminates=False)["value_target"].view(4, 4)
    rows["next_observation"][-1, 0] += 5.0
    after = agent.fresh._targets(rows, 0.0, terminates=False)["value_target"].view(4, 4)
    assert (before[:, 0] != after[:, 0]).all()
    assert torch.equal(before[:, 1:], after[:, 1:])
    # A terminal cuts the recursion: behind it nothing of the successor is left.
    rows["terminated"][-1, 0] = True
    cut = agent.fresh._targets(rows, 0.0, terminates=False)["value_target"].view(4, 4)
    assert cut[-1, 0].item() == pytest.approx(rows["reward"][-1, 0].item(), abs=1e-5)


def test_targets_of_fresh_data_are_what_plain_loops_give(spec: EnvSpec) -> None:
    """Errors 2, 3 and 5 in the form that ``paper`` has: successors, ends and tasks of each environment are its own."""
    agent = M3PO(spec, tiny(**FRESH, rollout_size=999, gamma=0.9, gae_lambda=0.8), seed=0, device="cpu")
    model, fresh = agent.model, agent.fresh
    assert fresh is not None
    assert model.augmented is not None
    torch.manual_seed(0)
    for head in (model.model_free, model.augmented, model.reward_net, *model.critics):
        torch.nn.init.normal_(last_linear(head).weight)
    seen = rollout(agent, 5)  # four environments, of tasks 0, 1, 0, 1
    ends = {1: ([True, False, False, False], [False, True, False, False]), 3: ([False] * 4, [True, False, False, True])}
    for t, transition in enumerate(seen):
        terminated, truncated = map(np.array, ends.get(t, ([False] * 4, [False] * 4)))
        strange = transition.next_observation + 1  # the next row may belong to another episode
        agent.observe(replace(transition, next_observation=strange, terminated=terminated, truncated=truncated))
    rows = {k: torch.from_numpy(np.stack([r[k] for r in fresh.rows])) for k in fresh.rows[0]}
    found = {k: v.unflatten(0, (5, 4)) for k, v in fresh._targets(rows, 0.5, terminates=False).items()}

    task = rows["task"]
    e, z, z_next = model.embedding(task), *(model.encode(rows[k], task) for k in ("observation", "next_observation"))
    own = TaskModel(model, task[0], torch.full((4,), 0.9), terminates=False)
    following, believed, _ = own.step(z, rows["action"])
    delta = believed + 0.9 * own.value(following)
    delta = delta - rows["reward"] - 0.9 * (~rows["terminated"]) * model.model_free_value(z_next, e)
    torch.testing.assert_close(found["discrepancy"], delta.abs(), atol=1e-5, rtol=1e-5)

    def advantages(reward: torch.Tensor, value: torch.Tensor, next_value: torch.Tensor) -> torch.Tensor:
        result = torch.zeros(5, 4)
        for n in range(4):
            later = 0.0
            for t in reversed(range(5)):
                to_come = 0.0 if rows["terminated"][t, n] else 0.9 * float(next_value[t, n])
                over = bool(rows["terminated"][t, n] | rows["truncated"][t, n])
                later = float(reward[t, n]) + to_come - float(value[t, n]) + (0.0 if over else 0.9 * 0.8 * later)
                result[t, n] = later
        return result

    with torch.no_grad():
        value, next_value = model.model_free_value(z, e), model.model_free_value(z_next, e)
        own_target = advantages(rows["reward"], value, next_value) + value
        value, next_value = model.augmented_value(z, e), model.augmented_value(z_next, e)
        advantage = advantages(rows["reward"] + found["bonus"], value, next_value)
    torch.testing.assert_close(found["value_target"], own_target, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["augmented_target"], advantage + value, atol=1e-4, rtol=1e-4)
    for of in (task == 0, task == 1):
        gap, raised = delta.abs()[of], advantage[of]
        bonus = 0.5 * ((gap - gap.mean()) / gap.std(correction=0)).clamp(0, 2)
        torch.testing.assert_close(found["bonus"][of], bonus, atol=1e-3, rtol=1e-3)
        normal = (raised - raised.mean()) / raised.std(correction=0)
        torch.testing.assert_close(found["advantage"][of], normal, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("form", ["reward", "advantage"])
def test_bonuses_raise_the_advantage_and_never_what_was_experienced(
    spec: EnvSpec, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards of 1, bonuses of 0 and 2 in turn, β ½, untrained critics (0): by hand for each form."""
    agent = M3PO(spec, tiny(**{**FRESH, "discrepancy": form}, rollout_size=999, gamma=0.9), seed=0, device="cpu")
    assert agent.fresh is not None
    bonus = torch.tensor([0.0, 2.0, 0.0])[:, None].expand(3, 4)
    monkeypatch.setattr("m3po.algorithm.fresh.discrepancy_bonus", lambda *arguments: bonus)
    for transition in rollout(agent, 3):
        agent.observe(replace(transition, reward=np.ones(4, np.float32)))
    rows = {k: torch.from_numpy(np.stack([r[k] for r in agent.fresh.rows])) for k in agent.fresh.rows[0]}
    flat = agent.fresh._targets(rows, 0.5, terminates=False)

    def sums(reward: list[float]) -> torch.Tensor:
        # values are 0, so advantages are rewards to come, discounted by γ λ = 0.9 · 0.95
        r = torch.tensor(reward)
        decay = 0.9 * 0.95
        return torch.stack([r[0] + decay * r[1] + decay**2 * r[2], r[1] + decay * r[2], r[2]])

    own = sums([1.0, 1.0, 1.0])
    torch.testing.assert_close(flat["value_target"].view(3, 4), own[:, None].expand(3, 4), atol=1e-5, rtol=0)
    advantage = sums([1.0, 2.0, 1.0]) if form == "reward" else own
    normal = (advantage - advantage.mean()) / advantage.std(unbiased=False)
    if form == "advantage":
        normal = normal + torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(flat["advantage"].view(3, 4), normal[:, None].expand(3, 4), atol=1e-4, rtol=0)


def test_a_discrepancy_does_not_feed_on_its_own_bonus(spec: EnvSpec) -> None:
    """Without any reward the model is right about every value, and what was experienced comes to the same whatever the
    bonus: were Q_MF read from a critic that learns bonuses too, the discrepancy would grow."""
    switches: dict[str, Any] = {**FRESH, "trust_region": "none", "planner": "none", "discrepancy_coef": 1.0}
    agent = M3PO(spec, tiny(**switches, discrepancy_steps=10**9, actor_lr=3e-3), seed=0, device="cpu")
    torch.manual_seed(0)
    torch.nn.init.normal_(last_linear(agent.model.model_free).weight, std=0.1)  # a first discrepancy
    discrepancies: list[float] = []
    for transition in rollout(agent, 160):
        agent.observe(replace(transition, reward=np.zeros(4, np.float32)))
        metrics = agent.update()
        discrepancies += [metrics["discrepancy"]] if metrics else []
    task = torch.tensor([0, 1]).repeat(16)
    latent, e = agent.model.encode(torch.randn(32, spec.observation_size), task), agent.model.embedding(task)
    assert agent.model.augmented_value(latent, e).mean() > 1  # there were bonuses
    assert max(discrepancies) < 0.1  # of such a critic: 6.7 by now


def test_the_termination_head_is_read_from_the_iteration_after_it_was_trained(spec: EnvSpec) -> None:
    """Else the policy that acted before the first termination could not be recomputed behind it."""
    agent = M3PO(spec, tiny(**FRESH, rollout_size=24, updates_per_step=0.1, kl_target=1e9), seed=0, device="cpu")
    assert agent.fresh is not None
    ratios: list[float] = []
    loss = agent.fresh._policy_loss

    def noted(*arguments: Any, **flags: bool) -> Any:
        found = loss(*arguments, **flags)
        ratios.append(found.kl.item())
        return found

    agent.fresh._policy_loss = noted  # type: ignore[method-assign, assignment]
    # all 6 rows of the rollout but the last were acted before the termination in the second
    for t, transition in enumerate(rollout(agent, 6)):
        agent.observe(replace(transition, terminated=np.full(4, t == 1)))
        unused = agent._size()
        assert not agent.terminates
        agent.update()
    assert ratios[0] == pytest.approx(0.0, abs=1e-5)
    assert agent.terminates
    assert agent._size() - unused == sum(p.numel() for p in agent.model.termination_net.parameters())


def improved(agent: M3PO, kls: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, float], list[float]]:
    """An update on fresh data whose minibatches have these ``kls``: its metrics, and each minibatch's penalty."""
    assert agent.fresh is not None
    penalties: list[float] = []
    policy_loss = agent.fresh._policy_loss

    def measured(batch: Any, beta: float, penalty: float, *, terminates: bool) -> Any:
        penalties.append(penalty)
        loss = policy_loss(batch, beta, penalty, terminates=terminates)
        return loss._replace(kl=torch.tensor(kls[len(penalties) - 1]))

    monkeypatch.setattr(agent.fresh, "_policy_loss", measured)
    for transition in rollout(agent, 2):
        agent.observe(transition)
    return agent.update(), penalties


EPOCHS: dict[str, Any] = {"rollout_size": 8, "model_horizon": 1, "epochs": 2, "minibatches": 3, "kl_target": 0.02}


@pytest.mark.parametrize(("kl", "steps"), [(0.031, 3), (0.029, 6)])
def test_the_clipped_form_ends_its_epochs_where_the_policy_has_gone_too_far(
    spec: EnvSpec, monkeypatch: pytest.MonkeyPatch, kl: float, steps: int
) -> None:
    # 1.5 × 0.02 is 0.03; the minibatch that finds it, the fourth of two epochs of three, is not learned from
    agent = M3PO(spec, tiny(**{**FRESH, **EPOCHS}), seed=0, device="cpu")
    metrics, _ = improved(agent, [0.0, 0.0, 0.0, kl, 0.0, 0.0], monkeypatch)
    assert agent.fresh is not None
    assert (agent.actor_optimizer.steps, agent.fresh.optimizer.steps) == (steps, steps)
    assert metrics.get("kl_stop") == (1.0 if steps < 6 else None)


def test_the_penalty_on_fresh_data_follows_the_policy(spec: EnvSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    # from 1: × 1.5 above 0.03, ÷ 1.5 below 0.0133, else as it was; it goes on where it is, in the next iteration too
    agent = M3PO(spec, tiny(**{**FRESH, **EPOCHS, "trust_region": "kl"}), seed=0, device="cpu")
    metrics, penalties = improved(agent, [0.031, 1.0, 0.02, 0.02, 0.0, 0.04], monkeypatch)
    assert penalties == pytest.approx([1, 1.5, 2.25, 2.25, 2.25, 1.5])
    assert metrics["kl_penalty"] == agent.penalty == pytest.approx(2.25)
    assert "kl_stop" not in metrics


def test_a_plan_moves_on_by_one_step_and_begins_anew_with_an_episode(spec: EnvSpec) -> None:
    agent = M3PO(spec, tiny(horizon=3), seed=0, device="cpu")
    observation = np.zeros((2, spec.observation_size), np.float32)
    task = np.array([0, 1])

    def act(carry: LastPlan, first: list[bool]) -> Any:
        return agent.act(carry, observation, np.array(first), task, explore=False)

    plans: list[torch.Tensor] = []

    def seen(model: Any, latent: Any, noise: Any, warm: torch.Tensor, *rest: Any) -> Plan:
        plans.append(warm.clone())
        mean = torch.arange(18.0).view(3, 2, 3)
        return Plan(Gaussian(mean, torch.ones_like(mean)), Candidates(mean, mean), mean)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("m3po.algorithm.agent.planned_policy", seen)
        carry = act(agent.initial_carry(2), [True, True]).carry
        assert act(carry, [False, True]).carry.age.tolist() == [2, 1]
    assert plans[0].isnan().all()
    # steps 1 and 2 of the plan become 0 and 1; what comes behind is unknown, and so is all of a new episode
    assert torch.equal(plans[1][:2, 0], torch.arange(18.0).view(3, 2, 3)[1:, 0])
    assert plans[1][2].isnan().all()
    assert plans[1][:, 1].isnan().all()


def test_evaluation_plans_each_decision_with_other_noise_and_each_episode_with_the_same(spec: EnvSpec) -> None:
    agent = M3PO(spec, tiny(), seed=0, device="cpu")
    drawn = agent._planning_noise(torch.tensor([0, 5, 0]), explore=False)
    assert drawn.shape == (1, 3, 8, 3, spec.action_dim)
    assert torch.equal(drawn[..., 0, :], drawn[..., 2, :])
    # standard normal numbers drawn independently differ by √2 on average of squares
    assert 1 < (drawn[..., 0, :] - drawn[..., 1, :]).square().mean().sqrt() < 2


def test_the_actor_learns_in_the_first_state_of_an_episode(spec: EnvSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = M3PO(spec, tiny(), seed=0, device="cpu")
    for transition in rollout(agent, 8):
        agent.observe(transition)
    assert agent.replay is not None
    batch = agent.replay.sample(4, agent.config.model_horizon, agent.sampling, agent.device)
    monkeypatch.setattr(agent.replay, "sample", lambda *_: batch)
    with torch.no_grad():
        wanted = agent.model.encode(batch["observation"], batch["task"]).flatten(0, 1)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(agent, "_improve_on_replay", lambda states, *_: seen.append(states) or {})
    agent._learn(agent.model.actor)
    torch.testing.assert_close(seen[0], wanted)


def test_the_trust_region_is_as_wide_however_many_environments_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two decisions earn one update; a rollout of 8 decisions, so 4 updates, is what one π_old stays for."""
    for num_envs, updates_under_each in ((8, [4, 4]), (32, [4, 4, 4, 4])):
        agent = M3PO(make_spec(tasks=1), tiny(rollout_size=8, updates_per_step=0.5), seed=0, device="cpu")
        under: list[object] = []

        def learn(old: object, under: list[object] = under, agent: M3PO = agent) -> dict[str, torch.Tensor]:
            under.append(old)
            agent.updates += 1
            return {}

        monkeypatch.setattr(agent, "_learn", learn)
        for transition in rollout(agent, 5, num_envs=num_envs):
            agent.observe(transition)
            agent.update()
        first = under[: 4 * len(updates_under_each)]
        assert [first.count(old) for old in dict.fromkeys(first)] == updates_under_each


def test_learning_starts_after_steps_of_each_trained_task_and_makes_up_for_them_by_and_by() -> None:
    # Two of three tasks are trained on, by two environments each; a row of 4 steps earns 4 updates.
    spec = make_spec(tasks=3)
    agent = M3PO(spec, tiny(rollout_size=4, learning_starts=10, updates_per_step=1.0), seed=0, device="cpu")
    learned = []
    for transition in rollout(agent, 12):
        agent.observe(replace(transition, task=np.array([0, 1, 0, 1])))
        agent.update()
        learned.append(agent.updates)
    # 10 steps of each of two tasks are 5 rows. Then 8 updates a row until as many are done as there were steps.
    assert learned == [0, 0, 0, 0, 8, 16, 24, 32, 36, 40, 44, 48]


def test_the_actors_loss_leaves_encoder_and_critics_alone(spec: EnvSpec) -> None:
    torch.manual_seed(0)
    agent = M3PO(spec, tiny(), seed=0, device="cpu")
    batch = make_batch(spec)
    latents = agent.model.encode(batch["observation"], batch["task"]).detach().flatten(0, 1)
    before = {n: p.clone() for n, p in agent.model.named_parameters()}
    for head in agent.model.critics:
        torch.nn.init.normal_(head[-1].weight)
    moved = {n: p.clone() for n, p in agent.model.named_parameters()}
    agent._improve_on_replay(latents, batch["task"].flatten(), agent.model.actor)
    changed = {n for n, p in agent.model.named_parameters() if not torch.equal(p, moved[n])}
    assert changed
    assert all(n.startswith("actor") for n in changed)
    assert before.keys() == moved.keys()


def test_the_penalty_pulls_towards_the_old_policy(spec: EnvSpec) -> None:
    torch.manual_seed(0)
    model = WorldModel(spec, tiny())
    task = torch.tensor([0, 1])
    bound = TaskModel(model, task, torch.full((2,), 0.9), terminates=False)
    latents = torch.rand(2, 16)
    here = bound.prior(latents)
    far = Gaussian(here.mean.detach() + 1.0, here.std.detach())
    noise, scale = torch.zeros(2, 3), torch.ones(2)
    near_loss, _ = replayed_policy_loss(bound, far, latents, noise, scale, 0.0, 0.0)
    held_loss, _ = replayed_policy_loss(bound, far, latents, noise, scale, 2.0, 0.0)
    assert held_loss.total.item() == pytest.approx(near_loss.total.item() + 2.0 * held_loss.kl.item(), rel=1e-5)
    # KL of unit-shifted Gaussians is Σ 1/(2σ²) over the real actions: 3 for task 0, 2 for task 1.
    assert held_loss.kl.item() == pytest.approx((2.5 / (2 * here.std[0, 0].item() ** 2)), rel=2e-2)


def test_the_clip_stops_the_gain() -> None:
    # Standard normals in one dimension, u = 1: log ρ = (1 − (1 − m)²)/2; m = 0.5 → ρ = e^0.375 = 1.455, clipped to 1.2.
    mask, u, ones = torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1)
    acting, old = Gaussian(torch.full((1, 1), 0.5), ones), Gaussian(torch.zeros(1, 1), ones)
    config = tiny(**FRESH, entropy_coef=0.0)
    loss = fresh_policy_loss(acting, old, u, torch.ones(1), mask, torch.zeros(1), config, 1.0)
    assert loss.total.item() == pytest.approx(-1.2, rel=1e-5)
    free = config.model_copy(update={"trust_region": "none"})
    loss = fresh_policy_loss(acting, old, u, torch.ones(1), mask, torch.zeros(1), free, 1.0)
    assert loss.total.item() == pytest.approx(-1.45499, rel=1e-4)


def test_targets_follow_slowly(spec: EnvSpec) -> None:
    agent = M3PO(spec, tiny(target_rate=0.1), seed=0, device="cpu")
    for transition in rollout(agent, 8):
        agent.observe(transition)
    old = {n: p.clone() for n, p in agent.target.named_parameters()}
    agent._learn(agent.model.actor)
    for (name, slow), fast in zip(agent.target.named_parameters(), agent.model.parameters(), strict=True):
        if name.startswith(("critics", "embedding")):
            torch.testing.assert_close(slow, old[name] + 0.1 * (fast - old[name]))
    assert any(not torch.equal(p, old[n]) for n, p in agent.target.named_parameters())
    assert not any(p.requires_grad for p in agent.target.parameters())


@pytest.mark.parametrize(("num_envs", "rows"), [(2, 6), (4, 3), (50, 1)])
def test_iterations_come_after_equally_many_decisions_of_few_and_many_environments(
    spec: EnvSpec, num_envs: int, rows: int
) -> None:
    # A rollout of 12 decisions is 6 rows of 2 environments, 3 of 4, and one of 50, which is more than 12 already.
    agent = M3PO(spec, tiny(rollout_size=12, model_horizon=1, updates_per_step=0.02), seed=0, device="cpu")
    iterated = []
    for transition in rollout(agent, 6, num_envs):
        agent.observe(transition)
        iterated.append(bool(agent.update()))
    assert iterated == [(row + 1) % rows == 0 for row in range(6)]


@pytest.mark.parametrize(
    "switches",
    [
        {"planner": "none"},
        {"iterations": 3},
        {"discrepancy": "none"},
        {"discrepancy": "planning"},
        {"discrepancy": "reward", "critic": "v"},
        {"trust_region": "none"},
        {"critic": "v"},
        {"consistency_target": "ema"},
        {"task_embedding": 0},
        {**FRESH},
        {**FRESH, "discrepancy": "advantage"},
        {**FRESH, "trust_region": "kl"},
        {**FRESH, "trust_region": "none"},
        {**FRESH, "likelihood": "prior"},
        {**FRESH, "planner": "none"},
        {**FRESH, "critic": "v", "discrepancy": "planning", "iterations": 2},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()),
)
def test_every_switch_learns_without_a_hitch(spec: EnvSpec, switches: dict[str, Any]) -> None:
    config = tiny(**switches)
    assert config.check(spec, 4, 10_000) == []
    agent = M3PO(spec, config, seed=0, device="cpu")
    before = [p.clone() for p in agent.model.actor.parameters()]
    metrics: dict[str, float] = {}
    for transition in rollout(agent, 17):
        assert np.abs(transition.action).max() <= 1.0
        assert (transition.action[1::2, -1] == 0).all()
        agent.observe(transition)
        metrics |= agent.update()
    assert metrics
    assert all(np.isfinite(v) for v in metrics.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.model.actor.parameters(), strict=True))


@pytest.mark.parametrize(
    ("switches", "word"),
    [
        ({"discrepancy": "advantage"}, "fresh"),
        ({"trust_region": "clip"}, "fresh"),
        ({"planner": "none", "discrepancy": "planning"}, "planner"),
        ({"learning_starts": 10_000}, "budget"),
        ({"replay_capacity": 5}, "replay"),
        ({"rollout_size": 20_000}, "rollout"),
        ({"updates_per_step": 1e-5}, "updates"),
    ],
)
def test_an_impossible_configuration_says_what_to_do(switches: dict[str, Any], word: str) -> None:
    problems = tiny(**switches).check(make_spec(), 4, 10_000)
    assert len(problems) == 1
    assert word in problems[0]

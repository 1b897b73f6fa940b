"""The discrepancy in the reward of replayed steps: critics of their own learn it, the world model never sees it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m3po.algorithm.agent import M3PO
from m3po.algorithm.losses import exploring_loss, model_loss, value_targets
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import EnvSpec
from m3po.kit.nets import last_linear, sim_norm

from .conftest import make_batch, tiny

CONFIG = tiny(discrepancy="reward", td_lambda=0.8)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every step gets a bonus of 2; these are the discrepancies."""
    noted: list[Tensor] = []

    def fixed(discrepancy: Tensor, *arguments: object) -> Tensor:
        noted.append(discrepancy)
        return torch.full_like(discrepancy, 2.0)

    monkeypatch.setattr("m3po.algorithm.losses.discrepancy_bonus", fixed)
    return noted


def losses(spec: EnvSpec, beta: float) -> tuple[WorldModel, Tensor, Tensor]:
    """A model whose critics differ from 0, its own loss and that of its exploring critics."""
    torch.manual_seed(0)
    model, gamma = WorldModel(spec, CONFIG), torch.full((spec.num_tasks,), 0.9)
    for head in (*model.critics, *model.exploring):
        torch.nn.init.normal_(last_linear(head).weight, std=0.1)
    batch, noise = make_batch(spec), torch.zeros(3, 6, spec.action_dim)
    loss = model_loss(model, model, batch, gamma, noise, CONFIG, terminates=False)
    exploring, _ = exploring_loss(model, model, batch, loss, gamma, noise, beta, CONFIG, terminates=False)
    return model, loss.total, exploring


def test_the_bonus_reaches_neither_the_world_model_nor_its_critics(spec: EnvSpec, seen: list[Tensor]) -> None:
    model, _, exploring = losses(spec, beta=1.0)
    exploring.backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"exploring", "model_free"}
    assert losses(spec, beta=1.0)[1] == losses(spec, beta=0.0)[1]
    assert losses(spec, beta=1.0)[2] != losses(spec, beta=0.0)[2]


def test_without_a_bonus_they_learn_what_the_critics_learn(spec: EnvSpec) -> None:
    torch.manual_seed(0)
    model, gamma = WorldModel(spec, CONFIG), torch.full((spec.num_tasks,), 0.9)
    for head, twin in zip(model.critics, model.exploring, strict=True):
        torch.nn.init.normal_(last_linear(head).weight, std=0.1)
        twin.load_state_dict(head.state_dict())
    batch, noise = make_batch(spec), torch.zeros(3, 6, spec.action_dim)
    loss = model_loss(model, model, batch, gamma, noise, CONFIG, terminates=False)
    _, parts = exploring_loss(model, model, batch, loss, gamma, noise, 0.0, CONFIG, terminates=False)
    assert parts["exploring_loss"].item() == pytest.approx(loss.parts["value_loss"].item(), rel=1e-6)


def test_a_steps_bonus_is_part_of_its_return(spec: EnvSpec) -> None:
    # λ-returns are linear in the rewards: with γ = 0.9, λ = 0.8 a bonus of β · 2 at all three steps adds
    # 2β (1, 1 + 0.72, 1 + 0.72 + 0.72²) counted from the last.
    torch.manual_seed(0)
    model = WorldModel(spec, CONFIG)
    batch, noise = make_batch(spec), torch.zeros(3, 6, spec.action_dim)
    bound = TaskModel(model, batch["task"][0], torch.full((6,), 0.9), terminates=False, exploring=True)
    latents = torch.rand(3, 6, CONFIG.latent)
    plain = value_targets(bound, bound, latents, batch, noise, 0.8)
    paid = value_targets(bound, bound, latents, {**batch, "reward": batch["reward"] + 0.5 * 2}, noise, 0.8)
    added = torch.tensor([1 + 0.72 + 0.72**2, 1 + 0.72, 1.0])
    torch.testing.assert_close(paid - plain, added[:, None].expand(3, 6), atol=1e-4, rtol=0)


def test_the_discrepancy_of_replayed_steps_by_hand(spec: EnvSpec, seen: list[Tensor]) -> None:
    # Untrained heads say 0 everywhere and there is no random function, so Q_MB = 0 and Q_MF = r: the reward nobody
    # expected.
    model = WorldModel(spec, tiny(discrepancy="reward", random_prior=0.0))
    gamma = torch.full((spec.num_tasks,), 0.9)
    batch, noise = make_batch(spec), torch.zeros(3, 6, spec.action_dim)
    loss = model_loss(model, model, batch, gamma, noise, CONFIG, terminates=False)
    exploring_loss(model, model, batch, loss, gamma, noise, 1.0, CONFIG, terminates=False)
    torch.testing.assert_close(seen[0], batch["reward"], atol=1e-5, rtol=0)


def test_values_agree_where_there_was_experience(spec: EnvSpec) -> None:
    torch.manual_seed(0)
    model = WorldModel(spec, tiny(discrepancy="reward", latent=64, hidden=64))
    assert model.random_function is not None
    e = model.embedding(torch.zeros(32, dtype=torch.int64)).detach()
    known, unknown = (sim_norm(2 * torch.randn(32, 64)) for _ in range(2))
    optimizer = torch.optim.Adam(model.model_free.parameters(), 3e-3)
    before = model.model_free_value(torch.cat([known, unknown]), torch.cat([e, e])).abs().mean()
    for _ in range(150):
        optimizer.zero_grad()
        model.model_free_loss(known, e, torch.zeros(32)).mean().backward()
        optimizer.step()
    assert model.model_free_value(known, e).abs().mean() < 0.1 * before
    assert model.model_free_value(unknown, e).abs().mean() > 0.3 * before


def test_they_act_while_exploring_and_not_while_evaluated(spec: EnvSpec) -> None:
    agent = M3PO(spec, CONFIG, seed=0, device="cpu")
    observation = torch.randn(2, spec.observation_size).numpy()
    arguments = (agent.initial_carry(2), observation, torch.ones(2, dtype=torch.bool).numpy(), torch.arange(2).numpy())
    agent.env_step = 1
    states = agent.noise.get_state()

    def actions(explore: bool) -> Tensor:
        agent.noise.set_state(states)
        return torch.from_numpy(agent.act(*arguments, explore=explore).action)

    before = actions(True), actions(False)
    for head in agent.model.exploring:
        torch.nn.init.normal_(last_linear(head).weight)
    assert not torch.equal(before[0], actions(True))
    assert torch.equal(before[1], actions(False))

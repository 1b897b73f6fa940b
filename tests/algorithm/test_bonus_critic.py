"""The discrepancy in the reward of replayed steps: a critic of its own learns the bonuses, the world model never sees
them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m3po.algorithm.agent import M3PO
from m3po.algorithm.losses import BonusLoss, bonus_loss, model_loss
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import EnvSpec
from m3po.kit.nets import last_linear, sim_norm

from .conftest import make_batch, tiny

CONFIG = tiny(discrepancy="reward", random_prior=0.0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every step gets a bonus of 2; these are the discrepancies."""
    noted: list[Tensor] = []

    def fixed(discrepancy: Tensor, *arguments: object) -> Tensor:
        noted.append(discrepancy)
        return torch.full_like(discrepancy, 2.0)

    monkeypatch.setattr("m3po.algorithm.losses.discrepancy_bonus", fixed)
    return noted


def bonuses(spec: EnvSpec, model: WorldModel, batch: dict[str, Tensor]) -> BonusLoss:
    """The loss of the bonuses beside a model's own."""
    gamma, noise = torch.full((spec.num_tasks,), 0.9), torch.zeros(3, 6, spec.action_dim)
    loss = model_loss(model, model, batch, gamma, noise, CONFIG, terminates=False)
    return bonus_loss(model, model, batch, loss, gamma, noise, CONFIG, terminates=False)


def test_bonuses_reach_no_part_of_the_world_model(spec: EnvSpec) -> None:
    model = WorldModel(spec, CONFIG)
    bonuses(spec, model, make_batch(spec)).total.backward()  # type: ignore[no-untyped-call]
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"bonus_critic", "model_free"}


def test_discrepancy_and_bonuses_to_come_by_hand(spec: EnvSpec, seen: list[Tensor]) -> None:
    # Untrained heads say 0 everywhere and there is no random function, so Q_MB = 0 and Q_MF = r: the reward nobody
    # expected. Bonuses to come are the step's own 2, and 2 + 0.9 · 5 where the critic of bonuses says 5.
    model, batch = WorldModel(spec, CONFIG), make_batch(spec)
    parts = bonuses(spec, model, batch).parts
    torch.testing.assert_close(seen[0], batch["reward"][0], atol=1e-5, rtol=0)
    assert parts["bonus_to_come"].item() == pytest.approx(2.0, abs=1e-4)
    always(model, 5.0)
    assert bonuses(spec, model, batch).parts["bonus_to_come"].item() == pytest.approx(2 + 0.9 * 5, abs=0.01)
    # Behind a terminal there is nothing to come; behind a truncation there is.
    ends = {**batch, "truncated": torch.ones_like(batch["truncated"])}
    assert bonuses(spec, model, ends).parts["bonus_to_come"].item() == pytest.approx(2 + 0.9 * 5, abs=0.01)
    ends = {**batch, "terminated": torch.ones_like(batch["terminated"])}
    assert bonuses(spec, model, ends).parts["bonus_to_come"].item() == pytest.approx(2.0, abs=1e-4)


def always(model: WorldModel, value: float) -> None:
    """Let the critic of bonuses say about ``value`` everywhere: two-hot logits between its bins."""
    assert model.bonus_critic is not None
    position = (torch.log1p(torch.tensor(value)) - model.bins[0]) / (model.bins[1] - model.bins[0])
    below, share = int(position), float(position.frac())
    last = last_linear(model.bonus_critic)
    with torch.no_grad():
        last.bias.fill_(-50.0)
        last.bias[below], last.bias[below + 1] = torch.log(torch.tensor([1 - share, share]))


@pytest.mark.parametrize("critic", ["q", "v"])
def test_values_count_bonuses_by_their_weight(spec: EnvSpec, critic: str) -> None:
    model = WorldModel(spec, tiny(discrepancy="reward", critic=critic))
    always(model, 5.0)
    task, latent, action = torch.tensor([0, 1]), torch.rand(2, 16), torch.zeros(2, spec.action_dim)
    for beta in (0.0, 0.5):
        bound = TaskModel(model, task, torch.full((2,), 0.9), terminates=False, beta=beta)
        for value in (bound.value(latent), bound.action_values(latent, action)[0]):
            torch.testing.assert_close(value, torch.full((2,), 5 * beta), atol=0.01, rtol=0)


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
        model.model_free_loss(known, e, torch.zeros(32)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert model.model_free_value(known, e).abs().mean() < 0.1 * before
    assert model.model_free_value(unknown, e).abs().mean() > 0.3 * before


def test_bonuses_count_while_exploring_and_not_while_evaluated(spec: EnvSpec) -> None:
    agent = M3PO(spec, CONFIG, seed=0, device="cpu")
    assert agent.model.bonus_critic is not None
    observation = torch.randn(2, spec.observation_size).numpy()
    arguments = (agent.initial_carry(2), observation, torch.ones(2, dtype=torch.bool).numpy(), torch.arange(2).numpy())
    agent.env_step = 1
    states = agent.noise.get_state()

    def actions(explore: bool) -> Tensor:
        agent.noise.set_state(states)
        return torch.from_numpy(agent.act(*arguments, explore=explore).action)

    before = actions(True), actions(False)
    torch.nn.init.normal_(last_linear(agent.model.bonus_critic).weight)
    assert not torch.equal(before[0], actions(True))
    assert torch.equal(before[1], actions(False))
    agent.beta = 0.0
    assert torch.equal(before[0], actions(True))


def test_optimism_counts_while_exploring_and_not_while_evaluated(spec: EnvSpec) -> None:
    agent = M3PO(spec, tiny(discrepancy="planning"), seed=0, device="cpu")
    torch.manual_seed(0)
    for head in (*agent.model.critics, agent.model.reward_net):
        torch.nn.init.normal_(last_linear(head).weight)  # so that plan and critic disagree
    agent.env_step, states = 1, agent.noise.get_state()
    observation, first = torch.randn(2, spec.observation_size).numpy(), torch.ones(2, dtype=torch.bool).numpy()

    def action(beta: float, *, explore: bool) -> Tensor:
        agent.beta = beta
        agent.noise.set_state(states)
        carry, task = agent.initial_carry(2), torch.arange(2).numpy()
        return torch.from_numpy(agent.act(carry, observation, first, task, explore=explore).action)

    assert not torch.equal(action(0.0, explore=True), action(5.0, explore=True))
    assert torch.equal(action(0.0, explore=False), action(5.0, explore=False))

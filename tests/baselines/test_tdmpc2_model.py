"""TD-MPC2's networks: how they start, what they read and what their outputs stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from baselines.tdmpc2.config import TDMPC2Config
from baselines.tdmpc2.model import Network, WorldModel
from m3po.api import EnvSpec
from m3po.kit.nets import SimNorm, last_linear
from tests.baselines.toys import spec_of

SMALL = {"enc_dim": 16, "mlp_dim": 16, "latent_dim": 8, "task_dim": 4, "num_q": 3}


def world(spec: EnvSpec | None = None, **values: Any) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(spec or spec_of([3], [2]), TDMPC2Config(**{**SMALL, **values}))


def first_rows(model: WorldModel, tasks: int = 1) -> Any:
    return model.rows(torch.arange(tasks))


@pytest.mark.parametrize(
    ("preset", "expected"),
    # What the official code counts for five observation entries and one action entry, heads once.
    [("size1", 1_198_257), ("size5", 4_932_704), ("size19", 17_996_896)],
)
def test_sizes_are_the_official_ones(preset: str, expected: int) -> None:
    model = WorldModel(spec_of([5], [1]), TDMPC2Config(preset=preset))
    termination = sum(p.numel() for p in model.termination.parameters())
    assert sum(p.numel() for p in model.parameters()) - termination == expected


def test_networks_start_as_their_authors_meant() -> None:
    model = world(mlp_dim=128)
    for network in (model.encoder, model.dynamics, model.actor, model.reward, *model.critics):
        weight = network.first.weight
        # 0.02 with a relative deviation of 1/√(2 · entries), five of them.
        assert weight.std().item() == pytest.approx(0.02, rel=5 / (2 * weight.numel()) ** 0.5)
        assert not network.first.bias.any()
    for network in (model.reward, *model.critics):
        assert not last_linear(network).weight.any()
    assert last_linear(model.actor).weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_heads_start_different_and_at_zero() -> None:
    model = world()
    weights = [critic.first.weight for critic in model.critics]
    assert len(weights) == 3
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    z, a = torch.rand(5, 8), torch.rand(5, 2)
    q = model.scalar(model.q_logits(z, a, first_rows(model)))
    assert torch.allclose(q, torch.zeros(3, 5), atol=1e-6)
    # Their hidden layers see the same input and answer differently.
    hidden = torch.stack([critic.rest[:-1](critic.first(torch.cat([z, a], -1))) for critic in model.critics])
    assert hidden.std(0).mean() > 1e-2


def test_heads_asked_for_are_those_that_answer() -> None:
    model = world()
    with torch.no_grad():
        for m, critic in enumerate(model.critics):
            last_linear(critic).bias[m] = 9.0
    z, a, rows = torch.rand(5, 8), torch.rand(5, 2), first_rows(model)
    everything = model.q_logits(z, a, rows)
    assert torch.equal(model.q_logits(z, a, rows, heads=[2, 0]), everything[[2, 0]])


def test_what_is_shared_by_candidates_is_only_multiplied_once_but_counts_the_same() -> None:
    torch.manual_seed(0)
    network = Network(8 + 2 + 4, [16, 16], 8, last=SimNorm())
    z, a, e = torch.randn(1, 3, 8), torch.randn(5, 3, 2), torch.randn(3, 4)
    joint = torch.cat([z.expand(5, 3, 8), a, e.expand(5, 3, 4)], dim=-1)
    torch.testing.assert_close(network(z, a, e), network(joint))
    # A part of no entries is none.
    torch.testing.assert_close(network(joint[..., :-4], e, a[..., :0]), network(joint))


def test_dropout_is_in_the_first_layer_of_every_head_and_only_while_learning() -> None:
    model = world(dropout=0.5)
    with torch.no_grad():
        for critic in model.critics:
            last_linear(critic).weight.normal_()
        # All heads are the same network now.
        for critic in model.critics[1:]:
            critic.load_state_dict(model.critics[0].state_dict())
    z, a, rows = torch.rand(5, 8), torch.rand(5, 2), first_rows(model)
    plain = model.q_logits(z, a, rows)
    assert torch.equal(plain[0], plain[1])
    assert torch.equal(plain, model.q_logits(z, a, rows))
    dropped = model.q_logits(z, a, rows, stream=torch.Generator().manual_seed(0))
    assert not torch.allclose(dropped[0], dropped[1])
    assert not any(network.dropped for network in (model.encoder, model.dynamics, model.reward, model.actor))


def test_numbers_are_expectations_of_bins_in_symlog_space() -> None:
    model = world()
    assert model.bins.tolist() == pytest.approx(np.arange(-10, 10.1, 0.2).tolist(), abs=1e-5)
    logits = torch.full((101,), -1e9)
    logits[[51, 52]] = 0.0
    # Bins 0.2 and 0.4 by halves: symexp(0.3) = e^0.3 − 1; the mean of their symexps would be 0.3566.
    assert model.scalar(logits).item() == pytest.approx(np.expm1(0.3), rel=1e-5)
    logits[[48, 49]], logits[[51, 52]] = 0.0, -1e9
    assert model.scalar(logits).item() == pytest.approx(-np.expm1(0.3), rel=1e-5)


def test_regression_is_cross_entropy_to_the_two_bins_around() -> None:
    model = world()
    logits = torch.randn(101, generator=torch.Generator().manual_seed(0))
    log_p = torch.log_softmax(logits, -1)
    # symlog(e^0.25 − 1) = 0.25 lies a quarter of the way from bin 51 (0.2) to bin 52 (0.4).
    target = torch.tensor(np.expm1(0.25), dtype=torch.float32)
    expected = -(0.75 * log_p[51] + 0.25 * log_p[52])
    assert model.regression_loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-4)
    # Beyond the last bin there is nothing: symlog(10⁶) = 13.8.
    assert model.regression_loss(logits, torch.tensor(1e6)).item() == pytest.approx(-log_p[100].item(), rel=1e-4)


def test_discount_follows_the_length_of_each_tasks_episodes() -> None:
    spec = spec_of([3, 3, 3], [2, 2, 2])
    spec.max_episode_steps[:] = (500, 150, 5000)
    # (T/5 − 1)/(T/5): 99/100, 29/30, and 999/1000 limited to 0.995.
    assert world(spec).gamma.tolist() == pytest.approx([0.99, 29 / 30, 0.995])
    assert world(spec, gamma=0.9).gamma.tolist() == pytest.approx([0.9] * 3)


def test_deviation_of_the_policy_spans_its_limits() -> None:
    model = world()
    for raw, expected in ((-50.0, -10.0), (0.0, -4.0), (50.0, 2.0)):
        with torch.no_grad():
            last_linear(model.actor).weight.zero_()
            last_linear(model.actor).bias[2:] = raw
        policy = model.policy(torch.rand(4, 8), first_rows(model))
        # log σ = −10 + 6 (tanh + 1).
        assert policy.std.log().flatten().tolist() == pytest.approx([expected] * 8, abs=1e-5)


def test_padding_is_neither_read_nor_acted_on() -> None:
    model = world(spec_of([3, 1], [2, 1]))
    task, rows = torch.tensor([1, 1]), model.rows(torch.tensor([1, 1]))
    observation = torch.tensor([[0.5, 7.0, -3.0], [0.5, float("nan"), 0.0]])
    latent = model.encode(observation, task, rows)
    assert torch.equal(latent[0], latent[1])
    action = model.sample_action(latent, rows, torch.ones(2, 2))
    assert action[:, 0].all()
    assert not action[:, 1].any()


def test_tasks_are_told_apart_by_embeddings_no_longer_than_one() -> None:
    model = world(spec_of([3, 3], [2, 2]))
    rows, observation = first_rows(model, 2), torch.ones(2, 3)
    latent = model.encode(observation, torch.arange(2), rows)
    assert not torch.equal(latent[0], latent[1])
    z, a = torch.rand(1, 8).expand(2, 8), torch.rand(1, 2).expand(2, 2)
    for answer in (model.next(z, a, rows), model.policy(z, rows).mean, model.termination_logit(z, rows)):
        assert not torch.equal(answer[0], answer[1])
    with torch.no_grad():
        model.embedding.copy_(torch.tensor([[3.0, 0, 4.0, 0], [0.3, 0, 0.4, 0]]))
    model.bound_embeddings()
    # The first has length 5, the second 0.5.
    assert torch.allclose(model.embedding, torch.tensor([[0.6, 0, 0.8, 0], [0.3, 0, 0.4, 0]]), atol=1e-5)


def test_one_task_has_no_embedding() -> None:
    assert world().embedding.numel() == 0


def test_latents_are_groups_that_sum_to_one() -> None:
    model = world(simnorm_dim=4)
    rows = first_rows(model)
    z = model.encode(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), rows)
    for latent in (z, model.next(z, torch.rand(5, 2), rows)):
        assert torch.allclose(latent.view(5, 2, 4).sum(-1), torch.ones(5, 2))

"""World model: what learns, what is a target, what an end of an episode means (known errors 1, 3, 6)."""

from __future__ import annotations

import pytest
import torch
import torch.nn as nn

from m3po.algorithm.losses import model_loss, value_targets
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import EnvSpec
from m3po.kit.symlog import symlog
from tests.kit.test_symlog import two_hot

from .conftest import OBSERVATION, make_batch, make_spec, tiny


def loss_and_model(spec: EnvSpec, **changes: float):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    config = tiny(**changes)
    model = WorldModel(spec, config)
    batch = make_batch(spec)
    noise = torch.zeros_like(batch["action"])
    gamma = torch.full((spec.num_tasks,), 0.99)
    return model_loss(model, model, batch, gamma, noise, config, terminates=False), model, batch


def gradients(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_the_consistency_loss_trains_the_dynamics(spec: EnvSpec) -> None:
    loss, model, _ = loss_and_model(spec, reward_coef=0, value_coef=0)
    loss.total.backward()
    assert gradients(model.dynamics_net) > 0


def test_the_target_latent_carries_no_gradient(spec: EnvSpec) -> None:
    loss, _, _ = loss_and_model(spec)
    assert not loss.latents.requires_grad


def test_training_on_one_batch_halves_the_prediction_error(spec: EnvSpec) -> None:
    torch.manual_seed(0)
    config = tiny(reward_coef=0, value_coef=0)
    model, batch = WorldModel(spec, config), make_batch(spec)
    gamma, noise = torch.full((2,), 0.99), torch.zeros_like(batch["action"])
    optimizer = torch.optim.Adam(model.dynamics_net.parameters(), 1e-2)
    errors = []
    for _ in range(60):
        loss = model_loss(model, model, batch, gamma, noise, config, terminates=False)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        errors.append(float(loss.parts["consistency_loss"]))
    assert errors[-1] < errors[0] / 2


def constant_value(model: WorldModel, value: float) -> None:
    """Make every critic head predict ``value`` everywhere, through the bias of its last layer."""
    weights = two_hot(symlog(torch.tensor(value)), model.bins)
    for head in model.critics:
        last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.log(weights + 1e-12))


@pytest.mark.parametrize("critic", ["q", "v"])
@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        # Reward 1, V = 10, γ = 0.9, one step: 1 + 0.9 · 10 = 10; only termination cuts the bootstrap.
        (False, False, 10.0),
        (False, True, 10.0),
        (True, False, 1.0),
    ],
)
def test_truncation_bootstraps_and_termination_does_not(
    critic: str, terminated: bool, truncated: bool, expected: float
) -> None:
    spec = make_spec(tasks=1)
    model = WorldModel(spec, tiny(critic=critic))
    constant_value(model, 10.0)
    batch = make_batch(spec, horizon=1, size=1)
    batch["reward"].fill_(1.0)
    batch["terminated"].fill_(terminated)
    batch["truncated"].fill_(truncated)
    bound = TaskModel(model, batch["task"][0], torch.tensor([0.9]), terminates=True)
    latents = model.encode(batch["next_observation"], batch["task"])
    target = value_targets(bound, bound, latents, batch, torch.zeros_like(batch["action"]), lam=0.8)
    assert target.item() == pytest.approx(expected, rel=1e-4)


def test_the_next_episode_does_not_leak_through_an_end(spec: EnvSpec) -> None:
    _, model, batch = loss_and_model(spec)
    batch["truncated"][1] = True
    gamma, noise, config = torch.full((2,), 0.9), torch.zeros_like(batch["action"]), tiny()
    before = model_loss(model, model, batch, gamma, noise, config, terminates=False)
    for name in ("observation", "next_observation", "reward", "action"):
        batch[name][2] += 7.0
    after = model_loss(model, model, batch, gamma, noise, config, terminates=False)
    assert before.total.item() == after.total.item()


def test_nothing_maps_back_to_the_observation(spec: EnvSpec) -> None:
    """No decoder: only the encoder's first layer knows the size of an observation, as its input."""
    model = WorldModel(spec, tiny())
    outputs = {name: layer.out_features for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    assert OBSERVATION not in outputs.values()
    inputs = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.in_features >= OBSERVATION
    ]
    assert inputs == ["encoder.0.0"]


def test_padded_entries_change_nothing(spec: EnvSpec) -> None:
    _, model, batch = loss_and_model(spec)
    gamma, noise, config = torch.full((2,), 0.9), torch.zeros_like(batch["action"]), tiny()
    before = model_loss(model, model, batch, gamma, noise, config, terminates=False)
    padded = ~torch.from_numpy(spec.observation_mask)[batch["task"]]
    for name in ("observation", "next_observation"):
        batch[name][padded] += 3.0
    after = model_loss(model, model, batch, gamma, noise, config, terminates=False)
    assert before.total.item() == after.total.item()


def test_untrained_heads_predict_zero(spec: EnvSpec) -> None:
    model = WorldModel(spec, tiny())
    batch = make_batch(spec)
    task = batch["task"][0]
    bound = TaskModel(model, task, torch.full((6,), 0.99), terminates=False)
    z = model.encode(batch["observation"][0], task)
    _, reward, _ = bound.step(z, batch["action"][0])
    torch.testing.assert_close(reward, torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(bound.value(z), torch.zeros(6), atol=1e-6, rtol=0)

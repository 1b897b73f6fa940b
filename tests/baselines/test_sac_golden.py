"""One update of SAC is that of Stable-Baselines3 from the same weights, batch and noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.sac.agent import SAC
from baselines.sac.config import SACConfig
from baselines.sac.networks import ReluNets
from baselines.sac.replay import Batch
from m3po.kit.seeding import generator
from tests.baselines.toys import spec_of

gymnasium = pytest.importorskip("gymnasium")
sb3 = pytest.importorskip("stable_baselines3", reason="compares with Stable-Baselines3; install the extra 'dev'")

D, A, B = 5, 3, 64
HIDDEN = (32, 32)
UPDATES = 3


def agent() -> SAC:
    return SAC(spec_of([D], [A]), SACConfig(hidden=HIDDEN), seed=0, device="cpu")


class Spaces(gymnasium.Env):  # type: ignore[misc, name-defined]
    """Nothing but spaces, from which Stable-Baselines3 makes its networks."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (D,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (A,), np.float32)


def reference() -> Any:
    torch.manual_seed(0)
    model = sb3.SAC("MlpPolicy", Spaces(), policy_kwargs={"net_arch": list(HIDDEN)}, device="cpu", buffer_size=1)
    model.set_logger(sb3.common.logger.Logger(None, []))
    # It takes log(1 − a² + 1e-6) for log(1 − a²), which shows where actions come near ±1; a smaller σ keeps them away.
    with torch.no_grad():
        model.actor.log_std.bias.fill_(-1.5)
    return model


def linear(*modules: nn.Module) -> list[nn.Linear]:
    return [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)]


def actor_layers(model: Any) -> list[tuple[Tensor, Tensor]]:
    """Weights ``[1, in, out]`` and biases ``[1, 1, out]`` of its actor, as ours has them: mean, log σ in one layer."""
    *hidden, mean, log_std = linear(model.actor.latent_pi, model.actor.mu, model.actor.log_std)
    pairs = [(layer.weight, layer.bias) for layer in hidden]
    pairs.append((torch.cat([mean.weight, log_std.weight]), torch.cat([mean.bias, log_std.bias])))
    return [(weight.detach().T[None], bias.detach()[None, None]) for weight, bias in pairs]


def critic_layers(critic: Any) -> list[tuple[Tensor, Tensor]]:
    """The same of its two critics, side by side."""
    layers = zip(*(linear(network) for network in critic.q_networks), strict=True)
    return [
        (
            torch.stack([layer.weight.detach().T for layer in both]),
            torch.stack([layer.bias.detach()[None] for layer in both]),
        )
        for both in layers
    ]


@torch.no_grad()
def copy_into(nets: ReluNets, layers: list[tuple[Tensor, Tensor]]) -> None:
    for weight, bias, (new_weight, new_bias) in zip(nets.weights, nets.biases, layers, strict=True):
        weight.copy_(new_weight)
        bias.copy_(new_bias)


def assert_equal(nets: ReluNets, layers: list[tuple[Tensor, Tensor]]) -> None:
    for weight, bias, (expected_weight, expected_bias) in zip(nets.weights, nets.biases, layers, strict=True):
        torch.testing.assert_close(weight.detach(), expected_weight, atol=1e-5, rtol=0)
        torch.testing.assert_close(bias.detach(), expected_bias, atol=1e-5, rtol=0)


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(
        observation=torch.randn(B, D, generator=draw),
        action=2 * torch.rand(B, A, generator=draw) - 1,
        reward=torch.randn(B, generator=draw),
        next_observation=torch.randn(B, D, generator=draw),
        terminated=(torch.rand(B, generator=draw) < 0.2).float(),
        task=torch.zeros(B, dtype=torch.int64),
    )


def replayed(rows: Batch) -> SimpleNamespace:
    """The batch as Stable-Baselines3 has it from its buffer."""
    return SimpleNamespace(
        observations=rows.observation,
        actions=rows.action,
        rewards=rows.reward[:, None],
        next_observations=rows.next_observation,
        dones=rows.terminated[:, None],
        discounts=None,
    )


def test_updates_are_those_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = agent(), reference()
    copy_into(ours.actor, actor_layers(theirs))
    copy_into(ours.critics, critic_layers(theirs.critic))
    copy_into(ours.targets, critic_layers(theirs.critic_target))
    # Both sample the policy at the observations first and at the next ones then.
    noise = generator(0, "update")
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal",
        lambda shape, dtype, device: torch.randn(shape, generator=noise),
    )
    for update in range(UPDATES):
        rows = batch(update)
        critic_loss, actor_loss, temperature_loss, temperature = ours._learn(rows)[:4].tolist()
        monkeypatch.setattr(theirs.replay_buffer, "sample", lambda size, env, rows=rows: replayed(rows))
        theirs.train(gradient_steps=1, batch_size=B)
        logged = theirs.logger.name_to_value
        assert critic_loss == pytest.approx(logged["train/critic_loss"], abs=1e-5)
        assert actor_loss == pytest.approx(logged["train/actor_loss"], abs=1e-5)
        assert temperature_loss == pytest.approx(logged["train/ent_coef_loss"], abs=1e-5)
        assert temperature == pytest.approx(logged["train/ent_coef"], abs=1e-5)
    assert_equal(ours.actor, actor_layers(theirs))
    assert_equal(ours.critics, critic_layers(theirs.critic))
    assert_equal(ours.targets, critic_layers(theirs.critic_target))
    torch.testing.assert_close(ours.temperature.log.detach(), theirs.log_ent_coef.detach(), atol=1e-5, rtol=0)

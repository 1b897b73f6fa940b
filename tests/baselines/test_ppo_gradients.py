"""The gradients written out are autograd's of the losses they belong to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from baselines.ppo.gradients import policy_gradient, value_gradient
from baselines.ppo.networks import ActorCritic
from m3po.kit.distributions import gaussian_log_prob
from m3po.kit.trust_region import clipped_surrogate

B, D, A, K = 32, 5, 3, 4
CLIP, ENTROPY_COEF, VALUE_COEF = 0.2, 0.01, 0.5


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def actor_critic(num_tasks: int = 1) -> ActorCritic:
    """With gradients of another step still there, which count for nothing."""
    torch.manual_seed(0)
    model = ActorCritic(D, (7, 6), A, initial_std=0.7, num_tasks=num_tasks)
    with torch.no_grad():
        model.log_std += 0.1 * torch.randn(model.log_std.shape)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return model


def assert_gradients(parameters: list[nn.Parameter], loss: Tensor) -> None:
    for p, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_tasks", [1, K])
def test_policy_gradient(num_tasks: int) -> None:
    model, features, action = actor_critic(num_tasks), drawn(B, D, seed=1), drawn(B, A, seed=2)
    task = torch.arange(B) % 3 % num_tasks  # of four tasks the last is not there
    mask = (drawn(B, A, seed=3) > -0.5).double()  # as where tasks have different actions
    advantage = drawn(B, seed=4)
    log_prob = gaussian_log_prob(model.policy(features, task), action, mask)
    # Ratios of 0.6 to 1.6, on both sides of the clip, with advantages of either sign.
    old = (log_prob - torch.linspace(-0.5, 0.5, B)).detach()
    found = policy_gradient(model, features, task, action, mask, old, advantage, clip=CLIP, entropy_coef=ENTROPY_COEF)

    loss = -clipped_surrogate(log_prob, old, advantage, CLIP).mean()
    entropy = (mask * torch.distributions.Normal(0.0, model.log_std[task].exp()).entropy()).sum(-1).mean()
    assert_gradients([*model.actor.parameters(), model.log_std], loss - ENTROPY_COEF * entropy)
    assert found.loss.item() == pytest.approx(loss.item())
    assert found.entropy.item() == pytest.approx(entropy.item())
    torch.testing.assert_close(found.log_ratio, (log_prob - old).detach())


@pytest.mark.parametrize("clip", [None, 0.5])
def test_value_gradient(clip: float | None) -> None:
    model, features, target = actor_critic(), drawn(B, D, seed=1), drawn(B, seed=2)
    value = model.value(features)
    # Moves of −1 to 1, so that half of them are clipped; targets on either side.
    old = (value - torch.linspace(-1, 1, B)).detach()
    found = value_gradient(model, features, old, target, clip=clip, coef=VALUE_COEF)

    loss = (value - target) ** 2
    if clip is not None:
        loss = torch.maximum(loss, (old + (value - old).clamp(-clip, clip) - target) ** 2)
    assert_gradients(list(model.critic.parameters()), VALUE_COEF * loss.mean())
    assert found.item() == pytest.approx(loss.mean().item())

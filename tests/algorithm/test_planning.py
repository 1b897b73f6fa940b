"""The planner on a world whose best action is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from m3po.kit.distributions import Gaussian
from m3po.kit.planning import imagine, plan, weigh


class Line:
    """z' = z + a, reward −z'², prior N(0, 1): from z the best action is −z."""

    def prior(self, latent: Tensor) -> Gaussian:
        return Gaussian(torch.zeros_like(latent), torch.ones_like(latent))

    def step(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = latent + action
        return following, -(following.squeeze(-1) ** 2), torch.full_like(latent.squeeze(-1), 0.5)

    def value(self, latent: Tensor) -> Tensor:
        return latent.squeeze(-1)


def test_imagined_returns_by_hand() -> None:
    # u = 0 stays at z = 2: rewards −4, −4, value 2, γ = ½: −4 + ½ (−4) + ¼ · 2 = −5.5.
    found = imagine(Line(), torch.full((1, 1, 1), 2.0), lambda t, z: torch.zeros_like(z), 2)
    assert found.returns.item() == pytest.approx(-5.5)
    assert found.u.shape == (2, 1, 1, 1)


def test_weights_do_not_depend_on_the_scale_of_rewards() -> None:
    returns = torch.tensor([[1.0], [2.0], [3.0]])
    # std = 1, so w ∝ (e⁻², e⁻¹, 1) at κ = 1.
    expected = torch.softmax(torch.tensor([-2.0, -1.0, 0.0]), 0)
    torch.testing.assert_close(weigh(returns, 1.0)[:, 0], expected)
    torch.testing.assert_close(weigh(1000 * returns + 7, 1.0)[:, 0], expected)


@pytest.mark.parametrize("iterations", [1, 4])
def test_it_finds_the_best_action_for_all_environments_at_once(iterations: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(iterations, 1, 512, 3, 1, generator=generator)
    start = torch.tensor([[0.5], [0.0], [-0.5]])
    world = Line()
    world.value = lambda latent: torch.zeros_like(latent.squeeze(-1))  # type: ignore[method-assign]
    found = plan(world, start, noise, temperature=8.0, min_std=0.01)
    torch.testing.assert_close(torch.tanh(found.first.mean), -start, atol=0.1, rtol=0)
    assert found.weights.sum(0).allclose(torch.ones(3))


def test_refitting_narrows_the_search() -> None:
    noise = torch.randn(4, 1, 256, 1, 1, generator=torch.Generator().manual_seed(0))
    start = torch.zeros(1, 1)
    one = plan(Line(), start, noise[:1], temperature=3.0, min_std=0.01)
    four = plan(Line(), start, noise, temperature=3.0, min_std=0.01)
    assert four.first.std.item() < one.first.std.item()


def test_the_warm_start_is_a_candidate_where_it_is_known() -> None:
    noise = torch.full((1, 2, 4, 2, 1), 9.0)
    warm = torch.tensor([[[0.25], [torch.nan]], [[torch.nan], [torch.nan]]])
    found = plan(Line(), torch.zeros(2, 1), noise, temperature=1.0, min_std=0.1, warm_start=warm)
    assert found.candidates.u[0, 0, 0, 0].item() == 0.25
    assert found.candidates.u[0, 0, 1, 0].item() == 9.0
    assert found.candidates.u[1, 0, 0, 0].item() == 9.0

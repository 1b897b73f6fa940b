"""The clipped objective case by case, the KL estimate, the adaptive penalty."""

from __future__ import annotations

import math

import pytest
import torch

from m3po.kit.trust_region import adapt_penalty, approximate_kl, clipped_surrogate


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.1, 2.0, 2.2, True),  # inside: ρA
        (1.5, 2.0, 2.4, False),  # gained enough: 1.2·2, no gradient
        (0.5, 2.0, 1.0, True),  # lost: ρA, so that it can come back
        (0.5, -2.0, -1.6, False),  # gained enough by avoiding: 0.8·(−2)
        (1.5, -2.0, -3.0, True),  # does more of what is bad: ρA
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, expected: float, slope: bool) -> None:
    log_prob = torch.tensor([math.log(ratio)], requires_grad=True)
    objective = clipped_surrogate(log_prob, torch.zeros(1), torch.tensor([advantage]), clip=0.2)
    assert objective.item() == pytest.approx(expected)
    objective.sum().backward()
    # d(ρA)/d log π = ρA.
    assert log_prob.grad is not None
    assert log_prob.grad.item() == pytest.approx(ratio * advantage if slope else 0)


def test_clipped_surrogate_refuses_unequal_shapes() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        clipped_surrogate(torch.zeros(2), torch.zeros(2), torch.zeros(2, 1), 0.2)


def test_approximate_kl_by_hand() -> None:
    # Log-ratios ln 2 and 0: ((2 − 1) − ln 2 + 0)/2.
    found = approximate_kl(torch.tensor([math.log(2), 1.0]), torch.tensor([0.0, 1.0]))
    assert found.item() == pytest.approx((1 - math.log(2)) / 2)


def test_approximate_kl_is_unbiased() -> None:
    # KL(N(0, 1) ‖ N(0.5, 1)) = 0.5²/2 = 0.125, from samples of the old policy N(0, 1).
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert approximate_kl(-0.5 * (x - 0.5) ** 2, -0.5 * x**2).item() == pytest.approx(0.125, abs=0.003)


@pytest.mark.parametrize(("kl", "expected"), [(0.2, 1.5), (0.11, 1.0), (0.1, 1.0), (0.07, 1.0), (0.05, 1 / 1.5)])
def test_adapt_penalty(kl: float, expected: float) -> None:
    # Target 0.1: stronger above 0.15, weaker below 0.0667.
    assert adapt_penalty(1.0, kl, target=0.1) == pytest.approx(expected)


def test_adapt_penalty_stays_within_its_limits() -> None:
    assert adapt_penalty(900.0, 1.0, 0.1) == 1000
    assert adapt_penalty(0.0011, 0.0, 0.1) == 0.001

"""Gaussian policies against torch's own distributions and against integrals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from m3po.kit.distributions import (
    Gaussian,
    bounded_gaussian,
    gaussian_kl,
    gaussian_log_prob,
    squashed_log_prob,
    squashed_sample,
)

GENERATOR = torch.Generator().manual_seed(0)
P = Gaussian(torch.randn(7, 3, generator=GENERATOR), torch.rand(7, 3, generator=GENERATOR) + 0.2)
Q = Gaussian(torch.randn(7, 3, generator=GENERATOR), torch.rand(7, 3, generator=GENERATOR) + 0.2)
ALL = torch.ones(7, 3)


def test_bounded_gaussian_by_hand() -> None:
    # Means 1, −2, 3, then x = 0, −100, 7; the last entry does not exist.
    outputs = torch.tensor([1.0, -2.0, 3.0, 0.0, -100.0, 7.0])
    found = bounded_gaussian(outputs, torch.tensor([1.0, 1.0, 0.0]), -3.0, 1.0)
    assert found.mean.tolist() == [1, -2, 0]
    # tanh 0 = 0 is the middle of [−3, 1]; tanh −100 = −1 is its lower end.
    assert found.std.tolist() == pytest.approx([math.exp(-1), math.exp(-3), 1.0])


def test_log_prob_by_hand() -> None:
    dist = Gaussian(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 3.0]))
    # Only the first entry exists: z = (3 − 1)/2 = 1; −0.5·1 − 0.5 ln 2π − ln 2.
    found = gaussian_log_prob(dist, torch.tensor([3.0, 100.0]), torch.tensor([1.0, 0.0]))
    assert found.item() == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi) - math.log(2))


def test_log_prob_agrees_with_torch() -> None:
    u = P.sample(torch.randn(7, 3, generator=GENERATOR))
    assert torch.allclose(gaussian_log_prob(P, u, ALL), Independent(Normal(*P), 1).log_prob(u), atol=1e-5)


def test_squashed_log_prob_agrees_with_torch() -> None:
    u = P.sample(torch.randn(7, 3, generator=GENERATOR))
    squashed = Independent(TransformedDistribution(Normal(*P), TanhTransform(cache_size=1)), 1)
    assert torch.allclose(squashed_log_prob(P, u, ALL), squashed.log_prob(torch.tanh(u)), atol=1e-3)


def test_squashed_log_prob_is_a_density() -> None:
    # ∫ p(a) da over (−1, 1) = ∫ p(tanh u) (1 − tanh²u) du = 1.
    u = torch.linspace(-15, 15, 20001, dtype=torch.float64)[:, None]
    dist = Gaussian(torch.full_like(u, 0.3), torch.full_like(u, 0.8))
    density = squashed_log_prob(dist, u, torch.ones_like(u)).exp() * (1 - torch.tanh(u[:, 0]) ** 2)
    assert torch.trapezoid(density, u[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_squashed_log_prob_stays_finite_far_out() -> None:
    # log(1 − tanh²u) = 2 ln 2 − 2|u| for large |u|; computed from tanh(u) = ±1 it would be −∞.
    dist = Gaussian(torch.zeros(1), torch.ones(1))
    for u in (50.0, -50.0):
        expected = -0.5 * u**2 - 0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * abs(u))
        assert squashed_log_prob(dist, torch.tensor([u]), torch.ones(1)).item() == pytest.approx(expected)


def test_squashed_sample_is_the_action_with_its_log_prob() -> None:
    noise = torch.randn(7, 3, generator=GENERATOR)
    mask = torch.tensor([1.0, 0.0, 1.0]).expand(7, 3)
    action, log_prob = squashed_sample(P, noise, mask)
    assert torch.equal(action, mask * torch.tanh(P.sample(noise)))
    assert torch.allclose(log_prob, squashed_log_prob(P, P.sample(noise), mask), atol=1e-5)


def test_squashed_sample_has_the_gradients_of_its_log_prob() -> None:
    mean, std = (tensor.double().requires_grad_() for tensor in P)
    noise = torch.randn(7, 3, dtype=torch.float64, generator=GENERATOR)
    dist = Gaussian(mean, std)
    expected = torch.autograd.grad(squashed_log_prob(dist, dist.sample(noise), ALL.double()).sum(), (mean, std))
    found = torch.autograd.grad(squashed_sample(dist, noise, ALL.double())[1].sum(), (mean, std))
    assert torch.allclose(torch.stack(found), torch.stack(expected))


def test_squashed_sample_stays_exact_where_the_deviation_is_tiny() -> None:
    # u = 1 + 1e-9 · 2 rounds to 1, from which the noise cannot be had back.
    dist = Gaussian(torch.ones(1), torch.full((1,), 1e-9))
    _, log_prob = squashed_sample(dist, torch.full((1,), 2.0), torch.ones(1))
    expected = -0.5 * 2**2 - 0.5 * math.log(2 * math.pi) - math.log(1e-9) - math.log(1 - math.tanh(1) ** 2)
    assert log_prob.item() == pytest.approx(expected)


def test_kl_agrees_with_torch() -> None:
    expected = kl_divergence(Independent(Normal(*P), 1), Independent(Normal(*Q), 1))
    assert torch.allclose(gaussian_kl(P, Q, ALL), expected, atol=1e-4)
    assert torch.allclose(gaussian_kl(P, P, ALL), torch.zeros(7), atol=1e-6)


def test_padded_entries_count_for_nothing() -> None:
    mask = torch.tensor([1.0, 0.0, 1.0]).expand(7, 3)
    u = P.sample(torch.randn(7, 3, generator=GENERATOR))
    other = u.clone()
    other[:, 1] = 3.0
    moved = Gaussian(Q.mean.clone(), Q.std)
    moved.mean[:, 1] = 9.0
    for log_prob in (gaussian_log_prob, squashed_log_prob):
        assert torch.equal(log_prob(P, u, mask), log_prob(P, other, mask))
    assert torch.equal(gaussian_kl(P, Q, mask), gaussian_kl(P, moved, mask))

"""Returns computed by hand, and their limits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m3po.kit.returns import alive, discount_for_length, gae, lambda_returns


def column(*values: float) -> torch.Tensor:
    """``[T, 1]``."""
    return torch.tensor(values, dtype=torch.float32)[:, None]


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None]


def test_gae_by_hand() -> None:
    advantage = gae(column(1, 2), column(0.5, 1.0), column(1.0, 3.0), flags(0, 0), flags(0, 0), gamma=0.5, lam=0.5)
    # δ₁ = 2 + 0.5·3 − 1 = 2.5; δ₀ = 1 + 0.5·1 − 0.5 = 1; A₁ = 2.5; A₀ = 1 + 0.25·2.5 = 1.625.
    assert advantage.flatten().tolist() == [1.625, 2.5]


def test_gae_bootstraps_through_truncation_but_does_not_chain_episodes() -> None:
    advantage = gae(column(1, 2), column(0.5, 1.0), column(4.0, 3.0), flags(0, 0), flags(1, 0), gamma=0.5, lam=0.5)
    # Truncated after the first step: δ₀ = 1 + 0.5·4 − 0.5 = 2.5 with the true successor's value, and A₁ stays outside.
    assert advantage.flatten().tolist() == [2.5, 2.5]


def test_gae_cuts_at_termination() -> None:
    advantage = gae(column(1, 2), column(0.5, 1.0), column(4.0, 3.0), flags(1, 0), flags(1, 0), gamma=0.5, lam=0.5)
    # δ₀ = 1 − 0.5: nothing follows.
    assert advantage.flatten().tolist() == [0.5, 2.5]


@given(st.integers(0, 10**6))
def test_gae_with_lambda_one_is_the_discounted_return_minus_the_value(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    T, gamma = 6, 0.9
    reward = torch.randn(T, 2, generator=generator)
    states = torch.randn(T + 1, 2, generator=generator)
    none = torch.zeros(T, 2, dtype=torch.bool)
    advantage = gae(reward, states[:-1], states[1:], none, none, gamma, lam=1.0)
    discounts = gamma ** torch.arange(T)[:, None]
    monte_carlo = (discounts * reward).sum(0) + gamma**T * states[-1]
    assert torch.allclose(advantage[0], monte_carlo - states[0], atol=1e-5)


@given(st.integers(0, 10**6))
def test_gae_with_lambda_zero_is_the_one_step_error(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward, value, following = torch.randn(3, 5, 2, generator=generator)
    terminated = torch.rand(5, 2, generator=generator) < 0.3
    advantage = gae(reward, value, following, terminated, terminated, 0.9, lam=0.0)
    assert torch.allclose(advantage, reward + 0.9 * following * ~terminated - value)


def test_gae_takes_a_discount_per_column() -> None:
    none = torch.zeros(1, 2, dtype=torch.bool)
    one = torch.ones(1, 2)
    advantage = gae(one, 0 * one, one, none, none, torch.tensor([0.5, 0.9]), 0.95)
    assert advantage.tolist() == [[1.5, pytest.approx(1.9)]]


def test_gae_refuses_unequal_shapes() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        gae(column(1, 2), column(1), column(1, 2), flags(0, 0), flags(0, 0), 0.9, 0.9)


def test_lambda_returns_by_hand() -> None:
    returns = lambda_returns(column(1, 2), column(4, 8), column(0.5, 0.5), lam=0.5)
    # G₁ = 2 + 0.5·8 = 6; G₀ = 1 + 0.5 (0.5·4 + 0.5·6) = 3.5.
    assert returns.flatten().tolist() == [3.5, 6]


def test_lambda_returns_bootstrap_where_the_chain_is_broken() -> None:
    returns = lambda_returns(column(1, 2), column(4, 8), column(0.5, 0.5), lam=0.5, chain=flags(0, 1))
    # Row 1 is another episode: G₀ = 1 + 0.5·4 = 3.
    assert returns.flatten().tolist() == [3, 6]


def test_lambda_returns_stop_at_termination() -> None:
    returns = lambda_returns(column(1, 2), column(4, 8), column(0, 0.5), lam=0.5)
    assert returns.flatten().tolist() == [1, 6]


def test_lambda_returns_agree_with_gae() -> None:
    # The TD(λ) return is the advantage plus the value, also where episodes end.
    generator = torch.Generator().manual_seed(0)
    reward, value, following = torch.randn(3, 20, 4, generator=generator)
    terminated = torch.rand(20, 4, generator=generator) < 0.1
    ended = terminated | (torch.rand(20, 4, generator=generator) < 0.1)
    # On unended rows the successor's value is the next row's value, else the two recursions differ by definition.
    following[:-1] = torch.where(ended[:-1], following[:-1], value[1:])
    advantage = gae(reward, value, following, terminated, ended, 0.9, 0.8)
    returns = lambda_returns(reward, following, 0.9 * ~terminated, 0.8, chain=~ended)
    assert torch.allclose(returns, advantage + value, atol=1e-5)


def test_alive_ends_with_the_episode() -> None:
    # Ended by the first, the second, the last of three steps, and never: states s₀ … s₃.
    ended = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    assert alive(ended).T.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_discount_for_length() -> None:
    # T/5 = 100 → 99/100; T/5 = 5 → 4/5, raised to 0.95; T/5 = 1000 → 0.999, lowered to 0.995.
    assert discount_for_length(torch.tensor([500, 25, 5000])).tolist() == pytest.approx([0.99, 0.95, 0.995])

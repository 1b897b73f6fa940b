"""Symlog and two-hot coding, by hand and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from m3po.kit.symlog import (
    symexp,
    symexp_bins,
    symlog,
    symlog_loss,
    symlog_mean,
    symmetric_two_hot_mean,
    two_hot_loss,
    two_hot_losses,
)

BINS = torch.tensor([-1.0, 0.0, 2.0])


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """Weights ``[..., n]``: the i-th is 1 where x is the i-th bin, 0 at all others, linear between, level beyond."""
    weights = [np.interp(x.detach().numpy(), bins.numpy(), bin_i) for bin_i in np.eye(len(bins))]
    return torch.from_numpy(np.stack(weights, -1)).to(bins)


def test_symlog_by_hand() -> None:
    # sign(x) ln(|x| + 1): ln e = 1.
    assert symlog(torch.tensor([0.0, math.e - 1, 1 - math.e])).tolist() == pytest.approx([0, 1, -1])


@given(st.floats(-1e6, 1e6))
def test_symexp_inverts_symlog(x: float) -> None:
    value = torch.tensor(x, dtype=torch.float64)
    assert symexp(symlog(value)).item() == pytest.approx(x, rel=1e-9, abs=1e-9)


def test_symexp_bins_are_symmetric_around_an_exact_zero() -> None:
    bins = symexp_bins(5, limit=2.0)
    # symexp of −2, −1, 0, 1, 2: e − 1 = 1.718, e² − 1 = 6.389.
    assert bins.tolist() == pytest.approx([-6.389056, -1.718282, 0, 1.718282, 6.389056])
    assert torch.equal(bins, -bins.flip(0))
    with pytest.raises(ValueError, match="odd"):
        symexp_bins(4)


def test_two_hot_by_hand() -> None:
    # 0.5 lies a quarter of the way from 0 to 2; −3 is clipped to the first bin, 9 to the last; 0 is a bin.
    weights = two_hot(torch.tensor([0.5, -3.0, 9.0, 0.0]), BINS)
    assert weights.tolist() == [[0, 0.75, 0.25], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_two_hot_loss_is_a_cross_entropy() -> None:
    # On the bins, between them and beyond them.
    x = torch.linspace(-3, 4, 71)
    logits = torch.randn(71, 3, generator=torch.Generator().manual_seed(0))
    expected = -(two_hot(x, BINS) * torch.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(two_hot_loss(logits, x, BINS), expected)


def test_two_hot_loss_by_hand() -> None:
    # Uniform logits: every log-probability is −ln 3, and the weights sum to one.
    assert two_hot_loss(torch.zeros(1, 3), torch.tensor([0.5]), BINS).item() == pytest.approx(math.log(3))
    # Weights 0.75 on p = 1/2 and 0.25 on p = 1/4: −0.75 ln(1/2) − 0.25 ln(1/4).
    logits = torch.log(torch.tensor([[0.25, 0.5, 0.25]]))
    expected = 0.75 * math.log(2) + 0.25 * math.log(4)
    assert two_hot_loss(logits, torch.tensor([0.5]), BINS).item() == pytest.approx(expected)


def test_numbers_over_bins_in_symlog_space() -> None:
    bins = torch.tensor([-1.0, 0.0, 1.0])
    logits = torch.log(torch.tensor([[0.125, 0.25, 0.625]]))
    # symexp(0.625 − 0.125) = e^½ − 1, which is half of the way from bin 0 to bin 1.
    x = torch.tensor([math.exp(0.5) - 1])
    assert symlog_mean(logits, bins).item() == pytest.approx(x.item())
    assert symlog_loss(logits, x, bins).item() == pytest.approx(-0.5 * math.log(0.25) - 0.5 * math.log(0.625))


def test_two_hot_loss_is_least_at_the_target() -> None:
    target = torch.tensor([0.5])
    logits = torch.zeros(1, 3, requires_grad=True)
    two_hot_loss(logits, target, BINS).backward()
    # The gradient of a cross-entropy is the prediction minus the weights: 1/3 − (0, 3/4, 1/4).
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([1 / 3, 1 / 3 - 0.75, 1 / 3 - 0.25])


def test_one_prediction_against_several_targets() -> None:
    log_probs = torch.log(torch.tensor([[0.25, 0.5, 0.25]]))
    # 0.5 as above; 2 is the last bin, whose probability is 1/4.
    expected = [0.75 * math.log(2) + 0.25 * math.log(4), math.log(4)]
    assert two_hot_losses(log_probs, torch.tensor([[0.5, 2.0]]), BINS)[0].tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="do not match"):
        two_hot_losses(log_probs, torch.tensor([0.5]), BINS)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="vector of at least two"):
        two_hot_loss(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="do not match targets"):
        two_hot_loss(torch.zeros(2, 3), torch.zeros(3), BINS)


def test_symmetric_two_hot_mean() -> None:
    logits = torch.log(torch.tensor([[0.125, 0.25, 0.625]]))
    # 0.125·(−2) + 0.25·0 + 0.625·2 = 1.
    assert symmetric_two_hot_mean(logits, torch.tensor([-2.0, 0.0, 2.0])).item() == pytest.approx(1.0)
    bins = symexp_bins(255)
    # The plain float32 sum over bins up to e²⁰ is not zero: it is off by tens.
    assert symmetric_two_hot_mean(torch.zeros(2, 255), bins).tolist() == [0, 0]
    # In double precision: bins of e²⁰ cancel to what is left of them.
    logits = torch.randn(50, 255, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (torch.softmax(logits, -1) * bins.double()).sum(-1)
    torch.testing.assert_close(symmetric_two_hot_mean(logits, bins.double()), expected)
    with pytest.raises(ValueError, match="odd"):
        symmetric_two_hot_mean(torch.zeros(1, 2), torch.tensor([-1.0, 1.0]))

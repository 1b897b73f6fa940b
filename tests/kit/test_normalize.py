"""Running statistics against those of the whole data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m3po.kit.normalize import PercentileScale, RunningMoments, standardise, sum_by_group

# The moments begin as 1e-4 of an observation 0 with variance 1, which shifts them by about 1e-4 / count.
PRIOR = 1e-3


def test_moments_by_hand() -> None:
    moments = RunningMoments(1)
    moments.update(torch.tensor([[1.0], [3.0]]))
    # Mean 2, variance ((1 − 2)² + (3 − 2)²)/2 = 1.
    assert moments.mean.item() == pytest.approx(2, abs=PRIOR)
    assert moments.var.item() == pytest.approx(1, abs=PRIOR)
    assert moments.normalize(torch.tensor([[4.0]])).item() == pytest.approx(2, abs=PRIOR)
    assert moments.std().item() == pytest.approx(1, abs=PRIOR)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 10**6))
def test_moments_do_not_depend_on_how_the_data_is_cut(sizes: list[int], seed: int) -> None:
    x = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole, parts = RunningMoments(2), RunningMoments(2)
    whole.update(x)
    for part in x.split(sizes):
        parts.update(part)
    assert torch.allclose(whole.mean, parts.mean, atol=1e-9)
    assert torch.allclose(whole.var, parts.var, atol=1e-9)


def test_groups_are_kept_apart() -> None:
    moments = RunningMoments(1, groups=3)
    x = torch.tensor([[1.0], [10.0], [3.0], [30.0]])
    group = torch.tensor([0, 1, 0, 1])
    moments.update(x, group)
    # Group 0 saw 1 and 3; group 1 saw 10 and 30: mean 20, variance 100; group 2 nothing.
    assert moments.mean.flatten().tolist() == pytest.approx([2, 20, 0], abs=20 * PRIOR)
    assert moments.var.flatten().tolist() == pytest.approx([1, 100, 1], abs=20 * PRIOR)
    assert moments.normalize(x, group).flatten().tolist() == pytest.approx([-1, -1, 1, 1], abs=PRIOR)
    assert moments.std(group).flatten().tolist() == pytest.approx([1, 10, 1, 10], abs=20 * PRIOR)


def test_a_short_memory_keeps_the_newest() -> None:
    moments = RunningMoments(1, 2, memory=4)
    moments.update(torch.tensor([[5.0], [7.0], [100.0]]), torch.tensor([0, 0, 1]))
    moments.update(torch.tensor([[1.0], [1.0], [4.0]]), torch.tensor([0, 0, 0]))
    # group 0: three new rows (mean 2, variance 2) and the weight of one for the two before (mean 6, variance 1)
    assert moments.mean[0].item() == pytest.approx((3 * 2 + 6) / 4, abs=PRIOR)
    assert moments.var[0].item() == pytest.approx((3 * 2 + 1 + 16 * 3 / 4) / 4, abs=PRIOR)
    # group 1 was not there and is as it was
    assert moments.mean[1].item() == pytest.approx(100, rel=PRIOR)
    rows = torch.tensor([[0.1], [0.7], [0.2], [0.4], [0.9]])
    moments.update(rows, torch.zeros(5, dtype=torch.int64))
    assert moments.mean[0].item() == rows.double().mean().item()  # to the last bit: nothing before is left


def test_values_far_away_keep_their_spread() -> None:
    # The textbook E[x²] − E[x]² in float32 would lose a variance of 1 beside (10⁴)².
    moments = RunningMoments(1)
    for _ in range(1000):
        moments.update(torch.tensor([[1e4 - 1], [1e4 + 1]]))
    # What the prior adds: 1e-4 · (10⁴)² / 2000 = 5.
    assert moments.var.item() == pytest.approx(1 + 5, abs=PRIOR)


def test_normalized_values_are_clipped_float32() -> None:
    found = RunningMoments(1).normalize(torch.tensor([[1e6]], dtype=torch.float64), clip=5)
    assert found.item() == 5
    assert found.dtype == torch.float32


def test_moments_are_saved_with_the_module() -> None:
    moments, other = RunningMoments(1), RunningMoments(1)
    moments.update(torch.tensor([[1.0], [3.0]]))
    other.load_state_dict(moments.state_dict())
    assert torch.equal(other.var, moments.var)


def test_first_batch_sets_the_percentile_range() -> None:
    scale = PercentileScale()
    scale.update(torch.arange(101.0))
    # The 5 % and 95 % quantiles of 0 … 100 are 5 and 95.
    assert scale.scale().tolist() == pytest.approx([90])


def test_percentile_range_moves_by_its_rate() -> None:
    scale = PercentileScale(rate=0.1)
    scale.update(torch.arange(101.0))
    scale.update(2 * torch.arange(101.0))
    # 90 + 0.1 (180 − 90).
    assert scale.scale().tolist() == pytest.approx([99])


def test_percentile_scale_keeps_groups_apart_and_its_floor() -> None:
    scale = PercentileScale(groups=3)
    group = torch.tensor([0] * 101 + [1] * 101)
    scale.update(torch.cat([torch.arange(101.0), 0.001 * torch.arange(101.0)]), group)
    assert scale.scale().tolist() == pytest.approx([90, 1, 1])
    assert scale.scale(torch.tensor([1, 0])).tolist() == pytest.approx([1, 90])
    assert scale.seen.tolist() == [True, True, False]


def test_groups_are_standardised_apart() -> None:
    # each has two values, one deviation below and above its mean; a value alone lies on it
    x, group = torch.tensor([1.0, 10.0, 3.0, 30.0, 7.0]), torch.tensor([0, 1, 0, 1, 2])
    assert standardise(x, group, 4).tolist() == pytest.approx([-1, -1, 1, 1, 0], abs=1e-6)


def test_sums_of_groups_by_hand() -> None:
    x, group = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]), torch.tensor([2, 0, 2])
    assert sum_by_group(x, group, 3).tolist() == [[2.0, 20.0], [0.0, 0.0], [5.0, 50.0]]
    assert sum_by_group(x[:, 0], group, 3).tolist() == [2.0, 0.0, 5.0]

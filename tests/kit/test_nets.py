"""Building blocks: what each promises of its output."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from m3po.kit.nets import (
    MLP,
    Mish,
    NormedLinear,
    SimNorm,
    TaskEmbedding,
    dropout,
    last_linear,
    mish,
    orthogonal_,
    sim_norm,
)


def test_sim_norm_is_softmax_over_groups() -> None:
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(x.view(3, 2, 8), dim=-1).flatten(-2)
    assert torch.allclose(sim_norm(x), expected, atol=1e-6)
    assert torch.equal(SimNorm()(x), sim_norm(x))


def test_sim_norm_gradient_is_that_of_softmax() -> None:
    # The largest entry is subtracted without a gradient; the function does not depend on it.
    x = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(sim_norm, (x,))


def test_sim_norm_survives_large_inputs() -> None:
    assert sim_norm(torch.tensor([[1e4] + [0.0] * 7])).tolist() == [[1.0] + [0.0] * 7]


def test_sim_norm_of_no_rows_is_no_rows() -> None:
    assert sim_norm(torch.zeros(0, 3, 16)).shape == (0, 3, 16)


def test_sim_norm_refuses_a_size_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"\(12\) must be a multiple of the group size \(8\)"):
        sim_norm(torch.zeros(1, 12))


def test_orthogonal_rows_have_the_gain_as_length() -> None:
    layer = orthogonal_(nn.Linear(6, 4), gain=3.0)
    assert torch.allclose(layer.weight @ layer.weight.T, 9 * torch.eye(4), atol=1e-5)
    assert torch.equal(layer.bias, torch.zeros(4))


def test_mlp_ends_in_a_plain_layer_or_a_normed_one() -> None:
    plain = MLP(3, [5, 7], 2)
    assert [type(layer) for layer in plain] == [NormedLinear, NormedLinear, nn.Linear]
    normed = MLP(3, [5], 8, last=SimNorm())
    assert [type(layer) for layer in normed] == [NormedLinear, NormedLinear]
    # One group of eight sums to one.
    assert torch.allclose(normed(torch.randn(4, 3)).sum(-1), torch.ones(4))


def test_last_linear_is_the_output_layer() -> None:
    plain, normed = MLP(3, [5], 2), MLP(3, [5], 8, last=SimNorm())
    assert last_linear(plain) is plain[1]
    assert last_linear(normed).out_features == 8


def test_normed_linear_does_not_see_the_scale_of_its_input() -> None:
    layer = NormedLinear(4, 6)
    nn.init.zeros_(layer[0].bias)
    x = torch.randn(5, 4)
    assert torch.allclose(layer(x), layer(100 * x), atol=1e-2)


def test_task_embedding_is_never_longer_than_one() -> None:
    embedding = TaskEmbedding(["a", "b"], 2)
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    # The first has length 5 and is shortened; the second has length 0.5 and stays.
    assert torch.allclose(embedding(torch.tensor([0, 1, 0])), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]]))


def test_task_embedding_of_size_zero_is_nothing() -> None:
    assert TaskEmbedding(["a", "b", "c"], 0)(torch.tensor([0, 2])).shape == (2, 0)


def test_a_tasks_first_embedding_follows_its_name() -> None:
    def embedding(seed: int, *names: str) -> torch.Tensor:
        torch.manual_seed(seed)
        return TaskEmbedding(names, 4).weight

    assert torch.equal(embedding(0, "a", "b", "c")[[2, 0, 1]], embedding(0, "c", "a", "b"))
    assert not torch.equal(embedding(0, "a"), embedding(1, "a"))


# 89 and more overflow eˣ in float32, 44 and more its square.
X = torch.cat([torch.linspace(-120, 120, 2401), torch.linspace(-5, 5, 2401)])


@pytest.mark.parametrize("with_gradient", [False, True])
def test_mish_is_that_of_torch(with_gradient: bool) -> None:
    # Rounding of float32 at a value of some units.
    assert torch.allclose(mish(X.clone().requires_grad_(with_gradient)), F.mish(X), atol=5e-6, rtol=1e-6)
    assert torch.equal(Mish()(X), mish(X))


def test_slope_of_mish_is_that_of_torch() -> None:
    ours, theirs = X.clone().requires_grad_(), X.double().requires_grad_()
    weight = torch.linspace(-1, 1, len(X))
    (mish(ours) * weight).sum().backward()
    (F.mish(theirs) * weight).sum().backward()
    assert torch.allclose(ours.grad.double(), theirs.grad, atol=5e-6)


def test_mish_leaves_its_input_alone() -> None:
    for x in (X.clone(), X.clone().requires_grad_()):
        mish(x)
        assert torch.equal(x.detach(), X)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_dropout_drops_its_share_everywhere_alike() -> None:
    x = torch.ones(2000, 100)
    dropped = (dropout(x, 0.1, stream()) == 0).float()
    # Each column has 2000 · 0.1 = 200 dropped entries with a deviation of √(2000 · 0.1 · 0.9) = 13.4; 5 of these.
    assert (dropped.sum(0) - 200).abs().max() < 67
    # Neighbours know nothing of each other: both are dropped in 1 % of 199 900 pairs, whose deviation is 0.02 %.
    pairs = dropped.flatten()[1:] * dropped.flatten()[:-1]
    assert pairs.mean().item() == pytest.approx(0.01, abs=0.0015)


def test_dropout_keeps_the_mean() -> None:
    kept = dropout(torch.full((100, 100), 3.0), 0.25, stream())
    assert kept.unique().tolist() == [0.0, 4.0]
    # 10 000 entries of variance 3 · 4 − 9 = 3: a deviation of 0.017.
    assert kept.mean().item() == pytest.approx(3.0, abs=0.09)


def test_dropout_of_nothing_draws_nothing() -> None:
    x, generator = torch.randn(3, 2), stream()
    before = generator.get_state()
    assert torch.equal(dropout(x, 0.0, generator), x)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_dropout_of_few_entries_reaches_the_last(size: int) -> None:
    generator = stream()
    ever = sum((dropout(torch.ones(size), 0.5, generator) == 0).float() for _ in range(60))
    # Each is dropped in half of the draws; 30 with a deviation of 3.9.
    assert ((ever - 30).abs() < 20).all()


def test_dropout_sends_gradients_through_what_it_kept() -> None:
    x = torch.ones(50, requires_grad=True)
    y = dropout(x, 0.5, stream())
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())

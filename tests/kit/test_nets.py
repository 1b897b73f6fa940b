"""Building blocks: what each promises of its output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from m3po.kit.nets import MLP, NormedLinear, SimNorm, TaskEmbedding, last_linear, orthogonal_, sim_norm


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

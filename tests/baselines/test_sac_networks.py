"""ReLU networks side by side are the networks they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from baselines.sac.networks import Actor, ReluNets

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
TASK = torch.tensor([2, 0, 1, 1, 0, 2])


def test_each_member_is_a_network_of_its_own() -> None:
    nets = ReluNets(2, 4, (8, 8), 3)
    found = nets(X, TASK)
    for e in range(2):
        y = X
        for layer, (weight, bias) in enumerate(zip(nets.weights, nets.biases, strict=True)):
            y = F.linear(y if layer == 0 else y.relu(), weight[e].T, bias[e, 0])
        assert torch.allclose(found[e], y, atol=1e-6)


def test_each_task_reads_its_own_head() -> None:
    nets = ReluNets(2, 4, (8,), 3, heads=3)
    found = nets(X, TASK)
    assert found.shape == (2, 6, 3)
    hidden = (X @ nets.weights[0] + nets.biases[0]).relu()
    for row, task in enumerate(TASK.tolist()):
        head = slice(3 * task, 3 * task + 3)
        expected = hidden[:, row, None] @ nets.weights[1][..., head] + nets.biases[1][..., head]
        assert torch.allclose(found[:, row], expected[:, 0], atol=1e-6)


def test_a_task_trains_no_head_but_its_own() -> None:
    nets = ReluNets(1, 4, (8,), 3, heads=3)
    nets(X, torch.ones(6, dtype=torch.int64)).sum().backward()
    moved = nets.biases[1].grad.view(3, 3)  # heads, outputs
    assert moved.tolist() == [[0] * 3, [6] * 3, [0] * 3]


def test_deviation_is_within_its_limits() -> None:
    actor = Actor(4, (8,), 1, heads=1, last_bound=None)
    for log_std, expected in ((9.0, 2.0), (-50.0, -20.0)):
        with torch.no_grad():
            actor.weights[-1].zero_()
            actor.biases[-1][..., 1] = log_std
        assert actor.policy(X, TASK).std.log().flatten().tolist() == pytest.approx([expected] * 6)


def test_first_weights_lie_where_they_should() -> None:
    torch.manual_seed(0)
    plain = ReluNets(2, 25, (400,), 100)
    # Uniform within ±1/√inputs: 1/5 and 1/20; so are biases.
    for part, bound in ((plain.weights[0], 0.2), (plain.weights[1], 0.05), (plain.biases[0], 0.2)):
        assert 0.95 * bound < part.abs().max() <= bound
    he = ReluNets(2, 24, (400,), 100, last_bound=1e-3)
    # He-uniform: ±√(6/24); the last layer within what is asked.
    assert 0.95 * 0.5 < he.weights[0].abs().max() <= 0.5
    assert torch.equal(he.biases[0], torch.zeros(2, 1, 400))
    for part in (he.weights[1], he.biases[1]):
        assert 0.95 * 1e-3 < part.abs().max() <= 1e-3

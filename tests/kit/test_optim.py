"""Flat Adam does what torch's does, and its views stay views; a step moves what it should and nothing else."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from m3po.kit.optim import FlatAdam, clip_grad_norm, descend, follow


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def loss(net: nn.Module, x: Tensor) -> Tensor:
    value: Tensor = (net(x) ** 2).mean()
    return value


def parameters(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_agrees_with_torch() -> None:
    ours = module()
    theirs = copy.deepcopy(ours)
    flat = FlatAdam(ours, 1e-2, eps=1e-5)
    reference = torch.optim.Adam(theirs.parameters(), lr=1e-2, eps=1e-5)
    for i in range(20):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(i))
        flat.zero_grad()
        loss(ours, x).backward()
        norm = flat.clip_grad_norm(0.05)
        flat.step()
        reference.zero_grad()
        loss(theirs, x).backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        reference.step()
        assert norm.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(parameters(ours), parameters(theirs), atol=1e-6)


def test_first_step_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    optimizer = FlatAdam(net, 0.1, eps=0.0)
    before = net.weight.item()
    net(torch.ones(1)).sum().backward()
    optimizer.step()
    # m̂ = g and v̂ = g², so the first step is the learning rate in the gradient's direction, here 1.
    assert net.weight.item() == pytest.approx(before - 0.1)


def test_short_gradients_are_not_lengthened() -> None:
    net = nn.Linear(1, 1, bias=False)
    optimizer = FlatAdam(net, 0.1)
    net(torch.ones(1)).sum().backward()
    assert optimizer.clip_grad_norm(5.0).item() == 1
    assert optimizer.gradient.item() == 1


def test_loading_weights_keeps_the_views() -> None:
    net = module()
    optimizer = FlatAdam(net, 1e-2)
    net.load_state_dict({name: torch.zeros_like(value) for name, value in net.state_dict().items()})
    assert optimizer.parameters.abs().max() == 0


def test_restored_optimiser_goes_on_as_the_saved_one() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    net = module()
    optimizer = FlatAdam(net, 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(net, x).backward()
        optimizer.step()
    other_net = copy.deepcopy(module())
    other_net.load_state_dict(net.state_dict())
    other = FlatAdam(other_net, 1.0)
    other.restore(copy.deepcopy(optimizer.state()))
    for each, each_net in ((optimizer, net), (other, other_net)):
        each.zero_grad()
        loss(each_net, x).backward()
        each.step()
    assert torch.equal(parameters(net), parameters(other_net))


def test_gradients_of_several_optimisers_are_shortened_together() -> None:
    nets = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    optimizers = [FlatAdam(net, 0.1) for net in nets]
    for optimizer, gradient in zip(optimizers, (3.0, 4.0), strict=True):
        optimizer.gradient.fill_(gradient)
    # √(3² + 4²) = 5 is shortened to 1: a fifth of each.
    assert clip_grad_norm(optimizers, 1.0).item() == pytest.approx(5.0)
    assert [o.gradient.item() for o in optimizers] == pytest.approx([0.6, 0.8])


def test_a_step_down_is_torchs_with_gradients_shortened_together() -> None:
    ours, theirs = module(), module()
    optimizers = [FlatAdam(layer, 1e-2) for layer in (ours[0], ours[2])]
    reference = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for i in range(3):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(i))
        norm = descend(loss(ours, x), *optimizers, limit=0.05)
        reference.zero_grad()
        loss(theirs, x).backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        reference.step()
        assert norm.item() == pytest.approx(expected.item(), rel=1e-4)
        assert expected > 0.05
    assert torch.allclose(parameters(ours), parameters(theirs), atol=1e-6)


def test_a_step_down_gives_no_gradient_to_what_the_loss_passed_through() -> None:
    net = module()
    trained, passed = FlatAdam(net[0], 1e-2), FlatAdam(net[2], 1e-2)
    before = passed.parameters.clone()
    descend(loss(net, torch.ones(4, 3)), trained, limit=math.inf)
    assert not passed.gradient.any()
    assert torch.equal(passed.parameters, before)
    assert trained.gradient.any()


def test_an_infinite_limit_leaves_gradients_as_they_are() -> None:
    optimizer = FlatAdam(nn.Linear(2, 1, bias=False), 0.1)
    optimizer.gradient.copy_(torch.tensor([3e20, 4e20]))
    # In float32 the squares of these overflow: the length is infinite, and infinity by infinity no number.
    clip_grad_norm([optimizer], math.inf)
    assert optimizer.gradient.tolist() == pytest.approx([3e20, 4e20])


def test_a_target_follows_by_its_rate() -> None:
    slow, fast = (nn.Linear(1, 1) for _ in range(2))
    for net, value in ((slow, 1.0), (fast, 5.0)):
        for p in net.parameters():
            nn.init.constant_(p, value)
    follow(slow, fast, 0.25)
    # 0.75 · 1 + 0.25 · 5 = 2, and what is followed stays.
    assert parameters(slow).tolist() == [2, 2]
    assert parameters(fast).tolist() == [5, 5]

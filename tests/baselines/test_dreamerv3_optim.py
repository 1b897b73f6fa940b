"""DreamerV3's optimiser, step by step by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.dreamerv3.optim import LaProp, clip_adaptively_


def optimizer(parameter: nn.Parameter, *, warmup: int = 0, agc: float = 1e9) -> LaProp:
    return LaProp([parameter], learning_rate=0.1, warmup=warmup, agc=agc, beta1=0.9, beta2=0.999, eps=1e-20)


def test_adaptive_clipping_by_hand() -> None:
    long, short, zero = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), torch.tensor([0.03, 0.04])
    parameters = [torch.tensor([0.0, 2.0]), torch.tensor([2.0, 0.0]), torch.zeros(2)]
    clip_adaptively_([long, short, zero], parameters, clip=0.3)
    # ‖θ‖ = 2 allows 0.6: 5 is shortened to it, 0.5 stays; a zero parameter counts as 1e-3 and allows 3e-4.
    torch.testing.assert_close(long, torch.tensor([0.36, 0.48]))
    torch.testing.assert_close(short, torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(zero, torch.tensor([1.8e-4, 2.4e-4]))


def test_laprop_by_hand() -> None:
    theta = nn.Parameter(torch.tensor([1.0]))
    laprop = optimizer(theta)
    laprop.step(2 * theta.sum())
    # g = 2: v̂ = 4, g/√v̂ = 1, m = 0.1, m̂ = 0.1/(1 − 0.9) = 1; θ = 1 − 0.1.
    assert theta.item() == pytest.approx(0.9)
    laprop.step(-4 * theta.sum())
    # g = −4: v = 0.999 · 0.004 + 0.001 · 16 = 0.019996, v̂ = v/(1 − 0.999²) = 0.019996/0.001999 = 10.003002,
    # g/√v̂ = −1.264721; m = 0.9 · 0.1 − 0.1264721 = −0.0364721, m̂ = m/(1 − 0.81) = −0.1919584.
    assert theta.item() == pytest.approx(0.9 + 0.1 * 0.1919584, rel=1e-5)


def test_warmup_starts_from_zero() -> None:
    theta = nn.Parameter(torch.tensor([1.0]))
    laprop = optimizer(theta, warmup=2)
    moves = []
    for _ in range(3):
        before = theta.item()
        laprop.step(theta.sum())
        moves.append(before - theta.item())
    # A constant gradient gives m̂ = 1 at every step, so the moves are the step sizes 0, 0.05 and 0.1.
    assert moves == pytest.approx([0.0, 0.05, 0.1], abs=1e-6)


def test_state_continues_exactly() -> None:
    one, other = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([1.0, 2.0]))
    first, second = optimizer(one), optimizer(other)
    first.step((one**2).sum())
    with torch.no_grad():
        other.copy_(one)
    second.restore(first.state())
    for laprop, theta in ((first, one), (second, other)):
        laprop.step((theta**3).sum())
    assert torch.equal(one, other)

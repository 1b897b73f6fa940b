"""Symmetric logarithm and two-hot regression (Hafner et al. 2023, arXiv 2301.04104, sections 2 and 3).

A scalar is predicted as a categorical distribution over fixed ``bins``; its target puts weight on the two bins around
it. Bins may be uniform in symlog space (TD-MPC2: pass ``symlog(x)``, read with ``symexp``) or already exponentiated
(DreamerV3: :func:`symexp_bins`, pass ``x`` itself).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "symexp",
    "symexp_bins",
    "symlog",
    "symlog_loss",
    "symlog_mean",
    "symmetric_two_hot_mean",
    "two_hot_loss",
    "two_hot_losses",
]


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(|x| + 1), any shape."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of :func:`symlog`: sign(x) (exp(|x|) − 1), any shape."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def symlog_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """The number ``[...]`` that ``logits [..., n]`` over ``bins [n]`` in symlog space stand for: symexp Σ p bins."""
    return symexp(torch.softmax(logits, -1) @ bins)


def symlog_loss(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """:func:`two_hot_loss` ``[...]`` of ``logits [..., n]`` over symlog-spaced ``bins [n]`` to numbers ``x [...]``."""
    return two_hot_loss(logits, symlog(x), bins)


def symexp_bins(count: int, limit: float = 20.0, device: torch.device | str = "cpu") -> Tensor:
    """``count`` (odd) bins symexp(−limit … limit), exactly symmetric around an exact zero."""
    if count % 2 == 0:
        raise ValueError(f"an odd number of bins has a bin at zero; got {count}")
    half = symexp(torch.linspace(-limit, 0.0, count // 2 + 1, device=device))
    return torch.cat([half, -half[:-1].flip(0)])


def _neighbours(x: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The bin below each value and the share of the one above it."""
    if bins.ndim != 1 or bins.shape[0] < 2:
        raise ValueError(f"bins must be a vector of at least two values, got shape {tuple(bins.shape)}")
    x = x.clamp(bins[0], bins[-1])
    lower = torch.searchsorted(bins, x.contiguous()).clamp(1, bins.shape[0] - 1) - 1
    return lower, (x - bins[lower]) / (bins[lower + 1] - bins[lower])


def two_hot_loss(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy ``[...]`` of ``logits [..., n]`` against the two-hot target of ``x [...]`` on sorted ``bins [n]``.

    Its weights are on the two bins around x, sum to one, and Σ weights · bins = x; beyond the ends x counts as the end.
    """
    if logits.shape[:-1] != x.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not match targets {tuple(x.shape)} plus one axis of bins")
    return two_hot_losses(F.log_softmax(logits, dim=-1), x.unsqueeze(-1), bins).squeeze(-1)


def two_hot_losses(log_probs: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropies ``[..., m]`` of one prediction ``log_probs [..., n]`` to two-hot targets of ``x [..., m]``."""
    if log_probs.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"log-probabilities {tuple(log_probs.shape)} do not match targets {tuple(x.shape)}")
    # Only two of the n weights of a target are not zero: gather them instead of multiplying by all.
    lower, share = _neighbours(x, bins)
    below, above = log_probs.gather(-1, torch.cat([lower, lower + 1], dim=-1)).chunk(2, dim=-1)
    return -((1 - share) * below + share * above)


def symmetric_two_hot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected value ``[...]`` of ``logits [..., n]`` over ``bins [n]`` symmetric around a zero (:func:`symexp_bins`).

    Opposite bins share a factor, Σ (p₊ᵢ − p₋ᵢ) b₊ᵢ: with exponentiated bins the plain sum of a uniform distribution is
    not zero in float32, this one is.
    """
    if bins.shape[0] % 2 == 0:
        raise ValueError(f"bins must be symmetric around one at zero, so an odd number; got {bins.shape[0]}")
    probs = torch.softmax(logits, dim=-1)
    middle = bins.shape[0] // 2
    return (probs[..., middle + 1 :] - probs[..., :middle].flip(-1)) @ bins[middle + 1 :]

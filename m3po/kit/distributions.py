"""Squashed Gaussian policies. Pre-tanh values are called u; padded action entries are masked out of every sum."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Gaussian", "bounded_gaussian", "gaussian_kl", "gaussian_log_prob", "squashed_log_prob", "squashed_sample"]

_LOG_2PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Diagonal Gaussian over pre-tanh actions: ``mean, std`` ``[..., A]``."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std · noise, reparameterised; ``noise`` ``[..., A]`` standard normal."""
        return self.mean + self.std * noise


def bounded_gaussian(outputs: Tensor, mask: Tensor, log_std_min: float, log_std_max: float) -> Gaussian:
    """The policy that ``outputs [..., 2A]`` of a network, means and then x, stand for.

    log σ = min + (max − min) (tanh x + 1)/2  (TD-MPC2's code); ``mask [..., A]`` says which entries exist, the others
    are N(0, 1).
    """
    mean, raw = outputs.chunk(2, -1)
    log_std = log_std_min + 0.5 * (log_std_max - log_std_min) * (torch.tanh(raw) + 1)
    return Gaussian(mean * mask, torch.exp(log_std * mask))


def gaussian_log_prob(dist: Gaussian, u: Tensor, mask: Tensor) -> Tensor:
    """Log-density ``[...]`` of ``u [..., A]``; ``mask [..., A]`` says which entries exist."""
    z = (u - dist.mean) / dist.std
    return (mask * (-0.5 * (z**2 + _LOG_2PI) - torch.log(dist.std))).sum(-1)


def squashed_log_prob(dist: Gaussian, u: Tensor, mask: Tensor) -> Tensor:
    """Log-density ``[...]`` of tanh(u): the Gaussian's minus Σ log(1 − tanh²u) (Haarnoja et al. 2018, appendix C)."""
    # log(1 − tanh²u) = 2 (log 2 − u − softplus(−2u)), exact and stable.
    correction = (mask * 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(-1)
    return gaussian_log_prob(dist, u, mask) - correction


def squashed_sample(dist: Gaussian, noise: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Actions tanh(u) ``[..., A]``, zero where ``mask`` is, and their log-densities ``[...]``; u = mean + std · noise.

    :func:`squashed_log_prob` of the same u, written with the noise it comes from: that stays exact where std is tiny
    beside the mean, and has a shorter way back for gradients.
    """
    u = dist.sample(noise)
    gaussian = -0.5 * (noise**2 + _LOG_2PI) - torch.log(dist.std)
    correction = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return mask * torch.tanh(u), (mask * (gaussian - correction)).sum(-1)


def gaussian_kl(p: Gaussian, q: Gaussian, mask: Tensor) -> Tensor:
    """KL(p ‖ q) ``[...]`` of diagonal Gaussians; the same for their squashed forms, tanh being a bijection."""
    ratio = (p.std / q.std) ** 2
    return (mask * 0.5 * (ratio + ((p.mean - q.mean) / q.std) ** 2 - 1 - torch.log(ratio))).sum(-1)

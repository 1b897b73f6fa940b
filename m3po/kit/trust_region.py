"""Keeping a policy near the one it started from."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adapt_penalty", "approximate_kl", "clipped_surrogate"]


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's objective ``[B]``, to be maximised: min(ρA, clip(ρ, 1 ± clip) A), ρ = exp(log_prob − old_log_prob).

    All arguments ``[B]`` (Schulman et al. 2017, arXiv 1707.06347, eq. 7).
    """
    if not log_prob.shape == old_log_prob.shape == advantage.shape:
        raise ValueError(
            f"expected equal shapes, got {tuple(log_prob.shape)}, {tuple(old_log_prob.shape)}, {tuple(advantage.shape)}"
        )
    ratio = torch.exp(log_prob - old_log_prob)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """E[(ρ − 1) − log ρ], an unbiased, never negative estimate of KL(old ‖ new) from samples of the old policy."""
    log_ratio = log_prob - old_log_prob
    return (torch.exp(log_ratio) - 1 - log_ratio).mean()


def adapt_penalty(penalty: float, kl: float, target: float, low: float = 1e-3, high: float = 1e3) -> float:
    """The KL penalty for the next updates: ×1.5 above 1.5 targets, ÷1.5 below two thirds, within [low, high].

    (The adaptive-penalty form of Schulman et al. 2017, section 4, with gentler factors because it is applied after
    every update, not every iteration.)
    """
    if kl > 1.5 * target:
        penalty *= 1.5
    elif kl < target / 1.5:
        penalty /= 1.5
    return min(max(penalty, low), high)

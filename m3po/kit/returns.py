"""Multi-step returns. Time is the first axis; only ``terminated`` cuts a return, ``ended`` stops the recursion."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["alive", "discount_for_length", "gae", "lambda_returns"]


def _same_shape(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"expected equal shapes [T, ...], got {shapes}")


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    ended: Tensor,
    gamma: float | Tensor,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates ``[T, N]``.

    ``reward, value, next_value`` float ``[T, N]``, where ``next_value[t]`` is the value of the observation the action
    really led to (the true successor, also where an episode was truncated); ``terminated, ended`` bool ``[T, N]``,
    ``ended = terminated | truncated``; ``gamma`` a number or ``[N]``.

    δₜ = rₜ + γ (1 − terminatedₜ) v(sₜ₊₁) − v(sₜ);  Aₜ = δₜ + γ λ (1 − endedₜ) Aₜ₊₁
    (Schulman et al. 2016, eq. 16; the truncation rule is ours to state: bootstrap through it, but do not chain
    advantages of two episodes.)
    """
    _same_shape(reward=reward, value=value, next_value=next_value, terminated=terminated, ended=ended)
    delta = reward + gamma * (~terminated) * next_value - value
    keep = gamma * lam * (~ended)
    advantage = torch.zeros_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        running = delta[t] + keep[t] * running
        advantage[t] = running
    return advantage


def lambda_returns(
    reward: Tensor, next_value: Tensor, discount: Tensor, lam: float, chain: Tensor | None = None
) -> Tensor:
    """TD(λ) returns ``[T, ...]``.

    ``reward, next_value, discount`` ``[T, ...]``; ``discount[t]`` is γ (1 − terminatedₜ); ``chain`` ``[T, ...]`` is
    false where the next row belongs to another episode (default: nowhere), so that row bootstraps with
    ``next_value`` alone.

    Gₜ = rₜ + discountₜ ((1 − λ) v(sₜ₊₁) + λ Gₜ₊₁), G_T = v(s_T)   (Sutton and Barto 2018, eq. 12.2)
    """
    _same_shape(reward=reward, next_value=next_value, discount=discount)
    returns = torch.empty_like(reward)
    running = next_value[-1]
    for t in range(reward.shape[0] - 1, -1, -1):
        if chain is not None and t < reward.shape[0] - 1:
            running = torch.where(chain[t], running, next_value[t])
        running = reward[t] + discount[t] * ((1 - lam) * next_value[t] + lam * running)
        returns[t] = running
    return returns


def alive(ended: Tensor) -> Tensor:
    """Which states of a sequence belong to the episode it began in, ``[T + 1, ...]`` of ``ended`` bool ``[T, ...]``.

    The state that an episode ended in does; the next row begins another one: 1 for s₀ and s₁, then ∏ (1 − endedₜ).
    So step t counts by entry t + 1, and what is said of sₜ by entry t.
    """
    began = torch.ones_like(ended[:1])
    return torch.cumprod(torch.cat([began, began, ~ended[:-1]]).float(), 0)


def discount_for_length(decisions: Tensor) -> Tensor:
    """Discount from the episode's length in decisions, any shape: clip((T/5 − 1)/(T/5), 0.95, 0.995) (TD-MPC2)."""
    fraction = decisions.float() / 5
    return ((fraction - 1) / fraction).clamp(0.95, 0.995)

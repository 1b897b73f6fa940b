"""The gradients of PPO's losses, written out: of networks this small, autograd's bookkeeping costs more than the rest.

Both functions set ``grad`` of what they differentiate; nothing is added up. B transitions, A action entries, K tasks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.ppo.networks import ActorCritic
from m3po.kit.normalize import sum_by_group

__all__ = ["PolicyLoss", "policy_gradient", "value_gradient"]

_LOG_2PI = math.log(2 * math.pi)
_GAUSSIAN_ENTROPY = 0.5 * (_LOG_2PI + 1)


class PolicyLoss(NamedTuple):
    """``loss`` and mean ``entropy``, scalars; ``log_ratio`` ``[B]`` is log πθ − log πθ_old."""

    loss: Tensor
    entropy: Tensor
    log_ratio: Tensor


@torch.inference_mode()
def policy_gradient(
    model: ActorCritic,
    features: Tensor,
    task: Tensor,
    action: Tensor,
    action_mask: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    *,
    clip: float,
    entropy_coef: float,
) -> PolicyLoss:
    """Differentiate L = −E[min(ρÂ, clip(ρ, 1 ± ε) Â)] − c E[H(πθ)], ρ = πθ/πθ_old, with respect to the actor.

    (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9.) ``features [B, D]``; ``task [B]``; ``action,
    action_mask [B, A]``; ``old_log_prob, advantage [B]``. With z = (a − μ)/σ:

    ∂log πθ/∂μ = z/σ      ∂log πθ/∂log σ = z² − 1      ∂H/∂log σ = 1
    ∂L/∂log πθ = −ρÂ/B where ρÂ is the smaller of the two, else 0
    """
    outputs = model.actor.outputs(features)
    num_tasks = len(model.log_std)
    log_std = model.log_std if num_tasks == 1 else model.log_std[task]
    std, played = log_std.exp(), _per_task(action_mask, task, num_tasks) / len(task)
    z = (action - outputs[-1]) / std
    log_prob = (action_mask * (z * z + (2 * log_std + _LOG_2PI))).sum(-1) * -0.5
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    gain = ratio * advantage
    limited = ratio.clamp(1 - clip, 1 + clip) * advantage
    entropy = (played * (model.log_std + _GAUSSIAN_ENTROPY)).sum()

    by_log_prob = (gain <= limited) * gain / -len(gain)
    by_entry = action_mask * by_log_prob.unsqueeze(-1)
    by_z = by_entry * z
    model.actor.backpropagate(outputs, by_z / std)
    assert model.log_std.grad is not None
    by_log_std = _per_task(by_z * z - by_entry, task, num_tasks)
    torch.sub(by_log_std, played, alpha=entropy_coef, out=model.log_std.grad)
    return PolicyLoss(-torch.minimum(gain, limited).mean(), entropy, log_ratio)


def _per_task(x: Tensor, task: Tensor, num_tasks: int) -> Tensor:
    """Sums ``[K, A]`` of ``x [B, A]`` over the rows of each ``task [B]``."""
    return x.sum(0, keepdim=True) if num_tasks == 1 else sum_by_group(x, task, num_tasks)


@torch.inference_mode()
def value_gradient(
    model: ActorCritic, features: Tensor, old_value: Tensor, target: Tensor, *, clip: float | None, coef: float
) -> Tensor:
    """Differentiate c E[(V − R)²] with respect to the critic; returns E[(V − R)²].

    ``features [B, D]``; ``old_value, target [B]``. With ``clip`` ε the loss is E[max((V − R)², (V' − R)²)], where
    V' = V_old + clip(V − V_old, ±ε) depends on V inside ±ε only.
    """
    outputs = model.critic.outputs(features)
    value = outputs[-1].squeeze(-1)
    error = value - target
    loss = error.square()
    if clip is not None:
        moved = value - old_value
        near = (old_value + moved.clamp(-clip, clip) - target).square()
        error = error * ((loss >= near) | (moved.abs() <= clip))
        loss = torch.maximum(loss, near)
    model.critic.backpropagate(outputs, (2 * coef / len(error) * error).unsqueeze(-1))
    return loss.mean()

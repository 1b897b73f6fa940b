"""The losses of M3PO, each a function of tensors and networks. Time is the first axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from m3po.algorithm.config import M3POConfig
from m3po.algorithm.exploration import discrepancy_bonus, one_step_values
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.kit.distributions import Gaussian, gaussian_kl, gaussian_log_prob, squashed_log_prob
from m3po.kit.returns import alive, lambda_returns
from m3po.kit.trust_region import approximate_kl, clipped_surrogate

__all__ = [
    "BonusLoss",
    "ModelLoss",
    "PolicyLoss",
    "bonus_loss",
    "fresh_policy_loss",
    "model_loss",
    "replayed_policy_loss",
    "value_targets",
]


class ModelLoss(NamedTuple):
    """``total`` is a scalar to minimise; ``first`` ``[B, L]`` is h(o₀), ``latents`` ``[H, B, L]`` are sg h(oₜ₊₁),
    ``returns`` ``[H, B]`` are yₜ; ``parts`` for the log."""

    total: Tensor
    first: Tensor
    latents: Tensor
    returns: Tensor
    parts: dict[str, Tensor]


class BonusLoss(NamedTuple):
    """``total`` is a scalar to minimise; ``parts`` for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class PolicyLoss(NamedTuple):
    """``total`` is a scalar to minimise; ``kl`` to the policy the iteration began with; ``parts`` for the log."""

    total: Tensor
    kl: Tensor
    parts: dict[str, Tensor]


@torch.no_grad()
def value_targets(
    target: TaskModel,
    policy: TaskModel,
    latents: Tensor,
    batch: Mapping[str, Tensor],
    noise: Tensor,
    lam: float,
) -> Tensor:
    """yₜ ``[H, B]``: TD(λ) over replayed rewards with the smallest EMA head, cut by termination only.

    ``latents`` ``[H, B, L]`` are h(oₜ₊₁) of the true successors, so a truncated episode is bootstrapped through;
    ``noise`` ``[H, B, A]`` standard normal for the policy's action in them.
    """
    action = torch.tanh(policy.prior(latents).sample(noise))
    next_value = target.state_values(latents, action).amin(0)
    discount = policy.gamma * (~batch["terminated"])
    ended = batch["terminated"] | batch["truncated"]
    return lambda_returns(batch["reward"], next_value, discount, lam, chain=~ended)


def model_loss(
    model: WorldModel,
    target: WorldModel,
    batch: Mapping[str, Tensor],
    gamma: Tensor,
    noise: Tensor,
    config: M3POConfig,
    *,
    terminates: bool,
) -> ModelLoss:
    """World-model loss on subsequences ``{name: [H, B, ...]}``; ``gamma`` ``[K]``; ``noise`` ``[H, B, A]``.

    L = Σₜ ρᵗ [c_z ‖ẑₜ₊₁ − sg h(oₜ₊₁)‖²/L + c_r CE(R(ẑₜ, aₜ), rₜ) + c_v CE(V_b(ẑₜ), yₜ) + c_d BCE(C(ẑₜ, aₜ), dₜ)] / H

    The target is what the gradient stops at, never the prediction. Steps behind the end of an episode are masked.
    """
    horizon = batch["reward"].shape[0]
    task, action = batch["task"][0], batch["action"]
    ended = batch["terminated"] | batch["truncated"]
    online = TaskModel(model, task, gamma[task], terminates=terminates)
    with torch.no_grad():
        teacher = model if config.consistency_target == "online" else target
        latents = teacher.encode(batch["next_observation"], batch["task"])
    slow = TaskModel(target, task, gamma[task], terminates=terminates)
    returns = value_targets(slow, online, latents, batch, noise, config.td_lambda)

    predicted = [model.encode(batch["observation"][0], task)]
    for t in range(horizon):
        predicted.append(model.dynamics(predicted[-1], action[t], online.embedding))
    z, z_next = torch.stack(predicted[:-1]), torch.stack(predicted[1:])
    e = online.embedding.expand(horizon, *online.embedding.shape)

    weight = alive(ended)[1:] * config.rho ** torch.arange(horizon, device=z.device, dtype=z.dtype)[:, None] / horizon

    def weighted(loss: Tensor) -> Tensor:
        return (weight * loss).sum(0).mean()

    parts = {
        "consistency_loss": weighted(((z_next - latents) ** 2).mean(-1)),
        "reward_loss": weighted(model.regression_loss(model.reward_logits(z, action, e), batch["reward"])),
        "value_loss": torch.stack(
            [weighted(model.regression_loss(head, returns)) for head in model.critic_logits(z, action, e)]
        ).mean(),
    }
    total = (
        config.consistency_coef * parts["consistency_loss"]
        + config.reward_coef * parts["reward_loss"]
        + config.value_coef * parts["value_loss"]
    )
    if terminates:
        logit = model.termination_logit(z, action, e)
        loss = F.binary_cross_entropy_with_logits(logit, batch["terminated"].float(), reduction="none")
        parts["termination_loss"] = weighted(loss)
        total = total + config.termination_coef * parts["termination_loss"]
    detached = {name: part.detach() for name, part in parts.items()} | {"value_target": returns.mean()}
    return ModelLoss(total, predicted[0], latents, returns, detached)


def bonus_loss(
    model: WorldModel,
    target: WorldModel,
    batch: Mapping[str, Tensor],
    loss: ModelLoss,
    gamma: Tensor,
    noise: Tensor,
    config: M3POConfig,
    *,
    terminates: bool,
) -> BonusLoss:
    """CE(Q_δ(z₀, a₀), x) + CE(V_f(z₀), y₀) of each subsequence's first step; the gradient stops at latents.

    x = bonus(δ) + γ (1 − d) Q̄_δ(z₁, a ~ π), δ = |Q_MB − Q_MF| of the step. V_f learns what V_b learns, from experienced
    latents and beside a random function: where there was little experience the two differ.
    """
    latent, reached, returns = loss.first.detach(), loss.latents[0], loss.returns[0]
    step, task = {name: rows[0] for name, rows in batch.items()}, batch["task"][0]
    own = TaskModel(model, task, gamma[task], terminates=terminates)
    slow = TaskModel(target, task, gamma[task], terminates=terminates)
    e = own.embedding.detach()
    with torch.no_grad():
        experienced = model.model_free_value(reached, e)
        model_based, model_free = one_step_values(
            own, latent, step["action"], step["reward"], experienced, step["terminated"]
        )
        delta = (model_based - model_free).abs()
        bonus = discrepancy_bonus(delta, task, model.discrepancy_moments, config.discrepancy_clip)
        action = torch.tanh(own.prior(reached).sample(noise[0]))
        to_come = bonus + own.gamma * (~step["terminated"]) * slow.bonus_value(reached, action)
    value_loss = model.regression_loss(model.bonus_logits(latent, step["action"], e), to_come).mean()
    model_free_loss = model.model_free_loss(latent, e, returns).mean()
    parts = {
        "bonus_loss": value_loss.detach(),
        "model_free_loss": model_free_loss.detach(),
        "discrepancy": delta.mean(),
        "bonus_to_come": to_come.mean(),
    }
    return BonusLoss(value_loss + model_free_loss, parts)


def replayed_policy_loss(
    model: TaskModel, old: Gaussian, latents: Tensor, noise: Tensor, scale: Tensor, penalty: float, entropy_coef: float
) -> tuple[PolicyLoss, Tensor]:
    """Policy improvement on replayed latents under a trust region, and the Q values ``[B]`` it saw.

    L = −E[Q_b(z, a)/S_k + α H(π)] + η KL(π_old ‖ π),  a ~ π(· | z)

    ``latents [B, L]``; ``old`` is π_old there; ``noise [B, A]``; ``scale [B]`` is S_k;
    ``penalty`` η (0: no trust region).
    """
    policy = model.prior(latents)
    u = policy.sample(noise)
    value = model.action_values(latents, torch.tanh(u)).mean(0)
    entropy = -squashed_log_prob(policy, u, model.action_mask)
    kl = gaussian_kl(old, policy, model.action_mask).mean()
    total = -(value / scale + entropy_coef * entropy).mean() + penalty * kl
    parts = {"policy_value": value.detach().mean(), "entropy": entropy.detach().mean(), "kl": kl.detach()}
    return PolicyLoss(total, kl.detach(), parts), value.detach()


def fresh_policy_loss(
    acting: Gaussian,
    old: Gaussian,
    u: Tensor,
    advantage: Tensor,
    mask: Tensor,
    entropy: Tensor,
    config: M3POConfig,
    penalty: float,
) -> PolicyLoss:
    """Policy gradient on fresh data with the likelihood ratio of the policy that acted.

    ``acting`` is that policy recomputed under the current actor, ``old`` as it was; ``u [B, A]`` the executed pre-tanh
    actions (tanh's Jacobian cancels in the ratio); ``advantage [B]``; ``entropy [B]`` of the prior.
    clip: −E[min(ρA, clip(ρ) A)]; kl: −E[ρA] + η KL(old ‖ acting); none: −E[ρA].
    """
    log_prob, old_log_prob = gaussian_log_prob(acting, u, mask), gaussian_log_prob(old, u, mask)
    kl = gaussian_kl(old, acting, mask).mean()
    if config.trust_region == "clip":
        gain = clipped_surrogate(log_prob, old_log_prob, advantage, config.clip).mean()
    else:
        gain = (torch.exp(log_prob - old_log_prob) * advantage).mean()
    total = -gain - config.entropy_coef * entropy.mean()
    if config.trust_region == "kl":
        total = total + penalty * kl
    parts = {
        "policy_gain": gain.detach(),
        "entropy": entropy.detach().mean(),
        "kl": kl.detach(),
        "approx_kl": approximate_kl(log_prob, old_log_prob).detach(),
    }
    return PolicyLoss(total, kl.detach(), parts)

"""What there is to see of M3PO in training: is the model good, do the two values agree, what does planning change?

Everything is measured on replayed subsequences, with noise and draws of its own, so that looking changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from m3po.algorithm.config import M3POConfig
from m3po.algorithm.exploration import discrepancy_bonus, one_step_values, planned_policy
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import Diagnostic
from m3po.kit.distributions import squashed_log_prob
from m3po.kit.normalize import sum_by_group
from m3po.kit.planning import imagine, weigh

__all__ = [
    "SEQUENCES",
    "STEPS",
    "embedding_similarity",
    "experienced_values",
    "latent_errors",
    "planned_values",
    "planning_effects",
    "policy_entropy",
]

SEQUENCES = 256
"""Subsequences looked at."""
STEPS = 8
"""How far ahead the model is asked, further than it is trained."""


@torch.no_grad()
def latent_errors(model: WorldModel, batch: Mapping[str, Tensor], tasks: int) -> dict[str, Diagnostic]:
    """Σ‖ẑₕ − h(oₕ)‖² / Σ‖h(o₀) − h(oₕ)‖² of open-loop predictions ``[K, H]`` on subsequences ``{name: [H, B, ...]}``.

    1 is as bad as expecting no change. Steps behind the end of an episode are left out.
    """
    task, ended = batch["task"][0], batch["terminated"] | batch["truncated"]
    e = model.embedding(task)
    start = predicted = model.encode(batch["observation"][0], task)
    alive = torch.cumprod(torch.cat([torch.ones_like(ended[:1]), ~ended[:-1]]).float(), 0)
    errors = []
    for action, observation, weight in zip(batch["action"], batch["next_observation"], alive, strict=True):
        predicted = model.dynamics(predicted, action, e)
        reached = model.encode(observation, task)
        error, change = (((z - reached) ** 2).sum(-1) * weight for z in (predicted, start))
        errors.append(sum_by_group(error, task, tasks) / sum_by_group(change, task, tasks))
    values = torch.stack(errors, -1)
    return {"model_error": _shown("Model error (1: expects no change)", ("task", "horizon"), values)}


@torch.no_grad()
def planned_values(model: TaskModel, latent: Tensor, noise: Tensor, tasks: int) -> dict[str, Diagnostic]:
    """Q_MB and Q_MF as planning has them: the H-step return in the model of a sequence of the prior's, and the critic's
    own Q of its first action, in ``latent [B, L]`` with ``noise [H, B, A]``."""
    imagined = imagine(model, latent, lambda t, z: model.prior(z).sample(noise[t]), len(noise))
    own = model.action_values(latent, torch.tanh(imagined.u[0])).mean(0)
    return _values(imagined.returns, own, model.task, tasks)


@torch.no_grad()
def experienced_values(
    model: TaskModel, latent: Tensor, step: Mapping[str, Tensor], beta: float, config: M3POConfig, tasks: int
) -> dict[str, Diagnostic]:
    """Q_MB and Q_MF as rewards have them, of one replayed ``step`` ``{name: [B, ...]}``, and the share of a bonus."""
    reward = step["reward"]
    reached = model.model.encode(step["next_observation"], model.task)
    model_free = model.model.model_free_value(reached, model.embedding)
    believed, experienced = one_step_values(model, latent, step["action"], reward, model_free, step["terminated"])
    values = _values(believed, experienced, model.task, tasks)
    if config.discrepancy != "reward":
        return values
    gap = (believed - experienced).abs()
    moments = deepcopy(model.model.discrepancy_moments)  # who looks must not change what training sees
    added = beta * discrepancy_bonus(gap, model.task, moments, config.discrepancy_clip)
    share = added / (added + reward.abs()).clamp(min=1e-8)
    return values | {"discrepancy_share": _per_task("Bonus / (bonus + |reward|)", share, model.task, tasks)}


def _values(model_based: Tensor, model_free: Tensor, task: Tensor, tasks: int) -> dict[str, Diagnostic]:
    return {
        "value_model_based": _per_task("Q_MB", model_based, task, tasks),
        "value_model_free": _per_task("Q_MF", model_free, task, tasks),
        "value_gap": _per_task("|Q_MB − Q_MF|", (model_based - model_free).abs(), task, tasks),
    }


@torch.no_grad()
def planning_effects(
    model: TaskModel, latent: Tensor, noise: Tensor, scale: Tensor, beta: float, config: M3POConfig, tasks: int
) -> dict[str, Diagnostic]:
    """What planning changes in ``latent [B, L]`` per task; ``noise [I, H, S, B, A]``, ``scale [B]`` of the values."""
    plan, prior = planned_policy(model, latent, noise, None, beta, config), model.prior(latent)
    returns = plan.candidates.returns
    sober = weigh(returns, config.temperature)
    shift = (torch.tanh(plan.first.mean) - torch.tanh(prior.mean)).abs()
    shift = (shift * model.action_mask).sum(-1) / model.action_mask.sum(-1)
    gain = ((sober - 1 / len(sober)) * returns).sum(0) / scale
    moved = 0.5 * (plan.weights - sober).abs().sum(0)
    shown = {
        "planner_shift": _per_task("|planned − prior action|", shift, model.task, tasks),
        "planner_gain": _per_task("Planned − prior return, scaled", gain, model.task, tasks),
    }
    if config.discrepancy == "planning":
        title = "Weight moved by the discrepancy"
        shown["discrepancy_share"] = _per_task(title, moved, model.task, tasks)
    return shown


@torch.no_grad()
def policy_entropy(model: TaskModel, latent: Tensor, noise: Tensor, tasks: int) -> dict[str, Diagnostic]:
    """Entropy of the prior per task, estimated with ``noise [B, A]``."""
    prior = model.prior(latent)
    entropy = -squashed_log_prob(prior, prior.sample(noise), model.action_mask)
    return {"policy_entropy": _per_task("Entropy of the prior", entropy, model.task, tasks)}


@torch.no_grad()
def embedding_similarity(model: WorldModel) -> dict[str, Diagnostic]:
    """Cosines ``[K, K]`` between the task embeddings; nothing where there are none."""
    if not model.embedding.size:
        return {}
    rows = torch.nn.functional.normalize(model.embedding.weight, dim=-1)
    return {"embedding_similarity": _shown("Cosine of task embeddings", ("task", "task"), rows @ rows.T)}


def _per_task(title: str, values: Tensor, task: Tensor, tasks: int) -> Diagnostic:
    """Means ``[K]`` of ``values [B]``."""
    return _shown(
        title, ("task",), sum_by_group(values, task, tasks) / sum_by_group(torch.ones_like(values), task, tasks)
    )


def _shown(title: str, axes: tuple[str, ...], values: Tensor) -> Diagnostic:
    return Diagnostic(title, axes, values.cpu().numpy().astype(np.float64))  # type: ignore[arg-type]

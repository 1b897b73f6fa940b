"""Hybrid exploration: the discrepancy between what the model believes and what was experienced.

Q_MB = R(z, a) + γ (1 − C(z, a)) V_b(d(z, a))      Q_MF = r + γ (1 − d) V_f(h(o'))      δ = |Q_MB − Q_MF|

The bonus enters the reward of fresh rollouts or of a critic of bonuses, or the advantage (:func:`discrepancy_bonus`),
or the planner (:func:`planning_optimism`), where Q_MB is a candidate's H-step return and Q_MF the critic's own Q of its
first action. Every world-model target and the planning of an evaluation see the task's own reward only. The actor has
learned with the bonus, so what it proposes there still bears its mark until β is 0.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from m3po.algorithm.config import M3POConfig
from m3po.algorithm.model import TaskModel
from m3po.kit.normalize import RunningMoments
from m3po.kit.planning import Candidates, Plan, plan

__all__ = ["annealed", "discrepancy_bonus", "one_step_values", "planned_policy", "planning_optimism"]


def annealed(coef: float, env_step: float, steps: int) -> float:
    """β, falling linearly from ``coef`` to 0 at ``steps`` environment steps of a task."""
    return coef * max(0.0, 1.0 - env_step / steps)


def discrepancy_bonus(discrepancy: Tensor, task: Tensor, moments: RunningMoments, clip: float) -> Tensor:
    """clip((δ − mean_k δ)/std_k δ, 0, c) of ``discrepancy [...]`` of tasks ``[...]``.

    The moments are those of each task k and of the batch, which ``moments`` take in, with the steps before it where a
    task has few there: what is much among the steps of now is rewarded, however small discrepancies have become, and no
    task gets the bonus of all.
    """
    delta, group = discrepancy.flatten()[:, None], task.flatten()
    moments.update(delta, group)
    return moments.normalize(delta, group, clip=clip).clamp(min=0.0).view_as(discrepancy)


@torch.no_grad()
def one_step_values(
    model: TaskModel, latent: Tensor, action: Tensor, reward: Tensor, next_value: Tensor, terminated: Tensor
) -> tuple[Tensor, Tensor]:
    """Q_MB and Q_MF ``[...]`` of transitions: ``latent [..., L]``, ``action [..., A]``, the rest ``[...]``.

    ``next_value`` is V_f(h(o')).
    """
    following, believed, gamma = model.step(latent, action)
    model_based = believed + gamma * model.value(following)
    model_free = reward + model.gamma * (~terminated) * next_value
    return model_based, model_free


def planning_optimism(model: TaskModel, coef: float, clip: float, latent: Tensor, candidates: Candidates) -> Tensor:
    """β · (δ − mean δ) ``[S, N]`` to add to candidate returns, δ = |G − Q_b(z, a₀)|; mean and bound over candidates.

    ``latent`` ``[N, L]``. Bounded by c standard deviations of the returns, so that it tips choices and never rules
    them. It vanishes where the H-step return and the critic agree.
    """
    wide = latent.expand(candidates.returns.shape[0], *latent.shape)
    own = model.action_values(wide, torch.tanh(candidates.u[0])).mean(0)
    delta = (candidates.returns - own).abs()
    bound = clip * candidates.returns.std(0, keepdim=True)
    return coef * torch.maximum(torch.minimum(delta - delta.mean(0, keepdim=True), bound), -bound)


def planned_policy(
    model: TaskModel, latent: Tensor, noise: Tensor, warm_start: Tensor | None, beta: float, config: M3POConfig
) -> Plan:
    """The plan whose first Gaussian acts, from ``latent [N, L]`` with ``noise [I, H, S, N, A]`` and optimism β."""
    optimism = None
    if config.discrepancy == "planning" and beta > 0:
        optimism = partial(planning_optimism, model, beta, config.discrepancy_clip)
    return plan(
        model,
        latent,
        noise,
        temperature=config.temperature,
        min_std=config.min_std,
        optimism=optimism,
        warm_start=warm_start,
    )

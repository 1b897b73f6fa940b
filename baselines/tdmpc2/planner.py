"""Model predictive path integral control in the latent space of the world model (arXiv 2310.16828, section 3.3).

=========  =======================  ==================================================
paper      here                     shape
=========  =======================  ==================================================
μ, σ       ``mean, std``            ``[H, N, A]``, a Gaussian over actions in [-1, 1]
a_t:t+H    ``actions``              ``[H, S, N, A]``, S candidates
φ          ``value``                ``[S, N]``
=========  =======================  ==================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.tdmpc2.config import TDMPC2Config
from baselines.tdmpc2.model import Rows, WorldModel
from m3po.kit.planning import fit_elites

__all__ = ["Noise", "Plan", "draw_heads", "estimate_value", "plan"]

_MANY_ACTIONS, _MORE_ITERATIONS = 20, 2
"""Large action spaces get more refinements. (official)"""

_ROWS_AT_ONCE = 512
"""Imagined at a time on a CPU: wider layers of more rows leave its second-level cache and take half as long again."""


class Noise(NamedTuple):
    """What one decision draws: standard normal numbers but for ``heads``, two of the ensemble for each iteration, and
    the Gumbel numbers that choose among elites.

    ``policy [H, P, N, A]``, ``candidates [I, H, S − P, N, A]``, ``last [I, S, N, A]`` for the policy's action behind
    the horizon, ``heads [I, 2]``, ``gumbel [E, N]``, ``action [N, A]``.
    """

    policy: Tensor
    candidates: Tensor
    last: Tensor
    heads: Tensor
    gumbel: Tensor
    action: Tensor

    @staticmethod
    def draw(config: TDMPC2Config, num_envs: int, action_dim: int, stream: torch.Generator) -> Noise:
        """Noise for ``num_envs`` environments, on the device of ``stream``."""
        c, many = config, action_dim >= _MANY_ACTIONS
        iterations = c.iterations + (_MORE_ITERATIONS if many else 0)
        fresh = c.num_samples - c.num_pi_trajs

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, num_envs, action_dim, generator=stream, device=stream.device)

        return Noise(
            policy=normal(c.horizon, c.num_pi_trajs),
            candidates=normal(iterations, c.horizon, fresh),
            last=normal(iterations, c.num_samples),
            heads=draw_heads(iterations, c.num_q, stream),
            gumbel=gumbel(c.num_elites, num_envs, stream),
            action=normal(),
        )


def draw_heads(times: int, num_q: int, stream: torch.Generator) -> Tensor:
    """Two different heads of ``num_q``, drawn ``times`` times: int64 ``[times, 2]``."""
    return torch.rand(times, num_q, generator=stream, device=stream.device).topk(2).indices


def gumbel(rows: int, columns: int, stream: torch.Generator) -> Tensor:
    """Standard Gumbel numbers ``[rows, columns]``: the largest of log p + them is at i with probability p_i."""
    return -torch.empty(rows, columns, device=stream.device).exponential_(generator=stream).log()


class Plan(NamedTuple):
    """``action`` ``[N, A]`` to do now and the ``mean`` ``[H, N, A]`` to start the next plan from."""

    action: Tensor
    mean: Tensor


@torch.no_grad()
def plan(
    model: WorldModel,
    latent: Tensor,
    rows: Rows,
    mean: Tensor,
    noise: Noise,
    config: TDMPC2Config,
    *,
    explore: bool,
    terminates: bool,
) -> Plan:
    """Plan from ``latent [N, L]``, beginning at the ``mean [H, N, A]`` of the last plan moved on by one step.

    Candidates are drawn from N(μ, σ²), beside some that follow the policy; μ and σ are fitted to the best; and again.
    One of the last elites is chosen by its score, and with ``explore`` its action is disturbed by σ.
    """
    std = torch.full_like(mean, config.max_std)
    guided = _follow_policy(model, latent, rows, noise.policy)
    for fresh, last, heads in zip(noise.candidates, noise.last, noise.heads, strict=True):
        drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * fresh).clamp(-1, 1)
        actions = torch.cat([guided, drawn], dim=1) * rows.action_mask
        values = [
            estimate_value(model, latent, rows, some, normal, heads, terminates=terminates)
            for some, normal in _slices(actions, last)
        ]
        # A model that diverged must not choose an action that is no number.
        value = torch.cat(values).nan_to_num(0.0)
        elites = fit_elites(actions, value, num_elites=config.num_elites, temperature=config.temperature)
        mean, std = elites.mean, elites.std.clamp(config.min_std, config.max_std)
    chosen = (elites.score.log() + noise.gumbel).argmax(0)
    action = elites.actions[0].gather(0, chosen[None, :, None].expand(1, *mean.shape[1:])).squeeze(0)
    if explore:
        action = action + std[0] * noise.action * rows.action_mask
    return Plan(action.clamp(-1, 1), mean)


def _follow_policy(model: WorldModel, latent: Tensor, rows: Rows, noise: Tensor) -> Tensor:
    """Actions ``[H, P, N, A]`` of the policy in what it imagines from ``latent [N, L]``."""
    z, actions = latent.unsqueeze(0), []
    for t, normal in enumerate(noise):
        actions.append(model.sample_action(z, rows, normal))
        if t < len(noise) - 1:
            z = model.next(z, actions[-1], rows)
    return torch.stack(actions)


def estimate_value(
    model: WorldModel, latent: Tensor, rows: Rows, actions: Tensor, last: Tensor, heads: Tensor, *, terminates: bool
) -> Tensor:
    """φ ``[S, N]`` of ``actions [H, S, N, A]`` from ``latent [N, L]``.

    φ = Σₜ γᵗ R(zₜ, aₜ) + γᴴ Q(z_H, a_H), a_H ~ p(· | z_H) with noise ``last [S, N, A]``, Q the mean of two ``heads``.
    Nothing counts behind a state that more likely than not ended the episode.
    """
    z = latent.unsqueeze(0)
    value: Tensor | float = 0.0
    discount = torch.ones_like(rows.gamma)
    for a in actions:
        value = value + discount * model.scalar(model.reward_logits(z, a, rows))
        z = model.next(z, a, rows)
        discount = discount * rows.gamma
        if terminates:
            discount = discount * (model.termination_logit(z, rows) <= 0)
    a = model.sample_action(z, rows, last)
    return value + discount * model.scalar(model.q_logits(z, a, rows, heads=heads)).mean(0)


def _slices(actions: Tensor, last: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Candidates in slices small enough for the cache; a GPU takes all at once."""
    samples, num_envs = last.shape[:2]
    size = samples if last.is_cuda else max(1, _ROWS_AT_ONCE // num_envs)
    return zip(actions.split(size, dim=1), last.split(size), strict=True)

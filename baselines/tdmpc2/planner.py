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

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.tdmpc2.config import TDMPC2Config
from baselines.tdmpc2.model import Rows, WorldModel
from m3po.kit.planning import fit_elites

__all__ = ["Imagined", "Noise", "Plan", "draw_heads", "gumbel", "imagine", "plan", "value_of"]

_MANY_ACTIONS, _MORE_ITERATIONS = 20, 2
"""Large action spaces get more refinements. (official)"""

_ROWS_AT_ONCE = 1024
"""Imagined at a time on a CPU: wider layers of more rows leave its second-level cache and take half as long again."""


class Noise(NamedTuple):
    """What one decision draws: standard normal numbers but for ``heads``, two of the ensemble for each iteration, and
    the Gumbel numbers that choose among elites.

    ``policy [H, P, N, A]``, ``candidates [I, H, S − P, N, A]``, ``last [I, S, N, A]`` for the policy's action behind
    the horizon, ``heads [I][2]``, ``gumbel [E, N]``, ``action [N, A]``.
    """

    policy: Tensor
    candidates: Tensor
    last: Tensor
    heads: list[list[int]]
    gumbel: Tensor
    action: Tensor

    @staticmethod
    def draw(
        config: TDMPC2Config, num_envs: int, action_dim: int, stream: torch.Generator, choices: np.random.Generator
    ) -> Noise:
        """Noise for ``num_envs`` environments, on the device of ``stream``; heads are drawn from ``choices``."""
        c, many = config, action_dim >= _MANY_ACTIONS
        iterations = c.iterations + (_MORE_ITERATIONS if many else 0)
        fresh = c.num_samples - c.num_pi_trajs

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, num_envs, action_dim, generator=stream, device=stream.device)

        return Noise(
            policy=normal(c.horizon, c.num_pi_trajs),
            candidates=normal(iterations, c.horizon, fresh),
            last=normal(iterations, c.num_samples),
            heads=[draw_heads(c.num_q, choices) for _ in range(iterations)],
            gumbel=gumbel(c.num_elites, num_envs, stream),
            action=normal(),
        )

    def columns(self, column: Tensor) -> Noise:
        """The noise of N environments, the n-th that of ``column[n]`` here; ``heads`` are common to all."""
        policy, candidates, last, action = (
            part.index_select(-2, column) for part in (self.policy, self.candidates, self.last, self.action)
        )
        return Noise(policy, candidates, last, self.heads, self.gumbel.index_select(1, column), action)

    def to(self, device: torch.device) -> Noise:
        """The same numbers on ``device``."""
        return Noise(*(part.to(device) if isinstance(part, Tensor) else part for part in self))  # type: ignore[arg-type]


def draw_heads(num_q: int, stream: np.random.Generator) -> list[int]:
    """Two different heads of ``num_q``; drawn on the host, which chooses the networks to call."""
    chosen: list[int] = stream.choice(num_q, 2, replace=False).tolist()
    return chosen


def gumbel(rows: int, columns: int, stream: torch.Generator) -> Tensor:
    """Standard Gumbel numbers ``[rows, columns]``: the largest of log p + them is at i with probability p_i."""
    return -torch.empty(rows, columns, device=stream.device).exponential_(generator=stream).log()


class Plan(NamedTuple):
    """``action`` ``[N, A]`` to do now and the ``mean`` ``[H, N, A]`` to start the next plan from."""

    action: Tensor
    mean: Tensor


class Imagined(NamedTuple):
    """S sequences imagined for N environments.

    ``actions [H, S, N, A]``, the ``latent [S, N, L]`` behind them, what they earned on the way, ``rewards [S, N]``, and
    the ``discount [S, N]`` of what comes then.
    """

    actions: Tensor
    latent: Tensor
    rewards: Tensor
    discount: Tensor


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

    def imagined(choose: Callable[[int, Tensor], Tensor]) -> Imagined:
        return imagine(model, latent, rows, choose, config.horizon, terminates=terminates)

    std = torch.full_like(mean, config.max_std)
    guided = imagined(lambda t, z: model.sample_action(z, rows, noise.policy[t]))
    for fresh, last, heads in zip(noise.candidates, noise.last, noise.heads, strict=True):
        drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * fresh).clamp(-1, 1) * rows.action_mask
        candidates = [guided, *(imagined(partial(_given, some)) for some in _slices(drawn))]
        noises = last.split([len(some.latent) for some in candidates])
        values = [value_of(model, rows, *each, heads) for each in zip(candidates, noises, strict=True)]
        # A model that diverged must not choose an action that is no number.
        value = torch.cat(values).nan_to_num(0.0)
        actions = torch.cat([guided.actions, drawn], dim=1)
        elites = fit_elites(actions, value, num_elites=config.num_elites, temperature=config.temperature)
        mean, std = elites.mean, elites.std.clamp(config.min_std, config.max_std)
    chosen = (elites.score.log() + noise.gumbel).argmax(0)
    action = elites.actions[0].gather(0, chosen[None, :, None].expand(1, *mean.shape[1:])).squeeze(0)
    if explore:
        action = action + std[0] * noise.action * rows.action_mask
    return Plan(action.clamp(-1, 1), mean)


def _given(actions: Tensor, t: int, latent: Tensor) -> Tensor:
    return actions[t]


def imagine(
    model: WorldModel,
    latent: Tensor,
    rows: Rows,
    choose: Callable[[int, Tensor], Tensor],
    horizon: int,
    *,
    terminates: bool,
) -> Imagined:
    """Roll ``horizon`` steps from ``latent [N, L]`` with actions ``[S, N, A]`` = ``choose(t, z)``.

    Rewards are Σₜ γᵗ R(zₜ, aₜ), the discount is γᴴ. Nothing counts behind a state that more likely than not ended the
    episode.
    """
    z = latent.unsqueeze(0)
    actions: list[Tensor] = []
    rewards, discount = torch.zeros_like(rows.gamma), torch.ones_like(rows.gamma)
    for t in range(horizon):
        a = choose(t, z)
        actions.append(a)
        rewards = rewards + discount * model.scalar(model.reward_logits(z, a, rows))
        z = model.next(z, a, rows)
        discount = discount * rows.gamma
        if terminates:
            discount = discount * (model.termination_logit(z, rows) <= 0)
    return Imagined(torch.stack(actions), z, rewards, discount)


def value_of(model: WorldModel, rows: Rows, imagined: Imagined, noise: Tensor, heads: Iterable[int]) -> Tensor:
    """φ ``[S, N]`` = rewards + γᴴ Q(z_H, a_H), a_H ~ p(· | z_H) with ``noise [S, N, A]``, Q the mean of ``heads``."""
    a = model.sample_action(imagined.latent, rows, noise)
    q = model.scalar(model.q_logits(imagined.latent, a, rows, heads=heads)).mean(0)
    return imagined.rewards + imagined.discount * q


def _slices(actions: Tensor) -> tuple[Tensor, ...]:
    """Candidates ``[H, S, N, A]`` in slices small enough for the cache; a GPU takes all at once."""
    _, samples, num_envs, _ = actions.shape
    size = samples if actions.is_cuda else max(1, _ROWS_AT_ONCE // num_envs)
    return torch.split(actions, size, dim=1)

"""Model-predictive path integral planning guided by a prior policy (Williams et al. 2017; TD-MPC, arXiv 2203.04955).

The model comes in as functions, so any latent model can be planned in. Letters: S candidates, H horizon, N
environments, A action size, L latent size. u is a pre-tanh action: the executed one is tanh(u).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from m3po.kit.distributions import Gaussian

__all__ = ["Candidates", "Elites", "Model", "Plan", "fit_elites", "imagine", "plan", "weigh"]


class Model(Protocol):
    """What a planner needs to know of the world; all arguments are batched over any leading axes."""

    def prior(self, latent: Tensor) -> Gaussian:
        """Policy over pre-tanh actions ``[..., A]`` in latents ``[..., L]``."""
        ...

    def step(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next latent ``[..., L]``, reward ``[...]``, discount ``[...]`` (γ times the probability of going on)."""
        ...

    def value(self, latent: Tensor) -> Tensor:
        """Value ``[...]`` of latents ``[..., L]``."""
        ...


class Candidates(NamedTuple):
    """Imagined sequences: ``u`` ``[H, S, N, A]`` pre-tanh, ``returns`` ``[S, N]``."""

    u: Tensor
    returns: Tensor


class Plan(NamedTuple):
    """What planning found: ``sequence`` Gaussian ``[H, N, A]`` over pre-tanh actions; the ``candidates`` of the last
    iteration and their ``weights`` ``[S, N]``."""

    sequence: Gaussian
    candidates: Candidates
    weights: Tensor

    @property
    def first(self) -> Gaussian:
        """Distribution ``[N, A]`` of the first pre-tanh action: the policy that acts."""
        return Gaussian(self.sequence.mean[0], self.sequence.std[0])


def imagine(model: Model, latent: Tensor, choose: Callable[[int, Tensor], Tensor], horizon: int) -> Candidates:
    """Roll ``horizon`` steps from ``latent [S, N, L]`` with u = ``choose(t, latent)`` and sum up the returns.

    G = Σₜ (Πⱼ<ₜ γⱼ) rₜ + (Πⱼ γⱼ) V(z_H), γⱼ being the model's discounts.
    """
    returns, discount, chosen = torch.zeros_like(latent[..., 0]), torch.ones_like(latent[..., 0]), []
    for t in range(horizon):
        u = choose(t, latent)
        chosen.append(u)
        latent, reward, gamma = model.step(latent, torch.tanh(u))
        returns = returns + discount * reward
        discount = discount * gamma
    return Candidates(torch.stack(chosen), returns + discount * model.value(latent))


def weigh(returns: Tensor, temperature: float) -> Tensor:
    """Weights over candidates: softmax(κ (G − max G) / std G) over axis 0, for ``returns [S, N]``.

    Dividing by the spread over candidates makes one κ serve tasks of every reward scale.
    """
    spread = returns.std(0, keepdim=True).clamp(min=1e-6)
    return torch.softmax(temperature * (returns - returns.amax(0, keepdim=True)) / spread, dim=0)


def plan(
    model: Model,
    latent: Tensor,
    noise: Tensor,
    *,
    temperature: float,
    min_std: float,
    optimism: Callable[[Tensor, Candidates], Tensor] | None = None,
    warm_start: Tensor | None = None,
) -> Plan:
    """Plan from ``latent [N, L]`` with standard normal ``noise [I, H, S, N, A]``, one slice per iteration.

    The first iteration rolls the prior; each further one samples around the weighted mean and spread of the last.
    ``warm_start`` ``[H, N, A]`` replaces candidate 0 of the first iteration where it is finite. ``optimism(latent,
    candidates)`` ``[S, N]`` is added to the returns before weighing. Differentiable with respect to the prior.

    m = Σ w u, σ² = Σ w (u − m)² + σ_min²
    """
    horizon, samples = noise.shape[1:3]
    wide = latent.expand(samples, *latent.shape)

    def from_prior(t: int, z: Tensor) -> Tensor:
        u = model.prior(z).sample(noise[0, t])
        if warm_start is None:
            return u
        first = torch.where(torch.isfinite(warm_start[t]), warm_start[t], u[0])
        return torch.cat([first.unsqueeze(0), u[1:]])

    def evaluated(candidates: Candidates) -> Plan:
        scores = candidates.returns if optimism is None else candidates.returns + optimism(latent, candidates)
        return _fit(candidates, weigh(scores, temperature), min_std)

    found = evaluated(imagine(model, wide, from_prior, horizon))
    for fresh in noise[1:]:
        u = found.sequence.mean.unsqueeze(1) + found.sequence.std.unsqueeze(1) * fresh
        found = evaluated(imagine(model, wide, lambda t, _, u=u: u[t], horizon))  # type: ignore[misc]
    return found


def _fit(candidates: Candidates, weights: Tensor, min_std: float) -> Plan:
    share = weights[None, ..., None]
    mean = (share * candidates.u).sum(1)
    variance = (share * (candidates.u - mean.unsqueeze(1)) ** 2).sum(1)
    return Plan(Gaussian(mean, torch.sqrt(variance + min_std**2)), candidates, weights)


class Elites(NamedTuple):
    """The E best of some candidate sequences: ``actions`` ``[H, E, N, A]``, best first, and what they count for,
    ``score`` ``[E, N]``, one in sum; ``mean, std`` ``[H, N, A]`` weighted by it."""

    actions: Tensor
    score: Tensor
    mean: Tensor
    std: Tensor


def fit_elites(actions: Tensor, value: Tensor, *, num_elites: int, temperature: float) -> Elites:
    """Fit a plan to the best of ``actions [H, S, N, A]`` of ``value [S, N]``.

    Ω = exp(τ (φ − max φ)) over elites, μ = Σ Ω a / Σ Ω, σ² = Σ Ω (a − μ)² / Σ Ω   (TD-MPC, arXiv 2203.04955, eq. 4).
    Unlike :func:`weigh`, τ is on values as they are.
    """
    if actions.shape[1:3] != value.shape:
        raise ValueError(f"actions {tuple(actions.shape)} are not [H, S, N, A] with values [S, N] {tuple(value.shape)}")
    best, place = value.topk(num_elites, dim=0)
    score = torch.softmax(temperature * best, dim=0)
    horizon, _, num_envs, size = actions.shape
    elites = actions.gather(1, place[None, :, :, None].expand(horizon, num_elites, num_envs, size))
    share = score[None, ..., None]
    mean = (share * elites).sum(1)
    std = (share * (elites - mean.unsqueeze(1)) ** 2).sum(1).sqrt()
    return Elites(elites, score, mean, std)

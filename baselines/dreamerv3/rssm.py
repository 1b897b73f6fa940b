"""The recurrent state-space model: what an observation or an action does to the latent state.

    deter  hₜ = core(hₜ₋₁, zₜ₋₁, aₜ₋₁)        block-diagonal GRU
    prior  ẑₜ ~ p(· | hₜ)                      what is expected
    post   zₜ ~ q(· | hₜ, token(oₜ))           what is seen
(Hafner et al. 2025, eq. 3.) Latents are categorical one-hot vectors; S of them with C classes each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.dreamerv3.nets import BlockLinear, activated, mlp, normed

__all__ = ["RSSM", "State", "categorical_kl", "forget", "kl_losses", "mixed_probs", "sample_latent"]


class State(NamedTuple):
    """Latent state: ``deter [..., deter]`` and one-hot ``stoch [..., S, C]``."""

    deter: Tensor
    stoch: Tensor

    def feature(self) -> Tensor:
        """Both parts side by side, ``[..., deter + S·C]``."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], dim=-1)


def mixed_probs(logits: Tensor, unimix: float) -> Tensor:
    """(1 − unimix) softmax(logits) + unimix/C, ``[..., C]``: no class is ever impossible."""
    # Written as exp and sum, because softmax over a short last axis is several times slower on a CPU.
    weights = torch.exp(logits - logits.detach().amax(-1, keepdim=True))
    return weights * ((1 - unimix) / weights.sum(-1, keepdim=True)) + unimix / logits.shape[-1]


def sample_latent(probs: Tensor, noise: Tensor | None) -> Tensor:
    """One-hot samples ``[..., S, C]`` with straight-through gradients: forward the sample, backward the probabilities.

    ``noise [..., S]`` uniform on [0, 1) picks the class by inverting the cumulative distribution (one number per
    latent, where Gumbel noise needs C); ``None`` gives the mode.
    """
    with torch.no_grad():
        if noise is None:
            chosen = probs.argmax(-1, keepdim=True)
        else:
            # The clamp is for a cumulative sum that rounding left below one.
            below = (probs.cumsum(-1) <= noise.unsqueeze(-1)).sum(-1, keepdim=True)
            chosen = below.clamp_(max=probs.shape[-1] - 1)
        one_hot = torch.zeros_like(probs).scatter_(-1, chosen, 1.0)
    return one_hot + (probs - probs.detach())


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) ``[...]`` in nats, summed over S independent latents; ``p, q [..., S, C]`` are probabilities."""
    return (p * (torch.log(p) - torch.log(q))).sum((-2, -1))


def kl_losses(post: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor]:
    """Dynamics and representation loss ``[...]`` of probabilities ``[..., S, C]``.

    max(free, KL(sg(post) ‖ prior)) and max(free, KL(post ‖ sg(prior)))   (Hafner et al. 2025, eq. 5)
    """
    dyn = categorical_kl(post.detach(), prior).clamp(min=free_nats)
    rep = categorical_kl(post, prior.detach()).clamp(min=free_nats)
    return dyn, rep


def forget(state: State, first: Tensor) -> State:
    """Zero the state ``[B, ...]`` where ``first`` bool ``[B]`` begins an episode."""
    keep = (~first).to(state.deter.dtype)[:, None]
    return State(state.deter * keep, state.stoch * keep[..., None])


class RSSM(nn.Module):
    """The latent dynamics; all sizes as in :class:`~baselines.dreamerv3.config.DreamerV3Config`.

    ``token_size`` is the size of an encoded observation, ``action_size`` that of the action input.
    """

    def __init__(
        self,
        token_size: int,
        action_size: int,
        *,
        deter: int,
        hidden: int,
        stoch: int,
        classes: int,
        blocks: int,
        unimix: float,
    ) -> None:
        super().__init__()
        self.deter, self.stoch, self.classes = deter, stoch, classes
        self.blocks, self.unimix = blocks, unimix
        self.from_deter = normed(deter, hidden)
        self.from_stoch = normed(stoch * classes, hidden)
        self.from_action = normed(action_size, hidden)
        self.mix = BlockLinear(deter + blocks * 3 * hidden, deter, blocks)
        self.mix_norm = activated(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)
        self.prior_logits = mlp(deter, hidden, 2, stoch * classes)
        self.post_logits = mlp(deter + token_size, hidden, 1, stoch * classes)

    def initial(self, *batch: int) -> State:
        """The state before anything was seen: zeros."""
        like = self.gates.bias
        return State(like.new_zeros(*batch, self.deter), like.new_zeros(*batch, self.stoch, self.classes))

    def drive(self, action: Tensor) -> Tensor:
        """What ``action [..., A]`` puts into the core, ``[..., hidden]``; entries beyond ±1 count as ±1."""
        driven: Tensor = self.from_action(action.clamp(-1.0, 1.0))
        return driven

    def core(self, state: State, driven: Tensor) -> Tensor:
        """Next deterministic state ``[B, deter]`` after a :meth:`drive` ``[B, hidden]``."""
        batch = driven.shape[0]
        inputs = torch.cat([self.from_deter(state.deter), self.from_stoch(state.stoch.flatten(-2)), driven], dim=-1)
        grouped = state.deter.view(batch, self.blocks, -1)
        shared = inputs.unsqueeze(1).expand(-1, self.blocks, -1)
        mixed = self.mix_norm(self.mix(torch.cat([grouped, shared], dim=-1)).reshape(batch, -1))
        reset, candidate, update = self.gates(mixed.view(batch, self.blocks, -1)).chunk(3, dim=-1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        deter: Tensor = torch.lerp(grouped, candidate, torch.sigmoid(update - 1)).reshape(batch, -1)
        return deter

    def prior(self, deter: Tensor) -> Tensor:
        """Probabilities ``[..., S, C]`` of the latents expected in ``deter [..., deter]``."""
        return self._probs(self.prior_logits(deter))

    def posterior(self, deter: Tensor, token: Tensor) -> Tensor:
        """Probabilities ``[..., S, C]`` of the latents given an encoded observation ``token [..., E]``."""
        return self._probs(self.post_logits(torch.cat([deter, token], dim=-1)))

    def imagine(self, state: State, action: Tensor, noise: Tensor) -> State:
        """One step without looking: the state ``[B, ...]`` after ``action [B, A]``; ``noise [B, S]`` uniform."""
        deter = self.core(state, self.drive(action))
        return State(deter, sample_latent(self.prior(deter), noise))

    def observe(self, state: State, driven: Tensor, token: Tensor, noise: Tensor | None) -> tuple[State, Tensor]:
        """One step with the observation ``token [B, E]`` that a :meth:`drive` ``[B, hidden]`` led to.

        Returns the state and the posterior ``[B, S, C]``; ``noise [B, S]`` as in :func:`sample_latent`.
        """
        deter = self.core(state, driven)
        probs = self.posterior(deter, token)
        return State(deter, sample_latent(probs, noise)), probs

    def observe_sequence(self, action: Tensor, token: Tensor, first: Tensor, noise: Tensor) -> tuple[State, Tensor]:
        """States and posteriors of ``T`` observations.

        ``action [T, B, A]`` led to ``token [T, B, E]``; ``first`` bool ``[T, B]`` forgets what was before;
        ``noise [T, B, S]``. Returns a state ``[T, B, ...]`` and posteriors ``[T, B, S, C]``.
        """
        # Only the core and the posterior must go step by step.
        state, driven = self.initial(action.shape[1]), self.drive(action)
        states, posteriors = [], []
        for t in range(action.shape[0]):
            state, probs = self.observe(forget(state, first[t]), driven[t], token[t], noise[t])
            states.append(state)
            posteriors.append(probs)
        deter, stoch = (torch.stack(parts) for parts in zip(*states, strict=True))
        return State(deter, stoch), torch.stack(posteriors)

    def _probs(self, logits: Tensor) -> Tensor:
        return mixed_probs(logits.view(*logits.shape[:-1], self.stoch, self.classes), self.unimix)

"""The recurrent state-space model: what an observation or an action does to the latent state.

    deter  hₜ = core(hₜ₋₁, zₜ₋₁, aₜ₋₁)        block-diagonal GRU
    prior  ẑₜ ~ p(· | hₜ)                      what is expected
    post   zₜ ~ q(· | hₜ, token(oₜ))           what is seen
(Hafner et al. 2025, eq. 3.) Latents are categorical one-hot vectors; S of them with C classes each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.nets import Activated, BlockLinear, linear, mlp, normed, rms_silu

__all__ = ["RSSM", "State", "categorical_kl", "forget", "kl_losses", "mixed_probs", "sample_latent"]


class State(NamedTuple):
    """Latent state: ``deter [..., deter]`` and one-hot ``stoch [..., S, C]``."""

    deter: Tensor
    stoch: Tensor

    def kept(self) -> dict[str, Tensor]:
        """As replay keeps it: ``deter`` in half precision and the classes of ``stoch`` as bytes ``[..., S]``."""
        return {"deter": self.deter.half(), "stoch": self.stoch.argmax(-1).to(torch.uint8)}


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
    return one_hot + (probs - probs.detach()) if probs.requires_grad else one_hot


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


class Cut(NamedTuple):
    """The recurrent weights that meet deter or stoch, cut out once for all steps of an unrolling.

    ``scale [2, hidden]`` of the two input norms; of the core's first layer ``own [G, deter/G, deter/G]`` and ``shared
    [2·hidden, deter]``; ``look [deter, hidden]`` of the posterior's first layer.
    """

    scale: Tensor
    own: Tensor
    shared: Tensor
    look: Tensor


class RSSM(nn.Module):
    """The latent dynamics; all sizes as in :class:`~baselines.dreamerv3.config.DreamerV3Config`.

    ``token_size`` is the size of an encoded observation, ``action_size`` that of the action input. What a step does not
    need to wait for, :meth:`drive` and :meth:`look`, is computed for whole sequences.
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
        self.deter, self.hidden, self.stoch, self.classes = deter, hidden, stoch, classes
        self.blocks, self.unimix = blocks, unimix
        self.from_deter, self.deter_scale = linear(deter, hidden), nn.Parameter(torch.ones(hidden))
        self.from_stoch, self.stoch_scale = linear(stoch * classes, hidden), nn.Parameter(torch.ones(hidden))
        self.from_action = normed(action_size, hidden)
        self.mix = BlockLinear(deter + blocks * 3 * hidden, deter, blocks)
        self.mix_norm = Activated(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)
        self.prior_logits = mlp(deter, hidden, 2, stoch * classes)
        self.post_input = linear(deter + token_size, hidden)
        self.post_logits = nn.Sequential(Activated(hidden), linear(hidden, stoch * classes))

    def initial(self, *batch: int) -> State:
        """The state before anything was seen: zeros."""
        like = self.gates.bias
        return State(like.new_zeros(*batch, self.deter), like.new_zeros(*batch, self.stoch, self.classes))

    def cut(self) -> Cut:
        """The weights of one unrolling; cutting them at every step would cost as much as the step."""
        mix, size = self.mix.weight, self.deter // self.blocks
        return Cut(
            scale=torch.stack([self.deter_scale, self.stoch_scale]),
            own=mix[:size].transpose(0, 1),
            shared=mix[size : -self.hidden].flatten(1),
            look=self.post_input.weight[:, : self.deter].t(),
        )

    def drive(self, action: Tensor) -> Tensor:
        """What ``action [..., A]`` puts into the core, ``[..., deter]``; entries beyond ±1 count as ±1."""
        inputs = self.from_action(action.clamp(-1.0, 1.0))
        return F.linear(inputs, self.mix.weight[-self.hidden :].flatten(1).t(), self.mix.bias)

    def look(self, token: Tensor) -> Tensor:
        """What an encoded observation ``token [..., E]`` puts into the posterior, ``[..., hidden]``."""
        return F.linear(token, self.post_input.weight[:, self.deter :], self.post_input.bias)

    def core(self, state: State, driven: Tensor, cut: Cut) -> Tensor:
        """Next deterministic state ``[B, deter]`` after a :meth:`drive` ``[B, deter]``."""
        batch = driven.shape[0]
        inputs = torch.stack([self.from_deter(state.deter), self.from_stoch(state.stoch.flatten(-2))], dim=1)
        inputs = rms_silu(inputs, cut.scale).flatten(1)
        # Every block sees its own part of deter and all of the inputs, so these are one dense product.
        shared = torch.addmm(driven, inputs, cut.shared).view(batch, self.blocks, -1)
        own = state.deter.view(batch, self.blocks, -1)
        mixed = torch.baddbmm(shared.transpose(0, 1), own.transpose(0, 1), cut.own).transpose(0, 1)
        mixed = self.mix_norm(mixed.reshape(batch, -1)).view(batch, self.blocks, -1)
        # Copied apart, because a sigmoid of strided parts takes five times as long on a CPU.
        reset, candidate, update = (part.contiguous() for part in self.gates(mixed).chunk(3, dim=-1))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        deter: Tensor = torch.lerp(own, candidate, torch.sigmoid(update - 1)).reshape(batch, -1)
        return deter

    def prior(self, deter: Tensor) -> Tensor:
        """Probabilities ``[..., S, C]`` of the latents expected in ``deter [..., deter]``."""
        return self._probs(self.prior_logits(deter))

    def imagine(self, state: State, action: Tensor, noise: Tensor, cut: Cut) -> State:
        """One step without looking: the state ``[B, ...]`` after ``action [B, A]``; ``noise [B, S]`` uniform."""
        deter = self.core(state, self.drive(action), cut)
        return State(deter, sample_latent(self.prior(deter), noise))

    def observe(
        self, state: State, driven: Tensor, looked: Tensor, noise: Tensor | None, cut: Cut
    ) -> tuple[State, Tensor]:
        """One step with an observation, of which :meth:`look` made ``looked [B, hidden]``, that a drive led to.

        Returns the state and the posterior ``[B, S, C]``; ``noise [B, S]`` as in :func:`sample_latent`.
        """
        deter = self.core(state, driven, cut)
        probs = self._probs(self.post_logits(torch.addmm(looked, deter, cut.look)))
        return State(deter, sample_latent(probs, noise)), probs

    def observe_sequence(
        self, state: State, action: Tensor, token: Tensor, first: Tensor, noise: Tensor
    ) -> tuple[State, Tensor]:
        """States and posteriors of ``T`` observations, from the state ``[B, ...]`` before them.

        ``action [T, B, A]`` led to ``token [T, B, E]``; ``first`` bool ``[T, B]`` forgets what was before;
        ``noise [T, B, S]``. Returns a state ``[T, B, ...]`` and posteriors ``[T, B, S, C]``.
        """
        cut, driven, looked = self.cut(), self.drive(action), self.look(token)
        states, posteriors = [], []
        for t in range(action.shape[0]):
            state, probs = self.observe(forget(state, first[t]), driven[t], looked[t], noise[t], cut)
            states.append(state)
            posteriors.append(probs)
        deter, stoch = (torch.stack(parts) for parts in zip(*states, strict=True))
        return State(deter, stoch), torch.stack(posteriors)

    def _probs(self, logits: Tensor) -> Tensor:
        return mixed_probs(logits.view(*logits.shape[:-1], self.stoch, self.classes), self.unimix)

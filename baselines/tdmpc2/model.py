"""TD-MPC2's implicit world model (arXiv 2310.16828, section 3.1): nothing maps latents back to observations.

===========  ========================  ================================================
paper        here                      shape
===========  ========================  ================================================
e            ``Rows.embedding``        ``[..., E]``, E = 0 for one task
h(s, e)      ``encode``                ``[..., L]``, SimNorm
d(z, a, e)   ``next``                  ``[..., L]``, SimNorm
R(z, a, e)   ``reward_logits``         two-hot over symlog bins
Q(z, a, e)   ``q_logits``              M heads, two-hot over symlog bins
p(z, e)      ``policy``                Gaussian over pre-tanh actions
(code only)  ``termination_logit``     logit ``[...]``
===========  ========================  ================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.tdmpc2.config import TDMPC2Config
from m3po.api import EnvSpec
from m3po.kit.distributions import Gaussian, bounded_gaussian
from m3po.kit.nets import Mish, NormedLinear, SimNorm, dropout, last_linear
from m3po.kit.returns import discount_for_length
from m3po.kit.symlog import symlog_loss, symlog_mean

__all__ = ["Network", "Rows", "WorldModel"]


class Rows(NamedTuple):
    """What is known of the tasks of B rows: ``embedding [B, E]``, ``action_mask [B, A]``, ``gamma [B]``."""

    embedding: Tensor
    action_mask: Tensor
    gamma: Tensor


class Network(nn.Module):
    """Layers Linear → LayerNorm → Mish of sizes ``hidden``, then a plain layer, or LayerNorm and ``last`` behind it.

    Its input x = [x₁, x₂, …] comes in parts that broadcast against each other. W x is summed up as Σ Wᵢ xᵢ, so that
    what many candidates share (the latent they start from, the task) is multiplied once.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], outputs: int, *, last: nn.Module | None = None, dropped: float = 0.0
    ) -> None:
        super().__init__()
        self.dropped = dropped
        """Share of the first layer that is dropped while learning."""
        self.first = nn.Linear(inputs, hidden[0])
        layers: list[nn.Module] = [nn.LayerNorm(hidden[0]), Mish()]
        layers += [NormedLinear(a, b, Mish()) for a, b in itertools.pairwise(hidden)]
        layers.append(nn.Linear(hidden[-1], outputs) if last is None else NormedLinear(hidden[-1], outputs, last))
        self.rest = nn.Sequential(*layers)

    def __call__(self, *parts: Tensor, stream: torch.Generator | None = None) -> Tensor:
        """``[..., Dᵢ]`` each, Σ Dᵢ inputs → ``[..., outputs]``; nothing is dropped without a ``stream``."""
        y: Tensor = super().__call__(*parts, stream=stream)
        return y

    def forward(self, *parts: Tensor, stream: torch.Generator | None = None) -> Tensor:
        first, *others = [part for part in parts if part.shape[-1]]
        if others:
            weights = torch.split(self.first.weight, [part.shape[-1] for part in (first, *others)], dim=1)
            x = F.linear(first, weights[0], self.first.bias)
            for part, weight in zip(others, weights[1:], strict=True):
                x = x + F.linear(part, weight)
        else:
            x = self.first(first)
        if stream is not None:
            x = dropout(x, self.dropped, stream)
        y: Tensor = self.rest(x)
        return y


def _beside(z: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """One part of ``z`` and ``a`` where they have as many rows: one product is faster than two and a sum."""
    return (torch.cat([z, a], dim=-1),) if z.shape[:-1] == a.shape[:-1] else (z, a)


class WorldModel(nn.Module):
    """All networks. Methods take latents ``z [..., L]``, actions ``a [..., A]`` and the :class:`Rows` of their tasks.

    Heads of the ensemble are networks of their own: products as large as theirs gain nothing from being batched.
    """

    critics: nn.ModuleList
    bins: Tensor
    observation_mask: Tensor
    action_mask: Tensor
    gamma: Tensor

    def __init__(self, spec: EnvSpec, config: TDMPC2Config) -> None:
        super().__init__()
        c, width, latent = config, config.mlp_dim, config.latent_dim
        embedding = c.task_dim if spec.num_tasks > 1 else 0
        state, state_action = latent + embedding, latent + spec.action_dim + embedding
        self.log_std_min, self.log_std_max = c.log_std_min, c.log_std_max
        self.embedding = nn.Parameter(torch.empty(spec.num_tasks, embedding))
        encoder = [c.enc_dim] * (c.enc_layers - 1)
        self.encoder = Network(spec.observation_size + embedding, encoder, latent, last=SimNorm(c.simnorm_dim))
        self.dynamics = Network(state_action, [width, width], latent, last=SimNorm(c.simnorm_dim))
        self.reward = Network(state_action, [width, width], c.num_bins)
        self.termination = Network(state, [width, width], 1)
        self.critics = nn.ModuleList(
            Network(state_action, [width, width], c.num_bins, dropped=c.dropout) for _ in range(c.num_q)
        )
        self.actor = Network(state, [width, width], 2 * spec.action_dim)
        self.register_buffer("bins", torch.linspace(-c.bin_limit, c.bin_limit, c.num_bins), persistent=False)
        self.register_buffer("observation_mask", torch.from_numpy(spec.observation_mask).clone(), persistent=False)
        self.register_buffer("action_mask", torch.from_numpy(spec.action_mask).float(), persistent=False)
        gamma = discount_for_length(torch.from_numpy(spec.max_episode_steps))
        self.register_buffer("gamma", gamma if c.gamma is None else torch.full_like(gamma, c.gamma), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights of σ = 0.02 in every layer of every network, each head of the ensemble with its own; zero
        biases; zero last layers of reward and Q, which therefore start at 0; embeddings uniform in ± 0.02.

        The official repository lost the ensemble's part of it for a while (its issue 72).
        """
        nn.init.uniform_(self.embedding, -0.02, 0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for network in (self.reward, *self.critics):
            nn.init.zeros_(last_linear(network).weight)

    def rows(self, task: Tensor) -> Rows:
        """What is known of ``task`` int64 ``[B]``."""
        return Rows(self.embedding[task], self.action_mask[task], self.gamma[task])

    @torch.no_grad()
    def bound_embeddings(self) -> None:
        """Shorten task embeddings to length 1 where they are longer (``max_norm`` of the official embedding)."""
        if self.embedding.numel():
            self.embedding.renorm_(2, 0, 1.0)

    def encode(self, observation: Tensor, task: Tensor, rows: Rows) -> Tensor:
        """z = h(s, e) of ``observation [..., B, D]`` of ``task [B]``; padded entries are masked away."""
        return self.encoder(torch.where(self.observation_mask[task], observation, 0.0), rows.embedding)

    def next(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
        """z' = d(z, a, e)."""
        return self.dynamics(*_beside(z, a), rows.embedding)

    def reward_logits(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
        """R(z, a, e) as logits ``[..., bins]``."""
        return self.reward(*_beside(z, a), rows.embedding)

    def termination_logit(self, z: Tensor, rows: Rows) -> Tensor:
        """Logit ``[...]`` that an episode ended where it reached z."""
        return self.termination(z, rows.embedding).squeeze(-1)

    def q_logits(
        self,
        z: Tensor,
        a: Tensor,
        rows: Rows,
        *,
        critics: nn.ModuleList | None = None,
        heads: Iterable[int] | None = None,
        stream: torch.Generator | None = None,
    ) -> Tensor:
        """Q(z, a, e) of all heads or of some, ``[M, ..., bins]``, of the target's ``critics`` if given.

        ``stream`` is what dropout is drawn from; without it nothing is dropped.
        """
        critics = critics or self.critics
        chosen = critics if heads is None else [critics[m] for m in heads]
        parts = (*_beside(z, a), rows.embedding)
        return torch.stack([critic(*parts, stream=stream) for critic in chosen])

    def policy(self, z: Tensor, rows: Rows) -> Gaussian:
        """p(· | z, e) over pre-tanh actions; masked entries are N(0, 1) and never used."""
        return bounded_gaussian(self.actor(z, rows.embedding), rows.action_mask, self.log_std_min, self.log_std_max)

    def sample_action(self, z: Tensor, rows: Rows, noise: Tensor) -> Tensor:
        """a = tanh(u), u ~ p(· | z, e) with ``noise [..., A]`` standard normal; padded entries are 0."""
        return torch.tanh(self.policy(z, rows).sample(noise)) * rows.action_mask

    def scalar(self, logits: Tensor) -> Tensor:
        """The number ``[...]`` that two-hot ``logits [..., bins]`` stand for."""
        return symlog_mean(logits, self.bins)

    def regression_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` of two-hot ``logits [..., bins]`` against numbers ``target [...]``."""
        return symlog_loss(logits, target, self.bins)

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

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.tdmpc2.config import TDMPC2Config
from m3po.api import EnvSpec
from m3po.kit.distributions import Gaussian
from m3po.kit.nets import Mish, NormedLinear, SimNorm, last_linear, mish
from m3po.kit.returns import discount_for_length
from m3po.kit.symlog import symexp, symlog, two_hot_loss

__all__ = ["Ensemble", "Network", "Rows", "WorldModel"]


class Rows(NamedTuple):
    """What is known of the tasks of B rows: ``embedding [B, E]``, ``action_mask [B, A]``, ``gamma [B]``."""

    embedding: Tensor
    action_mask: Tensor
    gamma: Tensor

    def detach(self) -> Rows:
        """The same without gradient."""
        return self._replace(embedding=self.embedding.detach())


class Network(nn.Module):
    """Layers Linear → LayerNorm → Mish of sizes ``hidden``, then a plain layer, or LayerNorm and ``last`` behind it.

    Its input is x = [x₁, x₂, …] in parts that broadcast against each other. W x is summed up as Σ Wᵢ xᵢ, so that what
    many candidates share (the latent they start from, the task) is multiplied once.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, *, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden[0])
        layers: list[nn.Module] = [nn.LayerNorm(hidden[0]), Mish()]
        layers += [NormedLinear(a, b, Mish()) for a, b in zip(hidden[:-1], hidden[1:], strict=True)]
        layers.append(nn.Linear(hidden[-1], outputs) if last is None else NormedLinear(hidden[-1], outputs, last))
        self.rest = nn.Sequential(*layers)

    def forward(self, *parts: Tensor) -> Tensor:
        """``[..., Dᵢ]`` each, Σ Dᵢ inputs → ``[..., outputs]``."""
        weights = self.first.weight.split([part.shape[-1] for part in parts], dim=1)
        x = F.linear(parts[0], weights[0], self.first.bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            if part.shape[-1]:
                x = x + F.linear(part, weight)
        y: Tensor = self.rest(x)
        return y


class Ensemble(nn.Module):
    """M networks of one shape, layer by layer as one batched product: the Q-functions.

    Each is Linear → dropout → LayerNorm → Mish → Linear → LayerNorm → Mish → Linear (dropout in the first only).
    """

    def __init__(self, members: int, inputs: int, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.members, self.dropout = members, dropout
        sizes = [(inputs, width), (width, width), (width, outputs)]
        self.weights = nn.ParameterList(torch.zeros(members, a, b) for a, b in sizes)
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for _, b in sizes)
        self.gains = nn.ParameterList(torch.ones(members, 1, width) for _ in range(2))
        self.shifts = nn.ParameterList(torch.zeros(members, 1, width) for _ in range(2))

    def forward(
        self, *parts: Tensor, heads: Tensor | None = None, dropout: torch.Generator | None = None
    ) -> Tensor:
        """``[..., Dᵢ]`` each, broadcasting as in :class:`Network` → ``[M, ..., outputs]``.

        ``heads`` int64 ``[m]``: these members only, ``[m, ..., outputs]``. ``dropout``: what to draw it from; without
        it nothing is dropped.
        """
        # Of two members two are always asked, and neither mean nor minimum sees their order.
        chosen = slice(None) if heads is None or len(heads) == self.members else heads
        weights, biases, gains, shifts = (
            [p[chosen] for p in ps] for ps in (self.weights, self.biases, self.gains, self.shifts)
        )
        x = _joint(parts, weights[0], biases[0])
        shape = x.shape[1:-1]
        x = x.flatten(1, -2)
        if dropout is not None and self.dropout:
            keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=dropout)
            x = x * keep.div_(1 - self.dropout)
        for layer in range(2):
            normed = F.layer_norm(x, x.shape[-1:])
            x = mish(torch.addcmul(shifts[layer], normed, gains[layer]))
            x = torch.baddbmm(biases[layer + 1], x, weights[layer + 1])
        return x.unflatten(1, shape)


def _joint(parts: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """b + Σ xᵢ Wᵢ ``[M, ..., out]`` of parts ``[..., Dᵢ]``, ``weight [M, Σ Dᵢ, out]``, ``bias [M, 1, out]``."""
    members, axes = len(weight), max(part.ndim for part in parts)
    total = bias.view(members, *[1] * (axes - 1), -1)
    for part, block in zip(parts, weight.split([part.shape[-1] for part in parts], dim=1), strict=True):
        if part.shape[-1]:
            product = part.reshape(-1, part.shape[-1]) @ block
            total = total + product.view(members, *[1] * (axes - part.ndim), *part.shape[:-1], -1)
    return total


class WorldModel(nn.Module):
    """All networks. Methods take latents ``z [..., L]``, actions ``a [..., A]`` and the :class:`Rows` of their tasks."""

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
        self.critics = Ensemble(c.num_q, state_action, width, c.num_bins, c.dropout)
        self.actor = Network(state, [width, width], 2 * spec.action_dim)
        self.register_buffer("bins", torch.linspace(-c.bin_limit, c.bin_limit, c.num_bins))
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
        for weight in self.critics.weights[:-1]:
            nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(last_linear(self.reward).weight)

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
        return self.dynamics(z, a, rows.embedding)

    def reward_logits(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
        """R(z, a, e) as logits ``[..., bins]``."""
        return self.reward(z, a, rows.embedding)

    def termination_logit(self, z: Tensor, rows: Rows) -> Tensor:
        """Logit ``[...]`` that an episode ended where it reached z."""
        return self.termination(z, rows.embedding).squeeze(-1)

    def q_logits(
        self,
        z: Tensor,
        a: Tensor,
        rows: Rows,
        *,
        critics: Ensemble | None = None,
        heads: Tensor | None = None,
        dropout: torch.Generator | None = None,
    ) -> Tensor:
        """Q(z, a, e) of all heads or of some, ``[M, ..., bins]``, of the target's ``critics`` if given."""
        return (critics or self.critics)(z, a, rows.embedding, heads=heads, dropout=dropout)

    def policy(self, z: Tensor, rows: Rows) -> Gaussian:
        """p(· | z, e) over pre-tanh actions; masked entries are N(0, 1) and never used."""
        mean, raw = self.actor(z, rows.embedding).chunk(2, -1)
        log_std = self.log_std_min + 0.5 * (self.log_std_max - self.log_std_min) * (torch.tanh(raw) + 1)
        return Gaussian(mean * rows.action_mask, torch.exp(log_std * rows.action_mask))

    def sample_action(self, z: Tensor, rows: Rows, noise: Tensor) -> Tensor:
        """a = tanh(u), u ~ p(· | z, e) with ``noise [..., A]`` standard normal; padded entries are 0."""
        return torch.tanh(self.policy(z, rows).sample(noise)) * rows.action_mask

    def scalar(self, logits: Tensor) -> Tensor:
        """The number ``[...]`` that two-hot ``logits [..., bins]`` stand for."""
        return symexp(torch.softmax(logits, -1) @ self.bins)

    def regression_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` of two-hot ``logits [..., bins]`` against numbers ``target [...]``."""
        return two_hot_loss(logits, symlog(target), self.bins)

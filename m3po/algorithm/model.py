"""The implicit world model: everything is predicted in latent space; nothing maps back to observations.

===========  ==============================  =====================================================
symbol       name                            shape
===========  ==============================  =====================================================
e            ``embedding(task)``             ``[..., E]``, E = 0 for one task
h(o, e)      ``encode``                      ``[..., L]``, SimNorm
d(z, a, e)   ``dynamics``                    ``[..., L]``, SimNorm
R(z, a, e)   ``reward``                      two-hot over symlog bins
C(z, a, e)   ``termination``                 logit ``[...]``
Q_b or V_b   ``critics``                     M heads, two-hot over symlog bins
Q_δ          ``bonus_critic``                two-hot over symlog bins, where the reward is augmented on replay
V_f(z, e)    ``model_free_value``            two-hot over symlog bins, and a random function
V_δ(z, e)    ``augmented_value``             two-hot over symlog bins, where the reward is augmented on fresh data
π(a | z, e)  ``prior``                       Gaussian over pre-tanh actions
===========  ==============================  =====================================================
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from m3po.algorithm.config import M3POConfig
from m3po.api import EnvSpec
from m3po.kit.distributions import Gaussian, bounded_gaussian
from m3po.kit.nets import MLP, SimNorm, TaskEmbedding, last_linear
from m3po.kit.normalize import RunningMoments
from m3po.kit.symlog import symlog_loss, symlog_mean

__all__ = ["TaskModel", "WorldModel"]

_LOG_STD_LOW, _LOG_STD_HIGH = -3.0, 1.0
_DISCREPANCIES = 128
"""Of a task at least, what a bonus is normalised by: a joint suite's batch has few of each."""


def _beside(*parts: Tensor) -> Tensor:
    """``parts [..., Dᵢ]`` along the last axis; an empty one, as the embedding of a single task, would cost a copy."""
    parts = tuple(part for part in parts if part.shape[-1])
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


class WorldModel(nn.Module):
    """All networks of M3PO. Methods take latents ``z [..., L]``, actions ``a [..., A]``, embeddings ``e [..., E]``."""

    bins: Tensor
    observation_mask: Tensor
    action_mask: Tensor

    def __init__(self, spec: EnvSpec, config: M3POConfig) -> None:
        super().__init__()
        width, latent, bins = config.hidden, config.latent, config.bins
        embedding = config.task_embedding if spec.num_tasks > 1 else 0
        state, state_action = latent + embedding, latent + spec.action_dim + embedding
        self.critic_form = config.critic
        self.embedding = TaskEmbedding(spec.task_names, embedding)
        self.encoder = MLP(spec.observation_size + embedding, [width], latent, last=SimNorm())
        self.dynamics_net = MLP(state_action, [width, width], latent, last=SimNorm())
        self.reward_net = MLP(state_action, [width, width], bins)
        self.termination_net = MLP(state_action, [width], 1)
        inputs = state_action if config.critic == "q" else state
        self.critics = nn.ModuleList(MLP(inputs, [width, width], bins) for _ in range(config.critics))
        self.bonus_critic = MLP(state_action, [width, width], bins) if config.values_bonus else None
        self.model_free = MLP(state, [width, width], bins)
        self.augmented = MLP(state, [width, width], bins) if config.augments_rollouts else None
        self.random_prior = config.random_prior if config.values_bonus else 0.0
        self.random_function = MLP(state, [width], 1).requires_grad_(False) if self.random_prior else None
        self.actor = MLP(state, [width, width], 2 * spec.action_dim)
        self.discrepancy_moments = RunningMoments(1, spec.num_tasks, memory=_DISCREPANCIES)
        self.register_buffer("bins", torch.linspace(-config.bin_limit, config.bin_limit, bins))
        self.register_buffer("observation_mask", torch.from_numpy(spec.observation_mask).float())
        self.register_buffer("action_mask", torch.from_numpy(spec.action_mask).float())
        self._initialise()

    def _initialise(self) -> None:
        """Zero the last layers of all two-hot heads (predictions start at 0) and start π near N(0, 1)."""
        bonuses = [head for head in (self.bonus_critic, self.augmented) if head is not None]
        for head in (self.reward_net, self.model_free, *self.critics, *bonuses):
            last = last_linear(head)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        last = last_linear(self.actor)
        nn.init.orthogonal_(last.weight, 0.01)
        nn.init.zeros_(last.bias)
        share = 2 * (0.0 - _LOG_STD_LOW) / (_LOG_STD_HIGH - _LOG_STD_LOW) - 1
        nn.init.constant_(last.bias[last.bias.shape[0] // 2 :], math.atanh(share))

    def encode(self, observation: Tensor, task: Tensor) -> Tensor:
        """z = h(o, e) of ``observation [..., D]`` of tasks ``[...]``; padded entries are masked away."""
        e = self.embedding(task)
        return self.encoder(_beside(observation * self.observation_mask[task], e))

    def dynamics(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """ẑ' = d(z, a, e)."""
        return self.dynamics_net(_beside(z, a, e))

    def reward_logits(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """R(z, a, e) as logits ``[..., bins]``."""
        return self.reward_net(_beside(z, a, e))

    def termination_logit(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """C(z, a, e) as a logit ``[...]``."""
        logit = self.termination_net(_beside(z, a, e))
        return logit.squeeze(-1)

    def critic_logits(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """All heads ``[M, ..., bins]``; the action is looked at only where the critic is a Q."""
        x = _beside(z, a, e) if self.critic_form == "q" else _beside(z, e)
        return torch.stack([head(x) for head in self.critics])

    def bonus_logits(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """Q_δ(z, a, e), bonuses to come, as logits ``[..., bins]``."""
        assert self.bonus_critic is not None
        return self.bonus_critic(_beside(z, a, e))

    def model_free_value(self, z: Tensor, e: Tensor) -> Tensor:
        """V_f(z, e) ``[...]``: what is learned, and the random function where there is one."""
        return self.scalar(self.model_free(_beside(z, e))) + self._random(z, e)

    def model_free_loss(self, z: Tensor, e: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` of V_f's learned part against numbers ``target [...]`` less the random function."""
        return self.regression_loss(self.model_free(_beside(z, e)), target - self._random(z, e))

    def augmented_logits(self, z: Tensor, e: Tensor) -> Tensor:
        """V_δ(z, e), rewards and bonuses to come, as logits ``[..., bins]``."""
        assert self.augmented is not None
        return self.augmented(_beside(z, e))

    def augmented_value(self, z: Tensor, e: Tensor) -> Tensor:
        """V_δ(z, e) ``[...]``."""
        return self.scalar(self.augmented_logits(z, e))

    def _random(self, z: Tensor, e: Tensor) -> Tensor:
        if self.random_function is None:
            return torch.zeros_like(z[..., 0])
        return self.random_prior * self.random_function(_beside(z, e)).squeeze(-1)

    def policy(self, z: Tensor, e: Tensor, action_mask: Tensor, actor: MLP | None = None) -> Gaussian:
        """π(· | z, e) over pre-tanh actions, of another ``actor`` if given; masked entries are N(0, 1), never used."""
        return bounded_gaussian((actor or self.actor)(_beside(z, e)), action_mask, _LOG_STD_LOW, _LOG_STD_HIGH)

    def scalar(self, logits: Tensor) -> Tensor:
        """The number ``[...]`` that two-hot ``logits [..., bins]`` stand for."""
        return symlog_mean(logits, self.bins)

    def regression_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` of two-hot ``logits [..., bins]`` against numbers ``target [...]``."""
        return symlog_loss(logits, target, self.bins)


class TaskModel:
    """A world model bound to the tasks of a batch: what :func:`m3po.kit.planning.plan` plans in.

    ``task`` int64 ``[N]``, ``gamma`` ``[N]``. Latents may have leading axes before N. Values are those of the task's
    own reward plus ``beta`` Q_δ.
    """

    def __init__(self, model: WorldModel, task: Tensor, gamma: Tensor, *, terminates: bool, beta: float = 0.0) -> None:
        self.model, self.task, self.gamma, self.terminates = model, task, gamma, terminates
        self.beta = beta
        self.embedding: Tensor = model.embedding(task)
        self.action_mask = model.action_mask[task]

    def _e(self, z: Tensor) -> Tensor:
        return self.embedding.expand(*z.shape[:-1], self.embedding.shape[-1])

    def prior(self, latent: Tensor, actor: MLP | None = None) -> Gaussian:
        """π(· | z, e), or π_old's where its ``actor`` is given."""
        return self.model.policy(latent, self._e(latent), self.action_mask, actor)

    def step(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """d(z, a), R(z, a) and γ (1 − C(z, a))."""
        e, a = self._e(latent), action * self.action_mask
        reward = self.model.scalar(self.model.reward_logits(latent, a, e))
        gamma = self.gamma.expand_as(reward)
        if self.terminates:
            gamma = gamma * (1 - torch.sigmoid(self.model.termination_logit(latent, a, e)))
        return self.model.dynamics(latent, a, e), reward, gamma

    def action_values(self, latent: Tensor, action: Tensor) -> Tensor:
        """Q_b(z, a) of every head ``[M, ...]``: the heads themselves, or r̂ + γ(1 − d̂) V_b(d(z, a))."""
        if self.model.critic_form == "q":
            return self.state_values(latent, action)
        following, reward, gamma = self.step(latent, action)
        return reward + gamma * self._heads(following, action) + self._bonuses(latent, action)

    def state_values(self, latent: Tensor, action: Tensor) -> Tensor:
        """Every head's value ``[M, ...]`` of a state in which the policy does ``action`` (which V_b ignores)."""
        return self._heads(latent, action) + self._bonuses(latent, action)

    def value(self, latent: Tensor) -> Tensor:
        """V_b(z) = mean over heads, at the prior's mean action where it is looked at."""
        return self.state_values(latent, torch.tanh(self.prior(latent).mean)).mean(0)

    def bonus_value(self, latent: Tensor, action: Tensor) -> Tensor:
        """Q_δ(z, a) ``[...]``."""
        return self.model.scalar(self.model.bonus_logits(latent, action * self.action_mask, self._e(latent)))

    def _heads(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.model.scalar(self.model.critic_logits(latent, action * self.action_mask, self._e(latent)))

    def _bonuses(self, latent: Tensor, action: Tensor) -> Tensor | float:
        return self.beta * self.bonus_value(latent, action) if self.beta else 0.0

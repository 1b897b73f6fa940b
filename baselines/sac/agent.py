"""SAC (Haarnoja et al. 2018, arXiv 1812.05905), algorithm 1, for K tasks.

paper     here
πφ        actor (``networks``); acting is the same in numpy
Qθ₁, Qθ₂  critics, ``[2, B]``
Qθ̄        targets
α         temperature, which keeps log α
H̄         target_entropy, ``[K]``
D         replay
τ         config.tau

each decision       a ~ πφ(s), uniform at first;  D ← D ∪ {(s, a, r, s')}
each gradient step  critics, actor and temperature on a batch of D;  θ̄ ← τ θ + (1 − τ) θ̄

In joint suites a batch has as many transitions of each task, and the input ends in the task's one-hot code (MTSAC; Yu
et al. 2020, arXiv 1910.10897).
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.sac.config import SACConfig
from baselines.sac.networks import Actor, NumpyActor, ReluNets, Temperature
from baselines.sac.replay import BalancedReplay, Batch
from m3po.api import PARAMETERS, UPDATES, AgentConfig, Decision, EnvSpec, Metrics, Transition
from m3po.kit.distributions import squashed_sample
from m3po.kit.optim import FlatAdam, descend, follow
from m3po.kit.seeding import generator, initialised_from, numpy_generator
from m3po.kit.state import load_state, restore_generator, save_state

__all__ = ["SAC"]

_METRICS = ("critic_loss", "actor_loss", "temperature_loss", "temperature", "entropy", "value")


class SAC:
    """Off-policy actor-critic whose reward contains the policy's entropy."""

    Config: ClassVar[type[AgentConfig]] = SACConfig

    def __init__(self, spec: EnvSpec, config: SACConfig, *, seed: int, device: str) -> None:
        self.spec, self.config = spec, config
        self.device = torch.device(device)
        self.action_mask = torch.from_numpy(spec.action_mask).float().to(self.device)
        self.target_entropy = -self.action_mask.sum(1)
        K, D, A = spec.num_tasks, spec.observation_size, spec.action_dim
        self.code = torch.eye(K, device=self.device) if K > 1 else torch.zeros(1, 0, device=self.device)
        inputs, heads = D + self.code.shape[1], K if config.heads == "per_task" else 1
        # Meta-World+'s limits of the first weights in the last layers.
        actor_bound, critic_bound = (1e-3, 3e-3) if config.initialisation == "he" else (None, None)
        with initialised_from(seed):
            actor = Actor(inputs, config.hidden, A, heads=heads, last_bound=actor_bound)
            critics = ReluNets(2, inputs + A, config.hidden, 1, heads=heads, last_bound=critic_bound)
        self.actor = actor.to(self.device)
        self.critics = critics.to(self.device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        size = K if config.temperature == "per_task" else 1
        self.temperature = Temperature(size, K, config.initial_temperature).to(self.device)
        self.actor_optimizer, self.critic_optimizer, self.temperature_optimizer = (
            FlatAdam(module, config.learning_rate, eps=config.adam_eps)
            for module in (self.actor, self.critics, self.temperature)
        )
        self.acting = self._acting()
        self.acting_noise = generator(seed, "act")
        self.noise = generator(seed, "update", self.device)
        self.sampling = numpy_generator(seed, "replay")
        self.replay: BalancedReplay | None = None
        self.transitions = 0
        self.credit = 0.0
        """Gradient steps that are due."""

    def initial_carry(self, num_envs: int) -> None:
        """SAC keeps nothing between decisions."""

    def act(
        self,
        carry: None,
        observation: NDArray[np.float32],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        """A sample of the policy while exploring, uniform at first; tanh of its mean while evaluated."""
        if not explore:
            return Decision(self.acting(observation, task, None))
        if self._starting:
            uniform = 2 * torch.rand(len(task), self.spec.action_dim, generator=self.acting_noise).numpy() - 1
            return Decision(uniform * self.spec.action_mask[task])
        return Decision(self.acting(observation, task, self.acting_noise))

    @property
    def _starting(self) -> bool:
        """Whether some decisions are still to be uniform."""
        return self.replay is None or self.transitions < self.config.learning_starts * self.replay.num_tasks

    def observe(self, transition: Transition) -> None:
        """Remember; a decision after the uniform ones earns its share of a gradient step."""
        t = transition
        if self.replay is None:
            self.replay = BalancedReplay(self.config.replay_capacity, t.task)
        if not self._starting:
            self.credit += self.config.updates_per_step * len(t.task) / self.replay.num_tasks
        self.transitions += len(t.task)
        mask = self.spec.observation_mask[t.task]
        self.replay.add(t.task, t.observation * mask, t.action, t.reward, t.next_observation * mask, t.terminated)

    def update(self) -> Metrics:
        """Take the gradient steps that are due; the metrics are means over them."""
        reported = []
        while self.credit >= 1 and self.replay is not None:
            self.credit -= 1
            reported.append(self._learn(self.replay.sample(self.config.batch_size, self.sampling, self.device)))
        if not reported:
            return {}
        if self.device.type != "cpu":
            self.acting = self._acting()
        means = dict(zip(_METRICS, torch.stack(reported).mean(0).tolist(), strict=True))
        optimizers = (self.actor_optimizer, self.critic_optimizer, self.temperature_optimizer)
        size = sum(optimizer.parameters.numel() for optimizer in optimizers)
        return means | {UPDATES: float(self.critic_optimizer.steps), PARAMETERS: float(size)}

    def _learn(self, batch: Batch) -> Tensor:
        """One gradient step of everything; returns the metrics ``[6]``."""
        task, mask = batch.task, self.action_mask[batch.task]
        x, next_x = (torch.cat([o, self.code[task]], 1) for o in (batch.observation, batch.next_observation))
        limit = math.inf if self.config.max_grad_norm is None else self.config.max_grad_norm
        log_alpha = self.temperature(task)
        alpha = log_alpha.detach().exp()
        action, log_prob = self._sample(x, task, mask)

        with torch.no_grad():
            next_action, next_log_prob = self._sample(next_x, task, mask)
            next_value = self._q(self.targets, next_x, next_action, task).amin(0) - alpha * next_log_prob
            target = batch.reward + self.config.gamma * (1 - batch.terminated) * next_value
        q = self._q(self.critics, x, batch.action, task)
        critic_loss = 0.5 * ((q - target) ** 2).mean(1).sum()
        descend(critic_loss, self.critic_optimizer, limit=limit)

        value = self._q(self.critics, x, action, task).amin(0)
        actor_loss = (alpha * log_prob - value).mean()
        descend(actor_loss, self.actor_optimizer, limit=limit)

        temperature_loss = -(log_alpha * (log_prob.detach() + self.target_entropy[task])).mean()
        descend(temperature_loss, self.temperature_optimizer, limit=math.inf)

        follow(self.targets, self.critics, self.config.tau)
        losses = critic_loss, actor_loss, temperature_loss
        return torch.stack([*losses, alpha.mean(), -log_prob.mean(), value.mean()]).detach()

    def _sample(self, x: Tensor, task: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Actions ``[B, A]`` of the policy now, and their log-densities ``[B]``."""
        policy = self.actor.policy(x, task)
        noise = torch.randn(policy.mean.shape, generator=self.noise, device=self.device)
        return squashed_sample(policy, noise, mask)

    @staticmethod
    def _q(critics: ReluNets, x: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Values ``[2, B]``."""
        q: Tensor = critics(torch.cat([x, action], 1), task).squeeze(-1)
        return q

    def _acting(self) -> NumpyActor:
        return NumpyActor(self.actor, self.spec.observation_mask, self.code, self.spec.action_mask)

    def save(self, directory: Path, carry: None) -> None:
        state = {
            "actor": self.actor.state_dict(),
            "critics": self.critics.state_dict(),
            "targets": self.targets.state_dict(),
            "temperature": self.temperature.state_dict(),
            "actor_optimizer": self.actor_optimizer.state(),
            "critic_optimizer": self.critic_optimizer.state(),
            "temperature_optimizer": self.temperature_optimizer.state(),
            "acting_noise": self.acting_noise,
            "noise": self.noise,
            "sampling": self.sampling,
            "replay": None if self.replay is None else self.replay.state(),
            "transitions": self.transitions,
            "credit": self.credit,
        }
        save_state(directory, "sac", state)

    def load(self, directory: Path) -> None:
        state = load_state(directory, "sac")
        self.actor.load_state_dict(state["actor"])
        self.critics.load_state_dict(state["critics"])
        self.targets.load_state_dict(state["targets"])
        self.temperature.load_state_dict(state["temperature"])
        self.actor_optimizer.restore(state["actor_optimizer"])
        self.critic_optimizer.restore(state["critic_optimizer"])
        self.temperature_optimizer.restore(state["temperature_optimizer"])
        self.acting = self._acting()
        restore_generator(self.acting_noise, state["acting_noise"])
        restore_generator(self.noise, state["noise"])
        restore_generator(self.sampling, state["sampling"])
        saved = state["replay"]
        self.replay = None if saved is None else BalancedReplay.restore(self.config.replay_capacity, saved)
        self.transitions = state["transitions"]
        self.credit = state["credit"]

"""PPO with a clipped objective (Schulman et al. 2017, arXiv 1707.06347, algorithm 1).

paper        here
πθ, V        model.policy and model.value (``networks``); acting is πθ in numpy
πθ_old       log_prob, of the policy that acted
Â            advantage, by :func:`m3po.kit.returns.gae`
L^CLIP, S    :func:`baselines.ppo.gradients.policy_gradient`
L^VF         :func:`baselines.ppo.gradients.value_gradient`
ε, c₁, c₂    config.clip, config.value_coef, config.entropy_coef
N, T         environments, rollout.length
K, M         config.epochs, config.minibatch_size

each decision  a ~ πθ(s);  the rollout takes in (s, a, r, s')
each T rows    advantages;  K epochs of minibatches of M;  θ_old ← θ
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.ppo.config import PPOConfig
from baselines.ppo.gradients import PolicyLoss, policy_gradient, value_gradient
from baselines.ppo.networks import ActorCritic, NumpyPolicy
from m3po.api import PARAMETERS, UPDATES, AgentConfig, Decision, EnvSpec, Metrics, Transition
from m3po.kit.distributions import gaussian_log_prob
from m3po.kit.normalize import RunningMoments, standardise
from m3po.kit.optim import FlatAdam
from m3po.kit.returns import gae
from m3po.kit.rollout import Rollout
from m3po.kit.seeding import generator, initialised_from
from m3po.kit.state import load_state, restore_generator, save_state
from m3po.kit.trust_region import approximate_kl

__all__ = ["PPO"]

_WIDE = 10_000_000
"""Rows times parameters of a gradient step from which half of it is worth handing to a thread."""
_LIMIT = 10.0  # of normalised observations and rewards, as in CleanRL


class _Batch(NamedTuple):
    """Transitions to learn from, each ``[B, ...]``; ``action`` is the one drawn, before clipping to [-1, 1]."""

    features: Tensor
    task: Tensor
    action: Tensor
    action_mask: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor


class PPO:
    """On-policy actor-critic for one task, or for K tasks told apart by a one-hot code.

    Statistics for normalising are taken in once per rollout, before its update. The log-probabilities of the policy
    that acted are computed with the statistics it saw, so the ratio accounts for their change.
    """

    Config: ClassVar[type[AgentConfig]] = PPOConfig

    def __init__(self, spec: EnvSpec, config: PPOConfig, *, seed: int, device: str) -> None:
        self.config = config
        self.device = torch.device(device)
        self.num_tasks = spec.num_tasks
        self.action_repeat = spec.action_repeat
        self.observation_mask = torch.from_numpy(spec.observation_mask).float().to(self.device)
        self.action_mask = torch.from_numpy(spec.action_mask).float().to(self.device)
        self.code = torch.eye(self.num_tasks, device=self.device)
        inputs = spec.observation_size + (self.num_tasks if self.num_tasks > 1 else 0)
        with initialised_from(seed):
            model = ActorCritic(inputs, config.hidden, spec.action_dim, config.initial_std, self.num_tasks)
        self.model = model.to(self.device)
        self.optimizer = FlatAdam(self.model, config.learning_rate, eps=1e-5)
        self.observation_moments = RunningMoments(spec.observation_size, self.num_tasks).to(self.device)
        self.return_moments = RunningMoments(1, self.num_tasks).to(self.device)
        self._refresh()

        self.noise = generator(seed, "act")
        self.shuffle = generator(seed, "minibatches")
        self.rollout: Rollout | None = None
        self.discounted_return: NDArray[np.float32] | None = None
        self.env_steps = 0

    def initial_carry(self, num_envs: int) -> None:
        """PPO keeps nothing between decisions."""

    def act(
        self,
        carry: None,
        observation: NDArray[np.float32],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        action = self.acting(observation, task, self.noise if explore else None)
        return Decision(action.clip(-1, 1), extras={"action": action} if explore else {})

    def observe(self, transition: Transition) -> None:
        if self.rollout is None or self.discounted_return is None:
            self.rollout = self._new_rollout(len(transition.reward))
            self.discounted_return = np.zeros_like(transition.reward)
        ended = transition.terminated | transition.truncated
        self.discounted_return = self.config.gamma * self.discounted_return + transition.reward
        self.rollout.add(
            {
                "observation": transition.observation,
                "next_observation": transition.next_observation,
                "reward": transition.reward,
                "discounted_return": self.discounted_return,
                "terminated": transition.terminated,
                "ended": ended,
                "task": transition.task,
                "action": transition.extras["action"],
            }
        )
        self.discounted_return[ended] = 0
        self.env_steps += int(self.action_repeat[transition.task].sum())

    def update(self) -> Metrics:
        if self.rollout is None or not self.rollout.full:
            return {}
        rows = self.rollout.tensors(self.device)
        log_prob = self._log_prob(rows)
        self._update_statistics(rows)
        batch = self._batch(rows, log_prob)
        self.rollout.clear()
        learning_rate = self._anneal()
        metrics = self._optimise(batch)
        self._refresh()
        size = self.optimizer.parameters.numel()
        about = {"learning_rate": learning_rate, UPDATES: float(self.optimizer.steps), PARAMETERS: float(size)}
        return {**metrics, **_explained_variance(batch), **about}

    def _optimise(self, batch: _Batch) -> Metrics:
        """Gradient steps on one rollout; the metrics are means over them."""
        config = self.config
        losses: list[Tensor] = []
        log_ratios: list[Tensor] = []
        # Actor and critic share no weights: where it pays, the critic's half of a step is done in a thread beside.
        wide = config.minibatch_size * self.optimizer.parameters.numel() >= _WIDE
        with ThreadPoolExecutor(max_workers=1) as beside:
            for minibatch in self._minibatches(batch):
                critic = beside.submit(self._critic_gradient, minibatch) if wide else None
                policy = self._actor_gradient(minibatch)
                value_loss = self._critic_gradient(minibatch) if critic is None else critic.result()
                losses += [policy.loss, value_loss, policy.entropy]
                log_ratios.append(policy.log_ratio)
                self.optimizer.clip_grad_norm(config.max_grad_norm)
                self.optimizer.step()
                if config.target_kl is not None and _kl(policy.log_ratio) > 1.5 * config.target_kl:
                    break
        policy_loss, value_loss, entropy = torch.stack(losses).view(-1, 3).mean(0).tolist()
        log_ratio = torch.cat(log_ratios)
        clipped = (log_ratio.exp() - 1).abs() > config.clip
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": _kl(log_ratio),
            "clip_fraction": clipped.float().mean().item(),
        }

    def _actor_gradient(self, minibatch: _Batch) -> PolicyLoss:
        b, c = minibatch, self.config
        given = b.features, b.task, b.action, b.action_mask, b.log_prob, b.advantage
        return policy_gradient(self.model, *given, clip=c.clip, entropy_coef=c.entropy_coef)

    def _critic_gradient(self, minibatch: _Batch) -> Tensor:
        b, c = minibatch, self.config
        return value_gradient(self.model, b.features, b.value, b.target, clip=c.value_clip, coef=c.value_coef)

    @torch.no_grad()
    def _log_prob(self, rows: dict[str, Tensor]) -> Tensor:
        """Log-probabilities ``[T, N]`` under the current policy and statistics."""
        policy = self.model.policy(self._features(rows["observation"], rows["task"]), rows["task"])
        return gaussian_log_prob(policy, rows["action"], self.action_mask[rows["task"]])

    @torch.no_grad()
    def _batch(self, rows: dict[str, Tensor], log_prob: Tensor) -> _Batch:
        """The rollout ``{name: [T, N, ...]}`` as B = T·N transitions with advantages and value targets."""
        task = rows["task"]
        features = self._features(rows["observation"], task)
        value = self.model.value(features)
        next_value = value.roll(-1, dims=0)
        last = rows["ended"].clone()
        last[-1] = True
        next_value[last] = self.model.value(self._features(rows["next_observation"][last], task[last]))
        reward = rows["reward"]
        if self.config.scale_reward:
            scale = self.return_moments.std(task).squeeze(-1)
            reward = (reward / scale).clamp(-_LIMIT, _LIMIT)
        advantage = gae(
            reward, value, next_value, rows["terminated"], rows["ended"], self.config.gamma, self.config.lam
        )
        target = advantage + value
        if self.config.normalize_advantage == "task":
            advantage = standardise(advantage.flatten(), task.flatten(), self.num_tasks).view_as(advantage)
        columns = (features, task, rows["action"], self.action_mask[task], log_prob, value, advantage, target)
        return _Batch(*(column.flatten(0, 1) for column in columns))

    def _minibatches(self, batch: _Batch) -> Iterator[_Batch]:
        """``epochs`` passes in a new order each."""
        size = self.config.minibatch_size
        count = len(batch.target)
        for _ in range(self.config.epochs):
            order = torch.randperm(count, generator=self.shuffle).to(self.device)[: count // size * size]
            # Shuffled and normalised once an epoch, so that minibatches are views.
            shuffled = _Batch(*(column[order].view(-1, size, *column.shape[1:]) for column in batch))
            if self.config.normalize_advantage == "minibatch":
                std, mean = torch.std_mean(shuffled.advantage, dim=1, keepdim=True)
                shuffled = shuffled._replace(advantage=(shuffled.advantage - mean) / (std + 1e-8))
            yield from map(_Batch._make, zip(*shuffled, strict=True))

    def _features(self, observation: Tensor, task: Tensor) -> Tensor:
        """Network inputs ``[..., D]``, or ``[..., D + K]`` with the task's code, of observations ``[..., D]``."""
        features = (observation - self.center[task]) * self.scale[task]
        if self.config.normalize_observation:
            features = features.clamp(-_LIMIT, _LIMIT)
        return features if self.num_tasks == 1 else torch.cat([features, self.code[task]], dim=-1)

    def _update_statistics(self, rows: dict[str, Tensor]) -> None:
        task = rows["task"].flatten()
        observation = (rows["observation"] * self.observation_mask[rows["task"]]).flatten(0, 1)
        self.observation_moments.update(observation, task)
        self.return_moments.update(rows["discounted_return"].flatten()[:, None], task)
        self._refresh()

    def _refresh(self) -> None:
        """Bring in line with statistics and parameters what is worked out from them."""
        # Tables [K, D]; a scale of 0 takes padded entries out.
        self.center, self.scale, limit = torch.zeros_like(self.observation_mask), self.observation_mask, math.inf
        if self.config.normalize_observation:
            self.center, std = self._observation_statistics()
            self.scale = self.observation_mask / std
            limit = _LIMIT
        code = self.code if self.num_tasks > 1 else self.code[:, :0]
        self.acting = NumpyPolicy(
            self.model.actor, self.model.log_std, self.center, self.scale, code, self.action_mask, limit
        )

    def _observation_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation that observations of each task are normalised with, float32 ``[K, D]``.

        A task of which nothing was seen, such as a held-out one, takes those of the others together: the network knows
        inputs of no other scale. An entry that none of them has stays as it is.
        """
        moments = self.observation_moments
        seen = moments.count >= 1  # before anything was shown it is 1e-4
        weight = (moments.count * seen)[:, None] * self.observation_mask
        total = weight.sum(0)
        mean = (weight * moments.mean).sum(0) / total.clamp(min=1)
        var = (weight * (moments.var + (moments.mean - mean) ** 2)).sum(0) / total.clamp(min=1)
        takes = ~seen[:, None] & (total > 0)
        center = torch.where(takes, mean, moments.mean)
        # What RunningMoments.std adds under the root.
        return center.float(), torch.sqrt(torch.where(takes, var, moments.var) + 1e-8).float()

    def _anneal(self) -> float:
        """Set and return the learning rate for the environment steps taken so far."""
        learning_rate = self.config.learning_rate
        if self.config.anneal_env_steps is not None:
            learning_rate *= max(0.0, 1 - self.env_steps / self.config.anneal_env_steps)
        self.optimizer.learning_rate = learning_rate
        return learning_rate

    def _new_rollout(self, num_envs: int) -> Rollout:
        length = self.config.rollout_size // num_envs
        if length * num_envs < self.config.minibatch_size:
            raise ValueError(
                f"a rollout of {num_envs} environments has {length * num_envs} transitions, less than minibatch_size "
                f"({self.config.minibatch_size}); raise rollout_size ({self.config.rollout_size})"
            )
        return Rollout(length, num_envs)

    def save(self, directory: Path, carry: None) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state(),
            "observation_moments": self.observation_moments.state_dict(),
            "return_moments": self.return_moments.state_dict(),
            "noise": self.noise,
            "shuffle": self.shuffle,
            "rollout": None if self.rollout is None else self.rollout.state(),
            "discounted_return": self.discounted_return,
            "env_steps": self.env_steps,
        }
        save_state(directory, "ppo", state)

    def load(self, directory: Path) -> None:
        state = load_state(directory, "ppo")
        self.model.load_state_dict(state["model"])
        self.optimizer.restore(state["optimizer"])
        self.observation_moments.load_state_dict(state["observation_moments"])
        self.return_moments.load_state_dict(state["return_moments"])
        self._refresh()
        restore_generator(self.noise, state["noise"])
        restore_generator(self.shuffle, state["shuffle"])
        self.rollout = None if state["rollout"] is None else Rollout.restore(state["rollout"])
        self.discounted_return = state["discounted_return"]
        self.env_steps = state["env_steps"]


def _kl(log_ratio: Tensor) -> float:
    return approximate_kl(log_ratio, torch.zeros_like(log_ratio)).item()


def _explained_variance(batch: _Batch) -> Metrics:
    """1 − Var[target − value]/Var[target] of the values before the update; 0 where the targets do not vary."""
    total = batch.target.var()
    share = 1 - (batch.target - batch.value).var() / total
    return {"explained_variance": share.item() if total > 0 else 0.0}

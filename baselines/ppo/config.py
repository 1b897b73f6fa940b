"""Configuration of PPO, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from m3po.api import AgentConfig, EnvSpec, check_vectors

__all__ = ["PPOConfig"]


class PPOConfig(AgentConfig):
    """PPO, continuous control. Defaults follow Stable-Baselines3 2.9 and CleanRL's ``ppo_continuous_action``."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        # Few environment steps: short rollouts, so that there are many of them, and larger gradient steps.
        "small": {"rollout_size": 1024, "minibatch_size": 128, "learning_rate": 1e-3},
        # Joint suites: smaller than Meta-World+'s MT-PPO (rollouts of 10 000 of each task, 3 layers of 400), such that
        # one CPU core finishes while the simulators run.
        "mt": {
            "hidden": (256, 256),
            "rollout_size": 10_000,
            "minibatch_size": 1_000,
            "epochs": 6,
            "lam": 0.97,
            "normalize_advantage": "task",
            "entropy_coef": 5e-3,
        },
    }

    hidden: tuple[int, ...] = Field(default=(64, 64), min_length=1)
    """Units of each tanh layer; actor and critic are separate networks of these sizes. (Stable-Baselines3)"""
    initial_std: float = Field(default=1.0, gt=0)
    """Standard deviation of the first policy in every action entry. (Stable-Baselines3)"""

    rollout_size: int = Field(default=2048, ge=1)
    """Transitions of one rollout, over all environments, rounded down to a multiple of their number.
    (Stable-Baselines3)"""
    minibatch_size: int = Field(default=64, ge=2)
    """Transitions, over all environments, in one update. Those left over at the end of a shuffled epoch are skipped in
    that epoch. (Stable-Baselines3)"""
    epochs: int = Field(default=10, ge=1)
    """Passes over each rollout. (Stable-Baselines3)"""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount per decision. (Stable-Baselines3)"""
    lam: float = Field(default=0.95, ge=0, le=1)
    """λ of generalised advantage estimation. (Stable-Baselines3)"""
    clip: float = Field(default=0.2, gt=0)
    """ε: how far the probability ratio may gain from 1. (Stable-Baselines3)"""
    value_clip: float | None = Field(default=None, gt=0)
    """How far a value may gain from its prediction before the update, in scaled returns; none: no limit.
    (Stable-Baselines3)"""
    target_kl: float | None = Field(default=None, gt=0)
    """End the epochs of an update when the approximate KL exceeds 1.5 of this; none: never. (Stable-Baselines3)"""
    normalize_advantage: Literal["none", "minibatch", "task"] = "minibatch"
    """Bring advantages to mean 0 and deviation 1 in each minibatch, or per task over the rollout.
    (Stable-Baselines3)"""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the policy's entropy in the loss. (Stable-Baselines3)"""
    value_coef: float = Field(default=0.5, ge=0)
    """Weight of the mean squared error of the critic in the loss. (Stable-Baselines3)"""

    learning_rate: float = Field(default=3e-4, gt=0)
    """Of Adam (ε = 1e-5), for both networks. (Stable-Baselines3)"""
    anneal_env_steps: int | None = Field(default=None, ge=1)
    """Environment steps, over all environments, in which the learning rate falls linearly to 0; none: it stays.
    (Stable-Baselines3)"""
    max_grad_norm: float = Field(default=0.5, gt=0)
    """Gradients of both networks together are shortened to this norm. (Stable-Baselines3)"""

    normalize_observation: bool = True
    """Bring observations to mean 0 and deviation 1 by running statistics of each task, clipped to ±10; a task that is
    not trained on takes those of the trained ones together. (CleanRL; of each task: ours)"""
    scale_reward: bool = True
    """Divide rewards by the running deviation of the task's discounted return, clipped to ±10. (CleanRL; of each task:
    ours)"""

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        sentences = check_vectors("ppo", spec)
        batch = self.rollout_size // num_envs * num_envs
        if batch == 0:
            sentences.append(
                f"rollout_size is {self.rollout_size}, less than one step of {num_envs} environments; raise it to "
                f"{num_envs} at least"
            )
        elif self.minibatch_size > batch:
            sentences.append(
                f"minibatch_size is {self.minibatch_size}, but a rollout has only {batch} transitions; lower it, or "
                f"raise rollout_size ({self.rollout_size})"
            )
        # The tasks of a joint suite take turns evenly enough for their mean action repeat.
        needed = batch * float(spec.action_repeat.mean())
        if needed > env_steps:
            sentences.append(
                f"one rollout takes {needed:.0f} environment steps, more than the whole budget of {env_steps}, so that "
                f"nothing would be learned; lower rollout_size ({self.rollout_size})"
            )
        if self.anneal_env_steps is not None and self.anneal_env_steps < env_steps:
            sentences.append(
                f"the learning rate reaches 0 after {self.anneal_env_steps} environment steps, before the budget of "
                f"{env_steps} is spent; raise anneal_env_steps"
            )
        return sentences

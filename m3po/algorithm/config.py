"""M3PO's configuration. Every part of the method is a switch, so that an ablation is a line of a suite file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from m3po.api import AgentConfig, EnvSpec, check_vectors

__all__ = ["M3POConfig"]

# For budgets of many million steps on a GPU, where an update takes about as long whatever its batch: as many replayed
# steps per environment step, in a sixteenth of the updates. In short runs it learns less (docs/agents.md).
_MT = {"batch": 4096, "updates_per_step": 1 / 32}
_SMALL = {"latent": 64, "hidden": 128, "batch": 128}
_PAPER = {
    "critic": "v",
    "actor_data": "fresh",
    "trust_region": "clip",
    "likelihood": "planner",
    "discrepancy": "reward",
    "discrepancy_coef": 1.0,
    "discrepancy_steps": 1_000_000,
    "horizon": 5,
    "rollout_size": 1024,
    "actor_lr": 3e-4,
}


class M3POConfig(AgentConfig):
    """Implicit world model, planning with a discrepancy bonus, trust-region policy updates (arXiv 2506.21782).

    The defaults are a form in which every claimed part is there and which learns fast on a CPU; ``paper`` is the claims
    to the letter. Behind each meaning stands where its value comes from.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "small": _SMALL,
        "mt": _MT,
        "paper": _PAPER,
        "paper-small": {**_SMALL, **_PAPER},
    }

    # World model
    latent: int = Field(default=512, ge=8, multiple_of=8)
    """Size L of the latent, groups of 8 under SimNorm. (TD-MPC2)"""
    hidden: int = Field(default=512, ge=8)
    """Width of every hidden layer. (TD-MPC2)"""
    bins: int = Field(default=101, ge=3)
    """Two-hot bins of reward and value heads, uniform in symlog space. (TD-MPC2)"""
    bin_limit: float = Field(default=10.0, gt=0)
    """Bins span symlog values of ± this. (TD-MPC2)"""
    task_embedding: int = Field(default=64, ge=0)
    """Size of the learned task embedding of joint suites; 0 switches it off, and one task never has one. (TD-MPC2)"""
    model_horizon: int = Field(default=3, ge=1)
    """H of the model's training subsequences. (TD-MPC2; reference code: 8)"""
    consistency_coef: float = Field(default=20.0, ge=0)
    """c_z. (TD-MPC2, reference code)"""
    reward_coef: float = Field(default=0.1, ge=0)
    """c_r. (TD-MPC2)"""
    value_coef: float = Field(default=0.1, ge=0)
    """c_v. (TD-MPC2)"""
    termination_coef: float = Field(default=1.0, ge=0)
    """c_d. (TD-MPC2)"""
    rho: float = Field(default=0.5, gt=0, le=1)
    """Weight ρᵗ of step t of a subsequence. (TD-MPC2)"""
    consistency_target: Literal["online", "ema"] = "online"
    """Which encoder gives the target latent; the gradient is stopped in either. (TD-MPC2: online)"""
    critic: Literal["q", "v"] = "q"
    """q: Q_b(z, a); v: V_b(z), with Q_b = r̂ + γ(1 − d̂) V_b(d(z, a)) read through the model. (TD-MPC2; paper: v)"""
    critics: int = Field(default=2, ge=1)
    """M value heads; targets take the smallest, everything else the mean. (TD-MPC2 size 1)"""
    td_lambda: float = Field(default=0.8, ge=0, le=1)
    """λ of the model-based value's returns over replayed rewards. (ours, measured)"""
    target_rate: float = Field(default=0.02, gt=0, le=1)
    """Rate τ of the EMA targets per update. (ours, measured; TD-MPC2: 0.01)"""
    gamma: float | None = Field(default=None, gt=0, lt=1)
    """Discount; by default per task from the episode's length. (TD-MPC2)"""

    # Planner
    planner: Literal["mppi", "none"] = "mppi"
    """none: act with the prior π. (paper)"""
    horizon: int = Field(default=3, ge=1)
    """H of planning. (TD-MPC2; reference code: 5)"""
    samples: int = Field(default=64, ge=2)
    """S candidate sequences. (reference code; TD-MPC2: 512)"""
    iterations: int = Field(default=1, ge=1)
    """The first iteration rolls the prior, further ones refit. (reference code: 1; TD-MPC2: 6)"""
    temperature: float = Field(default=3.0, gt=0)
    """κ on returns in units of their spread over candidates. (ours)"""
    min_std: float = Field(default=0.05, gt=0)
    """σ_min of the executed Gaussian. (TD-MPC2)"""

    # Discrepancy bonus
    discrepancy: Literal["reward", "planning", "advantage", "none"] = "reward"
    """Where |Q_MB − Q_MF| enters: the reward, of the last rollout or (``actor_data: replay``) of a critic of bonuses
    that the actor learns from and planning reads while exploring; the returns of candidate plans; the advantage, with
    ``actor_data: fresh``. (paper: reward)"""
    discrepancy_coef: float = Field(default=0.2, ge=0)
    """β at the start. (ours, tuned; reference code: 1.0, successor: 0.1)"""
    discrepancy_steps: int = Field(default=100_000, ge=1)
    """Environment steps, of each task, until β has gone to 0, linearly. (ours, tuned; reference code: 1M)"""
    discrepancy_clip: float = Field(default=2.0, gt=0)
    """Bound c of the normalised bonus. (successor)"""

    random_prior: float = Field(default=1.0, ge=0)
    """Size of a fixed random function in V_f of replayed steps: the two values agree only where there was experience.
    (Osband et al. 2018, arXiv 1806.03335; ours here)"""
    bonus_every: int = Field(default=4, ge=1)
    """Updates of the world model for one of the critic of bonuses and V_f on replayed steps. (ours)"""

    # Policy update
    actor_data: Literal["replay", "fresh"] = "replay"
    """replay: maximise Q on replayed latents; fresh: policy gradient on the last rollout. (ours; paper: fresh)"""
    trust_region: Literal["kl", "clip", "none"] = "kl"
    """kl: adaptive penalty on KL(π_old ‖ π); clip: PPO's surrogate and a target-KL stop, on fresh data only. (ours;
    paper: clip)"""
    likelihood: Literal["planner", "prior"] = "planner"
    """Whose likelihood ratio fresh data uses; without a planner it is the prior's. (paper: planner)"""
    rollout_size: int = Field(default=128, ge=1)
    """Decisions, over all environments, between two policy iterations, at least one of each. π_old is the policy at
    the start of one, and renewed after as many updates as so many decisions earn: however many environments there
    are, the trust region is as wide. (ours; reference code: 128 of each environment)"""
    kl_target: float = Field(default=0.05, gt=0)
    """KL that the penalty steers to, or at which the epochs of the clipped form stop (×1.5). (ours, measured)"""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """Clip of the likelihood ratio. (reference code)"""
    epochs: int = Field(default=4, ge=1)
    """Epochs over fresh data. (reference code)"""
    minibatches: int = Field(default=4, ge=1)
    """Minibatches per epoch over fresh data. (reference code)"""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """λ of GAE on fresh data. (reference code)"""
    entropy_coef: float = Field(default=1e-2, ge=0)
    """Weight of the policy's entropy against scaled returns. (ours)"""

    # Learning
    batch: int = Field(default=256, ge=1)
    """B subsequences, over all environments, in one update. (TD-MPC2)"""
    updates_per_step: float = Field(default=0.5, gt=0)
    """World-model (and replayed actor) updates per environment step, over all environments. (TD-MPC2: one per decision
    of two steps)"""
    learning_starts: int = Field(default=1_000, ge=0)
    """Environment steps, of each task, of acting with the untrained prior before learning starts. (ours)"""
    model_lr: float = Field(default=1e-3, gt=0)
    """Adam's rate for the model and critics. (reference code; TD-MPC2: 3e-4)"""
    encoder_lr_scale: float = Field(default=0.3, gt=0)
    """Factor on it for the encoder. (TD-MPC2)"""
    actor_lr: float = Field(default=1e-3, gt=0)
    """Adam's rate for the prior. (ours, measured)"""
    grad_clip: float = Field(default=20.0, gt=0)
    """Bound on the gradient's norm. (TD-MPC2, reference code)"""
    replay_capacity: int = Field(default=1_000_000, ge=1)
    """Transitions kept, over all environments. (TD-MPC2)"""

    @property
    def first_beta(self) -> float:
        """β at the start: 0 without a discrepancy."""
        return 0.0 if self.discrepancy == "none" else self.discrepancy_coef

    @property
    def values_bonus(self) -> bool:
        """Whether a critic of bonuses is learned beside those of the task's own reward."""
        return self.discrepancy == "reward" and self.actor_data == "replay"

    @property
    def augments_rollouts(self) -> bool:
        """Whether the advantage of fresh data is that of rewards and bonuses, with a critic of its own."""
        return self.discrepancy == "reward" and self.actor_data == "fresh"

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        """See :meth:`m3po.api.AgentConfig.check`."""
        problems = check_vectors("m3po", spec)
        if self.actor_data == "replay" and self.discrepancy == "advantage":
            problems.append(
                "'discrepancy: advantage' works on fresh rollouts; set 'actor_data: fresh', 'discrepancy: reward' or "
                "'discrepancy: planning'"
            )
        if self.actor_data == "replay" and self.trust_region == "clip":
            problems.append(
                "'trust_region: clip' works on fresh rollouts; set 'actor_data: fresh' or 'trust_region: kl'"
            )
        if self.discrepancy == "planning" and self.planner == "none":
            problems.append("'discrepancy: planning' needs a planner; set 'planner: mppi' or 'discrepancy: none'")
        if max(self.rollout_size, num_envs) < self.minibatches and self.actor_data == "fresh":
            problems.append(
                f"{self.minibatches} minibatches of a rollout of {max(self.rollout_size, num_envs)} decisions would be "
                "empty; lower 'minibatches' or raise 'rollout_size'"
            )
        starts = self.learning_starts * min(spec.num_tasks, num_envs)
        if starts >= env_steps:
            problems.append(
                f"learning starts after {starts} environment steps, but the budget is {env_steps}; lower "
                f"'learning_starts' ({self.learning_starts} of each task)"
            )
        rows = math.ceil(self.rollout_size / num_envs)
        rollout = rows * num_envs * float(spec.action_repeat.mean())
        if rollout > env_steps:
            problems.append(
                f"one rollout takes {rollout:.0f} environment steps, more than the whole budget of {env_steps}, so "
                f"that nothing would be learned; lower 'rollout_size' ({self.rollout_size})"
            )
        if env_steps * self.updates_per_step < 1:
            problems.append(
                f"{self.updates_per_step} updates for each of {env_steps} environment steps are none; "
                "raise 'updates_per_step'"
            )
        if self.replay_capacity < num_envs * self.model_horizon:
            problems.append(
                f"a replay of {self.replay_capacity} transitions over {num_envs} environments holds no subsequence of "
                f"{self.model_horizon}; raise 'replay_capacity'"
            )
        return problems

"""Configuration of TD-MPC2. "Official" is github.com/nicklashansen/tdmpc2 (``config.yaml``, ``common/__init__.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from m3po.api import AgentConfig, EnvSpec, check_vectors

__all__ = ["TDMPC2Config"]


class TDMPC2Config(AgentConfig):
    """TD-MPC2: an implicit world model, planned in by MPPI with the help of a policy prior.

    The defaults are the official size of 5 million parameters.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "size1": {"mlp_dim": 384, "latent_dim": 128, "num_q": 2},
        "size5": {},
        "size19": {"enc_layers": 3, "enc_dim": 1024, "mlp_dim": 1024, "latent_dim": 768},
        "size48": {"enc_layers": 4, "enc_dim": 1792, "mlp_dim": 1792, "latent_dim": 768},
        "size317": {"enc_layers": 5, "enc_dim": 4096, "mlp_dim": 4096, "latent_dim": 1376, "num_q": 8},
        # For many tasks: the batch that the official code recommends there, with as many replayed steps per decision.
        "mt": {"batch_size": 1024, "updates_per_step": 0.25},
        # Ours, for two CPU cores: a tenth of the candidates, half of the refinements, a quarter of the batch, small
        # networks with the larger step size that they need. As many updates as the original: with half of them it
        # learned half as much in 20 thousand environment steps (docs/agents.md).
        "nano": {
            "enc_dim": 128,
            "mlp_dim": 128,
            "latent_dim": 64,
            "task_dim": 32,
            "num_q": 2,
            "num_samples": 48,
            "num_elites": 12,
            "num_pi_trajs": 8,
            "iterations": 3,
            "batch_size": 64,
            "learning_rate": 1e-3,
            "seed_episodes": 1,
        },
    }

    # Networks
    enc_layers: int = Field(default=2, ge=2)
    """Layers of the encoder, the one to the latent included. (official, size 5)"""
    enc_dim: int = Field(default=256, ge=1)
    """Width of the encoder. (official, size 5)"""
    mlp_dim: int = Field(default=512, ge=1)
    """Width of all other networks, which have two hidden layers. (official, size 5)"""
    latent_dim: int = Field(default=512, ge=1)
    """Size L of the latent. (official, size 5)"""
    simnorm_dim: int = Field(default=8, ge=1)
    """Entries of each softmax that a latent consists of; divides ``latent_dim``. (official)"""
    task_dim: int = Field(default=96, ge=1)
    """Size E of the learned task embedding of joint suites; one task has none. (official, MT80)"""
    num_q: int = Field(default=5, ge=2)
    """M heads of the value ensemble, of which two at a time are asked. (official, size 5)"""
    dropout: float = Field(default=0.01, ge=0, lt=1)
    """Share of the first layer of every Q that is dropped while learning. (official)"""
    num_bins: int = Field(default=101, ge=3)
    """Two-hot bins of reward and value, uniform in symlog space. (official)"""
    bin_limit: float = Field(default=10.0, gt=0)
    """Bins span symlog values of ± this. (official)"""
    log_std_min: float = -10.0
    """Smallest log σ of the policy prior. (official)"""
    log_std_max: float = 2.0
    """Largest log σ of the policy prior. (official)"""

    # Planning
    horizon: int = Field(default=3, ge=1)
    """H, of plans and of training subsequences. (official)"""
    iterations: int = Field(default=6, ge=1)
    """Refinements of a plan; two more where actions have 20 entries or more. (official)"""
    num_samples: int = Field(default=512, ge=2)
    """S candidate sequences, those of the policy included. (official)"""
    num_pi_trajs: int = Field(default=24, ge=0)
    """Candidates that follow the policy prior. (official)"""
    num_elites: int = Field(default=64, ge=1)
    """E candidates that a plan is fitted to. (official)"""
    min_std: float = Field(default=0.05, gt=0)
    """Smallest σ of a plan. (official)"""
    max_std: float = Field(default=2.0, gt=0)
    """Largest σ of a plan, and the one it starts from. (official)"""
    temperature: float = Field(default=0.5, gt=0)
    """Elites count exp(temperature · their value). (official)"""

    # Losses
    consistency_coef: float = Field(default=20.0, ge=0)
    """Weight of predicting the next latent. (official)"""
    reward_coef: float = Field(default=0.1, ge=0)
    """Weight of predicting the reward. (official)"""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of predicting the value. (official)"""
    termination_coef: float = Field(default=1.0, ge=0)
    """Weight of predicting terminations, once one was seen. (official)"""
    entropy_coef: float = Field(default=1e-4, ge=0)
    """Weight of the policy prior's entropy against scaled values. (official)"""
    rho: float = Field(default=0.5, gt=0, le=1)
    """Weight ρᵗ of step t of a subsequence. (official)"""
    gamma: float | None = Field(default=None, gt=0, lt=1)
    """Discount; by default per task from the episode's length in decisions. (official)"""

    # Learning
    learning_rate: float = Field(default=3e-4, gt=0)
    """Adam's step size. (official)"""
    enc_lr_scale: float = Field(default=0.3, gt=0)
    """Factor on it for the encoder. (official)"""
    grad_clip: float = Field(default=20.0, gt=0)
    """Bound on the gradient's norm, of the world model and of the policy prior. (official)"""
    tau: float = Field(default=0.01, gt=0, le=1)
    """Rate per update of the target ensemble and of the scale of values. (official)"""

    # Data
    batch_size: int = Field(default=256, ge=1)
    """B subsequences, over all environments, in one update. (official)"""
    updates_per_step: float = Field(default=1.0, gt=0)
    """Updates per decision, over all environments, the seed's included: those at once for one task, in joint suites as
    many with each later step of the environments as that step earned itself. (official for one task)"""
    seed_steps: int = Field(default=1_000, ge=0)
    """Fewest decisions, over all environments, that are drawn uniformly before learning starts. (official)"""
    seed_episodes: int = Field(default=5, ge=0)
    """The same in episodes, of each task, where that is more. (official for one task)"""
    replay_capacity: int = Field(default=1_000_000, ge=1)
    """Transitions kept, over all environments. (official)"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.latent_dim % self.simnorm_dim:
            raise ValueError(
                f"'latent_dim' ({self.latent_dim}) must be a multiple of 'simnorm_dim' ({self.simnorm_dim})"
            )
        for low, high in (
            ("num_elites", "num_samples"),
            ("num_pi_trajs", "num_samples"),
            ("min_std", "max_std"),
            ("log_std_min", "log_std_max"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"'{low}' ({getattr(self, low)}) must not exceed '{high}' ({getattr(self, high)})")
        return self

    def seed_decisions(self, max_episode_steps: NDArray[np.int64]) -> int:
        """Decisions over all environments before learning starts, for trained tasks with episodes of
        ``max_episode_steps [K]`` decisions."""
        return max(self.seed_steps, self.seed_episodes * int(max_episode_steps.sum()))

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        """See :meth:`m3po.api.AgentConfig.check`."""
        problems = check_vectors("tdmpc2", spec)
        decisions, seed = env_steps // int(spec.action_repeat.min()), self.seed_decisions(spec.max_episode_steps)
        if decisions <= seed:
            problems.append(
                f"{env_steps} environment steps are {decisions} decisions, but learning starts after {seed} "
                "('seed_steps', 'seed_episodes'); give a larger budget or smaller values"
            )
        if self.replay_capacity < num_envs * self.horizon:
            problems.append(
                f"a replay of {self.replay_capacity} transitions over {num_envs} environments holds no subsequence of "
                f"{self.horizon}; raise 'replay_capacity'"
            )
        return problems

"""Configuration of SAC, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from m3po.api import AgentConfig, EnvSpec, check_vectors

__all__ = ["SACConfig"]


class SACConfig(AgentConfig):
    """SAC. Defaults are those of Stable-Baselines3 2.9 where nothing else is said.

    Schedule and batch are counted for each task, so that they mean the same alone and in a joint suite.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        # Ours, for a CPU: a gradient step costs a third of the default's.
        "small": {"hidden": (128, 128), "batch_size": 128, "learning_rate": 1e-3},
        # Meta-World+'s MTSAC (github.com/rainx0r/metaworld-algorithms, examples/multi_task/mtsac_mt10.py and the
        # defaults it leaves alone). With ``heads: per_task`` its MTMHSAC.
        "mt": {
            "hidden": (400, 400, 400),
            "initialisation": "he",
            "temperature": "per_task",
            "batch_size": 128,
            "learning_starts": 4000,
            "adam_eps": 1e-5,
            "max_grad_norm": 1.0,
        },
    }

    hidden: tuple[int, ...] = Field(default=(256, 256), min_length=1)
    """Units of each ReLU layer; the actor and the two critics are separate networks of these sizes.
    (Stable-Baselines3)"""
    heads: Literal["shared", "per_task"] = "shared"
    """Whether tasks share the last layer of each network, or each has its own (MTMHSAC in Meta-World+). In joint suites
    the task's one-hot code is part of the input either way. The head of a held-out task is never trained.
    (Stable-Baselines3)"""
    initialisation: Literal["uniform", "he"] = "uniform"
    """``uniform``: weights and biases within ±1/√inputs, torch's own. ``he``: weights within ±√(6/inputs), biases 0,
    and a last layer within ±0.001 (actor) or ±0.003 (critics), Meta-World+'s. (Stable-Baselines3)"""

    temperature: Literal["shared", "per_task"] = "shared"
    """Whether one α balances reward and entropy in all tasks, or each task has its own (MTSAC). (Stable-Baselines3)"""
    initial_temperature: float = Field(default=1.0, gt=0)
    """α at first. It follows the target entropy −A, A being the size of the task's own actions. (Stable-Baselines3)"""

    replay_capacity: int = Field(default=1_000_000, ge=1)
    """Transitions kept, over all environments. (Stable-Baselines3)"""
    batch_size: int = Field(default=256, ge=1)
    """Transitions, of each task, in one update. (Stable-Baselines3)"""
    learning_starts: int = Field(default=100, ge=1)
    """Decisions, of each task, whose actions are uniform in [-1, 1]; those after them are followed by learning.
    (Stable-Baselines3)"""
    updates_per_step: float = Field(default=1.0, gt=0)
    """Updates per decision, of each task: N environments of one task earn N times as many in each step.
    (Stable-Baselines3)"""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount per decision. (Stable-Baselines3)"""
    tau: float = Field(default=0.005, gt=0, le=1)
    """Rate at which the target critics follow. (Stable-Baselines3)"""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Of Adam, for actor, critics and temperature. (Stable-Baselines3)"""
    adam_eps: float = Field(default=1e-8, gt=0)
    """ε of Adam, torch's own. (Stable-Baselines3)"""
    max_grad_norm: float | None = Field(default=None, gt=0)
    """The gradients of the actor, and of both critics together, are shortened to this norm; none: never.
    (Stable-Baselines3)"""

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        sentences = check_vectors("sac", spec)
        needed = self.learning_starts * int(spec.action_repeat.sum())
        if needed >= env_steps:
            sentences.append(
                f"the uniform actions of the start take {needed} environment steps, no less than the whole budget "
                f"of {env_steps}, so that nothing would be learned; lower learning_starts ({self.learning_starts})"
            )
        if self.replay_capacity < num_envs:
            sentences.append(
                f"replay_capacity is {self.replay_capacity}, less than one step of {num_envs} environments; raise it "
                f"to {num_envs} at least"
            )
        return sentences

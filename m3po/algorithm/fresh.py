"""The policy update on fresh rollouts: PPO whose likelihood ratio is that of the policy which acted.

That policy is the planner's Gaussian (m, σ), so it is recomputed under the current actor from the stored latent,
candidate noise and warm start, the model held fixed: gradients reach the actor through the planner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m3po.algorithm.config import M3POConfig
from m3po.algorithm.exploration import discrepancy_bonus, one_step_values, planned_policy
from m3po.algorithm.losses import PolicyLoss, fresh_policy_loss
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import EnvSpec, Transition
from m3po.kit.distributions import Gaussian
from m3po.kit.normalize import standardise
from m3po.kit.optim import FlatAdam, descend
from m3po.kit.replay import transition_rows
from m3po.kit.returns import gae
from m3po.kit.trust_region import adapt_penalty

__all__ = ["FreshUpdate"]


class FreshUpdate:
    """Keeps the rollout of the present iteration and improves the actor and its critics on it, once.

    V_f learns the task's own reward, so that Q_MF is what was experienced; rewards with bonuses have a critic of their
    own, or a bonus would raise V_f, that the discrepancy, and that the bonus.
    """

    def __init__(self, model: WorldModel, spec: EnvSpec, config: M3POConfig, gamma: Tensor) -> None:
        self.model, self.config, self.gamma = model, config, gamma
        self.num_tasks = spec.num_tasks
        critics = nn.ModuleList([model.model_free])
        if model.augmented is not None:
            critics.append(model.augmented)
        self.optimizer = FlatAdam(critics, config.actor_lr)
        self.rows: list[dict[str, NDArray[Any]]] = []

    @property
    def through_planner(self) -> bool:
        """Whether the ratio is recomputed through the planner."""
        return self.config.planner == "mppi" and self.config.likelihood == "planner"

    def observe(self, transition: Transition) -> None:
        """Append one row of the rollout, with what :meth:`M3PO.act` stored about the acting policy."""
        self.rows.append({**transition_rows(transition), **transition.extras})

    def improve(
        self,
        actor_optimizer: FlatAdam,
        beta: float,
        penalty: float,
        sampling: np.random.Generator,
        *,
        terminates: bool,
    ) -> tuple[dict[str, float], float]:
        """E epochs over the rollout, which is then forgotten. Returns metrics and the next KL penalty."""
        rollout = {
            k: torch.from_numpy(np.stack([row[k] for row in self.rows])).to(self.gamma.device) for k in self.rows[0]
        }
        self.rows = []
        flat = self._targets(rollout, beta, terminates=terminates)
        metrics: dict[str, float] = {}
        for chosen in self._minibatches(flat["reward"].shape[0], sampling):
            batch = {k: v[chosen] for k, v in flat.items()}
            loss = self._policy_loss(batch, beta, penalty, terminates=terminates)
            if self.config.trust_region == "clip" and float(loss.kl) > 1.5 * self.config.kl_target:
                metrics["kl_stop"] = 1.0
                break
            descend(loss.total, actor_optimizer, limit=self.config.grad_clip)
            losses = self._value_losses(batch)
            descend(torch.stack(list(losses.values())).sum(), self.optimizer, limit=self.config.grad_clip)
            if self.config.trust_region == "kl":
                penalty = adapt_penalty(penalty, float(loss.kl), self.config.kl_target)
            metrics |= {k: float(v.detach()) for k, v in (loss.parts | losses).items()}
        metrics |= {"bonus": float(flat["bonus"].mean()), "discrepancy": float(flat["discrepancy"].mean())}
        return metrics, penalty

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs; the rollout may be half full."""
        rows = {k: np.stack([row[k] for row in self.rows]) for k in self.rows[0]} if self.rows else {}
        return {"optimizer": self.optimizer.state(), "rows": rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state` described."""
        self.optimizer.restore(state["optimizer"])
        length = len(next(iter(state["rows"].values()))) if state["rows"] else 0
        self.rows = [{k: v[t] for k, v in state["rows"].items()} for t in range(length)]

    @torch.no_grad()
    def _targets(self, rollout: Mapping[str, Tensor], beta: float, *, terminates: bool) -> dict[str, Tensor]:
        """Latents, advantages and value targets of the whole rollout, detached once; flattened to ``[T·N, ...]``."""
        task = rollout["task"]
        model = TaskModel(self.model, task[0], self.gamma[task[0]], terminates=terminates)
        latent = self.model.encode(rollout["observation"], task)
        e = self.model.embedding(task)
        value = self.model.model_free_value(latent, e)
        next_latent = self.model.encode(rollout["next_observation"], task)
        next_value = self.model.model_free_value(next_latent, e)
        terminated, reward = rollout["terminated"], rollout["reward"]
        believed, experienced = one_step_values(model, latent, rollout["action"], reward, next_value, terminated)
        discrepancy = (believed - experienced).abs()
        moments = self.model.discrepancy_moments
        bonus = beta * discrepancy_bonus(discrepancy, task, moments, self.config.discrepancy_clip)
        ended = terminated | rollout["truncated"]
        cut = (terminated, ended, model.gamma, self.config.gae_lambda)
        advantage = gae(reward, value, next_value, *cut)
        targets = {"value_target": advantage + value}
        if self.config.augments_rollouts:
            value, next_value = self.model.augmented_value(latent, e), self.model.augmented_value(next_latent, e)
            advantage = gae(reward + bonus, value, next_value, *cut)
            targets["augmented_target"] = advantage + value
        normal = standardise(advantage.flatten(), task.flatten(), self.num_tasks).view_as(reward)
        if self.config.discrepancy == "advantage":
            normal = normal + bonus
        if not self.through_planner:
            # The ablation: the ratio of the prior now to the prior as it was, whoever acted.
            old = model.prior(latent)
            rollout = {**rollout, "acting_mean": old.mean, "acting_std": old.std}
        fields = {
            **rollout,
            **targets,
            "latent": latent,
            "advantage": normal,
            "bonus": bonus,
            "discrepancy": discrepancy,
        }
        return {k: v.flatten(0, 1) for k, v in fields.items()}

    def _value_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        latent, e = batch["latent"], self.model.embedding(batch["task"]).detach()
        losses = {"model_free_loss": self.model.model_free_loss(latent, e, batch["value_target"]).mean()}
        if self.config.augments_rollouts:
            logits = self.model.augmented_logits(latent, e)
            losses["augmented_loss"] = self.model.regression_loss(logits, batch["augmented_target"]).mean()
        return losses

    def _policy_loss(self, batch: Mapping[str, Tensor], beta: float, penalty: float, *, terminates: bool) -> PolicyLoss:
        task = batch["task"]
        model = TaskModel(self.model, task, self.gamma[task], terminates=terminates)
        prior = model.prior(batch["latent"])
        acting = prior
        if self.through_planner:
            noise = batch["noise"].movedim(0, 3)
            warm = batch["warm"].movedim(0, 1)
            acting = planned_policy(model, batch["latent"], noise, warm, beta, self.config).first
        entropy = (model.action_mask * torch.log(prior.std)).sum(-1)
        old = Gaussian(batch["acting_mean"], batch["acting_std"])
        return fresh_policy_loss(
            acting, old, batch["u"], batch["advantage"], model.action_mask, entropy, self.config, penalty
        )

    def _minibatches(self, size: int, sampling: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        for _ in range(self.config.epochs):
            yield from np.array_split(sampling.permutation(size), self.config.minibatches)

"""What DreamerV3 learns from one batch of replayed sequences (Hafner et al. 2025, Methods).

paper         here
x, a, r, c    observation, action, reward, goes_on
h, z          State.deter, State.stoch
q, p          posterior, prior
R^λ           returns
π, η          actor, config.ent_coef
S             scale
v, v'         critic, slow_critic
γ             1 − 1/config.horizon
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.model import BoundedNormal, TwoHotHead, WorldModel, gaussian_entropy
from baselines.dreamerv3.optim import LaProp
from baselines.dreamerv3.rssm import State, kl_losses
from m3po.api import PARAMETERS, UPDATES, EnvSpec
from m3po.kit.distributions import gaussian_log_prob
from m3po.kit.normalize import PercentileScale
from m3po.kit.optim import follow
from m3po.kit.returns import lambda_returns
from m3po.kit.seeding import generator, initialised_from, repeatable
from m3po.kit.state import restore_generator

__all__ = ["Imagined", "Learner"]


class Imagined(NamedTuple):
    """Trajectories dreamt from R start states.

    ``feature [H+1, R, F]``, ``action [H, R, A]``; ``reward [H+1, R]`` belongs to arriving at a feature; ``discount
    [H+1, R]`` is γ times the probability that the episode goes on from it.
    """

    feature: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor


class Learner:
    """All networks, their optimiser, and the update. Randomness comes from one generator made from ``seed``."""

    def __init__(self, spec: EnvSpec, config: DreamerV3Config, *, seed: int, device: str) -> None:
        c = self.config = config
        self.device = torch.device(device)
        self.generator = generator(seed, "learner", self.device)
        with initialised_from(seed):
            self.model = WorldModel(spec, c)
            size = self.model.feature_size
            self.actor = BoundedNormal(size, c.units, c.layers, spec.action_dim, c.min_std, c.max_std)
            self.critic = TwoHotHead(size, c.units, c.layers, c.bins)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        # A range for each task: solved ones, whose returns are large, would shrink the advantages of all others.
        self.scale = PercentileScale(spec.num_tasks, rate=c.return_rate, floor=c.return_floor)
        self.modules = nn.ModuleDict(
            {
                "model": self.model,
                "actor": self.actor,
                "critic": self.critic,
                "slow_critic": self.slow_critic,
                "scale": self.scale,
            }
        ).to(self.device)
        self.optimizer = LaProp(
            (p for p in self.modules.parameters() if p.requires_grad),
            learning_rate=c.learning_rate,
            warmup=c.warmup,
            agc=c.agc,
            beta1=c.beta1,
            beta2=c.beta2,
            eps=c.eps,
        )

    @repeatable()
    def update(self, rows: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> tuple[dict[str, float], State]:
        """One gradient step on replayed ``rows [T, B, ...]``, from the latent state ``before [B, ...]`` kept with them.

        Returns metrics and the states ``[T, B, ...]`` that the step started from.
        """
        c = self.config
        states, losses = self.world_model_losses(rows, self.recalled(before))
        found = State(*(part.detach() for part in states))
        # Dreams start from the last observations of each sequence, 0 meaning all of them.
        states = State(*(part[-c.imagine_last :] for part in states))
        rows = {name: part[-c.imagine_last :] for name, part in rows.items()}
        task = rows["task"].flatten()
        dream = self.imagine(State(*(part.detach().flatten(0, 1) for part in states)), task)
        returns, behaviour_losses = self.actor_critic_losses(dream, task)
        losses |= behaviour_losses
        losses["replay_value"] = self.replay_value_loss(states, rows, returns[0].view_as(rows["reward"]))
        weights = {
            "reconstruction": c.rec_coef,
            "reward": c.reward_coef,
            "continue": c.continue_coef,
            "dynamics": c.dyn_coef,
            "representation": c.rep_coef,
            "replay_value": c.replay_value_coef,
        }
        self.optimizer.step(torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum())
        follow(self.slow_critic, self.critic, c.slow_rate)
        metrics = {f"loss/{name}": loss.detach() for name, loss in losses.items()}
        metrics |= {"imagined_return": returns.mean(), "return_scale": self.scale.scale(task).mean()}
        # All in one go: each number fetched from an accelerator would wait for it.
        numbers = dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))
        size = sum(p.numel() for p in self.optimizer.parameters)
        return numbers | {UPDATES: float(self.optimizer.steps), PARAMETERS: float(size)}, found

    def recalled(self, kept: Mapping[str, Tensor]) -> State:
        """The state that :meth:`~baselines.dreamerv3.rssm.State.kept` described."""
        stoch = F.one_hot(kept["stoch"].long(), self.config.classes)
        return State(kept["deter"].float(), stoch.float())

    def world_model_losses(self, rows: Mapping[str, Tensor], before: State) -> tuple[State, dict[str, Tensor]]:
        """States ``[T, B, ...]`` of the replayed observations, and the losses of everything predicted from them."""
        c, model, task = self.config, self.model, rows["task"]
        control = model.control(rows["action"] * ~rows["first"][..., None], task)
        visible = model.visible(rows["observation"], task)
        noise = self._uniform(*task.shape, c.stoch)
        token = model.token(visible, task)
        states, post = model.rssm.observe_sequence(before, control, token, rows["first"], noise)
        dyn, rep = kl_losses(post, model.rssm.prior(states.deter), c.free_nats)
        feature = model.feature(states, task)
        # Only a terminal ends what can be earned; the last step before a time limit goes on like any other.
        goes_on = (1 - 1 / c.horizon) * (~rows["terminal"]).float()
        return states, {
            "reconstruction": model.reconstruction_error(feature, visible, task).mean(),
            "reward": model.reward.losses(model.reward(feature), rows["reward"]).mean(),
            "continue": F.binary_cross_entropy_with_logits(model.continuation(feature), goes_on),
            "dynamics": dyn.mean(),
            "representation": rep.mean(),
        }

    @torch.no_grad()
    def imagine(self, state: State, task: Tensor) -> Imagined:
        """Follow the actor from ``state [R, ...]`` in ``task [R]`` without looking."""
        c, model, cut = self.config, self.model, self.model.rssm.cut()
        normal = self._normal(c.imagination, *task.shape, self.actor.mean.out_features)
        uniform = self._uniform(c.imagination, *task.shape, c.stoch)
        # One buffer, because a list of features and their stack would be the largest memory of an update, twice.
        feature = torch.empty(c.imagination + 1, len(task), model.feature_size, device=self.device)
        feature[0] = model.feature(state, task)
        action = torch.empty_like(normal)
        for t in range(c.imagination):
            action[t] = self.actor(feature[t]).sample(normal[t])
            state = model.rssm.imagine(state, model.control(action[t], task), uniform[t], cut)
            feature[t + 1] = model.feature(state, task)
        reward = model.reward.mean(model.reward(feature))
        return Imagined(feature, action, reward, torch.sigmoid(model.continuation(feature)))

    def actor_critic_losses(self, dream: Imagined, task: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns ``[H, R]`` of a dream; REINFORCE with them, scaled to about one; the critic's regression to them."""
        c, mask = self.config, self.model.action_mask[task]
        logits = self.critic(dream.feature)
        value = self.critic.mean(logits.detach())
        returns = lambda_returns(dream.reward[1:], value[1:], dream.discount[1:], c.lam)
        self.scale.update(returns.flatten(), task.expand_as(returns).flatten())
        advantage = (returns - value[:-1]) / self.scale.scale(task)
        dist = self.actor(dream.feature[:-1])
        entropy = gaussian_entropy(dist, mask)
        objective = gaussian_log_prob(dist, dream.action, mask) * advantage + c.ent_coef * entropy
        # The probability, discounted, that a dream gets this far.
        weight = dream.discount.cumprod(0)[:-1]
        return returns, {
            "actor": -(weight * objective).mean(),
            "critic": (weight * self._critic_loss(logits[:-1], dream.feature[:-1], returns)).mean(),
        }

    def replay_value_loss(self, states: State, rows: Mapping[str, Tensor], imagined_return: Tensor) -> Tensor:
        """The critic on replayed rewards; ``imagined_return [T, B]`` stands for what comes after a sequence or episode.

        The gradient reaches the world model through ``states``.
        """
        c = self.config
        discount = (1 - 1 / c.horizon) * (~rows["terminal"][1:]).float()
        returns = lambda_returns(rows["reward"][1:], imagined_return[1:], discount, c.lam, chain=~rows["last"][1:])
        feature = self.model.feature(states, rows["task"])[:-1]
        loss = self._critic_loss(self.critic(feature), feature, returns)
        # Behind an episode's last observation comes another episode.
        return ((~rows["last"][:-1]) * loss).mean()

    def _critic_loss(self, logits: Tensor, feature: Tensor, returns: Tensor) -> Tensor:
        """Cross-entropy ``[...]`` to ``returns`` plus ``slow_coef`` times that to the slow critic's values."""
        with torch.no_grad():
            slow = self.slow_critic.mean(self.slow_critic(feature))
        to_returns, to_slow = self.critic.losses(logits, returns, slow).unbind(-1)
        return to_returns + self.config.slow_coef * to_slow

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""
        return {
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state(),
            "generator": self.generator,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state` described."""
        self.modules.load_state_dict(state["modules"])
        self.optimizer.restore(state["optimizer"])
        restore_generator(self.generator, state["generator"])

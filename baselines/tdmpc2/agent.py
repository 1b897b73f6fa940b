"""TD-MPC2 (Hansen, Su and Wang 2024, arXiv 2310.16828) as an agent that learns online, one task or many at once.

paper              here
h, d, R, Q, p, e   the networks of :mod:`baselines.tdmpc2.model`, two-hot where they are scalars
φ̄                  target, a moving mean of the heads Q
S                  scale
ρᵗ                 rho
β                  config.entropy_coef

each decision  plan from h(s) with d, R, Q and p (:mod:`baselines.tdmpc2.planner`)
each update    on subsequences (s, a, r, s')₀ … of H steps, z₀ = h(s₀), zₜ₊₁ = d(zₜ, aₜ), "sg" stopping the gradient:
  qₜ = rₜ + γ min of two heads of φ̄ at (h(s'ₜ), a ~ p)
  L(θ) = Σₜ ρᵗ [c_z ‖zₜ₊₁ − sg h(s'ₜ)‖² + c_r CE(R(zₜ, aₜ), rₜ) + c_q CE(Q(zₜ, aₜ), qₜ)]   (eq. 3)
  L(p) = −Σₜ ρᵗ [Q(sg zₜ, a ~ p) / S + β H(p(· | sg zₜ))]                                   (eq. 4)
  φ̄ ← (1 − τ) φ̄ + τ φ
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.tdmpc2.config import TDMPC2Config
from baselines.tdmpc2.model import Rows, WorldModel
from baselines.tdmpc2.planner import Noise, draw_heads, plan
from m3po.api import PARAMETERS, UPDATES, AgentConfig, Decision, EnvSpec, Metrics, Transition
from m3po.kit.distributions import gaussian_log_prob, squashed_log_prob
from m3po.kit.optim import FlatAdam, descend, follow
from m3po.kit.replay import SequenceReplay, transition_rows
from m3po.kit.returns import alive
from m3po.kit.seeding import generator, initialised_from, numpy_generator
from m3po.kit.state import load_state, restore_generator, save_state

__all__ = ["TDMPC2", "LastPlan", "ModelLoss"]

_EVALUATION_NOISES = 32
"""Columns of noise that evaluation reads by turns: few enough for the memory of large action spaces."""


class LastPlan(NamedTuple):
    """The carry: the last plan's ``mean`` ``[H, N, A]`` moved on by one step, and the episode's ``age`` ``[N]`` in
    decisions."""

    mean: Tensor
    age: Tensor


class ModelLoss(NamedTuple):
    """``total`` to minimise; ``latents [H + 1, B, L]`` z₀ … z_H and which of them were reached within the episode,
    ``reached [H + 1, B]``, both without gradient; ``parts`` for the log."""

    total: Tensor
    latents: Tensor
    reached: Tensor
    parts: dict[str, Tensor]


class TDMPC2:
    """The agent; see :class:`m3po.api.Agent` for what each method promises.

    Where it differs from the official code: subsequences may cross the end of an episode, their steps behind it not
    counting, so that every transition can be a first one; the task embedding is trained by the world model's loss
    alone; evaluation plans with noise drawn beforehand; terminations are modelled from the first one seen, in joint
    suites too, where the updates that the seed earned are made up for little by little: at once they would take hours
    without a checkpoint.
    """

    Config: ClassVar[type[AgentConfig]] = TDMPC2Config

    def __init__(self, spec: EnvSpec, config: TDMPC2Config, *, seed: int, device: str) -> None:
        self.spec, self.config, self.device = spec, config, torch.device(device)
        with initialised_from(seed):
            self.model = WorldModel(spec, config).to(self.device)
        self.target = deepcopy(self.model.critics).requires_grad_(False)
        self.scale = torch.ones((), device=self.device)
        """S, the moving range of values (5 to 95 percent), at least 1."""
        self.percentiles = torch.tensor([0.05, 0.95], device=self.device)
        self.rho = config.rho ** torch.arange(config.horizon + 1, device=self.device)[:, None]
        """ρᵗ ``[H + 1, 1]``."""
        m, rate = self.model, config.learning_rate
        world = nn.ModuleList([m.dynamics, m.reward, m.termination, m.critics, nn.ParameterList([m.embedding])])
        self.encoder_optimizer = FlatAdam(m.encoder, rate * config.enc_lr_scale)
        self.world_optimizer = FlatAdam(world, rate)
        self.policy_optimizer = FlatAdam(m.actor, rate, eps=1e-5)
        self.noise = generator(seed, "noise", self.device)
        self.choices = numpy_generator(seed, "heads")
        self.sampling = numpy_generator(seed, "replay")
        evaluation = generator(seed, "evaluation"), numpy_generator(seed, "evaluation")
        self.evaluation_noise = Noise.draw(config, _EVALUATION_NOISES, spec.action_dim, *evaluation).to(self.device)
        """Drawn on the host, so that an agent evaluates alike on every device."""

        self.replay: SequenceReplay | None = None
        self.seed_decisions = config.seed_decisions(spec.max_episode_steps)
        """Of all tasks until the first transition shows which are trained on."""
        self.decisions = 0
        self.updates = 0
        self.terminates = False
        """Whether a termination was ever seen; the termination head is trained and used only then."""

    def initial_carry(self, num_envs: int) -> LastPlan:
        """No plan yet: zeros."""
        mean = torch.zeros(self.config.horizon, num_envs, self.spec.action_dim, device=self.device)
        return LastPlan(mean, torch.zeros(num_envs, dtype=torch.int64, device=self.device))

    @torch.no_grad()
    def act(
        self,
        carry: LastPlan,
        observation: NDArray[np.float32],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        """Plan for all environments at once; while the seed is gathered, explore uniformly."""
        tasks = torch.from_numpy(task).to(self.device)
        rows = self.model.rows(tasks)
        if explore and self.decisions < self.seed_decisions:
            uniform = torch.empty_like(rows.action_mask).uniform_(-1, 1, generator=self.noise)
            return Decision((uniform * rows.action_mask).cpu().numpy(), self.initial_carry(len(task)))
        going_on = ~torch.from_numpy(first).to(self.device)
        age = carry.age * going_on
        noise = self._noise(age, explore=explore)
        latent = self.model.encode(torch.from_numpy(observation).to(self.device), tasks, rows)
        found = plan(
            self.model,
            latent,
            rows,
            carry.mean * going_on[:, None],
            noise,
            self.config,
            explore=explore,
            terminates=self.terminates,
        )
        moved_on = torch.cat([found.mean[1:], torch.zeros_like(found.mean[:1])])
        return Decision(found.action.cpu().numpy(), LastPlan(moved_on, age + 1))

    def _noise(self, age: Tensor, *, explore: bool) -> Noise:
        """What planning draws for environments of ``age [N]``.

        Evaluation must be a function of what it sees and leave training's stream alone: it reads numbers drawn once,
        environment n in decision t those of column n + t. One column for all decisions would bias all plans alike,
        which cost a sixth of the return where it was measured.
        """
        if explore:
            return Noise.draw(self.config, len(age), self.spec.action_dim, self.noise, self.choices)
        column = (torch.arange(len(age), device=self.device) + age) % _EVALUATION_NOISES
        return self.evaluation_noise.columns(column)

    def observe(self, transition: Transition) -> None:
        """Keep one step of every environment."""
        if self.replay is None:
            self.replay = SequenceReplay(self.config.replay_capacity, len(transition.task))
            self.seed_decisions = self._seed(transition.task)
        self.replay.add(transition_rows(transition))
        self.terminates = self.terminates or bool(transition.terminated.any())
        self.decisions += len(transition.reward)

    def _seed(self, task: NDArray[np.int64]) -> int:
        """Decisions of the seed where environments play ``task [N]``; tasks that none plays have no part in it."""
        return self.config.seed_decisions(self.spec.max_episode_steps[np.unique(task)])

    def update(self) -> Metrics:
        """The updates that are due; metrics are their means."""
        due = self._due()
        if due < 1:
            return {}
        sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for _ in range(due):
            for name, value in self._learn().items():
                sums[name] += value
        means = dict(zip(sums, (torch.stack(list(sums.values())) / due).tolist(), strict=True))
        return means | {UPDATES: float(self.updates), PARAMETERS: float(self._parameters())}

    def _due(self) -> int:
        """How many updates to take now.

        With one task the first time as many as the seed's decisions earned. In joint suites each call makes up for as
        many of those as its own decisions earned, until none is owed.
        """
        if self.replay is None or not self.replay.can_sample(self.config.horizon):
            return 0
        if self.decisions < self.seed_decisions:
            return 0
        rate = self.config.updates_per_step
        owed = int(self.decisions * rate) - self.updates
        if self.spec.num_tasks == 1:
            return owed
        earned = int(self.decisions * rate) - int((self.decisions - self.replay.num_envs) * rate)
        return min(owed, 2 * earned)

    def _parameters(self) -> int:
        unused = 0 if self.terminates else sum(p.numel() for p in self.model.termination.parameters())
        return sum(p.numel() for p in self.model.parameters()) - unused

    def _learn(self) -> dict[str, Tensor]:
        """One update of the world model, then of the policy on its latents, then of the target ensemble."""
        assert self.replay is not None
        c = self.config
        batch = self.replay.sample(c.batch_size, c.horizon, self.sampling, self.device)
        rows = self.model.rows(batch["task"][0])
        loss = self._model_loss(batch, rows)
        norm = descend(loss.total, self.encoder_optimizer, self.world_optimizer, limit=c.grad_clip)
        self.model.bound_embeddings()
        policy_parts = self._improve_policy(loss, rows)
        follow(self.target, self.model.critics, c.tau)
        self.updates += 1
        return {**loss.parts, "grad_norm": norm, **policy_parts}

    def _model_loss(self, batch: Mapping[str, Tensor], rows: Rows) -> ModelLoss:
        """L(θ) on subsequences ``{name: [H, B, ...]}`` of tasks ``rows``; the value's part is a mean over heads."""
        c, model, action, task = self.config, self.model, batch["action"], batch["task"][0]
        reached = alive(batch["terminated"] | batch["truncated"])
        with torch.no_grad():
            following = model.encode(batch["next_observation"], task, rows)
            target = self._td_target(following, batch["reward"], batch["terminated"], rows)

        latents = [model.encode(batch["observation"][0], task, rows)]
        for a in action:
            latents.append(model.next(latents[-1], a, rows))
        z, z_next = torch.stack(latents[:-1]), torch.stack(latents[1:])
        weight = reached[1:] * self.rho[:-1]

        parts = {
            "consistency_loss": (weight * ((z_next - following) ** 2).mean(-1)).mean(),
            "reward_loss": (
                weight * model.regression_loss(model.reward_logits(z, action, rows), batch["reward"])
            ).mean(),
            "value_loss": self._value_loss(z, action, rows, target, weight),
        }
        total = (
            c.consistency_coef * parts["consistency_loss"]
            + c.reward_coef * parts["reward_loss"]
            + c.value_coef * parts["value_loss"]
        )
        if self.terminates:
            logit = model.termination_logit(z_next, rows)
            parts["termination_loss"] = F.binary_cross_entropy_with_logits(
                logit, batch["terminated"].float(), weight=reached[1:]
            )
            total = total + c.termination_coef * parts["termination_loss"]
        detached = {name: part.detach() for name, part in parts.items()} | {"value_target": target.mean()}
        return ModelLoss(total, torch.stack(latents).detach(), reached, detached)

    def _td_target(self, latent: Tensor, reward: Tensor, terminated: Tensor, rows: Rows) -> Tensor:
        """qₜ ``[H, B]``: r + γ (1 − terminated) min of two target heads at h(s') and the policy's action there.

        ``latent [H, B, L]`` are those of the true successors, so that a truncated episode is bootstrapped through.
        """
        model, heads = self.model, self._heads()
        action = model.sample_action(latent, rows, self._normal(*latent.shape[:2], self.spec.action_dim))
        logits = model.q_logits(latent, action, rows, critics=self.target, heads=heads)
        return reward + rows.gamma * (~terminated) * model.scalar(logits).amin(0)

    def _value_loss(self, z: Tensor, action: Tensor, rows: Rows, target: Tensor, weight: Tensor) -> Tensor:
        logits = self.model.q_logits(z, action, rows, stream=self.noise)
        return (weight * self.model.regression_loss(logits, target.expand(logits.shape[:-1]))).mean()

    def _improve_policy(self, loss: ModelLoss, rows: Rows) -> dict[str, Tensor]:
        """A step of the policy prior up Q / S + β H, on latents that are no longer part of the model's graph.

        H is the entropy of the Gaussian before tanh times the number of actions, which is what the official code's
        ``scaled_entropy`` comes to.
        """
        c, model, z = self.config, self.model, loss.latents
        policy = model.policy(z, rows)
        u = policy.sample(self._normal(*policy.mean.shape))
        logits = model.q_logits(z, torch.tanh(u) * rows.action_mask, rows, heads=self._heads(), stream=self.noise)
        value = model.scalar(logits).mean(0)
        self._update_scale(value[0].detach())
        entropy = -gaussian_log_prob(policy, u, rows.action_mask) * rows.action_mask.sum(-1)
        weight = loss.reached * self.rho
        total = -(weight * (value / self.scale + c.entropy_coef * entropy)).mean()
        norm = descend(total, self.policy_optimizer, limit=c.grad_clip)
        with torch.no_grad():
            squashed = -squashed_log_prob(policy, u, rows.action_mask).mean()
        return {
            "policy_loss": total.detach(),
            "policy_grad_norm": norm,
            "policy_value": value.detach().mean(),
            "entropy": squashed,
            "scale": self.scale.clone(),
        }

    def _update_scale(self, value: Tensor) -> None:
        """S ← (1 − τ) S + τ max(1, P₉₅ − P₅) of ``value [B]``."""
        low, high = torch.quantile(value, self.percentiles)
        self.scale.lerp_((high - low).clamp(min=1.0), self.config.tau)

    def _heads(self) -> list[int]:
        return draw_heads(self.config.num_q, self.choices)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.noise, device=self.device)

    def save(self, directory: Path, carry: LastPlan) -> None:
        """Everything that acts or learns, the carry included."""
        state = {
            "model": self.model.state_dict(),
            "target": self.target.state_dict(),
            "scale": self.scale,
            "optimizers": [optimizer.state() for optimizer in self._optimizers],
            "replay": None if self.replay is None else self.replay.state(),
            "noise": self.noise,
            "choices": self.choices,
            "sampling": self.sampling,
            "counters": [self.decisions, self.updates, self.terminates],
            "carry": list(carry),
        }
        save_state(directory, "tdmpc2", state)

    def load(self, directory: Path) -> LastPlan:
        """Become what :meth:`save` wrote; returns the carry saved with it."""
        state = load_state(directory, "tdmpc2")
        self.model.load_state_dict(state["model"])
        self.target.load_state_dict(state["target"])
        self.scale.copy_(state["scale"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.restore(saved)
        if state["replay"] is not None:
            self.replay = SequenceReplay.restore(self.config.replay_capacity, state["replay"])
            self.seed_decisions = self._seed(state["replay"]["rows"]["task"][0])
        restore_generator(self.noise, state["noise"])
        restore_generator(self.choices, state["choices"])
        restore_generator(self.sampling, state["sampling"])
        self.decisions, self.updates, self.terminates = state["counters"]
        mean, age = (part.to(self.device) for part in state["carry"])
        return LastPlan(mean, age)

    @property
    def _optimizers(self) -> tuple[FlatAdam, FlatAdam, FlatAdam]:
        return self.encoder_optimizer, self.world_optimizer, self.policy_optimizer

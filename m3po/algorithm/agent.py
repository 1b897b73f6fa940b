"""M3PO (Narendra, Makarov, Panov, IROS 2025, arXiv 2506.21782), as one loop:

1. act for T decisions in N environments with the planner's Gaussian (:meth:`M3PO.act`);
2. the policy now is π_old; fresh data, where used, improves the actor by a policy gradient of the augmented reward;
3. for every update that is due: world model on replayed subsequences, now and then the critic of bonuses, actor on
   their latents under KL(π_old ‖ π), EMA targets (:meth:`M3PO._iterate`); repeat. Where more updates are due than a
   rollout earns, as with very many environments, π_old is renewed in between.

Symbols are mapped to names in :mod:`m3po.algorithm.model`; formulas stand in ``losses`` and ``exploration``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m3po.algorithm import diagnosis
from m3po.algorithm.config import M3POConfig
from m3po.algorithm.exploration import annealed, planned_policy
from m3po.algorithm.fresh import FreshUpdate
from m3po.algorithm.losses import bonus_loss, model_loss, replayed_policy_loss
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.api import PARAMETERS, UPDATES, Decision, Diagnostic, EnvSpec, Metrics, Transition
from m3po.kit.nets import MLP
from m3po.kit.normalize import PercentileScale
from m3po.kit.optim import FlatAdam, descend, follow
from m3po.kit.replay import SequenceReplay, transition_rows
from m3po.kit.returns import discount_for_length
from m3po.kit.seeding import generator, initialised_from, numpy_generator
from m3po.kit.state import load_state, restore_generator, save_state
from m3po.kit.trust_region import adapt_penalty

__all__ = ["M3PO", "LastPlan"]

_WORLD = ("embedding", "dynamics_net", "reward_net", "termination_net", "critics")
"""What the model's loss trains beside the encoder, which has a rate of its own. Actor and V_f have their own losses."""


_EVALUATION_NOISES = 32
"""Slices of noise that evaluation reads by turns: few enough for the memory of large action spaces."""


class LastPlan(NamedTuple):
    """The carry: a candidate of the next planning, and how old the episode is.

    ``mean`` ``[H, N, A]`` are the last plan's pre-tanh actions, moved on by one step and NaN where unknown; ``age``
    ``[N]`` counts decisions.
    """

    mean: Tensor
    age: Tensor


class M3PO:
    """The agent. See :class:`m3po.api.Agent` for the contract and :class:`M3POConfig` for every switch."""

    Config: ClassVar[type[M3POConfig]] = M3POConfig

    def __init__(self, spec: EnvSpec, config: M3POConfig, *, seed: int, device: str) -> None:
        self.spec, self.config, self.seed, self.device = spec, config, seed, torch.device(device)
        with initialised_from(seed):
            self.model = WorldModel(spec, config).to(self.device)
        self.target = deepcopy(self.model).requires_grad_(False)
        self.gamma = self._discounts()
        self.scale = PercentileScale(spec.num_tasks).to(self.device)
        world = nn.ModuleList(getattr(self.model, name) for name in _WORLD)
        self.encoder_optimizer = FlatAdam(self.model.encoder, config.model_lr * config.encoder_lr_scale)
        self.world_optimizer = FlatAdam(world, config.model_lr)
        self.actor_optimizer = FlatAdam(self.model.actor, config.actor_lr)
        self.bonus_optimizer: FlatAdam | None = None
        """Of what learns bonuses of replayed steps; fresh data trains V_f by itself."""
        if self.model.bonus_critic is not None:
            bonuses = nn.ModuleList([self.model.bonus_critic, self.model.model_free])
            self.bonus_optimizer = FlatAdam(bonuses, config.model_lr)
        self.fresh = FreshUpdate(self.model, spec, config, self.gamma) if config.actor_data == "fresh" else None
        self.replay: SequenceReplay | None = None
        self.noise = generator(seed, "noise", self.device)
        shape = (config.iterations, config.horizon, config.samples, _EVALUATION_NOISES, spec.action_dim)
        self.evaluation_noise = _normal(shape, generator(seed, "evaluation")).to(self.device)
        """Drawn on the host, so that an agent evaluates alike on every device."""
        self.sampling = numpy_generator(seed, "replay")
        self.env_step = 0
        self.trained_tasks = spec.num_tasks
        """Of all tasks until the first transition shows which are trained on."""
        self.rows = 0
        """Rows since the last policy iteration."""
        self.row_steps = 0
        """Environment steps of a row, once one was seen."""
        self.updates = 0
        self.penalty = 1.0
        self.beta = config.first_beta
        """Fixed within an iteration, so that the acting policy can be recomputed."""
        self.termination_seen = False
        """The termination head is trained only then."""
        self.terminates = False
        """Whether the termination head is used: from the iteration after the one that first trained it, so that the
        acting policy can be recomputed."""

    def _discounts(self) -> Tensor:
        if self.config.gamma is not None:
            return torch.full((self.spec.num_tasks,), self.config.gamma, device=self.device)
        return discount_for_length(torch.from_numpy(self.spec.max_episode_steps)).to(self.device)

    # Acting

    def initial_carry(self, num_envs: int) -> LastPlan:
        """No plan yet, for ``num_envs`` environments."""
        shape = (self.config.horizon, num_envs, self.spec.action_dim)
        mean = torch.full(shape, torch.nan, device=self.device)
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
        """A sample of the planner's Gaussian while exploring, its mean while evaluated; see :meth:`Agent.act`."""
        model, latent = self._encode(observation, task)
        going_on = ~torch.from_numpy(first).to(self.device)
        plan, age, extras = carry.mean, carry.age * going_on, {}
        acting = model.prior(latent)
        # Fresh data needs one acting policy from the start; otherwise an untrained model has nothing to say.
        trained = self.fresh is not None or self._started
        if self.config.planner == "mppi" and (trained or not explore):
            warm = torch.where(going_on[:, None], carry.mean, torch.nan)
            noise = self._planning_noise(age, explore=explore)
            model.beta = self._bonus_weight if explore else 0.0
            found = planned_policy(model, latent, noise, warm, self.beta if explore else 0.0, self.config)
            acting, plan = found.first, _moved_on(found.sequence.mean)
            extras = {"noise": noise.movedim(3, 0), "warm": warm.movedim(1, 0)}
        u = acting.sample(_normal(acting.mean.shape, self.noise)) if explore else acting.mean
        extras = extras | {"u": u, "acting_mean": acting.mean, "acting_std": acting.std}
        stored = {k: v.cpu().numpy() for k, v in extras.items()} if explore and self.fresh is not None else {}
        action = (torch.tanh(u) * model.action_mask).cpu().numpy()
        return Decision(action, LastPlan(plan, age + 1), stored)

    def _encode(self, observation: NDArray[np.float32], task: NDArray[np.int64]) -> tuple[TaskModel, Tensor]:
        tasks = torch.from_numpy(task).to(self.device)
        return self._bound(tasks), self.model.encode(torch.from_numpy(observation).to(self.device), tasks)

    def _bound(self, task: Tensor) -> TaskModel:
        return TaskModel(self.model, task, self.gamma[task], terminates=self.terminates)

    @property
    def _bonus_weight(self) -> float:
        """What Q_δ counts while exploring."""
        return self.beta if self.config.values_bonus else 0.0

    def _planning_noise(self, age: Tensor, *, explore: bool) -> Tensor:
        """Candidate noise ``[I, H, S, N, A]`` for environments of ``age [N]``.

        Evaluation must be a function of what it sees and leave training's stream alone: it reads numbers drawn once,
        those of slice t in decision t. The same for all decisions would bias all plans alike and can hold an episode
        where it is: a stuck walker's return rose from 497 ± 51 to 622 ± 40 of the same networks.
        """
        iterations, horizon, samples, slices, action_dim = self.evaluation_noise.shape
        if explore:
            return _normal((iterations, horizon, samples, len(age), action_dim), self.noise)
        return self.evaluation_noise.index_select(3, age % slices)

    # Learning

    def observe(self, transition: Transition) -> None:
        """Keep one step of every environment."""
        if self.replay is None:
            self.replay = SequenceReplay(self.config.replay_capacity, len(transition.reward))
        self.trained_tasks = len(set(transition.task.tolist()))
        self.replay.add(transition_rows(transition))
        if self.fresh is not None:
            self.fresh.observe(transition)
        self.termination_seen = self.termination_seen or bool(transition.terminated.any())
        self.row_steps = int(self.spec.action_repeat[transition.task].sum())
        self.env_step += self.row_steps
        self.rows += 1

    def update(self) -> Metrics:
        """One policy iteration whenever a rollout is there and learning has started."""
        c = self.config
        if self.replay is None or not self.replay.can_sample(c.model_horizon):
            return {}
        rows = c.rollout_size / self.replay.num_envs
        if self.rows < rows or not self._started:
            return {}
        self.rows = 0
        return self._iterate(self._due(math.ceil(rows)), together=self._earned(rows))

    @property
    def _started(self) -> bool:
        return self.env_step >= self.config.learning_starts * self.trained_tasks

    def _due(self, rows: int) -> int:
        """How many updates to take in an iteration every so many ``rows``: all that are owed.

        In joint suites at most twice as many as the iteration's rows earned: those of the steps before learning started
        would take hours at once, without a checkpoint.
        """
        owed = int(self.env_step * self.config.updates_per_step) - self.updates
        return owed if self.spec.num_tasks == 1 else min(owed, 2 * self._earned(rows))

    def _earned(self, rows: float) -> int:
        """How many updates ``rows`` earn, one at least."""
        return max(1, round(rows * self.row_steps * self.config.updates_per_step))

    def _iterate(self, due: int, *, together: int) -> dict[str, float]:
        """Steps 2 and 3 of the algorithm, with ``due`` updates, so many ``together`` under one π_old."""
        c = self.config
        metrics: dict[str, float] = {}
        if self.fresh is not None:
            metrics, self.penalty = self.fresh.improve(
                self.actor_optimizer, self.beta, self.penalty, self.sampling, terminates=self.terminates
            )
        reported: defaultdict[str, list[Tensor]] = defaultdict(list)
        for done in range(0, due, together):
            old = deepcopy(self.model.actor).requires_grad_(False)
            for _ in range(min(together, due - done)):
                for name, value in self._learn(old).items():
                    reported[name].append(value)
        self.terminates = self.terminates or (self.termination_seen and due > 0)
        self.beta = annealed(c.first_beta, self.env_step / self.trained_tasks, c.discrepancy_steps)
        means = {name: float(torch.stack(values).mean()) for name, values in reported.items()}
        about = {UPDATES: float(self.updates), PARAMETERS: float(self._size())}
        return metrics | means | {"beta": self.beta, "kl_penalty": self.penalty} | about

    def _size(self) -> int:
        """Numbers that training moves."""
        optimizers = [self.encoder_optimizer, self.world_optimizer, self.actor_optimizer]
        if self.bonus_optimizer is not None:
            optimizers.append(self.bonus_optimizer)
        if self.fresh is not None:
            optimizers.append(self.fresh.optimizer)
        unused = 0 if self.terminates else sum(p.numel() for p in self.model.termination_net.parameters())
        return sum(optimizer.parameters.numel() for optimizer in optimizers) - unused

    def _learn(self, old: MLP) -> dict[str, Tensor]:
        """One update of the world model and, on its latents, of bonuses and actor; then the EMA targets."""
        assert self.replay is not None
        c = self.config
        batch = self.replay.sample(c.batch, c.model_horizon, self.sampling, self.device)
        noise = _normal(batch["action"].shape, self.noise)
        loss = model_loss(self.model, self.target, batch, self.gamma, noise, c, terminates=self.termination_seen)
        norm = descend(loss.total, self.encoder_optimizer, self.world_optimizer, limit=c.grad_clip)
        parts = {**loss.parts, "model_grad_norm": norm}
        if self.bonus_optimizer is not None and self.updates % c.bonus_every == 0:
            bonuses = bonus_loss(self.model, self.target, batch, loss, self.gamma, noise, c, terminates=self.terminates)
            descend(bonuses.total, self.bonus_optimizer, limit=c.grad_clip)
            self._follow("bonus_critic")
            parts |= bonuses.parts
        if self.fresh is None:
            states = torch.cat([loss.first.detach().unsqueeze(0), loss.latents[:-1]])
            parts |= self._improve_on_replay(states.flatten(0, 1), batch["task"].flatten(), old)
        self._follow("critics", "embedding", *["encoder"] * (c.consistency_target == "ema"))
        self.updates += 1
        return parts

    def _follow(self, *names: str) -> None:
        """EMA of the parts of the model that are read from the target."""
        for name in names:
            follow(self.target.get_submodule(name), self.model.get_submodule(name), self.config.target_rate)

    def _improve_on_replay(self, latents: Tensor, task: Tensor, old_actor: MLP) -> Mapping[str, Tensor]:
        model = self._bound(task)
        model.embedding, model.beta = model.embedding.detach(), self._bonus_weight
        old = model.prior(latents, actor=old_actor)
        noise = _normal(old.mean.shape, self.noise)
        penalty = self.penalty if self.config.trust_region == "kl" else 0.0
        scale = self.scale.scale(task)
        loss, value = replayed_policy_loss(model, old, latents, noise, scale, penalty, self.config.entropy_coef)
        descend(loss.total, self.actor_optimizer, limit=self.config.grad_clip)
        self.scale.update(value, task)
        if self.config.trust_region == "kl":
            self.penalty = adapt_penalty(self.penalty, float(loss.kl), self.config.kl_target)
        return loss.parts

    # Looking

    def diagnose(self) -> dict[str, Diagnostic]:
        """See :mod:`m3po.algorithm.diagnosis`; nothing before there is replay to look at."""
        c, tasks, steps = self.config, self.spec.num_tasks, diagnosis.STEPS
        if self.replay is None or not self.replay.can_sample(steps):
            return {}
        stream = f"diagnosis at {self.env_step}"
        batch = self.replay.sample(diagnosis.SEQUENCES, steps, numpy_generator(self.seed, stream), self.device)
        noise = generator(self.seed, stream, self.device)
        task, first = batch["task"][0], {name: rows[0] for name, rows in batch.items()}
        with torch.no_grad():
            model, latent = self._bound(task), self.model.encode(first["observation"], task)
        actions = _normal((c.horizon, *first["action"].shape), noise)
        found = diagnosis.latent_errors(self.model, batch, tasks) | diagnosis.embedding_similarity(self.model)
        found |= diagnosis.policy_entropy(model, latent, actions[0], tasks)
        if self.fresh is None and not c.values_bonus:
            found |= diagnosis.planned_values(model, latent, actions, tasks)
        else:
            found |= diagnosis.experienced_values(model, latent, first, self.beta, c, tasks)
        if c.planner == "mppi":
            candidates = _normal((c.iterations, c.horizon, c.samples, *first["action"].shape), noise)
            scale = self.scale.scale(task)
            found |= diagnosis.planning_effects(model, latent, candidates, scale, self.beta, c, tasks)
        return found

    # Saving

    def save(self, directory: Path, carry: LastPlan) -> None:
        """Everything that acts or learns, the carry included."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "target": self.target.state_dict(),
            "scale": self.scale.state_dict(),
            "encoder_optimizer": self.encoder_optimizer.state(),
            "world_optimizer": self.world_optimizer.state(),
            "actor_optimizer": self.actor_optimizer.state(),
            "bonus_optimizer": None if self.bonus_optimizer is None else self.bonus_optimizer.state(),
            "fresh": None if self.fresh is None else self.fresh.state(),
            "replay": None if self.replay is None else self.replay.state(),
            "noise": self.noise,
            "sampling": self.sampling,
            "counters": [self.env_step, self.rows, self.updates, self.trained_tasks],
            "adaptive": [self.penalty, self.beta],
            "terminations": [self.termination_seen, self.terminates],
            "carry": list(carry),
        }
        save_state(directory, "m3po", state)

    def load(self, directory: Path) -> LastPlan:
        """Become what :meth:`save` wrote."""
        state = load_state(directory, "m3po")
        self.model.load_state_dict(state["model"])
        self.target.load_state_dict(state["target"])
        self.scale.load_state_dict(state["scale"])
        self.encoder_optimizer.restore(state["encoder_optimizer"])
        self.world_optimizer.restore(state["world_optimizer"])
        self.actor_optimizer.restore(state["actor_optimizer"])
        if self.bonus_optimizer is not None:
            self.bonus_optimizer.restore(state["bonus_optimizer"])
        if self.fresh is not None:
            self.fresh.restore(state["fresh"])
        if state["replay"] is not None:
            self.replay = SequenceReplay.restore(self.config.replay_capacity, state["replay"])
        restore_generator(self.noise, state["noise"])
        restore_generator(self.sampling, state["sampling"])
        self.env_step, self.rows, self.updates, self.trained_tasks = state["counters"]
        self.penalty, self.beta = state["adaptive"]
        self.termination_seen, self.terminates = state["terminations"]
        mean, age = (part.to(self.device) for part in state["carry"])
        return LastPlan(mean, age)


def _normal(shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=stream, device=stream.device)


def _moved_on(plan: Tensor) -> Tensor:
    """The plan ``[H, N, A]`` one step later; its new last step is unknown."""
    return torch.cat([plan[1:], torch.full_like(plan[:1], torch.nan)])

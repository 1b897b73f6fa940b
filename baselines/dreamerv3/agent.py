"""DreamerV3 as an agent: it acts on what it believes, remembers what arrived, and learns from dreams.

each decision      state ← observe(state, previous action, observation);  action ~ actor(state)
each gradient step replayed sequences → world model;  imagined trajectories → actor and critic

Symbols are mapped to names in :mod:`baselines.dreamerv3.learner`; latent states stand in ``rssm``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.learner import Learner
from baselines.dreamerv3.replay import ArrivalReplay
from baselines.dreamerv3.rssm import State, forget
from m3po.api import AgentConfig, Decision, EnvSpec, Metrics, Transition
from m3po.kit.seeding import generator, numpy_generator, repeatable
from m3po.kit.state import load_state, restore_generator, save_state

__all__ = ["Belief", "DreamerV3"]


class Belief(NamedTuple):
    """The carry: latent state ``[N, ...]`` and previous action ``[N, A]``."""

    state: State
    action: Tensor


class DreamerV3:
    """The agent; see :class:`m3po.api.Agent` for what each method promises."""

    Config: ClassVar[type[AgentConfig]] = DreamerV3Config

    def __init__(self, spec: EnvSpec, config: DreamerV3Config, *, seed: int, device: str) -> None:
        self.spec, self.config = spec, config
        self.device = torch.device(device)
        self.learner = Learner(spec, config, seed=seed, device=device)
        self.acting = generator(seed, "acting", self.device)
        self.sampling = numpy_generator(seed, "replay")
        self.replay: ArrivalReplay | None = None
        self.transitions = 0
        self.credit = 0.0

    def initial_carry(self, num_envs: int) -> Belief:
        """Nothing seen, nothing done: zeros."""
        action = torch.zeros(num_envs, self.spec.action_dim, device=self.device)
        return Belief(self.learner.model.rssm.initial(num_envs), action)

    @torch.inference_mode()
    @repeatable()
    def act(
        self,
        carry: Belief,
        observation: NDArray[Any],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        """Sample a latent state and an action; when not exploring, take the mode of the one and the mean of the other.

        Evaluation therefore draws no random number at all. The latent state goes into replay beside the action.
        """
        model, where = self.learner.model, torch.from_numpy(task).to(self.device)
        rssm, begins = model.rssm, torch.from_numpy(first).to(self.device)
        token = model.token(model.visible(torch.from_numpy(observation).to(self.device), where), where)
        control = model.control(carry.action * ~begins[:, None], where)
        noise = self._random(torch.rand, len(task), self.config.stoch) if explore else None
        before = forget(carry.state, begins)
        state, _ = rssm.observe(before, rssm.drive(control), rssm.look(token), noise, rssm.cut())
        dist = self.learner.actor(model.feature(state, where))
        action = dist.sample(self._random(torch.randn, *dist.mean.shape)) if explore else dist.mean
        action = action.clamp(-1.0, 1.0) * model.action_mask[where]
        extras = {name: part.cpu().numpy() for name, part in state.kept().items()} if explore else {}
        return Decision(action.cpu().numpy(), Belief(state, action), extras)

    def observe(self, transition: Transition) -> None:
        """Remember; every decision earns ``train_ratio`` replayed observations of learning."""
        num_envs = len(transition.reward)
        if self.replay is None:
            self.replay = self._new_replay(num_envs)
        self.replay.add(transition)
        self.transitions += num_envs
        if self._can_learn():
            self.credit += num_envs * self.config.train_ratio / (self.config.batch_size * self.config.batch_length)

    def update(self) -> Metrics:
        """Take the gradient steps that are due; the metrics are those of the last one."""
        metrics: dict[str, float] = {}
        while self.credit >= 1 and self.replay is not None:
            sequences = self.replay.sample(self.config.batch_size, self.sampling, self.device)
            metrics, found = self.learner.update(sequences.rows, sequences.before)
            self.replay.refresh(sequences, found.kept())
            self.credit -= 1
        return metrics

    def save(self, directory: Path, carry: Belief) -> None:
        """Write networks, optimiser, replay, generators, counters and ``carry``."""
        save_state(
            directory,
            "dreamerv3",
            {
                "learner": self.learner.state(),
                "acting": self.acting,
                "sampling": self.sampling,
                "replay": None if self.replay is None else self.replay.state(),
                "transitions": self.transitions,
                "credit": self.credit,
                "carry": {"deter": carry.state.deter, "stoch": carry.state.stoch, "action": carry.action},
            },
        )

    def load(self, directory: Path) -> Belief:
        """Become what :meth:`save` wrote; returns the carry saved with it."""
        saved: dict[str, Any] = load_state(directory, "dreamerv3")
        self.learner.restore(saved["learner"])
        restore_generator(self.acting, saved["acting"])
        restore_generator(self.sampling, saved["sampling"])
        self.replay = None
        if saved["replay"] is not None:
            self.replay = self._new_replay(len(saved["replay"]["added"]))
            self.replay.restore(saved["replay"])
        self.transitions, self.credit = int(saved["transitions"]), float(saved["credit"])
        carry = {name: part.to(self.device) for name, part in saved["carry"].items()}
        return Belief(State(carry["deter"], carry["stoch"]), carry["action"])

    def _can_learn(self) -> bool:
        enough = self.transitions >= self.config.learning_starts
        return enough and self.replay is not None and self.replay.can_sample()

    def _new_replay(self, num_envs: int) -> ArrivalReplay:
        return ArrivalReplay(self.config.replay_capacity, num_envs, self.config.batch_length)

    def _random(self, draw: Any, *shape: int) -> Tensor:
        noise: Tensor = draw(*shape, generator=self.acting, device=self.device)
        return noise

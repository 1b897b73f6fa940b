"""An agent that acts uniformly at random and learns nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.random.config import RandomConfig
from m3po.api import AgentConfig, Decision, EnvSpec, Metrics, Transition
from m3po.kit.seeding import numpy_generator
from m3po.kit.state import load_state, restore_generator, save_state

__all__ = ["RandomAgent"]

Counts = NDArray[np.int64]


class RandomAgent:
    """Actions uniform in [-1, 1].

    While training they come from one generator. In evaluation, which must neither move that generator nor depend on
    how often it took place, each is a hash of the seed, the observation and the number of decisions since the episode
    began; that number, ``[N]``, is the carry.
    """

    Config: ClassVar[type[AgentConfig]] = RandomConfig

    def __init__(self, spec: EnvSpec, config: RandomConfig, *, seed: int, device: str) -> None:
        self.spec = spec
        self.seed = seed
        self.generator = numpy_generator(seed, "act")

    def initial_carry(self, num_envs: int) -> Counts:
        return np.zeros(num_envs, np.int64)

    def act(
        self,
        carry: Counts,
        observation: NDArray[np.float32],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        count = np.where(first, 0, carry)
        if explore:
            action = self.generator.uniform(-1, 1, (len(observation), self.spec.action_dim))
        else:
            seen = np.where(self.spec.observation_mask[task], observation.reshape(len(observation), -1), 0)
            action = np.stack([self._hashed(row, n) for row, n in zip(seen, count, strict=True)])
        return Decision((action * self.spec.action_mask[task]).astype(np.float32), carry=count + 1)

    def _hashed(self, observation: NDArray[np.float32], count: np.int64) -> NDArray[np.float64]:
        # Adding zero turns −0 into +0, which is the same observation.
        digest = hashlib.sha256((observation + 0).tobytes() + f"{self.seed}:{count}".encode()).digest()
        return np.random.default_rng(list(digest)).uniform(-1, 1, self.spec.action_dim)

    def observe(self, transition: Transition) -> None:
        """Nothing is learned."""

    def update(self) -> Metrics:
        return {}

    def save(self, directory: Path, carry: Counts) -> None:
        # The seed is part of the state, because evaluation draws from it.
        state = {"seed": self.seed, "generator": self.generator, "carry": carry}
        save_state(directory, "random", state)

    def load(self, directory: Path) -> Counts:
        state = load_state(directory, "random")
        self.seed = state["seed"]
        restore_generator(self.generator, state["generator"])
        carry: Counts = state["carry"]
        return carry

"""Configuration of DreamerV3. "Original" is github.com/danijar/dreamerv3, ``configs.yaml``, with ``dmc_proprio``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from m3po.api import AgentConfig, EnvSpec

__all__ = ["MULTIPLES", "SHRINKAGE", "DreamerV3Config"]

MULTIPLES = (2, 3, 4, 4)
"""Channels over ``depth`` of the maps that images are shrunk to, each half as high and wide as the one before
(original)."""

SHRINKAGE = 2 ** len(MULTIPLES)
"""How many pixels of an image's side are one of its last map."""

# Ours, for a CPU: small networks need a larger step size, a short run a short warm-up, and observations of a few
# numbers more weight against the KL. Chosen on cartpole-swingup with seed 100 (docs/agents.md).
_NANO: Mapping[str, Any] = {
    "deter": 128,
    "hidden": 64,
    "stoch": 16,
    "classes": 8,
    "units": 64,
    "layers": 2,
    "depth": 4,
    "batch_size": 16,
    "batch_length": 16,
    "imagine_last": 8,
    "rec_coef": 10.0,
    "train_ratio": 128.0,
    "learning_rate": 1e-3,
    "warmup": 100,
}


class DreamerV3Config(AgentConfig):
    """DreamerV3: a recurrent world model, and an actor and a critic trained in its dreams.

    The defaults are the original's size of 12 million parameters.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "size1m": {"deter": 512, "hidden": 64, "classes": 4, "units": 64, "depth": 4},
        "size12m": {},
        "size25m": {"deter": 3072, "hidden": 384, "classes": 24, "units": 384, "depth": 24},
        "size50m": {"deter": 4096, "hidden": 512, "classes": 32, "units": 512, "depth": 32},
        "size100m": {"deter": 6144, "hidden": 768, "classes": 48, "units": 768, "depth": 48},
        "size200m": {"deter": 8192, "hidden": 1024, "classes": 64, "units": 1024, "depth": 64},
        "size400m": {"deter": 12288, "hidden": 1536, "classes": 96, "units": 1536, "depth": 96},
        # The original's ratio for budgets of tens of millions of steps, as joint suites have.
        "mt": {"train_ratio": 32.0},
        "nano": _NANO,
        # Images have thousands of numbers: their reconstruction needs no more weight.
        "nano-pixels": {**_NANO, "rec_coef": 1.0},
    }

    # World model
    deter: int = Field(default=2048, ge=1)
    """Size of the deterministic recurrent state (original, size12m)."""
    hidden: int = Field(default=256, ge=1)
    """Width of the layers around the recurrent core (original, size12m)."""
    stoch: int = Field(default=32, ge=1)
    """Number of categorical latents (original)."""
    classes: int = Field(default=16, ge=2, le=256)
    """Classes of each latent (original, size12m)."""
    blocks: int = Field(default=8, ge=1)
    """Blocks of the block-diagonal recurrent weights; divides ``deter`` (original)."""
    units: int = Field(default=256, ge=1)
    """Width of encoder, decoder and heads (original, size12m)."""
    layers: int = Field(default=3, ge=1)
    """Hidden layers of encoder, decoder, actor and critic; reward and continue heads have one (original)."""
    depth: int = Field(default=16, ge=1)
    """Channels of the maps of images are 2, 3, 4 and 4 times as many (original, size12m)."""
    unimix: float = Field(default=0.01, gt=0, lt=1)
    """Share of the uniform distribution mixed into every latent, so that no KL is infinite (original)."""
    free_nats: float = Field(default=1.0, ge=0)
    """KL below which neither KL loss has a gradient (original)."""
    bins: int = Field(default=255, ge=3)
    """Two-hot bins of reward and value, odd (original)."""

    # Loss weights
    rec_coef: float = Field(default=1.0, ge=0)
    """Weight of reconstructing the observation (original)."""
    reward_coef: float = Field(default=1.0, ge=0)
    """Weight of predicting the reward (original)."""
    continue_coef: float = Field(default=1.0, ge=0)
    """Weight of predicting that the episode goes on (original)."""
    dyn_coef: float = Field(default=1.0, ge=0)
    """Weight of the KL that teaches the prior (original; 0.5 in the 2023 preprint)."""
    rep_coef: float = Field(default=0.1, ge=0)
    """Weight of the KL that regularises the posterior (original)."""
    replay_value_coef: float = Field(default=0.3, ge=0)
    """Weight of the critic's loss on replayed rewards, which also shapes the world model (original)."""
    ent_coef: float = Field(default=3e-4, ge=0)
    """Weight of the actor's entropy (original)."""
    slow_coef: float = Field(default=1.0, ge=0)
    """Weight of the critic's pull towards its slow copy (original)."""

    # Behaviour
    imagination: int = Field(default=15, ge=1)
    """Imagined decisions per start state (original)."""
    imagine_last: int = Field(default=0, ge=0)
    """Imagine from, and learn replayed values on, this many last observations of each sequence; 0: all (original)."""
    horizon: float = Field(default=333.0, gt=1)
    """Decisions over which rewards count: γ = 1 − 1/horizon (original)."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """λ of the returns (original)."""
    min_std: float = Field(default=0.1, gt=0)
    """Smallest standard deviation of the actor (original)."""
    max_std: float = Field(default=1.0, gt=0)
    """Largest standard deviation of the actor (original)."""
    return_rate: float = Field(default=0.01, gt=0, le=1)
    """Rate at which the 5–95 % range of returns moves (original)."""
    return_floor: float = Field(default=1.0, gt=0)
    """Smallest range that advantages are divided by (original)."""
    slow_rate: float = Field(default=0.02, gt=0, le=1)
    """Rate at which the slow critic follows (original)."""

    # Optimiser
    learning_rate: float = Field(default=4e-5, gt=0)
    """Step size of the one optimiser (original)."""
    warmup: int = Field(default=1000, ge=0)
    """Gradient steps over which the step size grows from 0 (original)."""
    agc: float = Field(default=0.3, gt=0)
    """Adaptive clipping: largest gradient norm as a share of the parameter's norm, per tensor (original)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Momentum (original)."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Rate of the squared gradients (original)."""
    eps: float = Field(default=1e-20, gt=0)
    """Added to the root of the squared gradients (original)."""

    # Data
    batch_size: int = Field(default=16, ge=1)
    """Sequences, over all environments, in one update (original)."""
    batch_length: int = Field(default=64, ge=2)
    """Observations per sequence (original)."""
    train_ratio: float = Field(default=1024.0, gt=0)
    """Replayed observations per decision, over all environments; an update replays ``batch_size`` × ``batch_length``
    (original, at action repeat 1)."""
    learning_starts: int = Field(default=1024, ge=0)
    """Decisions, over all environments, before the first update (ours: as many as one batch of 16 × 64 observations;
    the original waits for as many sequences in replay, which its 16 environments have after about 2,000)."""
    replay_capacity: int = Field(default=1_000_000, ge=1)
    """Observations kept, over all environments (original: 5 million).

    Each costs its own bytes (4 per number, 12,288 for an image of 64 x 64) and 2 x ``deter`` + ``stoch`` for the latent
    state: 311 bytes of cartpole-swingup with ``nano``, 4.2 kB with ``size12m``, 16.4 kB with ``size12m`` and images.
    """

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.deter % self.blocks:
            raise ValueError(f"'deter' ({self.deter}) must be a multiple of 'blocks' ({self.blocks})")
        if self.bins % 2 == 0:
            raise ValueError(f"'bins' ({self.bins}) must be odd, so that one bin is zero")
        if self.min_std > self.max_std:
            raise ValueError(f"'min_std' ({self.min_std:g}) must not exceed 'max_std' ({self.max_std:g})")
        return self

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        """Sentences on why this configuration cannot work with these spaces and this budget; empty when it can."""
        problems = self._check_images(spec.observation_shape)
        if self.imagine_last > self.batch_length:
            problems.append(
                f"'imagine_last' ({self.imagine_last}) exceeds the sequence, 'batch_length' ({self.batch_length}); "
                "set it to 0 to imagine from every observation."
            )
        if self.replay_capacity // num_envs < self.batch_length:
            problems.append(
                f"'replay_capacity' ({self.replay_capacity}) over {num_envs} environments keeps fewer observations "
                f"each than 'batch_length' ({self.batch_length}); set it to {num_envs * self.batch_length} or more."
            )
        decisions = env_steps // int(spec.action_repeat.min())
        needed = max(self.learning_starts, num_envs * self.batch_length)
        if decisions < needed:
            problems.append(
                f"{env_steps} environment steps are {decisions} decisions, but learning starts after {needed} "
                "('learning_starts', and 'batch_length' in every environment); give a larger budget, fewer "
                "environments or smaller values."
            )
        earned = decisions * self.train_ratio / (self.batch_size * self.batch_length)
        if earned < 1:
            problems.append(
                f"{decisions} decisions earn {earned:.2f} gradient steps of {self.batch_size} sequences of "
                f"{self.batch_length} ('train_ratio' {self.train_ratio:g}), so that nothing would be learned; raise "
                "'train_ratio' or the budget, or lower 'batch_size'."
            )
        return problems

    def _check_images(self, shape: tuple[int, ...]) -> list[str]:
        """What speaks against these observations, if they are images."""
        if len(shape) == 1:
            return []
        height, width, _ = shape
        problems = []
        if any(side % SHRINKAGE or not 3 <= side // SHRINKAGE <= 16 for side in (height, width)):
            problems.append(
                f"dreamerv3 shrinks images {SHRINKAGE} times, to maps of 3 to 16 places a side; these observations are "
                f"images of {height} x {width}. Give sides that are multiples of {SHRINKAGE} from {3 * SHRINKAGE} to "
                f"{16 * SHRINKAGE}."
            )
        channels = MULTIPLES[-1] * self.depth
        if channels % self.blocks:
            problems.append(
                f"'blocks' ({self.blocks}) must divide the {channels} channels that images are shrunk to "
                f"({MULTIPLES[-1]} x 'depth'); set 'depth' to a multiple of {self.blocks}."
            )
        return problems

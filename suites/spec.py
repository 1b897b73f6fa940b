"""What is measured, as types: protocols, tasks, spaces, steps, suites.

Letters: N parallel environments, D observation size, A action size, K tasks. ``env_step`` is an environment step as
papers count them: decisions × action repeat, summed over parallel environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Stream = Literal["train", "tune", "evaluate"]
"""Seed streams; no two ever share a seed."""

EngineName = Literal["native", "envpool"]
"""What simulates a task: the family's own package, which is the truth, or EnvPool's C++ copy of it."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
"""A name that is safe as a folder on every system."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Protocol(_Frozen):
    """How an episode is run and turned into one score. Named and versioned: two protocols never share a figure."""

    name: Name
    action_repeat: int = Field(ge=1)
    """Environment steps per decision; the rewards of a decision are summed."""
    decisions: int = Field(ge=1)
    """Decisions until an episode is truncated."""
    score: Literal["return", "success_any", "success_last"]
    """What one evaluation episode counts for; both success rules are recorded whatever is scored."""
    low: float
    """Score that is normalised to 0."""
    high: float
    """Score that is normalised to 1."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"'low' ({self.low:g}) must be below 'high' ({self.high:g})")
        return self


class Task(_Frozen):
    """One task, with everything needed to make its environment and to score it."""

    name: Name
    family: Name
    protocol: Protocol
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Passed to the family as they are."""
    engine: EngineName = "native"
    """What simulates it. Part of what a result means: two engines never share a figure."""


EngineChoice = Literal["auto", "native", "envpool"]
"""``auto``: EnvPool for the tasks whose parity with the native engine is certified for the installed versions."""


class TaskGroup(_Frozen):
    """Tasks of one family under one protocol, as a suite file declares them."""

    family: Name
    """Environment family: ``metaworld``, ``dm_control``, or one from another package."""
    names: tuple[Name, ...] | None = None
    """Task names; give these or ``set``."""
    set: str | None = None
    """A set of tasks the family knows by name, such as ``MT50``."""
    protocol: Name | Protocol | None = None
    """Named protocol, or one written out; default: the suite's, then the family's own."""
    action_repeat: int | None = Field(default=None, ge=1)
    """Overrides the protocol's action repeat; the episode's length in environment steps stays."""
    engine: EngineChoice | None = None
    """What simulates the tasks; default: the suite's."""
    options: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_or_set(self) -> Self:
        if (self.names is None) == (self.set is None):
            raise ValueError("either 'names' or 'set' (a null removes an inherited one)")
        return self


class Budget(_Frozen):
    """How long one cell trains."""

    env_steps: int = Field(ge=1)
    """Environment steps of one cell (joint mode: of all its tasks together)."""
    num_envs: int = Field(default=1, ge=1)
    """Parallel training environments of one cell."""


class Evaluation(_Frozen):
    """When and how much a cell is evaluated."""

    every: int = Field(ge=1)
    """Environment steps between two evaluations; one more takes place at the end, and one before training."""
    episodes: int = Field(default=10, ge=1)
    """Episodes per task and evaluation."""


SamplerName = Literal["tpe", "random", "gp", "cmaes", "qmc", "nsgaii"]
PrunerName = Literal["none", "wilcoxon", "halving", "hyperband", "median"]
Objective = Literal["score", "seconds", "updates"]

Seeds = Annotated[int, Field(ge=1)] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
"""A number of seeds, or the seeds themselves."""


class Tuning(_Frozen):
    """How ``m3po-bench tune`` searches. Said once, for all agents, so that none of them is favoured."""

    trials: int | None = Field(default=None, ge=1)
    """Configurations to try for each agent."""
    total_env_steps: int | None = Field(default=None, ge=1)
    """Environment steps that the trials of an agent may take together."""
    hours: float | None = Field(default=None, gt=0)
    """Hours of training, summed over cells, that the trials of an agent may take together."""
    env_steps: int | None = Field(default=None, ge=1)
    """Budget of one tuning cell; default: the suite's."""
    evaluation: Evaluation | None = None
    """When and how much a tuning cell is evaluated; default: as the suite says."""
    seeds: Seeds | None = None
    """Seeds of every trial: a number n (10000 … 10000 + n - 1) or the seeds themselves, none of them the suite's;
    default: the suite's, each plus 10000."""
    tasks: TaskGroup | tuple[TaskGroup, ...] | None = None
    """Tasks of every trial, none of which the suite evaluates; default: the suite's own."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=2)] = ("score",)
    """What is sought: the highest score and, if named too, the fewest seconds or gradient updates."""
    sampler: SamplerName = "tpe"
    """What proposes configurations."""
    pruner: PrunerName = "none"
    """What ends a trial early: ``wilcoxon`` after some of its tasks and seeds, others after part of the budget."""
    rungs: int = Field(default=3, ge=2)
    """Lengths at which halving, hyperband and median look at a trial; the last is the whole budget of a cell."""
    reduction_factor: int = Field(default=3, ge=2)
    """How many times longer each rung is than the one before it, and of how many trials one goes on (halving)."""

    @model_validator(mode="after")
    def _score_first(self) -> Self:
        if self.objectives[0] != "score" or self.objectives.count("score") > 1:
            raise ValueError("objectives that begin with 'score', such as [score] or [score, seconds]")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError("'pruner: none' where there are two objectives: a pruner compares trials by one")
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise ValueError("another sampler than 'cmaes' where there are two objectives: it seeks one")
        return self


class Tuned(_Frozen):
    """Where an agent's values come from: written by ``m3po-bench tune``, printed by reports."""

    suite: Name
    """The suite whose agent was tuned."""
    version: int = Field(ge=1)
    trials: int = Field(ge=1)
    """Configurations tried, each counted once, those that could not be measured among them."""
    env_steps: int = Field(ge=0)
    """Environment steps that all trials took together."""
    hours: float = Field(ge=0)
    """Their hours of training, summed over cells."""
    seeds: tuple[int, ...]
    """Seeds of every trial."""
    tasks: tuple[Name, ...]
    """Tasks of every trial."""
    default: float | None = None
    """Score of the configuration as it stood, where it could be measured."""
    scores: tuple[float, ...]
    """Scores of the trials that were measured, in their order."""


class Suite(_Frozen):
    """One YAML document: what is measured and who is compared."""

    name: Name
    version: int = Field(default=1, ge=1)
    """A changed meaning gets a new number; numbers never share a figure."""
    description: str = ""
    protocol: Name | Protocol | None = None
    action_repeat: int | None = Field(default=None, ge=1)
    engine: EngineChoice = "native"
    tasks: TaskGroup | tuple[TaskGroup, ...]
    held_out: TaskGroup | tuple[TaskGroup, ...] = ()
    """Joint suites: tasks every evaluation plays too, and no agent trains on."""
    mode: Literal["joint", "per_task"]
    """joint: one agent for all tasks; per_task: one agent per task."""
    budget: Budget
    evaluation: Evaluation
    agents: Mapping[Name, Mapping[str, Any]] = Field(min_length=1)
    """Agents by the name shown in the report; the keys are fields of the agent's configuration. ``agent: NAME``
    chooses the implementation when the shown name is another (``m3po-no-planner: {agent: m3po, planner: none}``)."""
    seeds: Seeds = 3
    """A number n (seeds 0 … n-1) or the seeds themselves."""
    sweep: Mapping[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values to try of ``budget.num_envs`` or of ``agents.<name>.<field>``; each makes an agent of its own, called
    ``<name>-<field>-<value>``."""
    tune: Mapping[Name, Mapping[str, Any]] = Field(default_factory=dict)
    """Search spaces per agent; default: those that come with the agent."""
    tuning: Tuning | None = None
    """How agents are tuned."""
    tuned: Mapping[Name, Tuned] = Field(default_factory=dict)
    """Agents whose values were found by tuning, and what that took."""


class TaskSpaces(NamedTuple):
    """The spaces of one task; actions are in [-1, 1]."""

    observation: tuple[int, ...]
    """Shape: ``(D,)`` of float32, or ``(height, width, 3)`` of uint8."""
    action: int
    """A, the number of entries of an action."""

    @property
    def dtype(self) -> str:
        """Type of the observations' entries: ``float32``, of images ``uint8``."""
        return "float32" if len(self.observation) == 1 else "uint8"


@dataclass(frozen=True)
class EnvSpec:
    """The spaces of a vector environment, padded over its K tasks.

    ``observation_shape`` ``(D,)`` of float32, or ``(height, width, 3)`` of uint8 with D the product; in a mixture of
    tasks all are the one or the other. ``action_dim`` A; ``observation_mask`` bool ``[K, D]``;
    ``action_mask`` bool ``[K, A]``; ``max_episode_steps`` int64 ``[K]`` in decisions; ``task_names`` K names.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: str
    action_dim: int
    observation_mask: NDArray[np.bool_]
    action_mask: NDArray[np.bool_]
    max_episode_steps: NDArray[np.int64]
    action_repeat: NDArray[np.int64]
    task_names: tuple[str, ...]

    @property
    def num_tasks(self) -> int:
        """K."""
        return len(self.task_names)

    @property
    def observation_size(self) -> int:
        """D, the number of entries of a flat observation."""
        return int(np.prod(self.observation_shape))


@dataclass(frozen=True)
class Episode:
    """One finished episode. ``length`` in decisions; success is ``None`` where the task has no such notion."""

    env: int
    task: int
    index: int
    """Which episode of its task's seed stream this was."""
    episode_return: float
    length: int
    success_any: bool | None = None
    success_last: bool | None = None
    fault: str | None = None
    """Why it could not be played to its end; its environment stands still from there on."""


@dataclass(frozen=True)
class VectorStep:
    """What N environments show at one moment.

    ``observation`` ``[N, D]`` is what to act on next (already reset where an episode ended); ``next_observation``
    ``[N, D]`` is where the action really led, and differs only where an episode ended. ``reward`` float32 ``[N]``;
    ``terminated``, ``truncated``, ``first`` bool ``[N]``; ``task`` int64 ``[N]``. The arrays belong to the caller.
    """

    observation: NDArray[np.float32]
    next_observation: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    first: NDArray[np.bool_]
    task: NDArray[np.int64]
    episodes: tuple[Episode, ...] = field(default=())

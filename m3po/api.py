"""What an agent is: the one interface between learning code and the harness.

Arrays are numpy and time is the first axis where there is one. Letters: N parallel environments, D observation
size, A action size, K tasks. Actions are in [-1, 1]; observations are padded to D and actions to A, the masks in
:class:`EnvSpec` say which entries are real for which task.

An agent is trained by exactly this loop, which knows no algorithm::

    step, carry = env.reset(), agent.initial_carry(env.num_envs)
    while env.env_step < until:
        decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
        following = env.step(decision.action)
        agent.observe(transition(step, decision, following))
        record(agent.update(), following.episodes)
        step, carry = following, decision.carry
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from suites.spec import EnvSpec, VectorStep

__all__ = [
    "PARAMETERS",
    "UPDATES",
    "Agent",
    "AgentConfig",
    "Carry",
    "Decision",
    "Diagnosed",
    "Diagnostic",
    "EnvSpec",
    "Metrics",
    "SearchSpace",
    "Transition",
    "check_vectors",
    "transition",
]

Carry: TypeAlias = Any
"""What an agent keeps between decisions (recurrent state, planner warm start), or ``None``. Opaque to the harness."""

Metrics: TypeAlias = Mapping[str, float]
"""Named scalars of one update; ``{}`` when no update was due."""

UPDATES = "updates"
"""A metric that means the same to every agent, and against which reports draw scores: gradient updates so far."""

PARAMETERS = "parameters"
"""Another one, told beside scores: numbers that training moves; copies that only follow them do not count."""


@dataclass(frozen=True)
class Decision:
    """What an agent did with one observation of each environment.

    ``action`` float32 ``[N, A]`` in [-1, 1]; ``carry`` goes into the next :meth:`Agent.act`; ``extras`` are arrays
    ``[N, ...]`` the agent wants back in :class:`Transition` (log-probabilities, planner noise).
    """

    action: NDArray[np.float32]
    carry: Carry = None
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Transition:
    """One step of every environment.

    ``observation`` and ``next_observation`` float32 ``[N, D]``: the second is where the action really led, also when
    an episode ended there. ``reward`` float32 ``[N]``. ``terminated`` and ``truncated`` bool ``[N]`` are two facts:
    bootstrap through the second, never through the first. ``first`` bool ``[N]``: ``observation`` began an episode.
    ``task`` int64 ``[N]``. ``extras``: what :class:`Decision` carried.
    """

    observation: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    next_observation: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    first: NDArray[np.bool_]
    task: NDArray[np.int64]
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def transition(step: VectorStep, decision: Decision, following: VectorStep) -> Transition:
    """Join a decision with what it was taken on (``step``) and what it led to (``following``)."""
    return Transition(
        observation=step.observation,
        action=decision.action,
        reward=following.reward,
        next_observation=following.next_observation,
        terminated=following.terminated,
        truncated=following.truncated,
        first=step.first,
        task=step.task,
        extras=decision.extras,
    )


class SearchSpace(BaseModel):
    """The values one configuration field may take while tuning: a range, or a list of choices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Draw uniformly in log space."""
    integer: bool = False
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.integer:
                raise ValueError("give either 'choices' or a range with 'low' and 'high', not both")
            if not self.choices:
                raise ValueError("'choices' is empty")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a range needs both 'low' and 'high' (or give 'choices')")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"a range ends at finite numbers, not at {self.low:g} and {self.high:g}")
        if not self.low < self.high:
            raise ValueError(f"'low' ({self.low:g}) must be below 'high' ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs 'low' above 0")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(
                f"a range of whole numbers ends at {self.low:g} and {self.high:g}, which are not both whole"
            )
        return self


class AgentConfig(BaseModel):
    """Base of every agent's configuration: frozen, and an unknown key is an error.

    Each default stands once, in the field; ``PRESETS`` names sets of differences from the defaults, chosen with the
    field ``preset``; a value given explicitly wins over the preset's. A file ``search.yaml`` beside the module, a
    :class:`SearchSpace` for each of some fields, says what ``m3po-bench tune`` varies when the suite does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}

    preset: str = Field(default="default")
    """Named set of values, overridden by whatever is given beside it."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = values.get("preset", cls.model_fields["preset"].default)
        known = cls.PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        return {**known, **values}

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, preset: str) -> str:
        if preset not in cls.PRESETS:
            raise ValueError(f"expected one of {', '.join(cls.PRESETS)}")
        return preset

    @classmethod
    def about(cls, field: str) -> str:
        """What ``field`` means and where its default comes from, on one line."""
        return " ".join((cls.model_fields[field].description or "").split()).replace("``", "")

    def check(self, spec: EnvSpec, num_envs: int, env_steps: int) -> list[str]:
        """Sentences on why this configuration cannot work with these spaces and this budget; empty when it can.

        ``spec`` has the tasks that are trained on; the one an agent is made with has the held-out ones too. Called
        before any environment is made, so that an impossible plan fails in a moment.
        """
        return []


def check_vectors(agent: str, spec: EnvSpec) -> list[str]:
    """What :meth:`AgentConfig.check` of an agent that sees no images says of ``spec``."""
    if len(spec.observation_shape) == 1:
        return []
    shape = " x ".join(map(str, spec.observation_shape))
    return [f"{agent} learns from vectors; these observations are images of {shape}"]


@runtime_checkable
class Agent(Protocol):
    """A learning agent. ``m3po.testing.check_agent`` tests every sentence below.

    The constructor takes ``(spec, config, *, seed, device)``. All randomness comes from generators made from
    ``seed``: an agent neither reads nor moves a global generator.
    """

    Config: ClassVar[type[Any]]
    """Its own kind of :class:`AgentConfig`."""

    def __init__(self, spec: EnvSpec, config: Any, *, seed: int, device: str) -> None: ...

    def initial_carry(self, num_envs: int) -> Carry:
        """The carry before the first decision, for ``num_envs`` environments."""
        ...

    def act(
        self,
        carry: Carry,
        observation: NDArray[np.float32],
        first: NDArray[np.bool_],
        task: NDArray[np.int64],
        *,
        explore: bool,
    ) -> Decision:
        """Choose actions. Where ``first`` is true the carry of that environment is forgotten.

        With ``explore=False`` the agent is evaluated: it neither learns from these observations nor draws from the
        generators that training uses, so that evaluating changes nothing of what follows.
        """
        ...

    def observe(self, transition: Transition) -> None:
        """Take in one step of every training environment."""
        ...

    def update(self) -> Metrics:
        """Learn if learning is due; the agent owns its schedule. Called once after every :meth:`observe`."""
        ...

    def save(self, directory: Path, carry: Carry) -> None:
        """Write everything, ``carry`` included, such that :meth:`load` continues bit for bit. No pickle."""
        ...

    def load(self, directory: Path) -> Carry:
        """Become what :meth:`save` wrote and return the carry saved with it."""
        ...


@dataclass(frozen=True)
class Diagnostic:
    """One thing about an agent that people look at while it trains.

    ``values`` float ``[]``, ``[K]``, ``[H]``, ``[K, H]`` or ``[K, K]``, as ``axes`` say, NaN where nothing is known; K
    are the tasks of the :class:`EnvSpec` and H steps ahead, the first of them 1. ``title`` is a label for figures.
    """

    title: str
    axes: tuple[Literal["task", "horizon"], ...]
    values: NDArray[np.float64]


@runtime_checkable
class Diagnosed(Protocol):
    """What an :class:`Agent` may offer beyond the contract."""

    def diagnose(self) -> Mapping[str, Diagnostic]:
        """What there is to see, by name. Called after each evaluation; like evaluating, it changes nothing."""
        ...

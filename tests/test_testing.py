"""The contract battery passes a correct agent and names the clause a broken one breaks."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ConfigDict

from m3po.api import AgentConfig, Decision, Diagnostic, EnvSpec, Transition
from m3po.testing import check_agent


class TinyConfig(AgentConfig):
    update_every: int = 5


class Correct:
    """A linear policy that follows a trace of what it saw, pushed by noise towards larger rewards."""

    Config: ClassVar[type[AgentConfig]] = TinyConfig

    def __init__(self, spec: EnvSpec, config: TinyConfig, *, seed: int, device: str) -> None:
        self.spec, self.config = spec, config
        self.generator = np.random.default_rng(seed)
        self.weight = 0.1 * self.generator.normal(size=(spec.observation_size, spec.action_dim))
        self.seen = 0
        self.score = 0.0

    def initial_carry(self, num_envs: int) -> Any:
        return np.zeros((num_envs, self.spec.observation_size))

    def act(self, carry: Any, observation: Any, first: Any, task: Any, *, explore: bool) -> Decision:
        trace = 0.5 * np.where(first[:, None], 0, carry) + observation * self.spec.observation_mask[task]
        action = trace @ self.weight
        if explore:
            action = action + self.generator.normal(size=action.shape)
        action = np.clip(action, -1, 1) * self.spec.action_mask[task]
        return Decision(action.astype(np.float32), trace, {"trace": trace})

    def observe(self, transition: Transition) -> None:
        self.seen += 1
        gain = transition.extras["trace"].T @ (transition.action * transition.reward[:, None])
        self.weight = self.weight + 0.01 * gain
        self.score += float(transition.reward.sum())

    def update(self) -> dict[str, float]:
        return {} if self.seen % self.config.update_every else {"score": self.score}

    def save(self, directory: Path, carry: Any) -> None:
        np.savez(directory / "arrays.npz", weight=self.weight, carry=carry)
        rest = {"seen": self.seen, "score": self.score, "generator": self.generator.bit_generator.state}
        (directory / "rest.json").write_text(json.dumps(rest))

    def load(self, directory: Path) -> Any:
        rest = json.loads((directory / "rest.json").read_text())
        self.seen, self.score = rest["seen"], rest["score"]
        self.generator.bit_generator.state = rest["generator"]
        with np.load(directory / "arrays.npz") as arrays:
            self.weight = arrays["weight"]
            return arrays["carry"]


class SavesALengthFirst(Correct):
    def save(self, directory: Path, carry: Any) -> None:
        super().save(directory, carry)
        # As safetensors does: 640 bytes of header, whose length begins like pickle protocol 2.
        (directory / "agent.safetensors").write_bytes((640).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("correct", [Correct, SavesALengthFirst])
def test_correct_agent_passes(correct: type[Any]) -> None:
    check_agent(correct)


class ForgivingConfig(TinyConfig):
    model_config = ConfigDict(extra="ignore")


class AcceptsUnknownKeys(Correct):
    Config = ForgivingConfig


class DoublePrecision(Correct):
    def act(self, *args: Any, **kwargs: Any) -> Decision:
        decision = super().act(*args, **kwargs)
        return Decision(decision.action.astype(np.float64), decision.carry, decision.extras)


class OutOfRange(Correct):
    def act(self, *args: Any, **kwargs: Any) -> Decision:
        decision = super().act(*args, **kwargs)
        return Decision(decision.action * np.float32(1.5), decision.carry, decision.extras)


class ActsInPaddedEntries(Correct):
    def act(self, *args: Any, **kwargs: Any) -> Decision:
        decision = super().act(*args, **kwargs)
        return Decision(
            np.where(decision.action == 0, np.float32(0.5), decision.action), decision.carry, decision.extras
        )


class DrawsInEvaluation(Correct):
    def act(self, *args: Any, **kwargs: Any) -> Decision:
        self.generator.normal()
        return super().act(*args, **kwargs)


class RandomInEvaluation(Correct):
    def act(self, carry: Any, observation: Any, first: Any, task: Any, *, explore: bool) -> Decision:
        return super().act(carry, observation, first, task, explore=True)


class ChangesTheCarryItIsGiven(Correct):
    def act(self, carry: Any, *args: Any, **kwargs: Any) -> Decision:
        decision = super().act(carry, *args, **kwargs)
        carry[:] = decision.carry
        return Decision(decision.action, carry, decision.extras)


class KeepsTheCarry(Correct):
    def act(self, carry: Any, observation: Any, first: Any, task: Any, *, explore: bool) -> Decision:
        return super().act(carry, observation, np.zeros_like(first), task, explore=explore)


class ForgetsOnlyTogether(Correct):
    def act(self, carry: Any, observation: Any, first: Any, task: Any, *, explore: bool) -> Decision:
        return super().act(carry, observation, np.full_like(first, first.all()), task, explore=explore)


class ChangesRewards(Correct):
    def observe(self, transition: Transition) -> None:
        transition.reward[:] = np.clip(transition.reward, -0.1, 0.1)
        super().observe(transition)


class MovesGlobalGenerator(Correct):
    def observe(self, transition: Transition) -> None:
        random.random()
        super().observe(transition)


class ReadsGlobalGenerator(Correct):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight += np.random.RandomState(np.random.get_state()[1][:4]).normal(size=self.weight.shape)


class IgnoresSeed(Correct):
    def __init__(self, spec: EnvSpec, config: TinyConfig, *, seed: int, device: str) -> None:
        super().__init__(spec, config, seed=0, device=device)


class SeesPadding(Correct):
    def __init__(self, spec: EnvSpec, config: TinyConfig, *, seed: int, device: str) -> None:
        super().__init__(spec, config, seed=seed, device=device)
        self.spec = EnvSpec(**{**vars(spec), "observation_mask": np.ones_like(spec.observation_mask)})


class NeverUpdates(Correct):
    def update(self) -> dict[str, float]:
        return {}


class ReportsNan(Correct):
    def update(self) -> dict[str, float]:
        return {"loss": float("nan")}


class ForgetsItsGenerator(Correct):
    def load(self, directory: Path) -> Any:
        own = self.generator.bit_generator.state
        carry = super().load(directory)
        self.generator.bit_generator.state = own
        return carry


class ForgetsItsCarry(Correct):
    def load(self, directory: Path) -> Any:
        return np.zeros_like(super().load(directory))


class ForgetsItsSchedule(Correct):
    def load(self, directory: Path) -> Any:
        carry = super().load(directory)
        self.seen = 0
        return carry


class DrawsWhenDiagnosed(Correct):
    def diagnose(self) -> dict[str, Diagnostic]:
        self.generator.normal()
        return {}


class MisshapenDiagnostic(Correct):
    def diagnose(self) -> dict[str, Diagnostic]:
        return {"gap": Diagnostic("Gap", ("task",), np.zeros((1, 5)))}


class DiagnosticOfOtherTasks(Correct):
    def diagnose(self) -> dict[str, Diagnostic]:
        return {"gap": Diagnostic("Gap", ("task", "horizon"), np.zeros((7, 5)))}


class DrawsWhenSaved(Correct):
    def save(self, directory: Path, carry: Any) -> None:
        super().save(directory, carry)
        self.generator.normal()


class SavesPickle(Correct):
    def save(self, directory: Path, carry: Any) -> None:
        super().save(directory, carry)
        (directory / "agent.bin").write_bytes(b"\x80\x05N.")  # pickle protocol 5 of None


class SavesObjects(Correct):
    def save(self, directory: Path, carry: Any) -> None:
        super().save(directory, carry)
        np.savez(directory / "state.npz", generator=np.array({"a": 1}, dtype=object))  # an object in it is a pickle


BROKEN = {
    AcceptsUnknownKeys: "accepts the unknown key",
    DoublePrecision: r"float32 \(3, 2\), found float64",
    OutOfRange: r"outside \[-1, 1\]",
    ActsInPaddedEntries: "entries the task does not have",
    DrawsInEvaluation: "changed the training that followed; evaluation",
    DrawsWhenDiagnosed: "diagnose changed the training that followed; evaluation",
    MisshapenDiagnostic: r"axes \('task',\) and values of shape \(1, 5\)",
    DiagnosticOfOtherTasks: r"shape \(7, 5\) along",
    RandomInEvaluation: "must be deterministic",
    ChangesTheCarryItIsGiven: "must not change the carry",
    KeepsTheCarry: "the carry must be forgotten",
    ForgetsOnlyTogether: "also when others go on",
    ChangesRewards: "observe or update changed the array reward",
    MovesGlobalGenerator: "global generator of random",
    ReadsGlobalGenerator: "same seed did not do the same",
    IgnoresSeed: "seeds 0 and 1",
    SeesPadding: "padded observation entries",
    NeverUpdates: "learning was not tested",
    ReportsNan: "finite floats, found loss = nan",
    ForgetsItsGenerator: "gave other actions",
    ForgetsItsCarry: "gave other actions",
    ForgetsItsSchedule: "gave other metrics",
    DrawsWhenSaved: "save changed the training",
    SavesPickle: "agent.bin, which looks like pickle",
    SavesObjects: "state.npz, which looks like pickle",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_broken_agent_fails_with_its_clause(broken: type[Any]) -> None:
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_agent(broken)


def test_an_agent_without_some_members_fails_with_their_names() -> None:
    class Unfinished:
        Config = TinyConfig

        def __init__(self, spec: EnvSpec, config: TinyConfig, *, seed: int, device: str) -> None: ...

        act, update = Correct.act, Correct.update

    with pytest.raises(AssertionError, match=r"^Unfinished lacks initial_carry, observe, save, load; m3po\.api\.Agent"):
        check_agent(Unfinished)


def test_a_constructor_that_takes_something_else_fails_with_what_it_takes() -> None:
    class OldConstructor(Correct):
        def __init__(self, spec: EnvSpec, config: TinyConfig, *, seed: int) -> None: ...

    with pytest.raises(AssertionError, match=r"OldConstructor\(spec, config, seed=…, device=…\), found .*'device'"):
        check_agent(OldConstructor)


def test_a_class_without_configuration_fails() -> None:
    class Bare: ...

    with pytest.raises(AssertionError, match=r"Bare\.Config must be a subclass of m3po\.api\.AgentConfig, found None"):
        check_agent(Bare)


def test_global_generators_come_back_as_they_were() -> None:
    before: NDArray[Any] = np.random.get_state()[1].copy()
    check_agent(Correct)
    assert np.array_equal(np.random.get_state()[1], before)


def test_agent_that_never_learns_may_say_so() -> None:
    check_agent(NeverUpdates, learns=False)


class SeesImages(Correct):
    def act(self, carry: Any, observation: Any, first: Any, task: Any, *, explore: bool) -> Decision:
        flat = observation.reshape(len(observation), -1)
        return super().act(carry, flat / 255 if observation.ndim > 2 else flat, first, task, explore=explore)


class FailsOnImages(SeesImages):
    def update(self) -> dict[str, float]:
        images = len(self.spec.observation_shape) > 1
        return {name: math.nan if images else value for name, value in super().update().items()}


def test_agents_that_see_images_are_shown_some() -> None:
    check_agent(SeesImages, images=True)
    check_agent(FailsOnImages)
    with pytest.raises(AssertionError, match="finite floats"):
        check_agent(FailsOnImages, images=True)

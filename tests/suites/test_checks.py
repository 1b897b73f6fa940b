"""Each check finds nothing in a sound family, and finds the environment that was broken for it."""

import re

import numpy as np
import pytest

from suites import checks
from suites.protocols import protocol
from suites.spec import Task, TaskSpaces
from suites.toy import Reach, Toy

TASK = Task(name="toy-reach", family="toy", protocol=protocol("toy-20"))


class Broken(Toy):
    """The toy family with another environment for every task."""

    def __init__(self, environment):
        self._environment = environment

    def make(self, task):
        return self._environment(task.protocol)


def walk_to_the_goal(observation):
    position, goal = observation
    return np.array([np.clip((goal - position) / 0.2, -1, 1)], dtype=np.float32)


class Solved(Toy):
    """The toy family with somebody who solves toy-reach, or does not."""

    def __init__(self, policy=walk_to_the_goal):
        self._policy = policy

    def expert(self, task):
        return self._policy if task.name == "toy-reach" else None


@pytest.mark.parametrize("name", Toy().tasks())
def test_nothing_is_wrong_with_the_toy_family(name):
    task = TASK.model_copy(update={"name": name})
    findings = checks.examine(Solved(), task, 5)
    assert [finding.check for finding in findings] == [*checks.CHECKS, "expert"]
    assert [finding.fault for finding in findings] == [None] * len(findings)
    assert findings[-1].applies == (name == "toy-reach")
    assert not checks.examine(Toy(), task, 5)[-1].applies


class IgnoredSeed(Reach):
    def reset(self, seed):
        super().reset(seed)
        self._state = np.random.default_rng().uniform(-1, 1, size=2)
        return self._state.astype(np.float32)


class Leak(Reach):
    """What is left of the last episode shifts the next one, by less than anybody would see."""

    def reset(self, seed):
        left = 1e-6 * self._state[0]
        super().reset(seed)
        self._state[1] += left
        return self._state.astype(np.float32)


class SameEpisode(Reach):
    def reset(self, seed):
        return super().reset(type(seed)(seed.stream, seed.base, seed.task_name, 0))


class IgnoredBase(Reach):
    def reset(self, seed):
        return super().reset(type(seed)(seed.stream, 0, seed.task_name, seed.episode))


class SeedZeroIsNone(IgnoredSeed):
    """As where ``if seed:`` stands for ``if seed is not None:``."""

    def reset(self, seed):
        return Reach.reset(self, seed) if seed.base else super().reset(seed)


class SharedStreams(Reach):
    def reset(self, seed):
        return super().reset(type(seed)("evaluate", seed.base, seed.task_name, seed.episode))


class FewStarts(Reach):
    """Two starts only, as where episodes draw from a fixed number of goals: this is allowed."""

    def reset(self, seed):
        return super().reset(type(seed)(seed.stream, seed.base, seed.task_name, seed.value % 2))


class NotFinite(Reach):
    def step(self, action):
        observation, *rest = super().step(action)
        return np.where(self._decisions > 10, np.nan, observation).astype(np.float32), *rest


class BadReward(Reach):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("inf") if self._decisions == 7 else 0.0, *rest


class WrongShape(Reach):
    def reset(self, seed):
        return super().reset(seed)[None]


class WrongType(Reach):
    def reset(self, seed):
        return super().reset(seed).astype(np.float64)


class OtherSpaces(Reach):
    spaces = TaskSpaces((3,), 1)


class LastIsNotFinite(Reach):
    def step(self, action):
        observation, *rest = super().step(action)
        return observation / np.float32(self._decisions != 20), *rest


class NarrowBounds(Reach):
    """Bounds of [-1, 1.1], reached as if they were ±1."""

    def step(self, action):
        self._given = action.astype(np.float64)
        return super().step(action)

    def control(self):
        return np.full(1, -1.0), np.full(1, 1.1), self._given


class RefusedBound(Reach):
    def step(self, action):
        if action[0] == 1:
            raise ValueError("an action must be below 1")
        return super().step(action)


class TooLong(Reach):
    def step(self, action):
        *rest, _, success = super().step(action)
        return *rest, False, success


class TooShort(Reach):
    """As where a package's own limit ends what a protocol made longer."""

    def step(self, action):
        *rest, truncated, success = super().step(action)
        return *rest, truncated or self._decisions == 15, success


class BothEnds(Reach):
    def step(self, action):
        observation, reward, _, truncated, success = super().step(action)
        return observation, reward, truncated, truncated, success


class CannotBeMade(Reach):
    def __init__(self, protocol):
        raise OSError("a file is missing")


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(
    ("environment", "check", "sentence"),
    [
        (CannotBeMade, "make", "OSError: a file is missing"),
        (IgnoredSeed, "repeatable", "another episode in another new environment, from observation 0 on"),
        (SeedZeroIsNone, "repeatable", "another episode in another new environment, from observation 0 on"),
        (Leak, "repeatable", "another episode in an environment that played others before, from observation 0 on"),
        (SameEpisode, "seeds", "episodes 0 to 4 of stream evaluate, seed 0 are all the same"),
        (IgnoredBase, "seeds", "seed 1 gives the same episodes as seed 0"),
        (SharedStreams, "seeds", "the stream train has the same episodes as the stream evaluate"),
        (NotFinite, "spaces", r"observation 11 has nan at \(0,\); expected finite numbers"),
        (LastIsNotFinite, "spaces", r"the last observation has -?inf at \(0,\)"),
        (BadReward, "spaces", "the reward of decision 7 is inf; expected a finite number"),
        (WrongShape, "spaces", r"observation 0 is float32 \(1, 2\); its family declares float32 \(2,\)"),
        (WrongType, "spaces", r"observation 0 is float64 \(2,\); its family declares float32 \(2,\)"),
        (OtherSpaces, "spaces", r"has the spaces \(\(3,\), 1\); its family declares \(\(2,\), 1\)"),
        (NarrowBounds, "bounds", "an action of all 1 reached 1; the upper bound is 1.1"),
        (RefusedBound, "bounds", "ValueError: an action must be below 1"),
        (TooLong, "length", "did not end after the 20 decisions its protocol states"),
        (TooShort, "length", "was truncated after 15 decisions; its protocol states 20"),
        (BothEnds, "length", "decision 20 both terminated and truncated the episode"),
    ],
)
def test_a_broken_environment_is_found(environment, check, sentence):
    faults = {finding.check: finding.fault for finding in checks.examine(Broken(environment), TASK, 5)}
    assert faults[check] is not None, f"{environment.__name__} passed"
    assert re.search(sentence, faults[check])


def test_an_episode_may_come_again():
    assert checks.seeds_differ(Broken(FewStarts), TASK) is None


def test_what_an_expert_cannot_solve_is_found():
    def stand_still(observation):
        return np.zeros(1, dtype=np.float32)

    fault = checks.examine(Solved(stand_still), TASK, 12)[-1].fault
    assert fault is not None
    assert fault.startswith("the expert solved ")
    assert fault.endswith(", …")


def test_an_expert_may_fail_now_and_then():
    calls = []

    class Episodes(Reach):
        """The goals of every fifth, or every fourth, episode cannot be reached."""

        def reset(self, seed):
            calls.append(seed)
            self._reachable = seed.episode % every != 0
            return super().reset(seed)

        def step(self, action):
            *rest, success = super().step(action)
            return *rest, success and self._reachable

    family = Broken(Episodes)
    family.expert = Solved().expert
    every = 5
    assert checks.expert(family, TASK, 20) == checks.Finding("expert", None, solved=(16, 20))  # 16 of 20 are 0.8
    every = 4
    assert (
        checks.expert(family, TASK, 20).fault == "the expert solved 15 of 20 evaluation episodes; not 0, 4, 8, 12, 16"
    )
    assert {seed.stream for seed in calls} == {"evaluate"}


def test_an_expert_without_success_is_an_error():
    class Silent(Reach):
        def step(self, action):
            return *super().step(action)[:4], None

    family = Broken(Silent)
    family.expert = Solved().expert
    assert "reports no success" in checks.examine(family, TASK, 1)[-1].fault


def test_an_expert_that_cannot_be_had_is_a_finding():
    class Failing(Toy):
        def expert(self, task):
            raise ImportError("no policies here")

    assert checks.examine(Failing(), TASK, 1)[-1] == checks.Finding("expert", "ImportError: no policies here")

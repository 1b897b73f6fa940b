"""Small, fast environments in numpy, for tests and first steps. The two differ in sizes and in how they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from suites.errors import SuiteError, unknown
from suites.seeding import EpisodeSeed
from suites.spec import Protocol, Task, TaskSpaces


class Toy:
    """``toy-reach``: move a point on a line to a goal. ``toy-terminate``: leave a box; the episode ends outside."""

    name = "toy"
    default_protocol = "toy-20"
    has_success = True

    def tasks(self) -> Sequence[str]:
        return tuple(_ENVIRONMENTS)

    def sets(self) -> Mapping[str, Sequence[str]]:
        return {"all": self.tasks()}

    def spaces(self, task: Task) -> TaskSpaces:
        return _environment(task).spaces

    def make(self, task: Task) -> Reach | Terminate:
        return _environment(task)(task.protocol)


class Reach:
    """Observation (position, goal), both in [-1, 1]; an action of 1 moves by 0.2; reward −min(1, distance)."""

    spaces = TaskSpaces(observation=(2,), action=1)

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._state = np.zeros(2)
        self._decisions = 0

    def reset(self, seed: EpisodeSeed) -> NDArray[np.float32]:
        self._state = np.random.default_rng(seed.value).uniform(-1, 1, size=2)
        self._decisions = 0
        return self._state.astype(np.float32)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, bool | None]:
        reward, distance = 0.0, 0.0
        for _ in range(self._protocol.action_repeat):
            self._state[0] = np.clip(self._state[0] + 0.2 * float(action[0]), -1, 1)
            distance = abs(float(self._state[0] - self._state[1]))
            reward -= min(1.0, distance)
        self._decisions += 1
        truncated = self._decisions >= self._protocol.decisions
        return self._state.astype(np.float32), reward, False, truncated, distance < 0.05

    def close(self) -> None:
        pass


class Terminate:
    """Observation (x, y, fraction of the time used); moves are noisy; reward −1 per step until |x| or |y| exceeds 1."""

    spaces = TaskSpaces(observation=(3,), action=2)

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._generator = np.random.default_rng(0)
        self._position = np.zeros(2)
        self._decisions = 0

    def reset(self, seed: EpisodeSeed) -> NDArray[np.float32]:
        self._generator = np.random.default_rng(seed.value)
        self._position = self._generator.uniform(-0.5, 0.5, size=2)
        self._decisions = 0
        return self._observation()

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, bool | None]:
        reward, outside = 0.0, False
        for _ in range(self._protocol.action_repeat):
            self._position += 0.2 * action.astype(np.float64) + self._generator.normal(0, 0.02, size=2)
            reward -= 1.0
            outside = bool(np.abs(self._position).max() > 1)
            if outside:
                break
        self._decisions += 1
        truncated = not outside and self._decisions >= self._protocol.decisions
        return self._observation(), reward, outside, truncated, outside

    def close(self) -> None:
        pass

    def _observation(self) -> NDArray[np.float32]:
        return np.array([*self._position, self._decisions / self._protocol.decisions], dtype=np.float32)


_ENVIRONMENTS: dict[str, type[Reach] | type[Terminate]] = {"toy-reach": Reach, "toy-terminate": Terminate}


def _environment(task: Task) -> type[Reach] | type[Terminate]:
    if task.name not in _ENVIRONMENTS:
        raise SuiteError(unknown("toy task", task.name, _ENVIRONMENTS))
    if task.options:
        raise SuiteError(f"toy tasks take no options; found {', '.join(task.options)}")
    return _ENVIRONMENTS[task.name]

"""``reset`` is a pure function of the seed: what the tests of both simulators check."""

import numpy as np

from suites.families import TaskEnv
from suites.seeding import EpisodeSeed


def play(env: TaskEnv, seed: EpisodeSeed, actions: np.ndarray) -> np.ndarray:
    """Observations and rewards of an episode's beginning, ``[steps, D + 1]``."""
    rows = [np.append(env.reset(seed), 0)]
    for action in actions:
        observation, reward, *_ = env.step(action)
        rows.append(np.append(observation, reward))
    return np.array(rows)


def assert_reset_is_pure(env: TaskEnv, name: str, steps: int = 5) -> None:
    """A new environment and one that has lived through a wild episode play the same first episode."""
    actions = np.random.default_rng(0).uniform(-1, 1, size=(steps, env.spaces.action)).astype(np.float32)
    first = EpisodeSeed("evaluate", 0, name, 0)
    fresh = play(env, first, actions)
    wild = play(env, EpisodeSeed("evaluate", 0, name, 1), np.sign(np.repeat(actions, 3, axis=0)))
    lived = play(env, first, actions)
    assert fresh.shape[1] == env.spaces.observation[0] + 1
    np.testing.assert_array_equal(fresh, lived)
    assert not np.array_equal(fresh[0], wild[0]), "two episodes began alike"

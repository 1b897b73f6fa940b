"""Balanced replay gives back what went in, an equal share of each task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.sac.replay import BalancedReplay, Batch

CPU = torch.device("cpu")


def add(replay: BalancedReplay, t: int, terminated: bool = False) -> None:
    """Row t, in which every number tells of t and of its environment."""
    N = len(replay.task)
    number = (100 * t + np.arange(N)).astype(np.float32)
    observation = np.stack([number, number + 0.25], axis=1)
    replay.add(replay.task, observation, number[:, None] + 0.5, number, observation + 1, np.full(N, terminated))


def draw(replay: BalancedReplay, size: int) -> Batch:
    return replay.sample(size, np.random.default_rng(0), CPU)


def numbers(batch: Batch) -> NDArray[np.float32]:
    array: NDArray[np.float32] = batch.reward.numpy()
    return array


def test_rows_come_back_as_they_went_in() -> None:
    replay = BalancedReplay(100, np.array([1, 0]))
    for t in range(5):
        add(replay, t, terminated=t == 3)
    batch = draw(replay, 50)
    number = numbers(batch)
    np.testing.assert_array_equal(batch.observation, np.stack([number, number + 0.25], axis=1))
    np.testing.assert_array_equal(batch.action, number[:, None] + 0.5)
    np.testing.assert_array_equal(batch.next_observation, batch.observation + 1)
    np.testing.assert_array_equal(batch.terminated, number // 100 == 3)
    # Environment 0 plays task 1.
    np.testing.assert_array_equal(batch.task, 1 - number % 100)


def test_every_task_has_an_equal_share_and_all_that_is_kept_is_drawn() -> None:
    # Task 0 is played by three environments, task 2 by one, task 1 by none.
    replay = BalancedReplay(100, np.array([0, 2, 0, 0]))
    for t in range(3):
        add(replay, t)
    batch = draw(replay, 3000)
    assert torch.bincount(batch.task).tolist() == [3000, 0, 3000]
    kept, count = np.unique(numbers(batch), return_counts=True)
    assert kept.tolist() == [100 * t + n for t in range(3) for n in range(4)]
    # 3 · 3 transitions of task 0 and 3 of task 2, uniformly: 333 and 1000 times each, within five deviations.
    expected = np.tile([3000 / 9, 1000, 3000 / 9, 3000 / 9], 3)
    assert (np.abs(count - expected) < 5 * np.sqrt(expected)).all()


def test_the_oldest_are_forgotten() -> None:
    replay = BalancedReplay(7, np.array([0, 0]))  # three rows of two
    for t in range(5):
        add(replay, t)
    assert set((numbers(draw(replay, 500)) // 100).tolist()) == {2, 3, 4}


def test_a_restored_replay_goes_on_as_the_saved_one() -> None:
    replay = BalancedReplay(8, np.array([0, 1]))
    for t in range(5):
        add(replay, t)
    other = BalancedReplay.restore(8, replay.state())
    for each in (replay, other):
        add(each, 6)
    for mine, its in zip(draw(replay, 20), draw(other, 20), strict=True):
        assert torch.equal(mine, its)


def test_an_environment_stays_with_its_task() -> None:
    replay = BalancedReplay(8, np.array([0, 1]))
    row = np.zeros((2, 1), np.float32)
    with pytest.raises(ValueError, match=r"played the tasks \[0 1\] and now \[1 0\]"):
        replay.add(np.array([1, 0]), row, row, row[:, 0], row, np.zeros(2, np.bool_))

"""Replay and rollout: every row is where it was put, through wrapping, saving and restoring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from m3po.api import Transition
from m3po.kit.replay import SequenceReplay, transition_rows
from m3po.kit.rollout import Rollout


def row(t: int, num_envs: int = 2) -> dict[str, NDArray[np.float32]]:
    """Row t holds 10 t + n in environment n, so that a value tells where it came from."""
    value = (10 * t + np.arange(num_envs)).astype(np.float32)
    return {"value": value, "vector": np.stack([value, -value], axis=1)}


def filled(capacity: int, rows: int) -> SequenceReplay:
    replay = SequenceReplay(capacity, num_envs=2)
    for t in range(rows):
        replay.add(row(t))
    return replay


def sampled_starts(replay: SequenceReplay, length: int, batch: int = 2000) -> set[int]:
    sample = replay.sample(batch, length, np.random.default_rng(0))["value"]
    assert sample.shape == (length, batch)
    # Rows follow each other in one environment: + 10 a step.
    assert torch.equal(sample - sample[0], 10.0 * torch.arange(length)[:, None].expand_as(sample))
    return {int(value) // 10 for value in sample[0]}


def test_capacity_counts_transitions_over_all_environments() -> None:
    replay = filled(capacity=10, rows=12)
    assert len(replay) == 10
    assert replay.rows == 5


def test_subsequences_start_everywhere_and_never_cross_the_seam() -> None:
    # Five rows kept of twelve: 7 … 11; subsequences of three start at 7, 8, 9.
    assert sampled_starts(filled(capacity=10, rows=12), length=3) == {7, 8, 9}
    # Before the ring is full: rows 0 … 3, subsequences of two start at 0, 1, 2.
    assert sampled_starts(filled(capacity=10, rows=4), length=2) == {0, 1, 2}


def test_both_environments_are_drawn_with_all_their_fields() -> None:
    sample = filled(capacity=10, rows=5).sample(200, 1, np.random.default_rng(0))
    assert {int(value) % 10 for value in sample["value"].flatten()} == {0, 1}
    assert torch.equal(sample["vector"], torch.stack([sample["value"], -sample["value"]], dim=-1))


def test_too_long_a_subsequence_is_refused() -> None:
    replay = filled(capacity=10, rows=2)
    assert not replay.can_sample(3)
    with pytest.raises(ValueError, match="keeps 2 rows per environment; a subsequence needs 3"):
        replay.sample(1, 3, np.random.default_rng(0))


@pytest.mark.parametrize("rows", [0, 3, 5, 12])
def test_restored_replay_goes_on_as_the_saved_one(rows: int) -> None:
    replay = filled(10, rows)
    other = SequenceReplay.restore(10, replay.state())
    for t in range(rows, rows + 3):
        for each in (replay, other):
            each.add(row(t))
        samples = [each.sample(50, 1, np.random.default_rng(t))["value"] for each in (replay, other)]
        assert torch.equal(*samples)
    assert len(other) == len(replay)


def test_saved_replay_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="5 rows of 2 environments, more than a capacity of 4 transitions holds"):
        SequenceReplay.restore(4, filled(10, 5).state())


def test_transition_rows_keep_everything_but_extras() -> None:
    one = np.zeros(1, np.float32)
    flag = np.zeros(1, np.bool_)
    transition = Transition(one, one, one, one, flag, flag, flag, np.zeros(1, np.int64), {"noise": one})
    assert transition_rows(transition).keys() == vars(transition).keys() - {"extras"}


def test_rollout_gives_back_its_rows_in_order() -> None:
    rollout = Rollout(3, num_envs=2)
    for t in range(3):
        assert not rollout.full
        rollout.add(row(t))
    assert rollout.full
    tensors = rollout.tensors()
    assert tensors["value"].tolist() == [[0, 1], [10, 11], [20, 21]]
    assert tensors["vector"].shape == (3, 2, 2)
    with pytest.raises(ValueError, match="has its 3 rows"):
        rollout.add(row(3))
    rollout.clear()
    rollout.add(row(7))
    assert rollout.tensors()["value"].tolist() == [[70, 71]]


def test_rollout_copies_what_it_is_given() -> None:
    rollout, fields = Rollout(2, num_envs=2), row(1)
    rollout.add(fields)
    fields["value"][:] = -1
    assert rollout.tensors()["value"].tolist() == [[10, 11]]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_restored_rollout_goes_on_as_the_saved_one(rows: int) -> None:
    rollout = Rollout(3, num_envs=2)
    for t in range(rows):
        rollout.add(row(t))
    other = Rollout.restore(rollout.state())
    assert other.rows == rows
    for t in range(rows, 3):
        other.add(row(t))
    assert other.tensors()["value"].tolist() == [[0, 1], [10, 11], [20, 21]]


def test_empty_rollout_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Rollout(0, num_envs=2)

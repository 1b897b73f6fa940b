"""Replay of arrivals: what led to an observation stands in its row, and an episode's end is there too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.dreamerv3.replay import ArrivalReplay, Sequences
from m3po.api import Transition
from m3po.kit.state import load_state, save_state

LENGTHS = (3, 5)


def transitions(decisions: int) -> list[Transition]:
    """Two environments with episodes of 3 and 5 decisions. Observations count: 100 · env + rows so far.

    The first ends by termination, the second by truncation; the action is a tenth and the reward ten times the number
    of the observation they lead to. The latent state is the number of the observation it was in.
    """
    row, age = np.array([0.0, 100.0], np.float32), np.zeros(2, np.int64)
    made = []
    for _ in range(decisions):
        first = age == 0
        row = np.where(first, row + 1, row).astype(np.float32)
        age = age + 1
        ended = age == np.array(LENGTHS)
        made.append(
            Transition(
                observation=row[:, None].copy(),
                action=(row + 1)[:, None] / 10,
                reward=(row + 1) * 10,
                next_observation=(row + 1)[:, None],
                terminated=ended & np.array([True, False]),
                truncated=ended & np.array([False, True]),
                first=first,
                task=np.array([0, 1]),
                extras={"deter": row[:, None].astype(np.float16), "stoch": row[:, None].astype(np.uint8)},
            )
        )
        row = row + 1
        age[ended] = 0
    return made


def filled(decisions: int, capacity: int = 1000, length: int = 7) -> ArrivalReplay:
    replay = ArrivalReplay(capacity, num_envs=2, length=length)
    for transition in transitions(decisions):
        replay.add(transition)
    return replay


def sampled(replay: ArrivalReplay, batch: int, seed: int = 0) -> Sequences:
    return replay.sample(batch, np.random.default_rng(seed))


def test_an_episode_of_n_decisions_is_n_plus_one_observations() -> None:
    # 15 decisions: five episodes of 3 and three of 5.
    assert filled(15).added.tolist() == [5 * 4, 3 * 6]


def test_rows_hold_what_led_to_their_observation() -> None:
    rows = sampled(filled(15), 200).rows
    number, first = rows["observation"][..., 0], rows["first"]
    # No observation is missing, also not an episode's last one.
    assert torch.equal(number[1:] - number[:-1], torch.ones_like(number[1:]))
    torch.testing.assert_close(rows["action"][..., 0], torch.where(first, 0, number / 10))
    torch.testing.assert_close(rows["reward"], torch.where(first, 0, number * 10))
    assert torch.equal(rows["task"], (number > 100).long())
    # What follows an episode's last observation is a first one, and only that.
    assert torch.equal(rows["last"][:-1], first[1:])
    # Only the first environment terminates; the second is truncated.
    assert torch.equal(rows["terminal"], rows["last"] & (rows["task"] == 0))
    assert rows["last"][:, rows["task"][0] == 1].any()


def test_a_sequence_comes_with_the_state_before_it() -> None:
    rows, before, _, _ = sampled(filled(15), 200)
    number, first = rows["observation"][0, :, 0], rows["first"][0]
    # The state in the observation one earlier; an episode begins in none.
    expected = torch.where(first, 0, number - 1)
    assert torch.equal(before["deter"][:, 0].float(), expected)
    assert torch.equal(before["stoch"][:, 0].float(), expected)


def test_training_brings_states_up_to_date() -> None:
    replay = filled(15)
    sequences = sampled(replay, 1)
    number = sequences.rows["observation"][..., 0]
    replay.refresh(sequences, {"deter": -number.unsqueeze(-1).half(), "stoch": (number + 100).unsqueeze(-1).byte()})
    rows, before, _, _ = sampled(replay, 400)
    start = rows["observation"][0, :, 0]
    # A row starts from the state in the row one earlier, so the seven states found serve the seven rows behind.
    renewed = (start > number[0, 0]) & (start <= number[-1, 0] + 1)
    assert (start == number[-1, 0] + 1).any()
    going_on = renewed & ~rows["first"][0]
    assert going_on.any()
    assert torch.equal(before["deter"][going_on, 0].float(), 1 - start[going_on])
    assert torch.equal(before["stoch"][going_on, 0].float(), start[going_on] + 99)
    untouched = ~renewed & ~rows["first"][0]
    assert torch.equal(before["deter"][untouched, 0].float(), start[untouched] - 1)


def test_the_newest_state_has_no_row_yet() -> None:
    replay = filled(15, capacity=14)
    # Rings of seven rows are one sequence of seven: what follows the newest row would be in the place of the oldest.
    sequences = sampled(replay, 2)
    oldest = {name: state.clone() for name, state in sequences.before.items()}
    replay.refresh(sequences, {"deter": torch.full((7, 2, 1), -1.0).half(), "stoch": torch.zeros(7, 2, 1).byte()})
    for name, state in sampled(replay, 2).before.items():
        assert torch.equal(state, oldest[name])
    assert (replay.storage["deter"] == -1).any()


def test_the_newest_rows_are_drawn_first_and_once() -> None:
    replay = filled(15)
    # 20 rows are two whole sequences of 7, 18 rows are two: in the order in which they were finished.
    starts = sampled(replay, 4).rows["observation"][0, :, 0].tolist()
    assert sorted(starts) == [1, 8, 101, 108]
    assert not replay.fresh
    assert len(set(sampled(replay, 50).rows["observation"][0, :, 0].tolist())) > 10


def test_every_sequence_is_equally_likely() -> None:
    replay = filled(15)
    replay.fresh.clear()
    starts = sampled(replay, 20_000).rows["observation"][0, :, 0]
    values, counts = torch.unique(starts, return_counts=True)
    # 20 rows have 14 sequences of 7, 18 rows have 12.
    assert values.tolist() == [*range(1, 15), *range(101, 113)]
    # 20,000/26 = 769 of each, give or take 27; five deviations.
    assert (counts - 20_000 / 26).abs().max() < 5 * 27.2


def test_the_oldest_observations_are_dropped() -> None:
    replay = filled(15, capacity=14, length=2)
    number = sampled(replay, 300).rows["observation"][..., 0]
    assert len(replay) == 14
    # The environments are at 20 and 118 (see above); seven observations of each remain.
    assert set(number.flatten().tolist()) == {*range(14, 21), *range(112, 119)}
    # Fresh sequences that the ring has lost are passed over: that of observations 13 and 14 would wrap around.
    assert torch.equal(number[1], number[0] + 1)


def test_every_environment_must_be_long_enough() -> None:
    # Four decisions are one whole episode and one decision (6 observations), or five observations.
    assert filled(4, length=5).can_sample()
    assert not filled(4, length=6).can_sample()


@pytest.mark.parametrize("capacity", [12, 1000])
def test_saved_replay_goes_on_the_same(tmp_path: Path, capacity: int) -> None:
    replay = filled(15, capacity, length=4)
    sequences = sampled(replay, 3)
    replay.refresh(sequences, {"deter": torch.full((4, 3, 1), 7.0).half(), "stoch": torch.ones(4, 3, 1).byte()})
    save_state(tmp_path, "replay", replay.state())
    other = ArrivalReplay(capacity, num_envs=2, length=4)
    other.restore(load_state(tmp_path, "replay"))
    for r in (replay, other):
        r.add(transitions(16)[-1])
    one, same = (sampled(r, 20, seed=3) for r in (replay, other))
    for name, tensor in {**one.rows, **one.before}.items():
        assert torch.equal(tensor, {**same.rows, **same.before}[name]), name


def test_an_image_is_kept_once_and_as_bytes() -> None:
    replay, image = ArrivalReplay(100, num_envs=1, length=3), np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    none, zero = np.zeros(1, np.bool_), np.zeros(1, np.float32)
    for i in range(5):
        latent = {"deter": np.zeros((1, 2), np.float16), "stoch": np.zeros((1, 1), np.uint8)}
        replay.add(
            Transition(
                image + i,
                zero[:, None],
                zero,
                image + i + 1,
                none,
                none,
                none | (i == 0),
                np.zeros(1, np.int64),
                latent,
            )
        )
    # Five decisions show six images.
    assert len(replay) == 6
    assert replay.storage["observation"][0, :6, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert sampled(replay, 1).rows["observation"].dtype == torch.uint8

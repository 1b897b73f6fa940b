"""Replay of arrivals: what led to an observation stands in its row, and an episode's end is there too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from baselines.dreamerv3.replay import ArrivalReplay
from m3po.api import Transition
from m3po.kit.state import load_state, save_state

LENGTHS = (3, 5)


def transitions(decisions: int) -> list[Transition]:
    """Two environments with episodes of 3 and 5 decisions. Observations count: 100 · env + rows so far.

    The first ends by termination, the second by truncation; the action is a tenth and the reward ten times the number
    of the observation they lead to.
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
            )
        )
        row = row + 1
        age[ended] = 0
    return made


def filled(decisions: int, capacity: int = 1000) -> ArrivalReplay:
    replay = ArrivalReplay(capacity, num_envs=2)
    for transition in transitions(decisions):
        replay.add(transition)
    return replay


def test_an_episode_of_n_decisions_is_n_plus_one_observations() -> None:
    replay = filled(15)
    # 15 decisions: five episodes of 3 and three of 5.
    assert [len(stream) for stream in replay.streams] == [5 * 4, 3 * 6]


def test_rows_hold_what_led_to_their_observation() -> None:
    rows = filled(15).sample(200, 7, np.random.default_rng(0))
    number, first = rows["observation"][..., 0], rows["first"]
    # No observation of a stream is missing, also not an episode's last one.
    assert torch.equal(number[1:] - number[:-1], torch.ones_like(number[1:]))
    torch.testing.assert_close(rows["action"][..., 0], torch.where(first, 0, number / 10))
    torch.testing.assert_close(rows["reward"], torch.where(first, 0, number * 10))
    assert torch.equal(rows["task"], (number > 100).long())
    # What follows an episode's last observation is a first one, and only that.
    assert torch.equal(rows["last"][:-1], first[1:])
    # Only the first environment terminates; the second is truncated.
    assert torch.equal(rows["terminal"], rows["last"] & (rows["task"] == 0))
    assert rows["last"][:, rows["task"][0] == 1].any()


def test_the_oldest_observations_are_dropped() -> None:
    replay = filled(15, capacity=12)
    rows = replay.sample(300, 2, np.random.default_rng(0))
    assert len(replay) == 12
    # Streams end at 20 and 118 (see above); six observations of each remain.
    assert set(rows["observation"].flatten().tolist()) == {*range(15, 21), *range(113, 119)}


def test_every_environment_must_be_long_enough() -> None:
    replay = filled(4)
    # Four decisions are one whole episode and one decision (6 observations), or five observations.
    assert replay.can_sample(5)
    assert not replay.can_sample(6)


def test_saved_replay_goes_on_the_same(tmp_path: Path) -> None:
    replay = filled(15, capacity=12)
    save_state(tmp_path, "replay", replay.state())
    other = ArrivalReplay(12, num_envs=2)
    other.restore(load_state(tmp_path, "replay"))
    for r in (replay, other):
        r.add(transitions(16)[-1])
    one, same = (r.sample(20, 4, np.random.default_rng(3)) for r in (replay, other))
    for name, tensor in one.items():
        assert torch.equal(tensor, same[name]), name

import hashlib
from itertools import product

import pytest

from suites.seeding import EpisodeSeed, episode_seed


def test_is_the_first_four_bytes_of_the_hash_of_the_four_facts():
    digest = hashlib.sha256(b"train/0/reach-v3/episode/7").digest()
    assert episode_seed("train", 0, "reach-v3", 7) == int.from_bytes(digest[:4], "little")


def test_every_fact_changes_the_seed():
    cases = product(("train", "tune", "evaluate"), (0, 1, 11), ("reach-v3", "push-v3"), (0, 1, 11))
    seeds = [episode_seed(*case) for case in cases]
    assert len(set(seeds)) == len(seeds) == 54  # 3 streams × 3 seeds × 2 tasks × 3 episodes


def test_seed_and_episode_do_not_run_together():
    assert episode_seed("train", 1, "a", 12) != episode_seed("train", 11, "a", 2)


def test_a_shared_seed_is_the_same_in_all_episodes_and_none_of_theirs():
    first, second = EpisodeSeed("train", 0, "a", 0), EpisodeSeed("train", 0, "a", 1)
    assert first.shared(3) == second.shared(3) != first.shared(4)
    assert first.shared(0) != first.value
    assert EpisodeSeed("evaluate", 0, "a", 0).shared(3) != first.shared(3)


@pytest.mark.parametrize(("seed", "episode"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(seed, episode):
    with pytest.raises(ValueError, match="must not be negative"):
        episode_seed("train", seed, "a", episode)

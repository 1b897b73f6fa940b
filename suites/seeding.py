"""Seeds of episodes: bound to stream, base seed, task name and episode number, and to nothing else.

Because neither the position of a task in its suite nor the number of parallel environments enters, permuting tasks or
adding environments changes no episode. Streams never share a seed by construction: the stream's name is part of the
hashed message.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from suites.spec import Stream


def episode_seed(stream: Stream, seed: int, task_name: str, episode: int) -> int:
    """The seed of one episode, uint32: the first four bytes of SHA-256 over the four facts.

    ``seed`` is the base seed of the run (0 is a seed like any other), ``episode`` counts the episodes of this task from
    0. Raises ``ValueError`` for negative numbers.
    """
    if seed < 0 or episode < 0:
        raise ValueError(f"seed ({seed}) and episode ({episode}) must not be negative")
    return _hash(stream, seed, task_name, "episode", episode)


@dataclass(frozen=True)
class EpisodeSeed:
    """All that decides an episode besides the actions; equal seeds give bit-equal episodes."""

    stream: Stream
    base: int
    """The run's seed."""
    task_name: str
    episode: int
    """Which episode of this task, from 0."""

    @property
    def value(self) -> int:
        """This episode's own seed, uint32."""
        return episode_seed(self.stream, self.base, self.task_name, self.episode)

    def shared(self, number: int) -> int:
        """Seed uint32 of something all episodes of the task share in this stream, such as its goal ``number``."""
        return _hash(self.stream, self.base, self.task_name, "shared", number)


def _hash(stream: str, seed: int, task_name: str, use: str, number: int) -> int:
    # A task name has no "/", so no two different sets of facts give the same message.
    message = f"{stream}/{seed}/{task_name}/{use}/{number}"
    return int.from_bytes(hashlib.sha256(message.encode()).digest()[:4], "little")

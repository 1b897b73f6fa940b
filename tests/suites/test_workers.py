"""A worker that nobody asks rests."""

from __future__ import annotations

from typing import Any

import pytest

from suites import workers
from suites.workers import Turns


class Silence:
    """A pipe on which nothing comes, until it closes."""

    def __init__(self, naps: int) -> None:
        self.naps = naps

    def poll(self, seconds: float) -> bool:
        self.naps -= 1
        if self.naps < 0:
            raise EOFError
        return False


class CountedTurns(Turns):
    looked = 0

    def reaches(self, cell: int, count: int) -> bool:
        self.looked += 1
        return super().reaches(cell, count)


class Steps:
    """Lanes that count their steps; after each, a parent asks for the next, up to ``last``."""

    def __init__(self, turns: Turns, last: int) -> None:
        self.turns, self.last, self.taken = turns, last, 0

    def receive(self) -> list[Any]:
        self.taken += 1
        self.turns[Turns.ASKED] = min(self.taken + 1, self.last)
        return []


def test_looking_costs_a_core_so_it_is_done_once_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.0)
    turns = CountedTurns(bytearray(Turns.BYTES))
    turns[Turns.ASKED] = 1
    lanes: Any = Steps(turns, last=3)
    pipe: Any = Silence(naps=50)
    with pytest.raises(EOFError):
        workers._answer(pipe, turns, lanes)
    assert (lanes.taken, turns[Turns.DONE]) == (3, 3)
    assert turns.looked == 3 + 1
    assert turns[Turns.ASLEEP]


def test_a_step_asked_for_while_it_falls_asleep_is_taken_after_a_nap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.0)
    turns = Turns(bytearray(Turns.BYTES))
    lanes: Any = Steps(turns, last=1)

    class Asking(Silence):
        def poll(self, seconds: float) -> bool:
            turns[Turns.ASKED] = 1  # seen by nobody but the memory: no message wakes the worker
            return super().poll(seconds)

    pipe: Any = Asking(naps=2)
    with pytest.raises(EOFError):
        workers._answer(pipe, turns, lanes)
    assert lanes.taken == 1

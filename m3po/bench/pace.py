"""How fast a cell goes: what its steps cost now tells when it ends, what they cost in all tells of the next cell."""

from __future__ import annotations

from collections import deque

__all__ = ["Pace"]

PACE_SECONDS = 300.0
"""What counts as now: long enough to hold evaluations of a slow agent and several updates of a rare one."""


class Pace:
    """Environment steps per second of wall time over the last :data:`PACE_SECONDS`, evaluation included.

    Only steps that follow the agent's first update count: those before cost next to nothing, and a rate made of them
    would promise an end many times too early. An agent that has told of none in all that time is taken for one that
    makes none.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._learning = False

    def mark(self, now: float, env_step: int, *, learning: bool) -> None:
        """Note that the cell stood at ``env_step`` at ``now`` seconds of any clock."""
        if learning and not self._learning:
            self._learning = True
            self._marks.clear()
        self._marks.append((now, env_step))
        while len(self._marks) > 2 and now - self._marks[1][0] >= PACE_SECONDS:
            self._marks.popleft()

    def rate(self) -> float | None:
        """Steps per second, ``None`` as long as nothing tells."""
        if len(self._marks) < 2:
            return None
        (start, first), (now, last) = self._marks[0], self._marks[-1]
        if not self._learning and now - start < PACE_SECONDS:
            return None
        return (last - first) / (now - start) if last > first and now > start else None

"""Somebody wants this process to stop: which signals say so, and who looks after them when."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["WISHES", "Interrupt", "Stopped", "heeded"]

WISHES = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Ask to stop: Ctrl-C, an end of a job or service, a cluster's warning of one, a terminal that was closed."""


class Stopped(BaseException):
    """A wish to stop came where nothing had to be brought to an end first.

    Neither an error nor a ``KeyboardInterrupt``, of which the command line's library makes an exit code of its own.
    """


def heeded() -> list[signal.Signals]:
    """:data:`WISHES`; under nohup, which has SIGHUP ignored, that is none."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in WISHES if not (number == signal.SIGHUP and ignored)]


class Interrupt:
    """What was asked for so far, as a number of signals: none, a stop behind checkpoints, or an end at once.

    ``announce`` tells the user that the first one was heard.
    """

    def __init__(self, announce: Callable[[str], None] = lambda sentence: None) -> None:
        self.count = 0
        self.announce = announce

    @contextmanager
    def listening(self, patience: float = math.inf) -> Iterator[None]:
        """Take :data:`WISHES` during the block instead of dying of them: it has to look at ``count`` now and then.

        What exceeds ``patience`` raises :class:`Stopped` wherever the block is. Blocks may lie in each other.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            self.count += 1
            if self.count > patience:
                raise Stopped

        previous = {number: signal.signal(number, handle) for number in heeded()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

"""Errors that speak to the user, and the search for the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SuiteError(ValueError):
    """A suite, or a name in it, is wrong. ``messages`` holds one sentence per fault, all of one pass."""

    def __init__(self, messages: str | Sequence[str]) -> None:
        self.messages: tuple[str, ...] = (messages,) if isinstance(messages, str) else tuple(messages)
        super().__init__("\n".join(self.messages))


class EnvError(RuntimeError):
    """An environment, or an action given to it, broke the contract; the sentence names task, environment and step."""


class EnvWorkerError(EnvError):
    """A worker process died; the sentence names the tasks it held."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, whatever its case, or ``None`` when none is close."""
    by_key = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_key, n=1, cutoff=0.5)
    return by_key[matches[0]] if matches else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for an unknown name: what was found, the nearest, and (when they are few) all that are known."""
    names = sorted(known)
    match = nearest(name, names)
    sentence = f"unknown {kind} {name!r}"
    if match is not None:
        sentence += f"; nearest: {match!r}"
    if len(names) <= 20:
        return f"{sentence}; known: {', '.join(names) or 'none'}"
    return f"{sentence}; {len(names)} are known"

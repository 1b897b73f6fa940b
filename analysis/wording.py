"""How numbers and names read in tables, on pages and in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.stats import CONFIDENCE, Estimate

AXIS_NAMES = {"env_step": "environment steps", "updates": "gradient updates", "seconds": "seconds of training"}

INTERVAL = f"{CONFIDENCE:.0%}".replace("%", " %")
NO_INTERVAL = "no interval"
"""Of a number made of a task with a single run; others of its tasks, and its rival, may have more."""
SCORES = {"return": "return", "success_any": "success at any step", "success_last": "success at the last step"}
SCORE_UNITS = {
    "return": "Episode return",
    "success_any": "Success rate (at any step)",
    "success_last": "Success rate (at the last step)",
}
"""The same as the label of an axis."""


def listed(names: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join(", ".join(names).rsplit(", ", 1))


def interval(value: Estimate, digits: int = 2) -> str:
    """``0.71 [0.66, 0.75]``, or the number alone with ``no interval``."""
    if value.low is None or value.high is None:
        return f"{value.estimate:.{digits}f} ({NO_INTERVAL})"
    return f"{value.estimate:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"

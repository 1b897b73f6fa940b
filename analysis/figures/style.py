"""How figures look: one style, and colours that belong to agents and survive colour blindness and print."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

INK = "#1f2430"
"""Text and axes; the HTML report replaces it to suit a dark page."""
GRID = "#d3d7df"
"""Grid lines; replaced likewise."""

# Okabe and Ito's colours without the yellow, which vanishes on white; then four that colour-blind eyes tell from each
# other but not all from the first six, so their lines are dashed.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#6a51a3", "#98a623")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*")
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1.2), (5, 1.2, 1, 1.2))
"""Lengths drawn and left out, in line widths; nothing is solid."""
_SOLID = 6
"""Colours whose lines are solid."""

# Agents that come with the harness keep their colour in every report; others take the free places.
OWN_PLACE = {"m3po": 0, "ppo": 1, "dreamerv3": 2, "sac": 3, "tdmpc2": 4, "random": 6}

WIDTH = 7.0
"""Inches: the text width of a paper's page."""

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.titleweight": "bold",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def places(agents: Sequence[str]) -> dict[str, int]:
    """A place for each agent: its own, else the next free one after a hash of its name, round after round of
    :data:`PALETTE`."""
    taken = {agent: OWN_PLACE[agent] for agent in agents if agent in OWN_PLACE}
    size = len(PALETTE)
    for agent in sorted(set(agents) - set(taken)):
        wished = hashlib.sha256(agent.encode()).digest()[0]
        order = [(wished + offset) % size for offset in range(size)]
        kept, used = {*OWN_PLACE.values(), *taken.values()}, set(taken.values())
        free = [place for place in order if place not in kept] or [p for p in order if p not in used]
        rounds = (size * number + place for number in range(1, len(agents)) for place in order)
        taken[agent] = free[0] if free else next(place for place in rounds if place not in used)
    return taken


def colours(agents: Sequence[str]) -> dict[str, str]:
    return {agent: PALETTE[place % len(PALETTE)] for agent, place in places(agents).items()}


def markers(agents: Sequence[str]) -> dict[str, str]:
    """Another marker for a colour in every round."""
    return {agent: MARKERS[sum(divmod(place, len(MARKERS))) % len(MARKERS)] for agent, place in places(agents).items()}


def dashes(agents: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """One of :data:`DASHES`, so that lines are told apart without their colours and markers."""

    def of(place: int) -> int:
        number, colour = divmod(place, len(PALETTE))
        return (2 * (number % 2)) + (colour >= _SOLID)

    return {agent: DASHES[of(place)] for agent, place in places(agents).items()}


def line_style(dash: tuple[float, ...]) -> Any:
    """``dash`` as matplotlib wants it."""
    return (0, dash) if dash else "-"

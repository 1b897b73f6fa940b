"""How figures look: one style, and colours that belong to agents and survive colour blindness and print."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

INK = "#1f2430"
"""Text and axes; the HTML report replaces it to suit a dark page."""
GRID = "#d3d7df"
"""Grid lines; replaced likewise."""

# Okabe and Ito's colours without the yellow, which vanishes on white; then two that stay apart from them.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#6a51a3", "#98a623")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "*")

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
    """A place in :data:`PALETTE` for each agent: its own, else the next free one after a hash of its name."""
    taken = {agent: OWN_PLACE[agent] for agent in agents if agent in OWN_PLACE}
    for agent in sorted(set(agents) - set(taken)):
        wished = hashlib.sha256(agent.encode()).digest()[0]
        order = [(wished + offset) % len(PALETTE) for offset in range(len(PALETTE))]
        kept = {*OWN_PLACE.values(), *taken.values()}
        free = [place for place in order if place not in kept] or [p for p in order if p not in taken.values()]
        taken[agent] = (free or order)[0]
    return taken


def colours(agents: Sequence[str]) -> dict[str, str]:
    return {agent: PALETTE[place] for agent, place in places(agents).items()}


def markers(agents: Sequence[str]) -> dict[str, str]:
    return {agent: MARKERS[place] for agent, place in places(agents).items()}

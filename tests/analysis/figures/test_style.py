"""Colours belong to agents."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from analysis.figures.style import OWN_PLACE, PALETTE, colours, dashes, markers


def test_an_agent_keeps_its_colour_in_every_company() -> None:
    alone = colours(["m3po"])
    for company in (["ppo", "m3po"], ["a", "b", "m3po", "random"]):
        assert colours(company)["m3po"] == alone["m3po"]


def test_no_two_agents_share_a_colour_or_marker() -> None:
    names = ["m3po", "ppo", "dreamerv3", "sac", "tdmpc2", "random", "x", "y", "z", "mine"]
    assert sorted(colours(names).values()) == sorted(PALETTE)
    assert len(set(markers(names).values())) == len(names)


def test_more_agents_than_colours_are_still_told_apart() -> None:
    names = [f"agent-{index}" for index in range(25)]
    looks = {name: (colours(names)[name], markers(names)[name], dashes(names)[name]) for name in names}
    assert len(set(looks.values())) == 25
    own = [name for name in OWN_PLACE if name not in names]
    assert colours([*names, *own]) | colours(own) == colours([*names, *own]), "what has a place keeps it"


# Machado et al. 2009, "A physiologically-based model for simulation of color vision deficiency", severity 1.0.
SEEN = {
    "all cones": np.eye(3),
    "no L cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no M cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no S cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, seen: object) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour as such eyes see it."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(seen) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.asarray(to_xyz) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", SEEN)
def test_lines_are_told_apart_without_a_kind_of_cones(eyes: str) -> None:
    """By colour, at least five times the difference that is just noticed (2.3), or by their dashes."""
    names = ["m3po", "ppo", "dreamerv3", "sac", "tdmpc2", "random", "x", "y", "z", "mine"]
    paint, dash = colours(names), dashes(names)
    for one, other in combinations(names, 2):
        apart = np.linalg.norm(lab(paint[one], SEEN[eyes]) - lab(paint[other], SEEN[eyes]))
        assert dash[one] != dash[other] or apart > 11.5, (one, other)

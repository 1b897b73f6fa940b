"""Colours belong to agents."""

from __future__ import annotations

from analysis.figures.style import PALETTE, colours, markers


def test_an_agent_keeps_its_colour_in_every_company() -> None:
    alone = colours(["m3po"])
    for company in (["ppo", "m3po"], ["a", "b", "m3po", "random"]):
        assert colours(company)["m3po"] == alone["m3po"]


def test_no_two_agents_share_a_colour_or_marker() -> None:
    names = ["m3po", "ppo", "dreamerv3", "sac", "tdmpc2", "random", "x", "y", "z", "mine"]
    assert sorted(colours(names).values()) == sorted(PALETTE)
    assert len(set(markers(names).values())) == len(names)


def test_more_agents_than_colours_still_get_one() -> None:
    names = [f"agent-{index}" for index in range(25)]
    assert set(colours(names)) == set(names)

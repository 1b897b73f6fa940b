"""The leading sentence says who leads and claims no more than the intervals do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.efficiency import Speedup
from analysis.report.headline import _sentence, headline
from analysis.stats import Estimate
from analysis.summary import Summary


def told(summary: Summary, **iqm: Estimate) -> str:
    aggregates = {agent: {**summary.aggregates[agent], "iqm": value} for agent, value in iqm.items()}
    return headline(replace(summary, aggregates=aggregates, scores={agent: summary.scores[agent] for agent in iqm}))


@pytest.mark.parametrize(
    ("ppo", "ending"),
    [
        (
            Estimate(0.3, 0.25, 0.36),
            # by hand: 0.71 − 0.30, below √(0.05² + 0.06²) = 0.078, above √(0.04² + 0.05²) = 0.064
            "above ppo's 0.30 [0.25, 0.36], the next of 2 agents; the difference, 0.41 [0.33, 0.47], leaves out 0.",
        ),
        # 0.11 − √(0.05² + 0.07²) = 0.024: intervals that overlap a little, and yet a difference
        (Estimate(0.6, 0.5, 0.67), "the difference, 0.11 [0.02, 0.22], leaves out 0."),
        # 0.05 − √(0.05² + 0.06²) = −0.028
        (
            Estimate(0.66, 0.6, 0.72),
            "the difference, 0.05 [-0.03, 0.12], may be none, so their IQMs do not separate the two.",
        ),
        (Estimate(0.6), "with a single run of a task there is no interval, so this does not show that it is better."),
    ],
)
def test_two_agents(summary: Summary, ppo: Estimate, ending: str) -> None:
    sentence = told(summary, m3po=Estimate(0.71, 0.66, 0.75), ppo=ppo)
    assert sentence.startswith("m3po's IQM 0.71 [0.66, 0.75] lies above ppo's 0.")
    assert sentence.endswith(ending)


def test_agents_at_different_steps_get_no_verdict(summary: Summary) -> None:
    behind = replace(summary.scores["ppo"], final_steps=dict.fromkeys(summary.scores["ppo"].final_steps, 5_000))
    aggregates = {"m3po": {"iqm": Estimate(0.71, 0.66, 0.75)}, "ppo": {"iqm": Estimate(0.3, 0.25, 0.36)}}
    made = replace(summary, scores={"m3po": summary.scores["m3po"], "ppo": behind}, aggregates=aggregates)
    assert headline(made) == (
        "m3po's IQM is 0.71 [0.66, 0.75] at 10,000 environment steps, ppo's 0.30 [0.25, 0.36] at 5,000, the highest of "
        "2 agents; scored at different steps, they are not compared."
    )
    assert made.separations == []


@pytest.mark.parametrize(("runs", "few"), [(2, True), (4, True), (5, False)])
def test_few_whole_runs_are_said_to_be_few(summary: Summary, runs: int, few: bool) -> None:
    """Of a joint study n runs have n − 1 degrees of freedom, however many tasks; four are enough."""
    study = replace(summary.results.study, mode="joint")
    final = np.linspace(0.4, 0.6, runs)[:, None] * np.ones(2)
    scores = {agent: replace(summary.scores[agent], final=final) for agent in ("m3po", "ppo")}
    aggregates = {
        agent: {"iqm": value}
        for agent, value in (("m3po", Estimate(0.71, 0.66, 0.75)), ("ppo", Estimate(0.3, 0.2, 0.4)))
    }
    made = replace(summary, results=replace(summary.results, study=study), scores=scores, aggregates=aggregates)
    assert headline(made).endswith(", but intervals of so few runs miss the truth more often than they say.") == few


def test_the_leader_is_who_leads(summary: Summary) -> None:
    sentence = told(summary, m3po=Estimate(0.2, 0.1, 0.3), ppo=Estimate(0.9, 0.8, 1.0))
    assert sentence.startswith("ppo's IQM 0.90 [0.80, 1.00] lies above m3po's")


def test_close_numbers_are_told_apart(summary: Summary) -> None:
    sentence = told(summary, m3po=Estimate(0.5, 0.4, 0.6), ppo=Estimate(0.499, 0.3, 0.7))
    assert sentence.startswith("m3po's IQM 0.5000 [0.4000, 0.6000] lies above ppo's 0.4990 [")


def test_a_tie_has_no_leader(summary: Summary) -> None:
    sentence = told(summary, m3po=Estimate(0.5, 0.4, 0.6), ppo=Estimate(0.5, 0.3, 0.7))
    assert sentence == "m3po and ppo share the highest IQM, 0.50 [0.40, 0.60] and 0.50 [0.30, 0.70]."


def test_one_agent_and_none(summary: Summary) -> None:
    assert "no other agent has results" in told(summary, m3po=Estimate(0.5, 0.4, 0.6))
    assert told(summary) == "No scores yet."


@pytest.mark.parametrize(
    ("speedup", "sentence"),
    [
        ((2.34, 1.9, 2.8), "a reaches b's final IQM 0.40 with 2.3× [1.9, 2.8] fewer environment steps."),
        ((2.34, 0.0, 2.8), "a reaches b's final IQM 0.40 with 2.3× [not reached, 2.8] fewer environment steps."),
        (
            (2.34, 1.9, float("inf")),
            "a reaches b's final IQM 0.40 with 2.3× [1.9, there at the first evaluation] fewer environment steps.",
        ),
        (
            (2.34, None, None),
            "a reaches b's final IQM 0.40 with 2.3× fewer environment steps; a single run allows no interval.",
        ),
        # by hand: 0.5 times as few is twice as many, from 1/0.8 to 1/0.4
        ((0.5, 0.4, 0.8), "a needs 2.0× [1.2, 2.5] as many environment steps to reach b's final IQM 0.40."),
        ((0.5, 0.0, 0.8), "a needs 2.0× [1.2, not reached] as many environment steps to reach b's final IQM 0.40."),
        (
            (0.75, 0.7, float("inf")),
            "a needs 1.3× [there at the first evaluation, 1.4] as many environment steps to reach b's final IQM 0.40.",
        ),
        (
            (0.5, None, None),
            "a needs 2.0× as many environment steps to reach b's final IQM 0.40; a single run allows no interval.",
        ),
        ((0.0, 0.0, 0.9), "a does not reach b's final IQM 0.40 within the steps of this study."),
        ((float("inf"), None, None), "a reaches b's final IQM 0.40 by its first evaluation."),
    ],
)
def test_ratios_as_sentences(speedup: tuple[float, float | None, float | None], sentence: str) -> None:
    ratio, low, high = speedup
    assert _sentence(Speedup("a", "b", 0.4, ratio, low, high, below=0.9)) == sentence


@pytest.mark.parametrize("name", ["m3po{h=5}", "m3po{}", "ppo{0.__class__}", "%s"])
def test_a_name_is_no_template(name: str) -> None:
    faster, slower = (Speedup(name, "{b}", 0.4, ratio, ratio, ratio, below=0.9) for ratio in (2.0, 0.5))
    assert _sentence(faster) == f"{name} reaches {{b}}'s final IQM 0.40 with 2.0× [2.0, 2.0] fewer environment steps."
    assert _sentence(slower).startswith(f"{name} needs 2.0× [2.0, 2.0] as many environment steps to reach {{b}}'s")


def test_what_happened_before_the_first_evaluation_is_only_bounded() -> None:
    """By hand: b needs 100,000 steps, a is there at its first evaluation, after 10,000."""
    inf = float("inf")
    there = Speedup("a", "b", 0.4, inf, inf, inf, below=1.0, above=10.0)
    assert _sentence(there) == (
        "a reaches b's final IQM 0.40 by its first evaluation, with at least 10.0× fewer environment steps."
    )
    # evaluated so late that nothing follows on who was sooner
    late = replace(there, above=0.8)
    assert _sentence(late) == "a reaches b's final IQM 0.40 by its first evaluation."


def test_a_lead_at_the_first_evaluation_is_as_uncertain_as_its_resamples() -> None:
    """Some resamples are never there: "at least 10.0×" would be a bound that the data do not give."""
    inf = float("inf")
    unsure = Speedup("a", "b", 0.4, inf, 0.0, inf, below=1.0, above=10.0)
    assert _sentence(unsure) == (
        "a reaches b's final IQM 0.40 by its first evaluation; times fewer environment steps: [not reached, there at "
        "the first evaluation]."
    )
    assert _sentence(replace(unsure, low=2.5)).endswith(": [2.5, there at the first evaluation].")

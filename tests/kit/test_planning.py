"""Fitting a plan to its best candidates."""

from __future__ import annotations

import math

import pytest
import torch

from m3po.kit.planning import fit_elites

# One step, four candidates, one environment, one action entry.
ACTIONS = torch.tensor([0.0, 1.0, -0.5, 0.5]).view(1, 4, 1, 1)
VALUE = torch.tensor([0.0, 4.0, 1.0, 2.0]).view(4, 1)


def test_elites_are_weighted_by_temperature_times_their_gap() -> None:
    elites = fit_elites(ACTIONS, VALUE, num_elites=2, temperature=0.5)
    assert elites.actions.flatten().tolist() == [1.0, 0.5]
    # Values 4 and 2: exp(0.5 · 0) and exp(0.5 · −2) = 1/e; dividing by 0.5 would give exp(−4).
    best = 1 / (1 + math.exp(-1))
    assert elites.score.flatten().tolist() == pytest.approx([best, 1 - best])
    mean = best * 1.0 + (1 - best) * 0.5
    assert elites.mean.item() == pytest.approx(mean)
    # Two points at a distance of 0.5: σ = 0.5 √(w (1 − w)).
    assert elites.std.item() == pytest.approx(0.5 * math.sqrt(best * (1 - best)))


def test_all_as_elites_at_no_temperature_are_their_plain_moments() -> None:
    elites = fit_elites(ACTIONS, VALUE, num_elites=4, temperature=0.0)
    assert elites.mean.item() == pytest.approx(0.25)
    # Squares of −0.25, 0.75, −0.75 and 0.25, a quarter of them: 0.3125.
    assert elites.std.item() == pytest.approx(math.sqrt(0.3125))


def test_each_environment_has_its_own_elites() -> None:
    actions, value = ACTIONS.expand(1, 4, 2, 1), torch.cat([VALUE, -VALUE], dim=1)
    elites = fit_elites(actions, value, num_elites=1, temperature=1.0)
    assert elites.mean.flatten().tolist() == [1.0, 0.0]


def test_large_values_do_not_overflow() -> None:
    elites = fit_elites(ACTIONS, 1e6 * VALUE, num_elites=2, temperature=0.5)
    assert elites.score.flatten().tolist() == [1.0, 0.0]


def test_values_of_other_candidates_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"actions \(1, 4, 1, 1\) are not \[H, S, N, A\] with values \[S, N\] \(3, 1\)"
    ):
        fit_elites(ACTIONS, VALUE[:3], num_elites=2, temperature=0.5)

"""The discrepancy bonus. (Known error of other code: 5, one mean over all tasks.)"""

from __future__ import annotations

import pytest
import torch

from m3po.algorithm.exploration import annealed, discrepancy_bonus, one_step_values, planning_optimism
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.kit.normalize import RunningMoments
from m3po.kit.planning import Candidates

from .conftest import make_batch, make_spec, tiny


def test_a_task_with_large_returns_does_not_take_the_bonus_of_all() -> None:
    # Task 1's discrepancies are a thousand times task 0's; per task both look the same, so the bonuses agree.
    delta = torch.tensor([1.0, 2.0, 3.0, 1000.0, 2000.0, 3000.0])
    task = torch.tensor([0, 0, 0, 1, 1, 1])
    own = discrepancy_bonus(delta, task, RunningMoments(1, 2, memory=0), clip=2.0)
    torch.testing.assert_close(own[:3], own[3:], atol=1e-3, rtol=0)
    # The third of (1, 2, 3): mean 2, variance 2/3 → (3 − 2)/√(2/3) = 1.2247; the first is below the mean → 0.
    assert own[2].item() == pytest.approx(1.2247, abs=1e-3)
    assert own[0].item() == 0.0
    wrong = discrepancy_bonus(delta, torch.zeros_like(task), RunningMoments(1, memory=0), clip=2.0)
    assert wrong[:3].max().item() == 0.0


def test_a_task_with_one_step_in_a_batch_is_held_against_its_steps_before() -> None:
    spec = make_spec()
    moments = WorldModel(spec, tiny()).discrepancy_moments
    for step in range(200):
        delta = torch.tensor([step % 2, 10.0 + 10 * (step % 2)])
        bonus = discrepancy_bonus(delta, torch.tensor([0, 1]), moments, clip=2.0)
    # of 0 and 1 in turn, or 10 and 20, the larger is one deviation above the mean; by itself it would be the mean
    torch.testing.assert_close(bonus, torch.ones(2), atol=0.02, rtol=0)
    # 127 steps before count beside a new one: (65 + 127 · 15)/128, whose mean is 15 and variance 25
    jump = discrepancy_bonus(torch.tensor([65.0]), torch.tensor([1]), moments, clip=99.0)
    mean = (65 + 127 * 15) / 128
    variance = (127 * 25 + 127 * (15 - mean) ** 2 + (65 - mean) ** 2) / 128
    assert jump.item() == pytest.approx((65 - mean) / variance**0.5, rel=0.01)


def test_beta_goes_to_zero_linearly() -> None:
    assert [annealed(2.0, s, 100) for s in (0, 25, 100, 1000)] == [2.0, 1.5, 0.0, 0.0]


def test_one_step_values_by_hand() -> None:
    # An untrained model believes reward 0 and value 0: Q_MB = 0. Q_MF = 1 + 0.9 · 5 = 5.5, or 1 behind a terminal.
    spec = make_spec(tasks=1)
    model = WorldModel(spec, tiny())
    batch = make_batch(spec, horizon=1, size=2)
    bound = TaskModel(model, batch["task"][0], torch.full((2,), 0.9), terminates=False)
    z = model.encode(batch["observation"], batch["task"])
    terminated = torch.tensor([[False, True]])
    values = one_step_values(bound, z, batch["action"], torch.ones(1, 2), torch.full((1, 2), 5.0), terminated)
    torch.testing.assert_close(values[0], torch.zeros(1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(values[1], torch.tensor([[5.5, 1.0]]), atol=1e-5, rtol=0)


def test_optimism_vanishes_where_model_and_critic_agree_and_is_bounded() -> None:
    spec = make_spec(tasks=1)
    model = WorldModel(spec, tiny())
    batch = make_batch(spec, horizon=1, size=2)
    bound = TaskModel(model, batch["task"][0], torch.full((2,), 0.9), terminates=False)
    z = model.encode(batch["observation"][0], batch["task"][0])
    u = torch.zeros(3, 4, 2, spec.action_dim)
    agreed = planning_optimism(bound, 1.0, 2.0, z, Candidates(u, torch.zeros(4, 2)))
    torch.testing.assert_close(agreed, torch.zeros(4, 2), atol=1e-5, rtol=0)
    returns = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [8.0, 8.0]])
    # Q = 0, so δ = (0, 0, 0, 8), mean 2, std of returns 4: β (δ − mean) = 0.5 · (−2, −2, −2, 6); c = 1 bounds 6 to 4.
    tipped = planning_optimism(bound, 0.5, 1.0, z, Candidates(u, returns))
    torch.testing.assert_close(tipped[:, 0], torch.tensor([-1.0, -1.0, -1.0, 2.0]), atol=1e-4, rtol=0)

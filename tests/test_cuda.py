"""On a GPU, where torch finds one: the contract, a CPU's numbers, and planning that never waits for the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import baselines.tdmpc2.agent
import m3po.algorithm.agent
from m3po.bench.experiment import resolve_device
from m3po.kit.normalize import sum_by_group
from m3po.testing import check_agent
from tests.builtin import AGENTS, SEEING, TINY, lived

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

LEARNING = sorted(set(AGENTS) - {"random"})
PLANNING = {"m3po": (m3po.algorithm.agent, "planned_policy"), "tdmpc2": (baselines.tdmpc2.agent, "plan")}


def test_auto_takes_the_gpu() -> None:
    assert resolve_device("auto") == "cuda"


@pytest.mark.parametrize("name", LEARNING)
def test_built_in_agent_passes_the_contract(name: str) -> None:
    agent_class = AGENTS[name].load()
    check_agent(agent_class, agent_class.Config(**TINY[name]), device="cuda", images=name in SEEING)


def test_sums_of_groups_repeat_to_the_last_bit() -> None:
    drawn = torch.Generator().manual_seed(0)
    x, group = torch.randn(200_000, generator=drawn), torch.randint(0, 3, (200_000,), generator=drawn)
    first, *others = (sum_by_group(x.cuda(), group.cuda(), 3) for _ in range(10))
    assert all(torch.equal(first, other) for other in others)
    np.testing.assert_allclose(first.cpu(), sum_by_group(x.double(), group, 3), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("saved_on", "loaded_on"), [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("name", LEARNING)
def test_an_agent_acts_the_same_on_the_other_device(name: str, saved_on: str, loaded_on: str, tmp_path: Path) -> None:
    """Evaluated, since each device draws its own random numbers, but planning's, which are drawn beforehand; float32
    sums in another order differ by about 1e-6."""
    *_, (agent, spec, _, carry, step) = lived(name, saved_on)
    agent.save(tmp_path, carry)
    other = type(agent)(spec, agent.config, seed=0, device=loaded_on)
    other_carry = other.load(tmp_path)
    here = agent.act(carry, step.observation, step.first, step.task, explore=False)
    there = other.act(other_carry, step.observation, step.first, step.task, explore=False)
    np.testing.assert_allclose(there.action, here.action, atol=1e-3)


@pytest.mark.parametrize("name", PLANNING)
def test_planning_never_waits_for_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function = PLANNING[name]
    plan, planned = getattr(module, function), 0

    def watched(*args: Any, **options: Any) -> Any:
        nonlocal planned
        planned += 1
        torch.cuda.set_sync_debug_mode("error")  # the host raises where it would wait
        try:
            return plan(*args, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    *_, (agent, _, _, carry, step) = lived(name, "cuda")
    monkeypatch.setattr(module, function, watched)
    for explore in (True, False):
        agent.act(carry, step.observation, step.first, step.task, explore=explore)
    assert planned == 2

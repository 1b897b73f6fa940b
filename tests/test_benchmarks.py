"""The scripts of benchmarks/ fit the code they measure: their parts run, as short as they can.

What they print is looked at by hand; mypy checks the rest of them.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script by its name; afterwards it and its like are forgotten, for they have everyday names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.mark.slow
def test_what_agents_cost(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    agents = script("agents")
    monkeypatch.setattr(agents, "NUM_ENVS", (2,))
    spec, shortest = agents.env_spec(agents.tasks()), 0.0
    for agent, presets in agents.PRESETS["cpu"].items():
        rows = agents.decisions(agent, presets[0], spec, "cpu", shortest)
        if agent == "m3po":
            rows += agents.updates(presets[0], spec, "cpu", shortest)
        elif agent != "ppo":
            rows += agents.gradient_step(agent, presets[0], spec, "cpu", shortest)
        assert all(row.value > 0 for row in rows), agent
    rate, memory = agents.end_to_end("ppo", "small", "cpu", 4_000)
    assert rate.value > 0
    assert memory.value > 0


@pytest.mark.slow
def test_what_the_harness_and_reports_cost(script: Callable[[str], ModuleType]) -> None:
    assert script("harness").start("ppo").value > 0
    report = script("report")
    assert all(row.value > 0 for row in (*report.report(quick=True), *report.intervals(quick=True)))


def test_how_often_intervals_cover(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    coverage = script("coverage")
    monkeypatch.setattr(coverage, "RESAMPLES", 100)
    least, most = coverage.ranges(10, 3, 30, whole=False)
    assert 60 < least <= most <= 100
    assert 0 <= coverage.told_apart(coverage.DRAWS["runs good or bad as wholes"], 10, 30) < 60


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
@pytest.mark.parametrize("implementation", ["ours", "sb3"])
def test_both_sides_of_parity(
    script: Callable[[str], ModuleType], tmp_path: Path, implementation: str, algorithm: str
) -> None:
    parity = script("parity_sb3")
    steps = {"ppo": 2_048, "sac": 300}[algorithm]
    run = parity.Run(implementation, algorithm, "toy-reach", 1, seed=0, env_steps=steps, every=steps)
    parity.one(run, tmp_path)
    (row,) = (json.loads(line) for line in (tmp_path / run.file_name).read_text().splitlines())
    assert row["env_step"] == steps
    assert row["return"] == row["return"]  # no NaN

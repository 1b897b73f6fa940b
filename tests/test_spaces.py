"""Search spaces: those that come with agents are right, and what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m3po.api import SearchSpace
from m3po.bench.problem import _contains
from m3po.registry import agent_config, agent_names
from m3po.spaces import FILE, agent_spaces, read_spaces
from suites.errors import SuiteError


@pytest.mark.parametrize("name", sorted(set(agent_names()) - {"random"}))
def test_every_agent_of_ours_says_what_to_search(name: str) -> None:
    spaces = agent_spaces(name, agent_config(name))
    assert spaces, f"{name} has no {FILE} beside its configuration"
    assert not hasattr(agent_config(name), "SEARCH"), f"spaces are in {FILE}, not in the configuration"


@pytest.mark.parametrize("name", sorted(set(agent_names()) - {"random"}))
def test_no_preset_lies_outside_what_tuning_searches(name: str) -> None:
    config_class = agent_config(name)
    outside = {
        (preset, field, value)
        for preset in config_class.PRESETS
        for field, space in agent_spaces(name, config_class).items()
        if not _contains(space, value := getattr(config_class(preset=preset), field))
    }
    # A logarithmic range cannot contain 0; its lower end does as little.
    assert outside - {(preset, "entropy_coef", 0.0) for preset in ("default", "small")} == set()


def test_spaces_are_read_from_yaml() -> None:
    spaces = agent_spaces("ppo", agent_config("ppo"))
    assert spaces["learning_rate"] == SearchSpace(low=1e-4, high=1e-3, log=True)
    assert spaces["minibatch_size"] == SearchSpace(choices=(64, 128, 256, 1000))
    assert agent_spaces("random", agent_config("random")) == {}


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"epochs": {"low": 1, "high": 5}}, "for whole numbers add 'integer: true'"),
        ({"epochs": {"low": 1.5, "high": 5, "integer": True}}, "ends at 1.5 and 5, which are not both whole"),
        ({"epochs": {"low": 0, "high": 5, "integer": True}}, "contains 0, which the field cannot be"),
        ({"gamma": {"low": 0.9, "high": 1.1}}, "contains 1.1, which the field cannot be"),
        ({"normalize_advantage": {"choices": ["task", "tsak"]}}, "contains 'tsak', which the field cannot be"),
        ({"hidden": {"choices": [[64, 64], []]}}, "contains [], which the field cannot be"),
        ({"gama": {"low": 0.9, "high": 1}}, "unknown ppo key 'gama'; nearest: 'gamma'"),
        ({"gamma": {"low": 0.9, "hihg": 1}}, "search space of 'gamma': "),
    ],
)
def test_a_space_that_does_not_fit_is_named(space: dict[str, Any], sentence: str) -> None:
    _, faults = read_spaces("ppo", agent_config("ppo"), space)
    assert any(sentence in found for _, found in faults), faults


def test_a_space_that_fits_passes() -> None:
    declared = {"epochs": {"low": 1, "high": 5, "integer": True}, "hidden": {"choices": [[64, 64], [32]]}}
    spaces, faults = read_spaces("ppo", agent_config("ppo"), declared)
    assert (faults, set(spaces)) == ([], {"epochs", "hidden"})


def test_a_wrong_file_beside_an_agent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = agent_config("ppo")
    monkeypatch.setattr("m3po.spaces.inspect.getfile", lambda config: str(tmp_path / "config.py"))
    (tmp_path / FILE).write_text("clip: {low: 0.1, high: 0.3}\nlam: {low: 2, high: 1}\n")
    with pytest.raises(SuiteError, match=r"search\.yaml:2:1: search space of 'lam': 'low' \(2\) must be below"):
        agent_spaces("ppo", config)

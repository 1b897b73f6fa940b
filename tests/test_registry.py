"""Agents are found by entry point, and a broken package takes nobody down."""

from __future__ import annotations

from pathlib import Path

import pytest

from m3po.registry import RegistryError, agent_class, agent_config, agent_names
from tests.bench.conftest import install_plugin


def test_a_plugin_is_found_like_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"m3po", "ppo", "dreamerv3", "random"} <= set(agent_names())
    assert "nudge" not in agent_names()
    install_plugin(tmp_path / "site", monkeypatch, {"nudge": "bench_test_agents:Nudge"}, {})
    assert "nudge" in agent_names()
    assert agent_class("nudge").__name__ == "Nudge"
    assert agent_config("nudge").__name__ == "NudgeConfig", "without an entry of its own: the agent's"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    for find in (agent_class, agent_config):
        with pytest.raises(RegistryError, match="unknown agent 'dreamer3'; nearest: 'dreamerv3'"):
            find("dreamer3")


def test_a_broken_plugin_is_named_with_its_reason_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "broken_agent.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "site" / "leaving_agent.py").write_text("raise SystemExit('needs jax')\n")
    (tmp_path / "site" / "no_agent.py").write_text("class Thing: ...\n")
    agents = {"broken": "broken_agent:Agent", "absent": "nowhere:Agent", "thing": "no_agent:Thing"}
    agents["leaving"] = "leaving_agent:Agent"
    install_plugin(tmp_path / "site", monkeypatch, agents, {"thing": "no_agent:Thing"}, name="bad-package")
    with pytest.raises(RegistryError, match=r"agent 'broken' of bad-package 1\.0 .* RuntimeError: no licence"):
        agent_class("broken")
    with pytest.raises(RegistryError, match=r"agent 'leaving' of bad-package 1\.0 .* SystemExit: needs jax"):
        agent_class("leaving")
    with pytest.raises(RegistryError, match="No module named 'nowhere'"):
        agent_config("absent")
    with pytest.raises(RegistryError, match="has no Config, act, observe"):
        agent_class("thing")
    with pytest.raises(RegistryError, match="is not an AgentConfig"):
        agent_config("thing")
    assert agent_config("random").__name__ == "RandomConfig"


def test_a_clash_is_an_error_that_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path / "site", monkeypatch, {"ppo": "bench_test_agents:Nudge"}, {}, name="rival")
    with pytest.raises(RegistryError, match=r"'ppo' is offered more than once .*m3po-bench.*rival 1\.0"):
        agent_class("ppo")

"""Provenance: enough to judge a result by, and nothing that is private."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from m3po.bench import provenance
from tests.bench.conftest import install_plugin


def test_provenance_names_versions_and_hardware() -> None:
    found = provenance.gather("cpu")
    assert {
        "time",
        "device",
        "gpu",
        "python",
        "platform",
        "cpu",
        "cores",
        "packages",
        "commit",
        "dirty",
        "source",
    } == found.keys()
    assert found["packages"]["numpy"]
    assert "torch" in found["packages"]


def test_a_gpu_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA H200\necho NVIDIA H200\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert provenance.gather("cuda")["gpu"] == "NVIDIA H200"
    assert provenance.gather("cpu")["gpu"] is None
    tool.unlink()
    assert provenance.gather("cuda")["gpu"] is None


def test_provenance_holds_no_path_host_or_user() -> None:
    found = json.dumps({key: value for key, value in provenance.gather("cpu").items() if key != "cpu"})
    assert str(Path.home()) not in found
    assert str(Path(__file__).parents[2]) not in found
    if len(socket.gethostname()) > 4:
        assert socket.gethostname() not in found
    assert f'"{getpass.getuser()}"' not in found


def test_the_commit_is_that_of_our_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "m3po"
    (package / "bench").mkdir(parents=True)
    (package / "api.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "bench" / "provenance.py"))
    assert provenance.gather("cpu")["commit"] is None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    assert provenance.gather("cpu")["commit"] is None, "inside somebody's repository, but not part of it"
    git("add", ".")
    git("commit", "-qm", "first")
    found = provenance.gather("cpu")
    assert (found["commit"], found["dirty"], found["source"]) == (git("rev-parse", "HEAD"), False, None)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x").write_text("")
    assert provenance.gather("cpu")["dirty"] is False, "results are not code"
    sources = []
    for text in ("changed", "changed again", "changed"):
        (package / "api.py").write_text(text)
        found = provenance.gather("cpu")
        assert found["dirty"] is True
        sources.append(found["source"])
    assert sources[0] == sources[2] != sources[1], "two states of a changed tree are told apart"


def test_work_of_an_agent_names_its_code_and_what_it_asks_for(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bench_test_agents", raising=False)  # of another test, from another folder
    metadata = next(plugin.glob("*.dist-info")) / "METADATA"
    asked = ("rich>=13", "missing", "dm-control", "tox; extra == 'dev'")
    metadata.write_text(metadata.read_text() + "".join(f"Requires-Dist: {each}\n" for each in asked))
    found = provenance.gather("cpu", "nudge")
    assert {"package": "test-agents", "version": "1.0"}.items() <= found["agent"].items()
    assert "rich" in found["packages"]
    assert not {"missing", "tox", "dm-control"} & found["packages"].keys()
    before = provenance.agent_code("nudge")
    source = plugin / "bench_test_agents.py"
    source.write_text(f"{source.read_text()}# changed\n")
    after = provenance.agent_code("nudge")
    assert {key for key in before if before[key] != after[key]} == {"source"}
    assert provenance.code_of(after) == f"test-agents 1.0, source {after['source']}"


def test_all_files_of_an_agents_package_are_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch, {"mine": "mine.deep.agent:Mine"}, {})
    for name in ("mine/__init__.py", "mine/deep/__init__.py", "mine/deep/agent.py", "mine/nets.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise AssertionError('imported')")
    digests = {provenance.agent_code("mine")["source"]}
    (tmp_path / "mine/nets.py").write_text("width = 64")
    digests.add(provenance.agent_code("mine")["source"])
    (tmp_path / "mine/nets.py").rename(tmp_path / "mine/networks.py")
    digests.add(provenance.agent_code("mine")["source"])
    assert None not in digests
    assert len(digests) == 3


def test_of_our_agents_the_commit_tells() -> None:
    found = provenance.agent_code("ppo")
    assert (found["package"], found["source"]) == ("m3po-bench", None)
    assert provenance.gather("cpu", "ppo")["packages"] == provenance.gather("cpu")["packages"]

"""A plugin package made on the spot, small suites, and the command line as a process."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3po.bench.store import CellFolder
from m3po.bench.study import StudyFolder, build_study
from suites.catalog import load_suite
from suites.spec import Stream

ROOT = Path(__file__).parents[2]
SUITE = """\
name: tiny
tasks: {family: toy, names: [toy-reach]}
mode: per_task
budget: {env_steps: 400, num_envs: 4}
evaluation: {every: 100, episodes: 3}
agents: {nudge: {}}
seeds: 1
"""

MakeCell = Callable[..., CellFolder]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers the test agents, here and in every process started from here."""
    folder = tmp_path / "site"
    return install_plugin(
        folder, monkeypatch, {"nudge": "bench_test_agents:Nudge"}, {"nudge": "bench_test_agents:NudgeConfig"}
    )


def install_plugin(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    agents: dict[str, str],
    configs: dict[str, str],
    name: str = "test-agents",
) -> Path:
    """Make a distribution whose entry points are ``agents`` and ``configs``, and put it on the path."""
    information = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = {"m3po.agents": agents, "m3po.configs": configs}
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in groups.items()
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))
    shutil.copy(Path(__file__).with_name("bench_test_agents.py"), folder)
    (folder / "search.yaml").write_text("rate: {low: 0.01, high: 1.0, log: true}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return folder


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """Writes a suite file: the small one above with keys of the top level replaced."""

    def write(text: str = SUITE, name: str = "tiny.yaml", **lines: str) -> Path:
        for key, value in lines.items():
            text = "".join(
                f"{key}: {value}\n" if line.startswith(f"{key}:") else line for line in text.splitlines(True)
            )
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def make_cell(plugin: Path, write_suite: Callable[..., Path], tmp_path: Path) -> MakeCell:
    """The folder of the first cell of the small suite, with keys replaced."""

    def make(results: str = "results", stream: Stream = "train", **lines: str) -> CellFolder:
        study = build_study(load_suite(str(write_suite(**lines))))
        cell = study.cells[0].model_copy(update={"stream": stream})
        return StudyFolder(tmp_path / results / study.suite.name).create(replace(study, cells=(cell,)), {})[0]

    return make


class Cli:
    """``m3po-bench`` as a process of its own, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from m3po.bench.cli import main; main()", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def cli(tmp_path: Path, plugin: Path) -> Iterator[Cli]:
    """Runs commands in ``tmp_path``; what is left of them ends with the test."""
    runner = Cli(tmp_path)
    yield runner
    for process in runner.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], what: str = "it") -> Any:
    """The first true value of ``condition()``; what takes moments has a minute, for machines that are busy."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within a minute")


def evaluation_rows(cell: Path) -> list[dict[str, Any]]:
    """The rows of a cell's evaluations without what the clock says."""
    path = cell / "evaluations.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in lines
        if line.endswith("\n")
    ]


def metric_rows(cell: Path) -> list[dict[str, Any]]:
    """The rows of a cell's training metrics without what the clock says."""
    rows = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if key != "seconds" and not key.startswith("time/")} for row in rows
    ]


def with_size_limit(limit: int, action: Callable[[], None]) -> None:
    """Run ``action`` where no file may grow beyond ``limit`` bytes: a full disk, as the writer sees it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        action()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

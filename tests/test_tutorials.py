"""The tutorials do what they say: their files are written, installed, and their commands run as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from m3po.testing import check_agent

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
PAGE = (TUTORIALS / "own-environments.md").read_text(encoding="utf-8")
AGENTS = (TUTORIALS / "own-agents.md").read_text(encoding="utf-8")

PROGRAMS = {"m3po-bench": ("-c", "from m3po.bench.cli import main; main()"), "pytest": ("-m", "pytest")}
"""What a page's commands may be, as arguments of this Python."""

Shell = Callable[[str], subprocess.CompletedProcess[str]]


def files(page: str) -> dict[str, str]:
    """Name and text of every file a page shows: a block below a line that is nothing but the file's name."""
    blocks = re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return dict(blocks)


def commands(page: str) -> list[str]:
    """Every command of a page's shell blocks but pip's; how a package is installed is left to pip's own tests."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if not line.startswith("pip ")]


def install(folder: Path, project: str) -> None:
    """Make the package of ``folder`` an installed one, with the entry points its pyproject.toml declares."""
    declared = tomllib.loads(project)["project"]
    information = folder / f"{declared['name']}-{declared['version']}.dist-info"
    information.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n"
    (information / "METADATA").write_text(metadata)
    groups = declared["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items()) for group, points in groups
    ]
    (information / "entry_points.txt").write_text("\n".join(lines))


def prepare(folder: Path, page: str) -> Shell:
    """Write the page's files into ``folder`` and install them; returns what runs a command there."""
    written = files(page)
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    install(folder, written["pyproject.toml"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}

    def shell(command: str) -> subprocess.CompletedProcess[str]:
        name, *arguments = shlex.split(command)
        assert name in PROGRAMS, f"the page asks for {name}, which this test does not run"
        program = [sys.executable, *PROGRAMS[name], *arguments]
        return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return shell


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    assert set(files(PAGE)) == {"pendulum.yaml", "pyproject.toml", "springs.py", "springs.yaml"}
    shell = prepare(tmp_path, PAGE)
    run = commands(PAGE)
    assert len(run) == 5
    for command in run:
        done = shell(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if " run " in command:
            report = tmp_path / done.stdout.splitlines()[-1].removeprefix("report: ")
            assert report.is_file()
            assert "random" in report.read_text(encoding="utf-8")
    listed = shell("m3po-bench list").stdout
    assert "2 tasks; sets: all; protocol: dmc-1000" in listed


@pytest.mark.parametrize(
    ("page", "broken", "sentence"),
    [
        ("default_rng(seed.value)", "default_rng(0)", "are all the same"),
        ("default_rng(seed.value)", "default_rng()", "the same seed gave another episode"),
        ("observation=(2,)", "observation=(3,)", "its family declares float32 (3,)"),
        ("self._decisions >= ", "self._decisions > ", "did not end after the 1000 decisions"),
        ("clip(-observation[1:]", "clip(observation[1:]", "the expert solved 0 of 10"),
        ("springs:Springs", "springs:Spring", "cannot be loaded"),
        ("class Springs:", "class Springs", "SyntaxError"),
        ("set: all", "set: al", "nearest: 'all'"),
    ],
)
def test_a_mistake_in_the_page_would_be_noticed(tmp_path: Path, page: str, broken: str, sentence: str) -> None:
    assert page in PAGE
    done = prepare(tmp_path, PAGE.replace(page, broken))("m3po-bench doctor springs.yaml --quick")
    assert done.returncode in (1, 2)
    assert sentence in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)  # eight cells, each a process of its own; minutes on a busy machine
def test_the_page_on_agents_does_what_it_says(tmp_path: Path) -> None:
    assert set(files(AGENTS)) == {"pyproject.toml", "climber.py", "test_climber.py", "climb.yaml"}
    shell = prepare(tmp_path, AGENTS)
    said = {}
    for command in commands(AGENTS):
        done = shell(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
    assert len(said) == 6
    assert "1 passed" in said["pytest test_climber.py"]
    assert "added to the best weights" in said["m3po-bench show agent climber"]
    assert "climb-tuned-climber.yaml" in said["m3po-bench tune climb.yaml --agent climber"]
    report = json.loads((tmp_path / "results" / "climb" / "report" / "report.json").read_text())
    score = {row["agent"]: row["estimate"] for row in report["aggregates"] if row["metric"] == "iqm"}
    assert score["climber"] > score["random"] + 0.2, "the page says that its agent learns"


@pytest.mark.parametrize(
    ("page", "broken", "sentence"),
    [
        ("np.where(self.spec.observation_mask[task], observation, 0)", "observation", "padded observation entries"),
        ("        if explore:\n", "        if True:\n", "must be deterministic"),
        ("action.astype(np.float32)", "action", "must return an action array float32"),
        ("* self.spec.action_mask[task]", "", "must return 0 in action entries"),
        ("default_rng(seed)", "default_rng(0)", "agents with seeds 0 and 1 chose the same actions"),
        ("self.total = arrays", "_ = arrays", "save everything that training depends on"),
        ("def load", "def restore", "Climber lacks load"),
    ],
)
def test_a_mistake_in_the_agent_would_be_noticed(tmp_path: Path, page: str, broken: str, sentence: str) -> None:
    source = files(AGENTS)["climber.py"]
    assert page in source
    path = tmp_path / "climber.py"
    path.write_text(source.replace(page, broken), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("climber", path)
    assert spec is not None
    assert spec.loader is not None
    climber = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(climber)
    with pytest.raises(AssertionError, match=re.escape(sentence)):
        check_agent(climber.Climber)

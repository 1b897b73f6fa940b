"""The tutorials do what they say: their files are written, installed, and their commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorials" / "own-environments.md").read_text(encoding="utf-8")

Shell = Callable[[str], subprocess.CompletedProcess[str]]


def files(page: str) -> dict[str, str]:
    """Name and text of every file a page shows: a block below a line that is nothing but the file's name."""
    blocks = re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return dict(blocks)


def commands(page: str) -> list[str]:
    """Every ``m3po-bench`` command of a page's shell blocks; how a package is installed is left to pip's own tests."""
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
        assert name == "m3po-bench", f"the page asks for {name}, which this test does not run"
        program = [sys.executable, "-c", "from m3po.bench.cli import main; main()", *arguments]
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

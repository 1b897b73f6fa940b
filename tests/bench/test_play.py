"""Films of what was learned: the evaluation's own episodes, beside the cells."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.frame import load
from analysis.report.study import write
from analysis.videos import videos
from m3po.api import Agent
from m3po.bench.checkpoints import Checkpoints
from m3po.bench.play import HEIGHT, WIDTH, play, playable
from m3po.bench.policy import load_policy
from m3po.bench.run import run_cell
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.study import StudyFolder, build_study
from m3po.registry import agent_class
from suites import dm_control_pixels
from suites.catalog import load_suite
from suites.errors import EnvError, SuiteError
from suites.families import Pictured, family
from suites.seeding import EpisodeSeed
from suites.spec import Stream
from tests.bench.conftest import evaluation_rows

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")

Trained = Callable[..., StudyFolder]


@pytest.fixture(autouse=True)
def renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", os.environ.get("MUJOCO_GL", "disabled"))
    try:
        dm_control_pixels.open_renderer()
    except EnvError as error:
        pytest.skip(str(error))


@pytest.fixture
def trained(plugin: Path, write_suite: Callable[..., Path], tmp_path: Path) -> Trained:
    """The folder of a small study, run."""

    def make(
        tasks: str = "{family: dm_control, names: [cartpole-swingup]}", stream: Stream = "train", **lines: str
    ) -> StudyFolder:
        rules = "{name: short, action_repeat: 2, decisions: 12, score: return, low: 0, high: 24}"
        suite = write_suite(tasks=f"{tasks}\nprotocol: {rules}", budget="{env_steps: 100, num_envs: 2}", **lines)
        study = build_study(load_suite(str(suite)))
        folder = StudyFolder(tmp_path / "results" / study.suite.name)
        cells = tuple(cell.model_copy(update={"stream": stream}) for cell in study.cells)
        for cell in folder.create(replace(study, cells=cells), {}):
            assert run_cell(cell.path) is not None
        return folder

    return make


def only(folder: StudyFolder) -> CellFolder:
    (entry,) = folder.entries()
    return CellFolder(folder.path / entry.id)


@pytest.mark.parametrize("stream", ["train", "tune"])
def test_what_is_filmed_is_the_episode_that_was_evaluated(trained: Trained, stream: Stream) -> None:
    cell = only(trained(stream=stream))
    played = play(cell, "cartpole-swingup", episode=2)
    (row,) = (row for row in evaluation_rows(cell.path) if row["episode"] == 2 and row["env_step"] == played.env_step)
    assert played.episode_return == pytest.approx(row["return"], rel=1e-6)
    assert (played.length, played.success_any) == (12, None)
    film = cell.path / "videos" / "cartpole-swingup-2.mp4"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(film), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(ffmpeg, capture_output=True, check=True)
    assert b"h264" in done.stderr
    shown = np.frombuffer(done.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    assert len(shown) == 13  # by hand: before each of 12 decisions, and after the last
    assert (shown[0] != shown[-1]).mean() > 0.01  # something moves
    assert [path.name for path in (cell.path / "videos").iterdir() if path.name.startswith(".")] == []


def test_metaworld_can_be_looked_at_and_is_not_upside_down() -> None:
    (task,) = (task for task in load_suite("quick").tasks if task.name == "drawer-open-v3")
    env = family("metaworld").make(task)
    assert isinstance(env, Pictured)
    env.reset(EpisodeSeed("evaluate", 0, task.name, 0))
    heights = []
    for lift in (-1, 1):
        for _ in range(40):
            env.step(np.array([0, 0, lift, 0], dtype=np.float32))
        picture = env.picture(120, 160).astype(int)
        red = (picture[..., 0] > 90) & (picture[..., 1] < 60) & (picture[..., 2] < 60)
        heights.append(np.argwhere(red)[:, 0].mean())
    env.close()
    # the arm, the only red thing, moved down and then up: rows count from the top
    assert heights[1] < heights[0] - 2


def test_the_next_report_shows_the_film(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.figures.study.FIGURES", {})
    folder = trained()
    play(only(folder), "cartpole-swingup")
    page = write(folder.path).read_text()
    assert "nudge on cartpole-swingup, seed 0, evaluation episode 0 after 100 environment steps: return" in page
    assert page.count("data:video/mp4;base64,") == 1


def test_a_film_too_many_is_named_instead(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained()
    cell = only(folder)
    play(cell, "cartpole-swingup")
    monkeypatch.setattr("analysis.videos.LARGEST", 10)
    (video,) = videos(load(folder.path))
    assert (video.source, video.path) == ("", f"{cell.id}/videos/cartpole-swingup-0.mp4")
    (cell.path / "videos" / "cartpole-swingup-0.json").write_text("{")
    assert videos(load(folder.path)) == []  # nobody knows what it shows


def test_what_can_be_played_is_what_was_asked_for(trained: Trained) -> None:
    folder = trained(
        tasks="{family: toy, names: [toy-reach, toy-terminate]}", seeds="2", agents="{nudge: {}, random: {}}"
    )
    chosen = playable(folder, ["nudge"], [], [])
    assert [(entry.agent, task, entry.seed) for entry, task in chosen] == [
        ("nudge", "toy-reach", 0), ("nudge", "toy-terminate", 0),
    ]  # fmt: skip
    assert len(playable(folder, [], ["toy-reach"], [0, 1])) == 4
    with pytest.raises(SuiteError, match="unknown agent 'nugde'; nearest: 'nudge'"):
        playable(folder, ["nugde"], [], [])
    with pytest.raises(SuiteError, match="unknown task 'toy-raech'; nearest: 'toy-reach'"):
        playable(folder, [], ["toy-raech"], [])
    with pytest.raises(StoreError, match="no cell that was asked for has a checkpoint; run the study"):
        playable(folder, [], [], [7])


def test_a_checkpoint_that_training_replaces_meanwhile_is_no_obstacle(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = only(trained(tasks="{family: toy, names: [toy-reach]}"))
    checkpoints = Checkpoints(cell.path / "checkpoints")

    def train() -> None:
        newest = checkpoints.newest()
        assert newest is not None
        checkpoints.write(newest.env_step + 100, lambda path: shutil.copytree(newest.path / "agent", path / "agent"))

    nudge = agent_class("nudge")
    load, reads = nudge.load, itertools.count()

    def replaced_while_it_is_read(self: Agent, directory: Path) -> Any:
        if next(reads) == 0:
            train()
        return load(self, directory)

    def imported(name: str) -> type[Agent]:
        train()  # importing torch takes seconds
        return nudge

    monkeypatch.setattr(nudge, "load", replaced_while_it_is_read)
    monkeypatch.setattr("m3po.bench.policy.agent_class", imported)
    assert load_policy(cell.path).env_step == 300  # the run's own is of step 100


def test_without_an_encoder_nothing_is_loaded(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = only(trained(tasks="{family: toy, names: [toy-reach]}"))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.delattr("m3po.bench.play.load_policy")
    with pytest.raises(EnvError, match=r"videos need the package imageio-ffmpeg: pip install 'm3po-bench\[video\]'"):
        play(cell, "toy-reach")


def test_tasks_without_pictures_say_so(trained: Trained) -> None:
    cell = only(trained(tasks="{family: toy, names: [toy-reach]}"))
    with pytest.raises(EnvError, match="tasks of the family 'toy' show no pictures, so 'toy-reach' cannot be filmed"):
        play(cell, "toy-reach")
    assert json.loads((cell.path / "status.json").read_text())["state"] == "done"


DRAWER = """
import numpy as np
from suites.catalog import load_suite
from suites.families import family
from suites.seeding import EpisodeSeed
from suites.spec import Stream
(task,) = (task for task in load_suite("quick").tasks if task.name == "drawer-open-v3")
env = family("metaworld").make(task)
env.reset(EpisodeSeed("evaluate", 0, task.name, 0))
print(env.picture(24, 32).shape)
env.close()
"""


def test_a_simulator_that_was_imported_without_a_renderer_can_be_looked_at() -> None:
    """As in the command line, where nothing is rendered until the first picture."""
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", DRAWER], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "(24, 32, 3)\n", done.stderr

"""Look at what was learned: an evaluation episode of a cell's newest checkpoint, as a video beside the cell.

The episode starts from the seed that the evaluation's episode of that number has. An agent that draws random numbers
while it acts (a planner) may act otherwise than it did there, where it played many episodes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3po.bench.checkpoints import Checkpoints
from m3po.bench.policy import Policy, load_policy
from m3po.bench.records import CellEntry
from m3po.bench.store import CellFolder, StoreError, explained, write_json
from m3po.bench.study import StudyFolder, check_names
from suites.errors import EnvError
from suites.families import Pictured, TaskEnv, make_pictured
from suites.seeding import EpisodeSeed

__all__ = ["Played", "films", "play", "playable"]

FRAMES_PER_SECOND = 25
VIDEOS = "videos"
"""Folder of a cell."""
HEIGHT, WIDTH = 240, 320


@dataclass(frozen=True)
class Played:
    """One episode that was played; what stands beside its video as JSON."""

    agent: str
    seed: int
    task: str
    episode: int
    env_step: int
    """Of the checkpoint: environment steps of training."""
    episode_return: float
    success_any: bool | None
    length: int
    """Decisions."""
    video: str
    """Name of the file."""

    def __str__(self) -> str:
        success = "" if self.success_any is None else ", success" if self.success_any else ", no success"
        return (
            f"{self.agent} on {self.task}, seed {self.seed}: return {self.episode_return:.1f}{success}, trained for "
            f"{self.env_step:,} steps"
        )


def films(
    folder: StudyFolder,
    agents: Sequence[str],
    tasks: Sequence[str],
    seeds: Sequence[int],
    *,
    episode: int = 0,
    device: str = "cpu",
) -> Iterator[tuple[Path, Played]]:
    """Film every cell and task that :func:`playable` chooses, one after the other; the video and what it shows."""
    for entry, task in playable(folder, agents, tasks, seeds):
        cell = CellFolder(folder.path / entry.id)
        played = play(cell, task, episode=episode, device=device)
        yield cell.path / VIDEOS / played.video, played


def playable(
    folder: StudyFolder, agents: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]
) -> list[tuple[CellEntry, str]]:
    """Cells with a checkpoint, and a task of each to play: of the agents, tasks and seeds named, of all where none is.

    Without seeds the lowest of each agent and task. Raises :class:`SuiteError` for names the study does not have, and
    :class:`StoreError` where no such cell has a checkpoint.
    """
    record, entries = folder.record(), folder.entries()
    known_tasks = [task["name"] for part in ("tasks", "held_out") for task in record.get(part, ())]
    check_names("agent", agents, list(record["agents"]))
    check_names("task", tasks, known_tasks)
    found: dict[tuple[str, str, int], tuple[CellEntry, str]] = {}
    for entry in sorted(entries, key=lambda entry: entry.seed):
        if (agents and entry.agent not in agents) or (seeds and entry.seed not in seeds):
            continue
        if Checkpoints(folder.path / entry.id / "checkpoints").newest() is None:
            continue
        held_out = [task for task in known_tasks if task in tasks and record["mode"] == "joint"]
        for task in dict.fromkeys((*entry.tasks, *held_out)):
            if not tasks or task in tasks:
                found.setdefault((entry.agent, task, entry.seed if seeds else 0), (entry, task))
    if not found:
        raise StoreError(
            f"{folder.path}: no cell that was asked for has a checkpoint; run the study first (of a packed one, whose "
            "cells are done, use the folder it was packed from)"
        )
    return list(found.values())


def play(folder: CellFolder, task_name: str, *, episode: int = 0, device: str = "cpu") -> Played:
    """Play one episode and write ``videos/<task>-<episode>.mp4`` and ``.json`` into the cell's folder.

    Raises :class:`EnvError` where the task shows no pictures or nothing can be rendered, :class:`StoreError` where
    there is no checkpoint or the video cannot be written.
    """
    cell = folder.cell()
    task = next(task for task in cell.evaluated if task.name == task_name)
    _encoder()
    env = make_pictured(task)
    if not isinstance(env, Pictured):
        raise EnvError(f"tasks of the family {task.family!r} show no pictures, so {task_name!r} cannot be filmed")
    try:
        policy = load_policy(folder.path, task_name, device=device)
        video = folder.path / VIDEOS / f"{task_name}-{episode}.mp4"
        with explained("create", video.parent):
            video.parent.mkdir(exist_ok=True)
        shown = _Shown(env, policy, policy.episode(episode))
        _write_video(video, shown.frames())
    finally:
        env.close()
    played = Played(
        agent=cell.agent,
        seed=cell.seed,
        task=task_name,
        episode=episode,
        env_step=policy.env_step,
        episode_return=shown.episode_return,
        success_any=shown.success_any,
        length=shown.length,
        video=video.name,
    )
    write_json(video.with_suffix(".json"), asdict(played))
    return played


@dataclass
class _Shown:
    """An episode as it is played, frame by frame."""

    env: TaskEnv
    policy: Policy
    seed: EpisodeSeed
    episode_return: float = 0.0
    success_any: bool | None = None
    length: int = 0

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """A picture before each decision and after the last."""
        assert isinstance(self.env, Pictured)
        observation, over = self.env.reset(self.seed), False
        while not over:
            yield self.env.picture(HEIGHT, WIDTH)
            observation, reward, terminated, truncated, success = self.env.step(self.policy(observation))
            self.episode_return += reward
            self.length += 1
            if success is not None:
                self.success_any = bool(self.success_any) or success
            over = terminated or truncated
        yield self.env.picture(HEIGHT, WIDTH)


def _encoder() -> Any:
    """The package that writes videos."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise EnvError("videos need the package imageio-ffmpeg: pip install 'm3po-bench[video]'") from None
    return imageio_ffmpeg


def _write_video(path: Path, frames: Iterator[NDArray[np.uint8]]) -> None:
    """H.264 in an MP4 file, which browsers play; it replaces an older one as a whole."""
    temporary = path.with_name(f".{path.name}.tmp.mp4")
    writer = _encoder().write_frames(
        str(temporary), (WIDTH, HEIGHT), fps=FRAMES_PER_SECOND, codec="libx264", macro_block_size=8,
        output_params=["-crf", "30", "-preset", "veryfast", "-fflags", "+bitexact", "-threads", "1"],
    )  # fmt: skip
    try:
        with explained("write", path):
            writer.send(None)
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
            writer.close()
            temporary.replace(path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)

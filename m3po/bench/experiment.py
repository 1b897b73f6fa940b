"""Run a whole study: from a checked suite to finished cells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from m3po.bench.display import make_display
from m3po.bench.interrupt import Interrupt
from m3po.bench.launch.brief import BriefLauncher
from m3po.bench.launch.local import LocalLauncher
from m3po.bench.provenance import agent_code, code_of, gather
from m3po.bench.records import FINAL, Cell, CellStatus
from m3po.bench.scheduler import run_cells
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.study import Study, StudyFolder

__all__ = ["DeviceError", "Outcome", "cores", "measure_study", "resolve_device", "run_folders", "run_study"]

FEWEST_ENVS_FOR_WORKERS = 8
"""With fewer environments, handing actions to other processes costs more than it saves."""

GPU_SIGNS = ("nvidia-smi", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Torch is asked where there is one of these: NVIDIA's tool, which containers may lack, its driver, AMD's, Windows'."""


class DeviceError(Exception):
    """A device that was asked for and is not there."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended; ``statuses`` are those of the cells it was to run."""

    folder: StudyFolder
    statuses: dict[str, CellStatus]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0 all done; 1 some cells failed or diverged; 3 interrupted."""
        states = {status.state for status in self.statuses.values()}
        if states <= {"done"}:
            return 0
        return 3 if self.interrupted else 1


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(wanted: str, warn: Callable[[str], None] = lambda sentence: None) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes the GPU where there is one, and tells ``warn`` of one that it cannot take.

    Raises :class:`DeviceError`, never falls back from what was asked for.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"unknown device {wanted!r}; expected auto, cpu or cuda")
    sign = next((sign for sign in GPU_SIGNS if shutil.which(sign) or os.path.exists(sign)), None)
    if wanted == "cpu" or (wanted == "auto" and sign is None):
        return "cpu"
    # torch answers in a process of its own: this room never imports it
    question = "import torch; raise SystemExit(0 if torch.cuda.is_available() else 1)"
    found = subprocess.run([sys.executable, "-P", "-c", question], capture_output=True, check=False).returncode == 0
    if not found and wanted == "cuda":
        raise DeviceError("device 'cuda' was asked for, but torch finds no GPU it can use; use --device cpu or auto")
    if not found and os.environ.get("CUDA_VISIBLE_DEVICES") != "":  # empty: somebody hides them
        warn(
            f"warning: there is {sign}, but torch finds no GPU it can use (a CPU build, or a driver that fails?); "
            "the cells run on the CPU. --device cuda makes that an error, --device cpu says that it is meant"
        )
    return "cuda" if found else "cpu"


def run_study(
    study: Study, cells: Sequence[Cell], results: Path, *, jobs: int | None, device: str, console: Console
) -> Outcome:
    """Run what is missing of these ``cells`` of ``study`` in ``results/<suite>``, showing it on ``console``.

    Raises :class:`m3po.bench.store.StoreError` where the results cannot be written.
    """
    folder = StudyFolder(results / study.suite.name)
    wanted = {cell.id for cell in cells}
    folders = [each for each in folder.create(study, gather(device)) if each.id in wanted]
    for warning in made_otherwise(cells, folders):
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    interrupt = Interrupt(console.print)
    statuses = run_folders(cells, folders, jobs=jobs, device=device, console=console, interrupt=interrupt)
    return Outcome(folder, statuses, interrupt.count > 0)


def measure_study(
    study: Study, cells: Sequence[Cell], results: Path, *, jobs: int | None, device: str, console: Console
) -> bool:
    """Let one cell of every agent that has work left and no known pace run until it tells; ``False``: interrupted.

    They are cells of the study like any other, and go on from there when it is run. Those that another run works on
    are left to it: they tell their pace by themselves. Raises
    :class:`m3po.bench.store.StoreError` where the results cannot be written.
    """
    created = {folder.id: folder for folder in StudyFolder(results / study.suite.name).create(study, gather(device))}
    statuses = {cell.id: created[cell.id].live_status(cell.budget.env_steps) for cell in cells}
    known = {cell.agent for cell in cells if statuses[cell.id].steps_per_second}
    chosen: dict[str, Cell] = {}
    for cell in cells:
        idle = statuses[cell.id].state not in FINAL and not created[cell.id].is_held()
        if cell.agent not in known and idle:
            chosen.setdefault(cell.agent, cell)
    interrupt = Interrupt(console.print)
    if chosen:
        units = [*chosen.values()]
        folders = [created[cell.id] for cell in units]
        run_folders(units, folders, jobs=jobs, device=device, console=console, interrupt=interrupt, brief=True)
    return not interrupt.count


def made_otherwise(cells: Sequence[Cell], folders: Sequence[CellFolder]) -> list[str]:
    """A sentence for every agent some of whose work here was done by other code of it than is installed now.

    A cell knows its agent by its configuration, so nothing of that is run again by itself.
    """
    now = {cell.agent: agent_code(cell.agent_type) for cell in cells}
    made: dict[tuple[str, str], list[str]] = {}
    for cell, folder in zip(cells, folders, strict=True):
        with suppress(StoreError):  # a damaged file, which the report names
            codes = [row["agent"] for row in folder.starts.rows() if "agent" in row]
            if codes and codes[-1] != now[cell.agent]:
                made.setdefault((cell.agent, code_of(codes[-1])), []).append(folder.id)
    return [
        f"{len(ids)} {'cell' if len(ids) == 1 else 'cells'} of {agent} made by {code}, but installed is "
        f"{code_of(now[agent])}. That alone makes nothing run again; to have it anew, remove "
        + ", ".join([*ids[:3], *(["…"] if len(ids) > 3 else [])])
        for (agent, code), ids in made.items()
    ]


def run_folders(
    cells: Sequence[Cell],
    folders: Sequence[CellFolder],
    *,
    jobs: int | None,
    device: str,
    console: Console,
    interrupt: Interrupt,
    brief: bool = False,
) -> dict[str, CellStatus]:
    """Run cells on this machine, ``jobs`` at a time (default: one per core); returns their last statuses.

    ``brief``: only until each has told its pace.
    """
    unfinished = [cell for cell, folder in zip(cells, folders, strict=True) if folder.status().state not in FINAL]
    slots = max(1, min(jobs or cores(), len(unfinished)))
    launcher = LocalLauncher(slots, device, _env_processes(unfinished, slots))
    with make_display([cell.entry for cell in cells], slots, console) as display:
        used = BriefLauncher(launcher) if brief else launcher
        return run_cells(folders, used, display, interrupt, wait=not brief)


def _env_processes(cells: Sequence[Cell], slots: int) -> int:
    """Processes each cell may step its environments in: the cores its neighbours leave, one where they leave none."""
    most_envs = max((cell.budget.num_envs for cell in cells), default=0)
    return max(1, cores() // slots) if most_envs >= FEWEST_ENVS_FOR_WORKERS else 1

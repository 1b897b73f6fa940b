"""Processes and their memory, read from ``/proc``."""

from __future__ import annotations

from pathlib import Path


def group(leader: int) -> list[Path]:
    """``/proc`` folders of the processes in a process group, which the launcher makes one per cell."""
    return [entry for entry in Path("/proc").glob("[0-9]*") if _fields(entry)[1:2] == [leader]]


def family_of(ancestor: int) -> list[Path]:
    """``/proc`` folders of a process and all that descend from it."""
    parents = {int(entry.name): _fields(entry)[0] for entry in Path("/proc").glob("[0-9]*") if _fields(entry)}
    members = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return [Path("/proc") / str(pid) for pid in members]


def _fields(entry: Path) -> list[int]:
    """Parent and process group; empty where the process ended meanwhile."""
    try:
        # the fields behind the name in brackets: state, parent, process group
        return [int(field) for field in (entry / "stat").read_text().rpartition(")")[2].split()[1:3]]
    except OSError:
        return []


def resident(process: Path) -> float:
    """Proportional set size of a process in MB: shared pages are divided among those who share them."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

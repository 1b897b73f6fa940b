"""Where results come from: code, versions, hardware. Never a path, a user or a host."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from suites.families import installed_version

__all__ = ["gather"]

PACKAGES = ("m3po-bench", "torch", "numpy", "gymnasium", "metaworld", "mujoco", "dm_control", "envpool", "pydantic")
"""Packages whose version may move a result."""

ROOMS = ("m3po", "baselines", "suites", "analysis")


def gather(device: str) -> dict[str, Any]:
    """What a result must be read with: JSON values only."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": device,
        "gpu": _gpu(device),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := installed_version(name)) is not None},
        **_commit(),
    }


def _cpu() -> str:
    """The processor's own name, which only Linux tells in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu(device: str) -> str | None:
    """The GPUs' own names, where one is used and they can be had; torch is not imported in this room."""
    if device == "cpu":
        return None
    found = _told(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return ", ".join(dict.fromkeys(found.splitlines())) if found else None


def _commit() -> dict[str, Any]:
    """Commit of the code, and whether it was changed since; both ``None`` where it is not run from a checkout."""
    root = Path(__file__).resolve().parents[2]
    # an installed copy may lie inside somebody else's repository: only a tracked one is described by its commit
    if _git(root, "ls-files", "--error-unmatch", "m3po/api.py") is None:
        return {"commit": None, "dirty": None}
    changes = _git(root, "status", "--porcelain", "--", *ROOMS)
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    # without locks: all cells of a study may start at once
    return _told(["git", "--no-optional-locks", "-C", str(root), *arguments])


def _told(command: list[str]) -> str | None:
    """What a program prints, or ``None`` where it cannot be had."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""Where results come from: code, versions, hardware. Never a path, a user or a host."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from m3po.registry import agent_offer
from suites.families import installed_version

__all__ = ["agent_code", "code_of", "gather"]

PACKAGES = ("m3po-bench", "torch", "numpy", "gymnasium", "metaworld", "mujoco", "dm_control", "envpool", "pydantic")
"""Packages whose version may move a result."""

ROOMS = ("m3po", "baselines", "suites", "analysis")


def gather(device: str, agent: str | None = None) -> dict[str, Any]:
    """What a result must be read with: JSON values only.

    Of work done by ``agent``, its registered name, also the code of that agent and the versions of what its package
    asks for. Raises :class:`m3po.registry.RegistryError` where there is no such agent.
    """
    packages = PACKAGES if agent is None else (*PACKAGES, *_requirements(agent_offer(agent)))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": device,
        "gpu": _gpu(device),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "packages": {name: found for name in packages if (found := installed_version(name)) is not None},
        **({} if agent is None else {"agent": agent_code(agent)}),
        **_commit(),
    }


def agent_code(agent: str) -> dict[str, str | None]:
    """Package, version and source of an agent, by which work done by one form of its code is told from another's.

    ``source`` is a digest of the Python files of the package that holds the agent: researchers change their code more
    often than its version. Of our own agents it is ``None``; the commit tells. Raises
    :class:`m3po.registry.RegistryError` where there is no such agent.
    """
    point = agent_offer(agent)
    package = point.dist.name if point.dist is not None else None
    found = point.dist.version if point.dist is not None else None
    return {"package": package, "version": found, "source": _digest(_holder(point))}


def code_of(made: Mapping[str, Any]) -> str:
    """A record of :func:`agent_code` in words."""
    named = f"{made.get('package') or 'a package without a name'} {made.get('version') or ''}".strip()
    return f"{named}, source {made['source']}" if made.get("source") else named


def _holder(point: EntryPoint) -> str:
    """The outermost package, or the module, that holds an agent."""
    return point.module.partition(".")[0]


def _requirements(point: EntryPoint) -> list[str]:
    """Names of what an agent's package asks for beyond :data:`PACKAGES`, without its extras; of ours there is none."""
    asked = (point.dist.requires or ()) if point.dist is not None and _holder(point) not in ROOMS else ()
    names = (re.match(r"[\w.-]+", line) for line in asked if "extra ==" not in line)
    known = {_canonical(package) for package in PACKAGES}
    return [name.group() for name in names if name is not None and _canonical(name.group()) not in known]


def _canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _digest(package: str) -> str | None:
    """Of the source of a package that is not ours, found without importing it."""
    if package in ROOMS:
        return None
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [(path.relative_to(folder).as_posix(), path) for folder in folders for path in folder.rglob("*.py")]
    if not folders and spec.origin is not None:
        files = [(Path(spec.origin).name, Path(spec.origin))]
    return _digest_of(files)


def _digest_of(files: Iterable[tuple[str, Path]]) -> str | None:
    """Of the contents of files, with the names that they shall have whatever machine they lie on."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        try:
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        except OSError:
            return None
    return digest.hexdigest()[:12]


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
    """Commit of the code, whether it was changed since, and then a digest of its Python files; all ``None`` where it is
    not run from a checkout."""
    root = Path(__file__).resolve().parents[2]
    # an installed copy may lie inside somebody else's repository: only a tracked one is described by its commit
    if _git(root, "ls-files", "--error-unmatch", "m3po/api.py") is None:
        return {"commit": None, "dirty": None, "source": None}
    changes = _git(root, "status", "--porcelain", "--", *ROOMS)
    files = ((path.relative_to(root).as_posix(), path) for room in ROOMS for path in (root / room).rglob("*.py"))
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "source": _digest_of(files) if changes else None,
    }


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

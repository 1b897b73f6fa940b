"""Which tasks EnvPool is certified to simulate as their own packages do, and for which versions of the packages.

The certificate is data (``parity.json``), made by ``python -m suites.parity``, which compares the engines.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from suites.spec import Task

FILE = Path(__file__).with_name("parity.json")


def missing(task: Task) -> str | None:
    """Why EnvPool cannot simulate ``task`` here, or ``None`` where it can."""
    if _entry(task) is None:
        return f"EnvPool has no task {task.name!r} of the family {task.family!r}; use the engine native"
    if find_spec("envpool") is None:
        return "the engine envpool is not installed; pip install 'm3po-bench[envpool]', or use the engine native"
    return None


def certified(task: Task) -> tuple[bool, str]:
    """Whether EnvPool's ``task`` is certified for the installed versions; if not, why."""
    entry, reason = _entry(task), missing(task)
    if entry is None or reason is not None:
        return False, str(reason)
    if not entry["certified"]:
        return False, str(entry["reason"])
    differing = [
        f"{name} {_version(name)} instead of {wanted}"
        for name, wanted in _certificate()["versions"].items()
        if _version(name) != wanted
    ]
    return not differing, f"the certificate holds for other versions ({', '.join(differing)})" if differing else ""


@cache
def _certificate() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _entry(task: Task) -> dict[str, Any] | None:
    # What another option shows (pixels, hidden goals) was not compared.
    if task.options:
        return None
    found: dict[str, Any] | None = _certificate()["tasks"].get(task.family, {}).get(task.name)
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"

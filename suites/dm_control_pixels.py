"""The renderer behind the images of dm_control's tasks."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import cache

from suites.errors import EnvError

RENDERERS = {"egl": "libegl1", "osmesa": "libosmesa6"}
"""Renderers that need no display, in the order they are tried, with the Debian package each needs."""

DISABLED = ("off", "disable", "disabled", "false", "0")
"""What ``MUJOCO_GL`` says where nothing is rendered."""

PROBE = "from dm_control import _render; _render.Renderer(64, 64).free()"
PROBE_SECONDS = 120


@cache
def open_renderer() -> None:
    """Let this process, and those it starts, render: by what ``MUJOCO_GL`` names, else by EGL, else by OSMesa.

    Raises :class:`EnvError` with the reason of each when none works.
    """
    chosen = os.environ.get("MUJOCO_GL", "disabled")
    reasons = {}
    for name in RENDERERS if chosen.lower() in DISABLED else (chosen,):
        reason = _probe(name)
        if reason is None:
            _use(name)
            return
        reasons[name] = reason
    found = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    needed = " or ".join(f"{package} (MUJOCO_GL={name})" for name, package in RENDERERS.items())
    raise EnvError(f"images need a renderer, and none works ({found}); install the Debian package {needed}")


def _probe(name: str) -> str | None:
    """Why the renderer ``name`` does not work, or ``None`` where it does.

    In a process of its own: a renderer that fails spoils the next one's chance, and some drivers take all down.
    """
    environment = {**os.environ, "MUJOCO_GL": name}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _use(name: str) -> None:
    os.environ["MUJOCO_GL"] = name
    from dm_control import _render

    # Imported already for tasks that show their state. Both read MUJOCO_GL only when they are imported.
    if name != _render.BACKEND:
        importlib.reload(_render)
    if (mujoco := sys.modules.get("mujoco.gl_context")) is not None:
        importlib.reload(mujoco)

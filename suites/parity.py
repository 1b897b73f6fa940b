"""Whether EnvPool's copy of a task is the task: a certificate, measured for named versions and shipped as data.

    python -m suites.parity                    # all tasks, about ten minutes of one core; replaces the certificate
    python -m suites.parity --out mine.json    # the same into a file of your own; nothing shipped is touched

No state can be put into EnvPool, so :mod:`suites.comparison` compares the engines in distribution. Each plays
``EPISODES`` episodes of random actions, and in Meta-World as many of the package's scripted expert. A task is certified
if

* observations and actions have the same sizes,
* nothing measured differs: for each entry the distance of Kolmogorov and Smirnov between the two samples stays below
  its critical value, ``ALPHA`` being the chance that a true copy of a task fails anywhere (Bonferroni), and
* the expert's rates of success differ by at most ``SUCCESS_MARGIN``.

So a certificate says that no difference was seen, not that there is none; what could be seen stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from suites.dm_control import DMC28
from suites.families import family, installed_version
from suites.metaworld import MT50
from suites.protocols import protocol
from suites.spec import Task

CERTIFICATE = Path(__file__).with_name("parity.json")
PACKAGES = {"metaworld": ("envpool", "metaworld", "mujoco"), "dm_control": ("envpool", "dm_control", "mujoco")}
"""What a certificate depends on, by family."""

# Why tasks are not certified, where it was looked into. Of MuJoCo: under 3.6.0 the package itself passes, and where the
# fingers are named, if it also remembers where they were before the first reset.
_MUJOCO = "EnvPool contains MuJoCo 3.6.0, with which {}"
_PADS = "its reward compares with where the fingers were before the first reset, the package's with where they are"
_DRIFT = "its goal moves away, further at every reset"
CAUSES = {
    "assembly-v3": _MUJOCO.format("the grasped ring lies differently"),
    "box-close-v3": _MUJOCO.format("the lid lies differently"),
    "button-press-topdown-wall-v3": "it pays for a closed gripper like Meta-World 3.0.0, and 3.1.1 for an open one",
    "dial-turn-v3": _MUJOCO.format("the expert slips off the dial"),
    "door-close-v3": _MUJOCO.format("the door swings differently"),
    "door-lock-v3": f"{_PADS}; and {_MUJOCO.format('the lock turns differently')}",
    "hammer-v3": _DRIFT,
    "hand-insert-v3": _MUJOCO.format("the block falls differently"),
    "handle-press-v3": _MUJOCO.format("the handle springs differently"),
    "lever-pull-v3": _MUJOCO.format("the lever's orientation is another"),
    "peg-unplug-side-v3": _MUJOCO.format("the plug turns differently"),
    "plate-slide-back-v3": _MUJOCO.format("the plate slides differently"),
    "push-back-v3": _PADS,
    "shelf-place-v3": _DRIFT,
    "soccer-v3": _PADS,
    "stick-pull-v3": _MUJOCO.format("the grasped stick gives way differently"),
    "stick-push-v3": _MUJOCO.format("the grasped stick gives way differently"),
    "sweep-into-v3": _PADS,
    "sweep-v3": f"{_PADS}; and {_MUJOCO.format('the block lies differently')}",
    "window-close-v3": "its first observation shows the handle after the reset, and the package's as it was before",
}


def certified(task: Task) -> tuple[bool, str]:
    """Whether EnvPool's copy of ``task`` passed, for the packages installed here; and a sentence that says why or not.

    Any protocol will do: an episode's length and the action repeat are ours, not EnvPool's.
    """
    data = _certificate()
    record = data["tasks"].get(task.name) if task.family in PACKAGES else None
    if record is None:
        return False, f"{task.name} was not compared with EnvPool"
    if task.options:
        return False, f"{task.name} was compared with EnvPool without options; found {', '.join(task.options)}"
    for name in PACKAGES[task.family]:
        found, measured = installed_version(name), data["versions"][name]
        if found != measured:
            state = f"{name} {found} is installed" if found else f"{name} is not installed"
            return False, f"{task.name} was compared with EnvPool under {name} {measured}; {state}"
    versions = ", ".join(f"{name} {data['versions'][name]}" for name in PACKAGES[task.family])
    if record["certified"]:
        return True, f"EnvPool's {task.name} is certified for {versions}"
    first, *more = record["reasons"]
    why = CAUSES.get(task.name, first + (f" (and {len(more)} more)" if more else ""))
    return False, f"EnvPool's {task.name} differs under {versions}: {why}"


@cache
def _certificate() -> dict[str, Any]:
    return json.loads(CERTIFICATE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all tasks and write the certificate where ``arguments`` (default: the command line's) say."""
    parser = argparse.ArgumentParser(
        prog="python -m suites.parity",
        description="Compare EnvPool's copy of every task with the original, in about ten minutes of one core.",
    )
    parser.add_argument(
        "--out", type=Path, default=CERTIFICATE, help="file for the certificate (default: the shipped one, %(default)s)"
    )
    out: Path = parser.parse_args(arguments).out
    if not out.parent.is_dir() or out.is_dir():  # said now, not when all is measured
        parser.error(f"--out must be a file in a folder that exists; found {out}")

    from suites.comparison import ALPHA, EPISODES, measure

    os.environ.setdefault("MUJOCO_GL", "disabled")  # nothing is rendered
    warnings.filterwarnings("ignore", category=UserWarning, module="metaworld")  # the experts' own, about large actions
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="dm_control")
    tasks = [
        Task(name=name, family=family_name, protocol=protocol(family(family_name).default_protocol))
        for family_name, names in (("metaworld", MT50), ("dm_control", DMC28))
        for name in names
    ]
    records: dict[str, Any] = {}
    for number, task in enumerate(tasks, start=1):
        records[task.name] = measure(task)
        verdict = "certified" if records[task.name]["certified"] else "; ".join(records[task.name]["reasons"])
        print(f"{number}/{len(tasks)} {task.name}: {verdict}", flush=True)
    packages = sorted({name for names in PACKAGES.values() for name in names})
    head = {"episodes": EPISODES, "alpha": ALPHA, "versions": {name: installed_version(name) for name in packages}}
    # a line for each task, so that two certificates can be compared by eye
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(record)}" for name, record in records.items())
    out.write_text(f'{json.dumps(head)[:-1]}, "tasks": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()

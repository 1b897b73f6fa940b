"""Whether this installation measures what it says: every task's promises, package versions, the renderer."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from suites.catalog import load_suite, shipped_suites
from suites.checks import Finding, examine
from suites.errors import SuiteError, nearest
from suites.families import Family, family, family_names, installed_version
from suites.protocols import PROTOCOLS
from suites.spec import Task

__all__ = ["TESTED", "Diagnosis", "Examination", "Package", "diagnose", "find_tasks"]

TESTED = {
    "torch": "2.13.0",
    "gymnasium": "1.4.0",
    "metaworld": "3.1.1",
    "mujoco": "3.3.0",
    "dm_control": "1.0.28",
    "numpy": "2.3.5",
    "envpool": "1.2.5",
}
"""Versions the environments were last tested with: those of ``constraints.txt``, which an installed copy lacks."""

EXPERT_EPISODES, QUICK_EXPERT_EPISODES = 50, 10
"""Evaluation episodes an expert plays of each task; 50 are all the goals an evaluation of Meta-World has."""

MIN_EXPERT_SHARE, MIN_EXPERT_TASKS = 0.9, 5
"""Share of all episodes that the experts of a family have to solve together, where so many of its tasks are examined:
some of Meta-World's solve four in five. Of one task see ``suites.checks``."""

BACKENDS = ("egl", "osmesa")
"""Ways to render without a display, fastest first."""

PROBE_SECONDS = 120
"""A driver that takes longer to draw for the first time hangs."""


@dataclass(frozen=True)
class Examination:
    """What was found about one task."""

    task: Task
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Findings that something is wrong."""
        return tuple(finding for finding in self.findings if finding.fault is not None)


@dataclass(frozen=True)
class Package:
    """A package's installed version (``None``: not installed) beside the one tested."""

    name: str
    found: str | None
    tested: str

    @property
    def warning(self) -> str | None:
        """A sentence where the two differ; what is not installed is not used, and ``2.13.0+cpu`` is a 2.13.0."""
        if self.found is None or self.found.partition("+")[0] == self.tested:
            return None
        return f"{self.name} {self.found} is installed; {self.tested} was tested, and results may differ"


@dataclass(frozen=True)
class Diagnosis:
    """All that was found."""

    examinations: tuple[Examination, ...]
    packages: tuple[Package, ...]
    renderer: str | None
    """The backend that renders, or ``None``."""

    @property
    def experts(self) -> dict[str, tuple[int, int]]:
        """Episodes that the experts of each family solved and played."""
        found: dict[str, tuple[int, int]] = {}
        for one in self.examinations:
            for solved, played in (finding.solved for finding in one.findings if finding.solved is not None):
                before = found.get(one.task.family, (0, 0))
                found[one.task.family] = before[0] + solved, before[1] + played
        return found

    @property
    def weak_experts(self) -> tuple[str, ...]:
        """Families whose experts together solve too little."""
        examined = Counter(
            one.task.family for one in self.examinations if any(finding.solved is not None for finding in one.findings)
        )
        return tuple(
            name
            for name, (solved, played) in self.experts.items()
            if examined[name] >= MIN_EXPERT_TASKS and solved < MIN_EXPERT_SHARE * played
        )

    @property
    def renderer_missing(self) -> bool:
        """Whether there is none and a task needs one."""
        return self.renderer is None and any(_sees_images(one.task) for one in self.examinations)

    @property
    def exit_code(self) -> int:
        """0 nothing is wrong; 1 something is."""
        faulty = self.renderer_missing or self.weak_experts or any(one.faults for one in self.examinations)
        return 1 if faulty else 0


def find_tasks(names: Sequence[str]) -> tuple[Task, ...]:
    """The tasks of suites (path or name), or single ones by their name; of all shipped suites when none is named.

    Each comes once, however many suites have it; under another protocol it is another. EnvPool's copies count as the
    native tasks they stand for: how near the copies are is not asked here. Raises :class:`SuiteError`.
    """
    found: dict[str, Task] = {}
    for name in names or shipped_suites():
        for task in _named(name):
            native = task.model_copy(update={"engine": "native"})
            found.setdefault(native.model_dump_json(), native)
    return tuple(found.values())


def diagnose(tasks: Sequence[Task], *, quick: bool, jobs: int, console: Console) -> Diagnosis:
    """Examine ``tasks`` in ``jobs`` processes; the progress goes to ``console``."""
    episodes = QUICK_EXPERT_EPISODES if quick else EXPERT_EPISODES
    packages = tuple(Package(name, installed_version(name), tested) for name, tested in TESTED.items())
    renderer = next((backend for backend in BACKENDS if _renders(backend)), None)
    return Diagnosis(_examine_all(tasks, episodes, jobs, console), packages, renderer)


def _examine_all(tasks: Sequence[Task], episodes: int, jobs: int, console: Console) -> tuple[Examination, ...]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # new processes, because a simulator shares nothing that was forked while it ran
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ProcessPoolExecutor(min(jobs, max(1, len(tasks))), mp_context=context) as pool,
    ):
        bar = progress.add_task("examining", total=len(tasks))
        futures = [pool.submit(_examine, task, episodes) for task in tasks]
        for done in as_completed(futures):
            name = tasks[futures.index(done)].name
            progress.update(bar, advance=1, description=f"examined {name}")
        return tuple(_outcome(task, future) for task, future in zip(tasks, futures, strict=True))


def _examine(task: Task, episodes: int) -> Examination:
    with warnings.catch_warnings():
        # simulators warn of their own dependencies; a table is no place for that
        warnings.simplefilter("ignore")
        return Examination(task, examine(family(task.family), task, episodes))


def _outcome(task: Task, future: Future[Examination]) -> Examination:
    try:
        return future.result()
    except BrokenProcessPool:
        fault = "a process died before this was done; examine the task alone to see whether it is the cause"
        return Examination(task, (Finding("make", fault),))


def _named(name: str) -> tuple[Task, ...]:
    if name in shipped_suites() or os.path.isfile(name):
        loaded = load_suite(name)
        return (*loaded.tasks, *loaded.held_out)
    families, faults = _families()
    tasks = tuple(_alone(found, name) for found in families if name in found.tasks())
    if not tasks:
        match = nearest(name, [*shipped_suites(), *(task for found in families for task in found.tasks())])
        hint = f"; nearest: {match!r}" if match else ""
        raise SuiteError([f"{name!r} is no suite, no suite file and no task of a family{hint}", *faults])
    return tasks


def _families() -> tuple[list[Family], list[str]]:
    """The families whose tasks can be had by name alone, and what is wrong with those that cannot be loaded."""
    found, faults = [], []
    for name in family_names():
        try:
            found.append(family(name))
        except SuiteError as error:
            faults.append(str(error))
    return [each for each in found if each.default_protocol], faults


def _alone(found: Family, name: str) -> Task:
    return Task(name=name, family=found.name, protocol=PROTOCOLS[found.default_protocol])


def _sees_images(task: Task) -> bool:
    try:
        return family(task.family).spaces(task).dtype == "uint8"
    except SuiteError:
        return False  # the task's own finding tells why


def _renders(backend: str) -> bool:
    """Whether MuJoCo can draw with ``backend``: asked in a process of its own, where the choice is still open."""
    program = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    environment = {**os.environ, "MUJOCO_GL": backend}
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0

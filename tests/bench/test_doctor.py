"""The doctor: which tasks it looks at, what it says, how it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from m3po.bench import doctor
from m3po.bench.doctor import TESTED, Diagnosis, Examination, Package, find_tasks
from m3po.bench.views import doctor_view
from suites.checks import Finding
from suites.errors import SuiteError
from suites.families import family
from suites.protocols import protocol
from suites.spec import Task, TaskSpaces
from tests.bench.conftest import ROOT, Cli

WriteSuite = Callable[..., Path]

TASK = Task(name="toy-reach", family="toy", protocol=protocol("toy-20"))

SICK = """\
import os
from suites.toy import Reach, Toy


class Sick(Toy):
    name = "sick"

    def tasks(self):
        return ("sick-nan", "sick-exit", "sick-well")

    def spaces(self, task):
        return Reach.spaces

    def make(self, task):
        return {"sick-nan": Nan, "sick-exit": Exit, "sick-well": Reach}[task.name](task.protocol)


class Nan(Reach):
    def reset(self, seed):
        return super().reset(seed) * float("nan")


class Exit(Reach):
    def reset(self, seed):
        os._exit(3)
"""


@pytest.fixture
def sick(plugin: Path) -> None:
    """An installed family that is not well."""
    (plugin / "sick.py").write_text(SICK)
    (entry_points,) = plugin.glob("*.dist-info/entry_points.txt")
    entry_points.write_text(f"{entry_points.read_text()}\n[m3po.families]\nsick = sick:Sick\n")


def test_a_sound_family_is_in_order(cli: Cli) -> None:
    done = cli("doctor", "toy-reach", "toy-terminate", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"]
    assert [task["task"] for task in found["tasks"]] == ["toy-reach", "toy-terminate"]
    for task in found["tasks"]:
        assert task["faults"] == {}
        assert task["checks"].pop("expert") == "–"
        assert set(task["checks"].values()) == {"ok"}
    assert {package["name"] for package in found["packages"]} == set(TESTED)
    assert "2 tasks in order" in cli("doctor", "toy-reach", "toy-terminate").stdout


def test_what_is_wrong_ends_in_1_and_is_said(cli: Cli, sick: None) -> None:
    done = cli("doctor", "sick-nan", "sick-well")
    assert done.returncode == 1, done.stderr
    assert "sick-nan: spaces: observation 0 has nan at (0,); expected finite numbers" in done.stdout
    assert "2 tasks examined, 1 with faults" in done.stdout
    assert "sick-well:" not in done.stdout


def test_a_process_that_dies_is_a_finding(cli: Cli, sick: None) -> None:
    done = cli("doctor", "sick-exit", "--json")
    assert done.returncode == 1, done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["faults"]["make"].startswith("a process died before this was done")


def test_a_name_that_is_nothing_ends_in_2(cli: Cli) -> None:
    done = cli("doctor", "toy-raech")
    assert done.returncode == 2
    assert done.stderr == "'toy-raech' is no suite, no suite file and no task of a family; nearest: 'toy-reach'\n"


def test_a_family_that_cannot_be_loaded_hides_no_other(cli: Cli, sick: None, plugin: Path) -> None:
    (plugin / "sick.py").write_text("import a_module_that_is_missing\n")
    assert cli("doctor", "toy-reach").returncode == 0
    done = cli("doctor", "sick-well")
    assert done.returncode == 2
    assert "family 'sick' from package test-agents (sick:Sick) cannot be loaded" in done.stderr


def test_each_task_comes_once(write_suite: WriteSuite) -> None:
    suite = write_suite(tasks="{family: toy, set: all}")
    assert [task.name for task in find_tasks([str(suite), "toy-reach", str(suite)])] == ["toy-reach", "toy-terminate"]
    longer = write_suite(name="longer.yaml", action_repeat="2", tasks="{family: toy, set: all, action_repeat: 2}")
    assert len(find_tasks([str(suite), str(longer)])) == 4, "under another protocol a task is another"


def test_copies_of_another_engine_are_the_native_task(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = TASK.model_copy(update={"engine": "envpool"})
    monkeypatch.setattr(doctor, "_named", lambda name: (copy,))
    assert find_tasks(["any"]) == (TASK,)


def test_without_names_every_shipped_suite_is_looked_at() -> None:
    from suites.dm_control import DMC28
    from suites.metaworld import MT50

    assert {*MT50, *DMC28} <= {task.name for task in find_tasks([])}
    with pytest.raises(SuiteError, match="nearest: 'drawer-open-v3'"):
        find_tasks(["draw-open-v3"])


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert {name: constraints[name] for name in TESTED} == TESTED


@pytest.mark.parametrize(
    ("found", "warning"),
    [
        ("2.3.5", None),
        ("2.3.5+cpu", None),
        (None, None),
        ("2.3.4", "numpy 2.3.4 is installed; 2.3.5 was tested, and results may differ"),
    ],
)
def test_another_version_is_a_warning_and_no_fault(found: str | None, warning: str | None) -> None:
    package = Package("numpy", found, "2.3.5")
    assert package.warning == warning
    diagnosis = Diagnosis((Examination(TASK, (Finding("make", None),)),), (package,), "egl")
    assert diagnosis.exit_code == 0
    assert doctor_view(diagnosis).data["warnings"] == ([] if warning is None else [warning])


def test_a_missing_renderer_is_a_fault_only_where_images_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = Diagnosis((Examination(TASK, ()),), (), None)
    assert blind.exit_code == 0
    monkeypatch.setattr(type(family("toy")), "spaces", lambda self, task: TaskSpaces((8, 8, 3), 1))
    assert blind.exit_code == 1
    assert Diagnosis(blind.examinations, (), "osmesa").exit_code == 0


def test_the_renderer_is_the_first_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_renders", lambda backend: backend == "osmesa")
    assert doctor.diagnose([], quick=True, jobs=1, console=Console(quiet=True)).renderer == "osmesa"


def test_a_backend_that_does_not_draw_is_noticed() -> None:
    assert not doctor._renders("disabled")


def test_experts_are_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def examined(solved: int) -> Examination:
        task = Task(name=f"toy-{solved}", family="toy", protocol=protocol("toy-20"))
        return Examination(task, (Finding("expert", None, solved=(solved, 10)),))

    def outcome(*solved: int) -> Diagnosis:
        return Diagnosis(tuple(map(examined, solved)), (), None)

    # each above its own bar of 8 of 10; together 45 of 50 and 44 of 50, the bar being 0.9
    good, bad = outcome(10, 8, 9, 9, 9), outcome(9, 8, 9, 9, 9)
    assert (good.experts, good.exit_code) == ({"toy": (45, 50)}, 0)
    assert (bad.experts, bad.exit_code) == ({"toy": (44, 50)}, 1)
    assert "experts of toy: 44 of 50 evaluation episodes solved (88%); expected 90%" in _said(bad)
    assert "in order" not in _said(bad)
    # four tasks say little of a family
    assert outcome(8, 8, 8, 8).exit_code == 0
    assert "4 tasks in order" in _said(outcome(8, 8, 8, 8))


def _said(diagnosis: Diagnosis) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(doctor_view(diagnosis).text)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()

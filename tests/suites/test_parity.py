import json
import re
from pathlib import Path

import pytest

from suites import comparison, parity
from suites.dm_control import DMC28
from suites.metaworld import MT50
from tests.suites.tasks import task


@pytest.fixture
def data(monkeypatch):
    """A certificate for the packages that are installed: of reach-v3, and against walker-walk."""
    versions = {"envpool": "1", "metaworld": "2", "mujoco": "3", "dm_control": "4"}
    tasks = {
        "reach-v3": {"certified": True, "reasons": []},
        "walker-walk": {"certified": False, "reasons": ["falls", "fails"]},
        "dial-turn-v3": {"certified": False, "reasons": ["long figures"]},
    }
    found = {"versions": dict(versions), "tasks": tasks}
    monkeypatch.setattr(parity, "_certificate", lambda: found)
    monkeypatch.setattr(parity, "installed_version", versions.get)
    return versions


def test_a_certificate_holds_for_what_was_measured_with_the_packages_it_was_measured_with(data):
    good, why = parity.certified(task("metaworld", "reach-v3", decisions=7, action_repeat=2))
    assert (good, why) == (True, "EnvPool's reach-v3 is certified for envpool 1, metaworld 2, mujoco 3")
    for bad, sentence in (
        (task("dm_control", "walker-walk"), "EnvPool's walker-walk differs under envpool 1, .*: falls .and 1 more."),
        (task("metaworld", "dial-turn-v3"), "EnvPool's dial-turn-v3 differs under .*MuJoCo 3.6.0"),
        (task("metaworld", "push-v3"), "push-v3 was not compared with EnvPool"),
        (task("toy", "toy-reach"), "toy-reach was not compared with EnvPool"),
        (
            task("metaworld", "reach-v3").model_copy(update={"options": {"goals": "hidden"}}),
            "without options; found goals",
        ),
    ):
        good, why = parity.certified(bad)
        assert not good
        assert re.search(sentence, why), why


@pytest.mark.parametrize(
    ("package", "found", "state"),
    [("mujoco", "5", "mujoco 5 is installed"), ("envpool", None, "envpool is not installed")],
)
def test_with_other_packages_nothing_is_certified(data, package, found, state):
    data[package] = found
    good, why = parity.certified(task("metaworld", "reach-v3"))
    assert not good
    assert why.endswith(state)
    data.update(mujoco="3", envpool="1", dm_control="5")
    assert parity.certified(task("metaworld", "reach-v3"))[0], "Meta-World does not depend on dm_control"


def shipped():
    return json.loads(parity.CERTIFICATE.read_text())


def test_the_shipped_certificate_is_about_all_tasks_and_by_these_rules():
    assert set(shipped()["tasks"]) == {*MT50, *DMC28}
    assert (shipped()["episodes"], shipped()["alpha"]) == (comparison.EPISODES, comparison.ALPHA)
    failed = {name for name, record in shipped()["tasks"].items() if not record["certified"]}
    assert set(parity.CAUSES) <= failed, "a cause is given for a task that is certified"


@pytest.mark.parametrize("name", [*MT50, *DMC28])
def test_the_shipped_verdicts_follow_from_the_shipped_figures(name):
    record = shipped()["tasks"][name]
    kinds = [record[kind] for kind in ("random", "expert") if kind in record]
    assert len(kinds) == (2 if name in MT50 else 1)
    differing = [
        quantity
        for figures in kinds
        for quantity in figures.values()
        if isinstance(quantity, dict) and quantity["distance"] > figures["critical distance"]
    ]
    rates = record["expert"]["success"] if name in MT50 else [0, 0]
    missed = abs(rates[0] - rates[1]) > comparison.SUCCESS_MARGIN
    assert record["certified"] == (not differing and not missed)
    assert len(record["reasons"]) == len(differing) + missed


@pytest.fixture
def measured(monkeypatch):
    """Three tasks, measured at once; the shipped certificate is out of reach."""
    monkeypatch.setattr(parity, "MT50", ("reach-v3", "push-v3"))
    monkeypatch.setattr(parity, "DMC28", ("walker-walk",))
    monkeypatch.setattr(parity, "installed_version", lambda package: f"{package} 1")
    verdicts = {"reach-v3": [], "push-v3": ["pulls", "throws"], "walker-walk": []}
    names = []

    def measure(made):
        names.append(made.name)
        return {"certified": not verdicts[made.name], "reasons": verdicts[made.name]}

    monkeypatch.setattr(comparison, "measure", measure)
    return names


@pytest.mark.parametrize("chosen", [True, False])
def test_measuring_writes_what_is_read(measured, chosen, monkeypatch, tmp_path: Path, capsys):
    certificate, other = tmp_path / "parity.json", tmp_path / "mine.json"
    monkeypatch.setattr(parity, "CERTIFICATE", certificate)
    certificate.write_text("as shipped")
    parity.main(["--out", str(other)] if chosen else [])
    if chosen:
        assert certificate.read_text() == "as shipped"
        monkeypatch.setattr(parity, "CERTIFICATE", other)
    assert capsys.readouterr().out.splitlines() == [
        "1/3 reach-v3: certified",
        "2/3 push-v3: pulls; throws",
        "3/3 walker-walk: certified",
    ]
    assert shipped()["tasks"]["push-v3"] == {"certified": False, "reasons": ["pulls", "throws"]}
    assert shipped()["versions"] == {name: f"{name} 1" for name in ("dm_control", "envpool", "metaworld", "mujoco")}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "about ten minutes"),
        (["--quick"], 2, "unrecognized arguments: --quick"),
        (["--out", "no/such/folder.json"], 2, "a file in a folder that exists; found no/such/folder.json"),
        (["--out", "."], 2, "a file in a folder that exists; found ."),
    ],
)
def test_asking_for_help_or_for_nonsense_measures_nothing(
    measured, monkeypatch, tmp_path, capsys, arguments, code, said
):
    monkeypatch.setattr(parity, "CERTIFICATE", tmp_path / "parity.json")
    with pytest.raises(SystemExit) as stop:
        parity.main(arguments)
    printed = capsys.readouterr()
    assert stop.value.code == code
    assert said in printed.out + printed.err
    assert not measured
    assert not list(tmp_path.iterdir())

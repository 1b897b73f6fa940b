"""A study in one small file: complete, the same every time, and ready to go on from."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from analysis.frame import load
from analysis.report.study import document
from analysis.summary import summarise
from m3po.bench.pack import pack
from m3po.bench.records import CellStatus
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.study import StudyFolder
from tests.analysis.synthetic import Synthetic
from tests.bench.conftest import Cli, evaluation_rows


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A finished study with everything beside its cells that must stay behind."""
    folder = Synthetic(tmp_path / "results").write()
    for cell in sorted(path.parent for path in folder.glob("*/cell.json")):
        (cell / "checkpoints" / "10").mkdir(parents=True)
        (cell / "checkpoints" / "10" / "replay.npz").write_bytes(b"large")
        (cell / "videos").mkdir()
        (cell / "videos" / "film.mp4").write_bytes(b"large")
        (cell / "lock").touch()
        (cell / "log.txt").write_text("/home/me/secret: a warning")
        (cell / ".status.json.12.tmp").touch()
    return StudyFolder(folder)


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return opened.getnames()


def unpacked(archive: Path, where: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(where, filter="data")
    return where / archive.name.removesuffix(".tar.xz")


def state(cell: Path, to: str) -> None:
    status = json.loads((cell / "status.json").read_text())
    (cell / "status.json").write_text(json.dumps({**status, "state": to}))


def report_of(folder: Path) -> dict[str, Any]:
    return document(summarise(load(folder)))


def test_an_earlier_file_in_the_study_itself_is_not_packed(study: StudyFolder) -> None:
    path = study.path / "packed.tar.xz"
    first = pack(study, path).path.read_bytes()
    assert pack(study, path).path.read_bytes() == first
    assert "quick/packed.tar.xz" not in names(path)


def test_what_is_unpacked_gives_the_same_report(study: StudyFolder, tmp_path: Path) -> None:
    packed = pack(study, tmp_path / "quick.tar.xz")
    assert (packed.cells, packed.unfinished) == (18, 0)  # 3 agents x 2 tasks x 3 seeds
    assert packed.size == packed.path.stat().st_size
    assert report_of(unpacked(packed.path, tmp_path / "elsewhere")) == report_of(study.path)


def test_checkpoints_films_and_reports_stay_behind(study: StudyFolder, tmp_path: Path) -> None:
    (study.path / "report" / "figures").mkdir(parents=True)
    for name in ("report.html", "figures/profiles.svg"):
        (study.path / "report" / name).touch()
    kinds = {name.rpartition("/")[2] for name in names(pack(study, tmp_path / "a.tar.xz").path)}
    assert kinds == {"study.json", "cell.json", "status.json", "evaluations.jsonl"}


def test_the_same_results_give_the_same_bytes(study: StudyFolder, tmp_path: Path) -> None:
    first = pack(study, tmp_path / "a.tar.xz").path.read_bytes()
    for file in study.path.rglob("*.json*"):
        file.touch()
    assert pack(study, tmp_path / "b.tar.xz").path.read_bytes() == first


def test_cells_that_are_not_finished_are_left_out(study: StudyFolder, tmp_path: Path) -> None:
    cells = sorted(path.parent for path in study.path.glob("*/cell.json"))
    for cell, to in zip(cells, ("running", "failed", "preempted", "diverged"), strict=False):
        state(cell, to)
    packed = pack(study, tmp_path / "a.tar.xz")
    assert (packed.cells, packed.unfinished) == (15, 3)
    assert {name.split("/")[1] for name in names(packed.path)} == {"study.json", *(cell.name for cell in cells[3:])}


def test_machines_are_not_named(study: StudyFolder, tmp_path: Path) -> None:
    cells = sorted(path.parent for path in study.path.glob("*/cell.json"))
    for cell in cells:
        status = json.loads((cell / "status.json").read_text())
        (cell / "status.json").write_text(json.dumps({**status, "host": "my-laptop", "message": "é"}))
    folder = unpacked(pack(study, tmp_path / "quick.tar.xz").path, tmp_path / "elsewhere")
    for cell in cells:
        before, after = (json.loads((of / cell.name / "status.json").read_text()) for of in (study.path, folder))
        assert after == {**before, "host": ""}


def test_what_a_trial_that_ended_early_took_is_packed_too(study: StudyFolder, tmp_path: Path) -> None:
    search, finished = study.path / "tuning" / "ppo", next(study.path.glob("*/cell.json")).parent
    for name, to, env_step in (("whole", "done", 40), ("pruned", "preempted", 10), ("waiting", "preempted", 0)):
        cell = CellFolder(search / name)
        cell.path.mkdir(parents=True)
        shutil.copy(finished / "cell.json", cell.path)
        cell.write_status(CellStatus(id=name, state=to, env_step=env_step, env_steps=40))  # type: ignore[arg-type]
        cell.evaluations.append([{"env_step": env_step}])
    CellFolder(search / "pruned").path.joinpath("until.json").write_text('{"env_step": 10}')
    packed = sorted(
        name.split("tuning/ppo/")[1] for name in names(pack(study, tmp_path / "a.tar.xz").path) if "tuning" in name
    )
    assert packed == [
        *(f"pruned/{name}" for name in ("cell.json", "status.json", "until.json")),
        *(f"whole/{name}" for name in ("cell.json", "evaluations.jsonl", "status.json")),
    ]


def test_links_are_not_followed(study: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (study.path / "link").symlink_to(tmp_path / "secret")
    assert not [name for name in names(pack(study, tmp_path / "a.tar.xz").path) if "link" in name]


def test_another_ending_is_refused_and_an_unwritable_place_explained(study: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.zip should be the name of a file that ends with \.tar\.xz"):
        pack(study, tmp_path / "a.zip")
    with pytest.raises(StoreError, match=r"cannot write .*: No such file"):
        pack(study, tmp_path / "nowhere" / "a.tar.xz")
    assert list(tmp_path.glob(".*")) == []


def test_an_unpacked_study_goes_on_with_what_is_missing(cli: Cli, tmp_path: Path, write_suite: Any) -> None:
    suite = str(write_suite(seeds="2"))
    assert cli("run", suite, "--no-report").returncode == 0
    (kept, dropped) = sorted(path.parent for path in (tmp_path / "results" / "tiny").glob("*/cell.json"))
    before = {cell.name: evaluation_rows(cell) for cell in (kept, dropped)}
    state(dropped, "preempted")
    done = cli("pack", "results/tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"] == 1
    unpacked(tmp_path / "tiny.tar.xz", tmp_path / "elsewhere")
    stamp = (tmp_path / "elsewhere" / "tiny" / kept.name / "evaluations.jsonl").stat().st_mtime_ns
    assert cli("run", suite, "--no-report", "--results", "elsewhere").returncode == 0
    assert (tmp_path / "elsewhere" / "tiny" / kept.name / "evaluations.jsonl").stat().st_mtime_ns == stamp
    after = {cell.name: evaluation_rows(tmp_path / "elsewhere" / "tiny" / cell.name) for cell in (kept, dropped)}
    assert after == before


@pytest.mark.parametrize("part", [".", "evaluations.jsonl"])
def test_a_cell_that_lies_elsewhere_is_not_left_out_in_silence(study: StudyFolder, tmp_path: Path, part: str) -> None:
    cell = next(path.parent for path in sorted(study.path.glob("*/cell.json")))
    moved = cell / part
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=rf"{moved.name} is a link, and links are not packed; put what it leads to"):
        pack(study, tmp_path / "a.tar.xz")
    moved.unlink()
    (tmp_path / "elsewhere").rename(moved)
    (cell / "checkpoints" / "10" / "replay.npz").unlink()
    (cell / "checkpoints" / "10").rename(tmp_path / "10")
    (cell / "checkpoints").rmdir()
    (cell / "checkpoints").symlink_to(tmp_path)
    assert pack(study, tmp_path / "a.tar.xz").cells == 18, "what is left out anyway may lie elsewhere"


def test_a_linked_folder_is_refused_rather_than_left_out(study: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "searches" / "ppo").mkdir(parents=True)
    (study.path / "tuning").symlink_to(tmp_path / "searches")
    with pytest.raises(StoreError, match="tuning is a link, and links are not packed"):
        pack(study, tmp_path / "a.tar.xz")


def test_the_search_of_an_agent_called_report_is_packed_without_its_report(study: StudyFolder, tmp_path: Path) -> None:
    search = study.path / "tuning" / "report"
    (search / "report").mkdir(parents=True)
    for file in (search / "trials.json", search / "report" / "report.html"):
        file.write_text("{}")
    packed = names(pack(study, tmp_path / "a.tar.xz").path)
    assert [name for name in packed if "tuning" in name] == ["quick/tuning/report/trials.json"]

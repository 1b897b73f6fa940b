"""The report as a whole: complete, the same every time, offline, and honest about what is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis import stats
from analysis.frame import load
from analysis.report import study as study_report
from analysis.report.study import document, write
from analysis.study import ResultsError
from analysis.summary import summarise
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import RETURN, SUCCESS, Synthetic

FIGURES = (
    "aggregates",
    "by_protocol",
    "other_axes",
    "predicted_intervals",
    "probability_of_improvement",
    "profiles",
    "sample_efficiency",
    "speedups",
    "task_curves",
)
ODD = "<script>alert(1)</script>"
OWN_SCRIPTS = 2
"""The page's data and its program."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Synthetic(tmp_path_factory.mktemp("report")).write()


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((page.parent / "report.json").read_text())
    return found


def test_all_files_are_there(page: Path) -> None:
    assert page.name == "report.html"
    names = set(contents(page.parent))
    assert {f"figures/{name}.{kind}" for name in FIGURES for kind in ("pdf", "svg", "png")} <= names
    for table in ("aggregates", "per_task", "probability_of_improvement", "efficiency", "final_scores", "compute"):
        assert {f"tables/{table}.csv", f"tables/{table}.tex"} <= names
    assert {"report.md", "report.html", "report.json"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    assert page.stat().st_size < 2_000_000


def test_twice_the_same_bytes_and_nothing_else_is_touched(folder: Path, page: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    again = contents(write(folder, tmp_path).parent)
    assert again.pop("notes.txt") == b"mine"
    assert again == contents(page.parent)
    assert not any(b"\r\n" in content for name, content in again.items() if name.endswith((".md", ".html", ".csv")))


def test_json_carries_the_agreed_fields(page: Path) -> None:
    found = read(page)
    assert [(a["agent"], a["metric"]) for a in found["aggregates"]] == [
        (agent, metric)
        for agent in ("m3po", "ppo", "dreamerv3")
        for metric in ("iqm", "median", "mean", "optimality_gap")
    ]
    for item in found["aggregates"]:
        assert set(item) == {"agent", "metric", "estimate", "low", "high", "runs", "tasks"}
        assert item["low"] <= item["estimate"] <= item["high"]
        assert (item["runs"], item["tasks"]) == (3, 2)
    assert len(found["probability_of_improvement"]) == 6
    assert len(found["per_task"]) == 6
    assert found["missing"] == []
    assert found["env_step"] == {"m3po": 10_000, "ppo": 10_000, "dreamerv3": 10_000}
    assert [protocol["name"] for protocol in found["protocols"]] == ["dmc-1000", "metaworld-v3"]


class Page(HTMLParser):
    """Collects what a browser would load or run, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]


def test_the_page_needs_no_network(page: Path) -> None:
    parsed = Page()
    text = page.read_text()
    parsed.feed(text)
    assert not {"link", "iframe", "img"} & set(parsed.tags)
    assert parsed.tags.count("script") == OWN_SCRIPTS
    assert all(link.startswith(("#", "data:image/png")) for link in parsed.links)
    assert parsed.tags.count("svg") == len(FIGURES) + 1  # and the one that answers
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(parsed.ids)
    assert "prefers-color-scheme: dark" in text


def test_the_page_is_told_as_well_as_seen(page: Path) -> None:
    parsed = Page()
    parsed.feed(page.read_text())
    assert parsed.tags.count("main") == 1
    assert parsed.tags.count("table") == parsed.tags.count("caption")
    rows = page.read_text().count("<tr")
    heads = [attributes.get("scope") for tag, attributes in parsed.attributes if tag == "th"]
    assert None not in heads
    assert heads.count("row") + parsed.tags.count("thead") == rows  # each row begins with what it is about
    figures = [attributes for tag, attributes in parsed.attributes if tag == "svg"]
    assert all((of.get("role") == "img" and of.get("aria-label")) or of.get("aria-hidden") for of in figures)
    assert sum("aria-hidden" in of for of in figures) == 1


def test_the_first_sentence_is_the_conclusion(page: Path) -> None:
    found = read(page)
    first, second, third = (page.parent / "report.md").read_text().splitlines()[:3]
    assert (first, second) == ("# quick, version 1", "")
    assert third.replace("\\", "") == found["headline"]
    assert re.match(r"m3po's IQM 0\.\d\d \[0\.\d\d, 0\.\d\d\] lies above dreamerv3's 0\.\d\d \[", found["headline"])


def test_odd_names_stay_text(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=(ODD, "a_b & 50% $x$"), seeds=(0, 1), episodes=1, every=5_000)
    out = write(study.write()).parent
    parsed = Page()
    parsed.feed((out / "report.html").read_text())
    assert parsed.tags.count("script") == OWN_SCRIPTS
    assert ODD not in (out / "report.md").read_text()
    assert r"a\_b \& 50\% \$x\$" in (out / "tables" / "aggregates.tex").read_text()
    assert "<script" not in (out / "figures" / "aggregates.svg").read_text()


def test_one_agent_one_seed_one_task(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only()
    study = Synthetic(tmp_path, agents=("ppo",), seeds=(0,), tasks=(("reach-v3", SUCCESS),))
    page = write(study.write())
    found = read(page)
    assert {item["low"] for item in found["aggregates"]} == {None}
    text = (page.parent / "report.md").read_text()
    assert "n = 1, no interval" in text
    assert "±" not in text
    assert not (page.parent / "figures" / "probability_of_improvement.png").exists()


def test_constant_scores(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, agents=("ppo", "m3po"), seeds=(0, 1), score=lambda *_: 0.0, every=5_000)
    found = document(summarise(load(study.write())))
    assert {item["estimate"] for item in found["aggregates"] if item["metric"] == "iqm"} == {0.0}
    assert [item["estimate"] for item in found["probability_of_improvement"]] == [0.5, 0.5]
    assert found["efficiency"] == []
    assert "share the highest IQM" in found["headline"]


def test_partial_results_are_told_and_never_zero(study: Synthetic) -> None:
    by_id = {cell["id"]: cell for cell in study.cells}
    study.write_cell(by_id["reach-v3.ppo.s0.1a2b3c4d"], state="failed", last=2_000)
    (study.folder / "reach-v3.ppo.s1.1a2b3c4d" / "cell.json").write_text("{")
    for seed in study.seeds:
        shutil.rmtree(study.folder / f"cartpole-swingup.dreamerv3.s{seed}.1a2b3c4d")
    found = document(summarise(load(study.folder)))
    assert {(item["cell"], item["state"]) for item in found["missing"]} == {
        ("reach-v3.ppo.s0.1a2b3c4d", "failed"),
        ("reach-v3.ppo.s1.1a2b3c4d", "corrupt"),
        *((f"cartpole-swingup.dreamerv3.s{seed}.1a2b3c4d", "pending") for seed in study.seeds),
    }
    tasks = {item["agent"]: item["tasks"] for item in found["aggregates"]}
    assert tasks == {"m3po": 2, "ppo": 2, "dreamerv3": 1}
    assert "dreamerv3" not in found["headline"]
    per_task = {(item["agent"], item["task"]): item["runs"] for item in found["per_task"]}
    assert per_task["ppo", "reach-v3"] == 1
    assert ("dreamerv3", "cartpole-swingup") not in per_task
    assert str(study.folder) not in json.dumps(found)


def test_no_results_at_all(tmp_path: Path) -> None:
    study = Synthetic(tmp_path)
    study.write()
    for cell in study.cells:
        shutil.rmtree(study.folder / cell["id"])
    figures = study.folder / "report" / "figures"
    figures.mkdir(parents=True)
    (figures / "aggregates.png").write_bytes(b"drawn by an earlier report, no longer true")
    (figures / "mine.png").write_bytes(b"not the report's")
    found = read(write(study.folder))
    assert found["headline"] == "No scores yet."
    assert (found["aggregates"], len(found["missing"])) == ([], 18)
    assert [path.name for path in figures.iterdir()] == ["mine.png"]


def test_joint_studies_draw_whole_runs(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, mode="joint", tasks=(("a", RETURN), ("b", SUCCESS)), every=5_000)
    found = summarise(load(study.write()))
    for agent in found.agents:
        drawn = stats.aggregate(agent, "mean", found.scores[agent].final, whole_runs=True)
        assert found.aggregates[agent]["mean"] == drawn
    assert document(found)["interval"]["drawn"] == "whole runs"


def test_a_study_under_way_says_that_agents_are_at_different_steps(study: Synthetic, draw_only: DrawOnly) -> None:
    draw_only()
    for cell in study.cells:
        if cell["agent"] == "ppo":
            study.write_cell(cell, state="running", last=4_000)
    text = (write(study.folder).parent / "report.md").read_text()
    assert "no verdict: m3po at 10,000, ppo at 4,000, dreamerv3 at 10,000." in text
    assert "![Probability that a run of one agent beats a run of another on the same task. Agents are scored at" in text


def test_what_intervals_cover_is_said_of_this_mode(tmp_path: Path, page: Path, draw_only: DrawOnly) -> None:
    draw_only()
    study = Synthetic(tmp_path, mode="joint", tasks=(("a", RETURN), ("b", SUCCESS)), every=5_000)
    joint = (write(study.write()).parent / "report.md").read_text()
    per_task = (page.parent / "report.md").read_text()
    assert ("85 to 95 times" in per_task, "85 to 95 times" in joint) == (True, False)
    assert ("n runs are n numbers" in per_task, "n runs are n numbers" in joint) == (False, True)


def test_a_disk_that_cannot_be_written_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_report, "render", lambda summary: {"report.json": b"{}"})
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResultsError, match=r"taken.*the report cannot be written .*choose another folder"):
        write(folder, tmp_path / "taken")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        write(folder, tmp_path / "report")
    assert contents(tmp_path / "report") == {}

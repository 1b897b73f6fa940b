"""The report of a search: complete, the same every time, offline; and what a study's report says of tuning."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from analysis.figures.search import FIGURES
from analysis.report import search as search_report
from analysis.report import study as study_report
from tests.analysis.conftest import DrawOnly
from tests.analysis.report.test_study import Page, contents
from tests.analysis.searches import write_search
from tests.analysis.synthetic import Synthetic

ODD = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search_report.write(write_search(tmp_path_factory.mktemp("search"), objectives=("score", "updates")))


def test_all_figures_and_tables_are_there(page: Path) -> None:
    names = set(contents(page.parent))
    assert {f"figures/{name}.{kind}" for name in FIGURES for kind in ("pdf", "svg", "png")} <= names
    for table in ("best", "expected_best", "front", "importance", "trials"):
        assert {f"tables/{table}.csv", f"tables/{table}.tex"} <= names
    assert set(FIGURES) == set(search_report.CAPTIONS) == {name for _, of, _ in search_report.SECTIONS for name in of}


def test_twice_the_same_bytes(page: Path, tmp_path: Path) -> None:
    again = search_report.write(page.parents[1], tmp_path)
    assert contents(again.parent) == contents(page.parent)


def test_the_page_needs_no_network(page: Path) -> None:
    text = page.read_text()
    parsed = Page()
    parsed.feed(text)
    assert not {"link", "iframe", "img"} & set(parsed.tags)
    assert parsed.tags.count("script") == 1, "the one that sorts"
    assert all(link.startswith(("#", "data:image/png")) for link in parsed.links)
    assert parsed.tags.count("svg") == len(FIGURES)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(parsed.ids)
    assert "prefers-color-scheme: dark" in text


def test_the_page_tells_cost_and_origin(page: Path) -> None:
    text = page.read_text()
    assert "40,000 environment steps, 2.00 hours of training" in text
    assert "10000, 10001, used by no final run" in text
    assert "18 done, 1 pruned, 1 failed; 1 with diverged cells" in text
    assert "cannot work: a reason" in text


def test_the_page_tells_of_proposals_that_repeated_others(page: Path, tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only()
    told = search_report.write(write_search(tmp_path, repeats=7)).read_text()
    assert "1 with diverged cells; 7 further proposals repeated one of them and were not run" in told
    assert "further proposals" not in page.read_text(), "no word of what there was not"


def test_names_stay_text(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only()  # figures name neither suite nor version
    page = search_report.write(write_search(tmp_path, suite=ODD, versions={ODD: "1"}))
    assert ODD not in page.read_text()


@pytest.mark.parametrize(
    ("trials", "sentence"), [(0, "there is nothing to choose"), (1, "it is the configuration as it stood")]
)
def test_a_search_that_has_just_begun_has_a_report(trials: int, sentence: str, tmp_path: Path) -> None:
    page = search_report.write(write_search(tmp_path, trials=trials, importance={}))
    assert sentence in page.read_text()


def test_a_studys_report_prints_what_tuning_took(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only("tuning")
    study = Synthetic(tmp_path)
    folder = study.write()
    scores = [0.3, 0.5, 0.4]
    origin = {
        "suite": "quick",
        "version": 1,
        "trials": 3,
        "env_steps": 1200,
        "hours": 0.25,
        "seeds": [10_000],
        "tasks": ["reach-v3"],
        "default": 0.3,
        "scores": scores,
    }
    study.write_study(tuned={"ppo": origin, "m3po": {**origin, "trials": 9, "env_steps": 9000, "hours": 2.0}})
    page = study_report.write(folder)
    found = json.loads((page.parent / "report.json").read_text())
    assert found["tuning"][0] == {
        "agent": "ppo",
        "suite": "quick",
        "trials": 3,
        "measured": 3,
        "env_steps": 1200,
        "hours": 0.25,
        "default": 0.3,
        "best": 0.5,
        "expected_best_of_one": pytest.approx(sum(scores) / 3),
    }
    assert any("not tuned: dreamerv3" in note for note in found["notes"])
    assert (page.parent / "figures" / "tuning.svg").exists()
    assert "Tuning: how the agents" in page.read_text()

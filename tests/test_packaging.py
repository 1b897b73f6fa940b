"""What a stranger meets first: versions that fit, entry points that exist, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
ENTRY_POINTS = [
    *PROJECT["scripts"].values(),
    *(target for group in PROJECT["entry-points"].values() for target in group.values()),
]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def test_constraints_lie_in_the_declared_ranges() -> None:
    declared = {need.name.lower(): need.specifier for need in map(Requirement, DECLARED)}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert pinned
    for pin in pinned:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        ranges = declared.get(pin.name.lower())
        assert ranges is None or exact.version in ranges, f"{pin} is outside {ranges} of pyproject.toml"


def test_constraints_pin_all_that_is_declared() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    missing = {name for need in DECLARED if f"\n{(name := Requirement(need).name.lower())}==" not in pinned}
    assert not missing, f"constraints.txt does not pin {', '.join(sorted(missing))}"


def test_the_citation_is_of_this_version() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    for key in ("title", "version", "license"):
        assert citation[key] == PROJECT[{"title": "name"}.get(key, key)]


@pytest.mark.parametrize("target", ENTRY_POINTS)
def test_entry_points_name_what_exists(target: str) -> None:
    module, _, name = target.partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert name in defined


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to {', '.join(missing)}"

"""What a stranger meets first: versions that fit, entry points that exist, links that lead somewhere, true examples."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from pydantic import BaseModel
from ruamel.yaml import YAML

from m3po.bench.cli import app
from m3po.bench.study import open_study
from suites.spec import Budget, Evaluation, Protocol, Suite, TaskGroup, Tuning

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


def test_the_bibtex_entries_say_what_the_citation_says() -> None:
    (block,) = re.findall(r"```bibtex\n(.*?)```", _text(ROOT / "README.md"), re.DOTALL)
    software, paper = (dict(re.findall(r"(\w+) +=\s\{+(.*?)\}+,\n", entry)) for entry in block.split("\n\n"))
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    (method,) = citation["references"]
    assert {key: software[key] for key in ("title", "version")} == {key: citation[key] for key in ("title", "version")}
    assert software["author"] == citation["authors"][0]["name"]
    assert (paper["title"], paper["year"]) == (method["title"], str(method["year"]))
    assert paper["author"] == " and ".join("{family-names}, {given-names}".format(**each) for each in method["authors"])
    assert paper["booktitle"] == method["conference"]["name"]
    assert f"arXiv:{paper['eprint']}" == method["identifiers"][0]["value"]


def test_commands_in_the_pages_have_options_that_exist() -> None:
    shells = [
        block
        for page in PAGES
        for block in re.findall(r"^```(?:console|sh|bash)\n(.*?)^```", _text(page), re.DOTALL | re.MULTILINE)
    ]
    lines = re.findall(r"^ *(?:srun .*\\\n *)?m3po-bench (.*)$", "".join(shells), re.MULTILINE)
    assert len(lines) > 40
    for line in lines:
        line = re.sub(r'"\$\w+"', "0", line)  # what a shell would fill in
        arguments = shlex.split(re.split(r" [>|] ", line)[0], comments=True)
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands[name]
        command.make_context(name, arguments)


@pytest.mark.parametrize("target", ENTRY_POINTS)
def test_entry_points_name_what_exists(target: str) -> None:
    module, _, name = target.partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert name in defined


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _headings(page: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    lines = re.sub(r"^```.*?^```$", "", _text(page), flags=re.DOTALL | re.MULTILINE).splitlines()
    headings = [line.lstrip("# ").lower() for line in lines if re.match(r"#+ ", line)]
    return [re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)", _text(page)) if "://" not in link]
    missing = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _headings(target)):
            missing.append(link)
    assert not missing, f"{page.name} links to {', '.join(missing)}"


def test_the_suite_of_the_readme_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", _text(ROOT / "README.md"), re.DOTALL)
    (tmp_path / "my-study.yaml").write_text(text, encoding="utf-8")
    assert len(open_study(str(tmp_path / "my-study.yaml")).cells) == 3 * 3 * 5  # tasks, agents, seeds


SUITES = ROOT / "docs" / "suites.md"


@pytest.mark.parametrize(
    ("heading", "model", "further"),
    [
        ("The suite", Suite, {"extends": ""}),
        ("`tasks` and `held_out`", TaskGroup, {}),
        ("`protocol`", Protocol, {}),
        ("`budget`", Budget, {}),
        ("`evaluation`", Evaluation, {}),
        ("`tuning`", Tuning, {}),
    ],
)
def test_the_page_on_suites_has_every_key_with_its_default(
    heading: str, model: type[BaseModel], further: dict[str, Any]
) -> None:
    (section,) = re.findall(rf"^### {re.escape(heading)}\n(.*?)(?=^##|\Z)", _text(SUITES), re.DOTALL | re.MULTILINE)
    said = {}
    for key, default in re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE):
        value = "" if default == "–" else YAML(typ="safe").load(default.strip("`"))
        said[key] = tuple(value) if isinstance(value, list) else value
    meant = dict(further)
    for key, field in model.model_fields.items():
        meant[key] = "required" if field.is_required() else field.get_default(call_default_factory=True) or ""
    assert said == meant


@pytest.fixture
def page_on_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page, and its whole files in the current folder."""
    monkeypatch.chdir(tmp_path)
    page = _text(SUITES)
    for name, text in re.findall(r"^`([\w.-]+)`:\n\n```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        Path(name).write_text(text, encoding="utf-8")
    return page


def test_the_commands_of_the_page_on_suites_are_valid(page_on_suites: str) -> None:
    commands = re.findall(r"^m3po-bench validate (.*)$", page_on_suites, re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        source, *options = shlex.split(command, comments=True)
        assert set(options[::2]) <= {"--set"}
        open_study(source, options[1::2])


def test_the_files_of_the_page_on_suites_are_what_it_says(page_on_suites: str) -> None:
    assert len(open_study("walkers.yaml").cells) == 30
    longer = open_study("longer.yaml").suite
    small = {"preset": "small"}
    assert longer.agents == {"m3po": {**small, "horizon": 5}, "ppo": small, "sac": small}
    assert longer.budget == Budget(env_steps=100_000, num_envs=8)


def test_the_parts_of_the_page_on_suites_are_valid(page_on_suites: str) -> None:
    parts = re.findall(
        r"^```yaml\n((?:tasks|protocol|agents|sweep):.*?)^```$", page_on_suites, re.DOTALL | re.MULTILINE
    )
    assert len(parts) == 4
    for part in parts:
        Path("part.yaml").write_text(f"extends: dmc4\nname: part\n{part}", encoding="utf-8")
        open_study("part.yaml")

"""Every hyper-parameter says what it means, in which unit, and where its default comes from; reports print it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.builtin import AGENTS

LEARNING = sorted(set(AGENTS) - {"random"})


@pytest.mark.parametrize("name", LEARNING)
def test_every_default_names_its_origin(name: str) -> None:
    """In brackets at the end of its meaning's first paragraph: a paper, the authors' code, a library, or "ours"."""
    fields = AGENTS[name].load().Config.model_fields
    meanings = {field: info.description or "" for field, info in fields.items() if field != "preset"}
    first = {field: " ".join(text.split("\n\n")[0].split()) for field, text in meanings.items()}
    assert [field for field, text in first.items() if not re.search(r"\([^()]+\)\.?$", text)] == []


@pytest.mark.parametrize("name", LEARNING)
def test_the_table_of_units_is_in_the_words_of_the_fields(name: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "agents.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\|[^|]*\| ([\w, ]+) \| `(\w+)` \| ([\w ]+, (?:of each task|over all environments))", page, re.M
    )
    said = {field: words for agents, field, words in rows if name in agents.split(", ")}
    assert len(said) >= 3
    config = AGENTS[name].load().Config
    assert [field for field, words in said.items() if words not in config.about(field).lower()] == []

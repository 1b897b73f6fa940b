"""Every hyper-parameter says what it means and where its default comes from; reports print it."""

from __future__ import annotations

import re

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

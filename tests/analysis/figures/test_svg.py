from __future__ import annotations

from analysis.figures.style import INK
from analysis.figures.svg import inline

SVG = """<?xml version="1.0"?>
<!-- made up -->
<svg width="100.8pt" viewBox="0 0 100 50"><metadata>when</metadata>
<g id="agent-1"><path id="p" d="M 1.23456 2.5" style="fill: {ink}"/></g><use href="#p"/>
<text>0.000316</text></svg>"""


def test_coordinates_are_shortened_and_what_is_written_is_not() -> None:
    found = inline(SVG.replace("{ink}", INK), "curves", "Mean & more")
    assert 'd="M 1.23 2.5"' in found
    assert "<text>0.000316</text>" in found


def test_ids_are_unique_agents_are_classes_and_ink_is_the_pages() -> None:
    found = inline(SVG.replace("{ink}", INK), "curves", "Mean & more")
    opening = found.partition(">")[0]
    assert opening.startswith('<svg class="figure" role="img" aria-label="Mean &amp; more"')
    assert opening.endswith('viewBox="0 0 100 50"')
    assert '<g class="agent-1">' in found
    assert 'id="curves-p"' in found
    assert 'href="#curves-p"' in found
    assert "fill: var(--ink)" in found
    assert "when" not in found
    assert "made up" not in found

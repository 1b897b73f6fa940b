"""Making matplotlib's SVG files fit to stand inside one HTML page."""

from __future__ import annotations

import re
from html import escape

from analysis.figures import style


def inline(svg: str, name: str, label: str) -> str:
    """The ``<svg>`` element alone: its ids made unique by ``name``, agents marked by class, inks left to the page.

    ``label`` says what it shows to those who do not see it.

    Matplotlib writes an artist's mark as an ``id``; several artists of one agent share it, so it becomes a class.
    Coordinates keep two decimals, a hundredth of a point; what is written keeps all of its own.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'id="(agent-\d+)"', r'class="\1"', svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"\b(\d+\.\d\d)\d+", r"\1", tag[0]), svg)
    opening = f'<svg class="figure" role="img" aria-label="{escape(label)}" style="max-width: {_width(svg)}"'
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda found: f"{opening} {found[1]}>", svg)
    for ink, variable in ((style.INK, "--ink"), (style.GRID, "--grid")):
        svg = svg.replace(ink, f"var({variable})")
    return svg.strip()


def _width(svg: str) -> str:
    found = re.search(r'width="([\d.]+)pt"', svg)
    return f"{float(found[1]) * 1.5:.0f}px" if found else "100%"

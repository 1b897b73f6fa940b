"""One table as CSV with exact numbers, and as LaTeX and Markdown for reading. Names stay text everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Table:
    """One table: ``frame`` holds the exact numbers, ``rows`` the same as text under ``header``.

    ``rows`` may hold less than ``frame``: a page needs no row per run.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    """Leading columns that hold names rather than numbers."""

    def csv(self) -> str:
        """Comma-separated, with exact numbers; an empty field is a missing value."""
        return str(self.frame.to_csv(index=False, lineterminator="\n"))

    def latex(self) -> str:
        """A ``tabular`` for the booktabs package, with its caption as a comment."""
        columns = "l" * self.names + "r" * (len(self.header) - self.names)
        lines = [
            rf"% {self.caption}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(self.header),
            r"\midrule",
        ]
        return "\n".join([*lines, *map(_latex_row, self.rows), r"\bottomrule", r"\end{tabular}", ""])

    def markdown(self) -> str:
        """A pipe table; names are escaped so that they stay text."""
        rule = "|".join(["---"] * self.names + ["---:"] * (len(self.header) - self.names))
        return "\n".join([_markdown_row(self.header), f"|{rule}|", *map(_markdown_row, self.rows), ""])


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "×": r"$\times$", "±": r"$\pm$", "–": "--", "—": "---", "τ": r"$\tau$",
}  # fmt: skip
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: "\\" + sign for sign in "\\`*[]|"}


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def escape_markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(sign, sign) for sign in text.replace("\n", " "))


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"

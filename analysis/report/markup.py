"""One table as CSV with exact numbers, and as LaTeX and Markdown for reading. Names stay text everywhere."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class About:
    """Whose cells are behind a number: of these agents, on these tasks; none named are all of them."""

    agents: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


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
    about: tuple[tuple[About | None, ...], ...] | None = None
    """Like ``rows``, where the names of a number's row and column do not say what it is about; None: no cells of the
    study are behind it."""

    def csv(self) -> str:
        """Comma-separated, with exact numbers; an empty field is a missing value."""
        return str(self.frame.to_csv(index=False, lineterminator="\n"))

    def latex(self) -> str:
        """A ``tabular`` for the booktabs package, with its caption as a comment."""
        columns = "l" * self.names + "r" * (len(self.header) - self.names)
        lines = [
            rf"% {' '.join(self.caption.splitlines())}",  # a comment ends with its line
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
    "×": r"$\times$", "±": r"$\pm$", "–": "--", "—": "---", "−": "$-$", "·": r"$\cdot$", "…": r"\ldots{}",
    "√": r"$\surd$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$",
    "∈": r"$\in$", "∑": r"$\sum$", "½": "1/2", "“": "``", "”": "''", "’": "'", "‖": r"$\|$",
}  # fmt: skip
_ACCENTS = {"\u0302": "^", "\u0303": "~", "\u0304": "="}
"""Combining marks and LaTeX's accents: hat, tilde, bar."""
_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: "\\" + sign for sign in "\\`*[]|"}


def escape_latex(text: str) -> str:
    """Text for LaTeX: signs that mean something to it, mathematical signs, Greek letters and indices by commands."""
    signs: list[str] = []
    for sign in " ".join(text.splitlines()):
        if sign in _ACCENTS and signs:
            signs[-1] = f"\\{_ACCENTS[sign]}{{{signs[-1]}}}"
        else:
            signs.append(_LATEX.get(sign) or _command(sign) or sign)
    return "".join(signs)


def _command(sign: str) -> str:
    """``$\\alpha$`` for α, ``$^{t}$`` for ᵗ; nothing for other signs."""
    kind, _, code = unicodedata.decomposition(sign).partition(" ")
    if kind in ("<super>", "<sub>"):
        return f"${'^' if kind == '<super>' else '_'}{{{chr(int(code, 16))}}}$"
    found = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", unicodedata.name(sign, ""))
    if found is None:
        return ""
    name = found[2].lower().replace("lamda", "lambda")  # Unicode's own spelling
    return f"$\\{name.capitalize() if found[1] == 'CAPITAL' else name}$"


def escape_markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(sign, sign) for sign in text.replace("\n", " "))


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(escape_latex, cells)) + r" \\"
    return f"{{}}{row}" if row.startswith(("[", "*")) else row  # the command before would take it for an option


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"

"""Names stay text in every form of a table."""

from __future__ import annotations

import io

import pandas as pd

from analysis.markup import Table, escape_latex, escape_markdown

NAMES = ["<script>alert(1)</script>", "a_b & 50% $x$", 'comma, "quote"', r"back\slash{}", "pipe|star*"]
TABLE = Table("names", "Names and 1 number", pd.DataFrame({"name": NAMES, "n": 1 / 3}), ("Name", "n"), tuple((n, "0.33") for n in NAMES))  # fmt: skip  # noqa: E501


def test_csv_holds_exact_numbers_and_names() -> None:
    text = TABLE.csv()
    assert "\r" not in text
    read = pd.read_csv(io.StringIO(text))
    assert read["name"].tolist() == NAMES
    assert (read["n"] == 1 / 3).all()


def test_latex_is_escaped() -> None:
    assert escape_latex("a_b & 50% $x$") == r"a\_b \& 50\% \$x\$"
    assert escape_latex(r"\input{x}") == r"\textbackslash{}input\{x\}"
    lines = TABLE.latex().splitlines()
    assert lines[1:3] == [r"\begin{tabular}{lr}", r"\toprule"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.endswith(r"\\") for line in lines[5:-2])


def test_markdown_is_escaped() -> None:
    assert escape_markdown("<b>|*`[x]") == r"&lt;b&gt;\|\*\`\[x\]"
    lines = TABLE.markdown().splitlines()
    assert lines[1] == "|---|---:|"
    assert lines[2] == "| &lt;script&gt;alert(1)&lt;/script&gt; | 0.33 |"
    assert all(line.replace(r"\|", "").count("|") == 3 for line in lines)

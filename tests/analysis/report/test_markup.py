"""Names stay text in every form of a table."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from analysis.report.markup import Table, escape_latex, escape_markdown
from analysis.report.tables import tables
from analysis.summary import Summary
from m3po.registry import agent_config, agent_names

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


def test_greek_and_mathematical_signs_become_commands() -> None:
    assert escape_latex("λᵗ ≤ 2β − Δ₀") == r"$\lambda$$^{t}$ $\leq$ 2$\beta$ $-$ $\Delta$$_{0}$"
    assert escape_latex("r\u0302_b") == r"\^{r}\_b"


def test_a_line_break_in_a_name_ends_no_comment_and_no_row() -> None:
    broken = Table("t", "of a\n\\input{x}\r\nb", pd.DataFrame(), ("Agent", "IQM"), (("a\n\nb", "1"),))
    lines = broken.latex().splitlines()
    assert lines[0] == "% of a \\input{x} b"
    assert lines[1].startswith("\\begin{tabular}")
    assert lines[5] == r"a  b & 1 \\"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed")
def test_latex_compiles_with_booktabs_alone(tmp_path: Path, summary: Summary) -> None:
    """Every table of a report, odd names, and what is said of every field of every agent."""
    if not booktabs():
        pytest.skip("pdflatex lacks the package booktabs")
    about = [
        (agent, name, " ".join((field.description or "").split()))
        for agent in agent_names()
        for name, field in agent_config(agent).model_fields.items()
    ]
    settings = Table("settings", "", pd.DataFrame(), ("Agent", "Field", "About"), tuple(about), 3)
    made = [TABLE, settings, *tables(summary).values()]
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\batchmode\begin{document}"
    body = "\n\n".join(table.latex() for table in made)
    (tmp_path / "all.tex").write_text(f"{head}\n{body}\n\\end{{document}}\n", encoding="utf-8")
    # no font is drawn for it: what is wrong with a table shows before
    command = ["pdflatex", "-halt-on-error", "-draftmode", "-interaction=batchmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (tmp_path / "all.log").read_text(errors="replace")[-2000:]


def booktabs() -> bool:
    return subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).returncode == 0

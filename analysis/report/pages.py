"""What every report is made with: its templates, and files that replace an earlier report's as a whole."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from analysis.figures import svg
from analysis.report import markup
from analysis.report.markup import Table
from analysis.study import ResultsError


def template(name: str) -> jinja2.Template:
    """A template of this package; HTML is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": markup.escape_markdown,
        "json": lambda value: json.dumps(list(value), ensure_ascii=False),
        "anchor": lambda title: re.sub(r"\W+", "-", title.lower()).strip("-"),
    }
    return environment.get_template(name)


def script(*names: str) -> Markup:
    """Scripts of this package, one behind the other, fit to stand inside a page."""
    folder = resources.files("analysis.report").joinpath("templates")
    return Markup("\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names))


def files_of(drawn: Mapping[str, bytes], tables: Mapping[str, Table]) -> dict[str, bytes]:
    """Figures and tables by their paths inside a report's folder."""
    files = {f"figures/{name}": content for name, content in sorted(drawn.items())}
    for name, table in sorted(tables.items()):
        files[f"tables/{name}.csv"] = table.csv().encode()
        files[f"tables/{name}.tex"] = table.latex().encode()
    return files


def inlined(drawn: Mapping[str, bytes], captions: Mapping[str, str]) -> dict[str, Markup]:
    """The drawn SVG files by name, fit to stand inside a page: our own drawing, in which text is escaped."""
    drawings = {name.removesuffix(".svg"): content for name, content in drawn.items() if name.endswith(".svg")}
    return {name: Markup(svg.inline(content.decode(), name, captions[name])) for name, content in drawings.items()}


def write_files(out: Path, files: Mapping[str, bytes], names: Collection[str]) -> None:
    """Each file replaces the old one as a whole; figures and tables of ``names`` that no longer apply are removed.

    Raises :class:`ResultsError` where they cannot be written.
    """
    try:
        _write(out, files, names)
    except OSError as error:
        raise ResultsError(
            f"{error.filename or out}: the report cannot be written ({error.strerror}); "
            "free some space or choose another folder, then run the command again"
        ) from None


def _write(out: Path, files: Mapping[str, bytes], names: Collection[str]) -> None:
    for folder in ("figures", "tables"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for old in sorted((out / folder).iterdir()):
            if old.stem in names and f"{folder}/{old.name}" not in files:
                old.unlink(missing_ok=True)
    for name, content in files.items():
        # a name of its own: another process, perhaps of another machine, may write the same report now
        temporary = out / f"{name}.{secrets.token_hex(4)}.tmp"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, out / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

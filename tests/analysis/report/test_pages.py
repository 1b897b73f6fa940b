"""Files of a report where two processes write it at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.report.pages import write_files


def _in_between(real: Callable[..., object], other: Callable[[], object]) -> Callable[..., object]:
    """``real``, which lets ``other`` happen before its first call."""
    waiting = [other]

    def call(*arguments: object, **options: object) -> object:
        if waiting:
            waiting.pop()()
        return real(*arguments, **options)

    return call


def test_two_that_write_one_report_do_not_take_each_others_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"figures/scores.svg": b"drawn", "report.html": b"page"}
    other = _in_between(os.replace, lambda: write_files(tmp_path, files, ()))
    monkeypatch.setattr(os, "replace", other)
    write_files(tmp_path, files, ())
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == files


def test_an_old_figure_that_somebody_else_removed_is_gone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "figures" / "scores.svg"
    write_files(tmp_path, {"figures/scores.svg": b"drawn"}, ())
    monkeypatch.setattr(Path, "unlink", _in_between(Path.unlink, lambda: os.unlink(old)))
    write_files(tmp_path, {}, {"scores"})
    assert not old.exists()

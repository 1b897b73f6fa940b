from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analysis.figures import drawing
from analysis.frame import Results, load
from analysis.summary import Summary, summarise
from tests.analysis.synthetic import Synthetic


@pytest.fixture
def study(tmp_path: Path) -> Synthetic:
    """A complete small study, written anew for each test."""
    synthetic = Synthetic(tmp_path, starts=True)
    synthetic.write()
    return synthetic


DrawOnly = Callable[..., None]


@pytest.fixture
def draw_only(monkeypatch: pytest.MonkeyPatch) -> DrawOnly:
    """Leaves all figures empty but those named, for tests that read the rest of a report: drawing takes seconds."""
    saved = drawing._saved

    def only(*names: str) -> None:
        def save(figure: Figure, name: str) -> dict[str, bytes]:
            empty = {f"{name}.pdf": b"", f"{name}.png": b"", f"{name}.svg": b'<svg viewBox="0 0 1 1"></svg>'}
            return saved(figure, name) if name in names else empty

        monkeypatch.setattr(drawing, "_saved", save)

    return only


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A complete small study that no test changes."""
    return load(Synthetic(tmp_path_factory.mktemp("results"), starts=True).write())


@pytest.fixture(scope="session")
def summary(results: Results) -> Summary:
    return summarise(results)

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.frame import Results, load
from analysis.summary import Summary, summarise
from tests.analysis.synthetic import Synthetic


@pytest.fixture
def study(tmp_path: Path) -> Synthetic:
    """A complete small study, written anew for each test."""
    synthetic = Synthetic(tmp_path, starts=True)
    synthetic.write()
    return synthetic


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A complete small study that no test changes."""
    return load(Synthetic(tmp_path_factory.mktemp("results"), starts=True).write())


@pytest.fixture(scope="session")
def summary(results: Results) -> Summary:
    return summarise(results)

"""Families of packages made on the spot."""

import pytest

from suites.families import family


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that installs a package offering families."""

    def install(package: str, entries: str, code: str = "") -> None:
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[m3po.families]\n{entries}\n")
        (folder / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(folder)
        family.cache_clear()

    yield install
    family.cache_clear()

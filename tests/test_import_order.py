"""The floors of the house as data: an import runs down only, and each room has its own outside packages.

Every import counts, also those inside functions, behind ``TYPE_CHECKING``, and ``import_module("name")``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("suites", "analysis", "m3po", "baselines")


@dataclass(frozen=True)
class Room:
    """Modules that share a rule. ``name`` is a dotted prefix, ``*`` one part of it; the longest match counts.

    Besides itself and the standard library a room imports the rooms named ``inside`` and the packages ``outside``, but
    nothing of what is ``above`` it on its own floor.
    """

    name: str
    floor: int
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    above: tuple[str, ...] = ()


BELOW = ("suites.spec", "m3po.api", "m3po.kit")
LEARNING = ("torch", "numpy", "pydantic")
MEASURING = ("numpy", "gymnasium", "pydantic", "pydantic_core", "ruamel")
COUNTING = ("numpy", "orjson", "pandas", "scipy", "rliable", "arch")

ROOMS = (
    Room("suites", 1, (), MEASURING),
    # A simulator is known to its adapter alone.
    Room("suites.metaworld", 1, ("suites",), (*MEASURING, "metaworld", "mujoco")),
    Room("suites.metaworld_speed", 1, ("suites",), (*MEASURING, "metaworld", "mujoco", "scipy")),
    Room("suites.metaworld_scalars", 1, ("suites",), (*MEASURING, "metaworld")),
    Room("suites.dm_control", 1, ("suites",), (*MEASURING, "dm_control", "dm_env")),
    Room("suites.pools", 1, ("suites",), (*MEASURING, "envpool")),
    # Compares the engines along Meta-World's scripted experts.
    Room("suites.comparison", 1, ("suites",), (*MEASURING, "metaworld")),
    Room("suites.dm_control_extra", 1, ("suites",), (*MEASURING, "dm_control")),
    Room("suites.dm_control_pixels", 1, ("suites",), (*MEASURING, "dm_control")),
    # First the numbers, then what is drawn of them, then what is written.
    Room("analysis", 1, (), COUNTING, ("analysis.figures", "analysis.report")),
    Room("analysis.figures", 1, ("analysis",), (*COUNTING, "seaborn", "matplotlib"), ("analysis.report",)),
    Room("analysis.report", 1, ("analysis",), (*COUNTING, "jinja2", "markupsafe")),
    Room("m3po", 1),  # nothing but m3po/__init__.py: whoever imports a part of m3po imports it first
    Room("m3po.api", 2, ("suites.spec",), ("numpy", "pydantic")),
    Room("m3po.registry", 3, ("m3po.api", "suites"), ("numpy", "pydantic")),
    Room("m3po.spaces", 3, ("m3po.api", "suites"), ("numpy", "pydantic")),
    Room("m3po.testing", 3, ("m3po.api", "suites"), ("numpy", "pydantic")),
    Room("m3po.kit", 3, ("m3po.api", "suites.spec"), ("torch", "numpy", "safetensors")),
    Room("m3po.algorithm", 4, BELOW, LEARNING),
    Room("m3po.bench", 4, ("m3po.api", "m3po.registry", "m3po.spaces", "suites", "analysis"),
         ("numpy", "pydantic", "ruamel", "typer", "rich", "optuna")),
    Room("baselines", 4),
    Room("baselines.*", 4, BELOW, LEARNING),
    Room("m3po.bench.play", 4, ("m3po.bench", "m3po.api", "m3po.registry", "suites"), ("numpy", "imageio_ffmpeg")),
    # A configuration is read without torch, so that a suite is checked in a moment.
    Room("m3po.algorithm.config", 4, ("suites.spec", "m3po.api"), ("numpy", "pydantic")),
    Room("baselines.*.config", 4, ("suites.spec", "m3po.api"), ("numpy", "pydantic")),
)  # fmt: skip


def within(module: str, prefix: str) -> bool:
    """Whether ``module`` is ``prefix`` or a part of it; ``*`` in the prefix matches one part."""
    parts, wanted = module.split("."), prefix.split(".")
    return len(parts) >= len(wanted) and all(b in ("*", a) for a, b in zip(parts, wanted, strict=False))


def room_of(module: str) -> Room | None:
    """The room a module lives in; ``m3po`` itself does not take in new modules of ``m3po``."""
    matches = [room for room in ROOMS if within(module, room.name) and (room.name != "m3po" or module == "m3po")]
    return max(matches, key=lambda room: room.name.count("."), default=None)


def imports(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a file imports."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((node.lineno, str(name)) for name in names)


def allowed(imported: str, module: str, room: Room) -> bool:
    """Whether a module of ``room`` may import ``imported``."""
    top = imported.partition(".")[0]
    if top not in PACKAGES:
        return top in room.outside or top in sys.stdlib_module_names
    if any(within(imported, prefix) for prefix in room.above):
        return False
    own_package = ".".join(module.split(".")[: room.name.count(".") + 1])
    return any(within(imported, prefix) for prefix in (own_package, *room.inside))


def violations(root: Path) -> list[str]:
    """One sentence for each import in the packages under ``root`` that its floor must not have."""
    sentences = []
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        relative = path.relative_to(root)
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        room = room_of(module)
        if room is None:
            sentences.append(f"{relative.as_posix()} is in no room; give it one in {Path(__file__).name}")
            continue
        for line, imported in imports(path, module):
            if not allowed(imported, module, room):
                sentences.append(f"{relative.as_posix()}:{line} imports {imported}; floor {room.floor} must not")
    return sentences


def test_imports_run_down_only() -> None:
    assert not (found := violations(ROOT)), "\n".join(found)


def test_every_package_is_checked() -> None:
    missing = [package for package in PACKAGES if not (ROOT / package / "__init__.py").exists()]
    assert not missing, f"the packages moved ({missing}); this test would look at nothing"


def test_the_table_itself_runs_down() -> None:
    """A room may open another only below itself; the adapters of suites are part of suites."""
    for room in ROOMS:
        for name in room.inside:
            below = room_of(name)
            assert below is not None, f"{room.name} may import {name}, which is no room"
            assert below.floor < room.floor or within(room.name, name), f"{room.name} must not reach up to {name}"


PLANTED = [
    ("suites/vector.py", "import torch", "suites/vector.py:1 imports torch; floor 1 must not"),
    ("suites/vector.py", "def f():\n    import torch.nn as nn", "suites/vector.py:2 imports torch.nn; floor 1"),
    ("suites/vector.py", "if TYPE_CHECKING:\n    from m3po import api", "suites/vector.py:2 imports m3po.api; floor 1"),
    ("suites/vector.py", "import_module('metaworld')", "suites/vector.py:1 imports metaworld; floor 1 must not"),
    ("suites/metaworld.py", "import dm_control", "suites/metaworld.py:1 imports dm_control; floor 1 must not"),
    ("analysis/frame.py", "from analysis.figures import style",
     "analysis/frame.py:1 imports analysis.figures.style; floor 1 must not"),
    ("analysis/figures/style.py", "import analysis.report.tables",
     "analysis/figures/style.py:1 imports analysis.report.tables; floor 1 must not"),
    ("analysis/frame.py", "from suites import spec", "analysis/frame.py:1 imports suites.spec; floor 1 must not"),
    ("m3po/api.py", "import torch", "m3po/api.py:1 imports torch; floor 2 must not"),
    ("m3po/kit/nets.py", "from ..bench import loop", "m3po/kit/nets.py:1 imports m3po.bench.loop; floor 3 must not"),
    ("m3po/algorithm/agent.py", "import baselines.ppo", "imports baselines.ppo; floor 4 must not"),
    ("m3po/algorithm/config.py", "import torch", "m3po/algorithm/config.py:1 imports torch; floor 4 must not"),
    ("m3po/bench/cli.py", "from m3po.kit.nets import mlp", "imports m3po.kit.nets.mlp; floor 4 must not"),
    ("baselines/ppo/agent.py", "import typer", "baselines/ppo/agent.py:1 imports typer; floor 4 must not"),
    ("baselines/ppo/agent.py", "from baselines.sac import nets", "imports baselines.sac.nets; floor 4 must not"),
    ("baselines/ppo/agent.py", "from ..sac import nets", "imports baselines.sac.nets; floor 4 must not"),
    ("baselines/ppo/config.py", "from baselines.ppo import agent", "imports baselines.ppo.agent; floor 4 must not"),
    ("m3po/attic.py", "", "m3po/attic.py is in no room"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "source", "sentence"), PLANTED)
def test_a_planted_violation_is_named(tmp_path: Path, path: str, source: str, sentence: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    found = violations(tmp_path)
    assert len(found) == 1
    assert sentence in found[0]


def test_honest_imports_pass(tmp_path: Path) -> None:
    honest = {
        "suites/metaworld.py": "import os.path\nimport metaworld.env_dict\nfrom suites.spec import Task",
        "m3po/kit/nets.py": "from m3po.kit import symlog\nfrom . import symlog\nimport torch",
        "baselines/sac/agent.py": "from baselines.sac.config import SAC\nfrom .config import SAC",
        "m3po/bench/cli.py": "import analysis.report.study\nfrom suites import catalog\nimport typer",
    }
    for path, source in honest.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []

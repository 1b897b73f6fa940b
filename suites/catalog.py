"""Finding and loading suites.

All that is wrong with a suite file is said at once, each fault with file, line and column. Loading imports neither
simulator nor learning library.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from suites.errors import SuiteError, nearest, unknown
from suites.faults import known_keys, validate
from suites.resolve import resolve_tasks
from suites.source import Document, KeyPath, merge, read, read_value
from suites.spec import Suite, Task

MAX_BYTES = 200_000
"""A larger file is no suite; parsing it would take long."""

MOST_SEEDS = 1000
"""A larger number of seeds is most likely a seed: no study has so many."""

_SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with its tasks resolved and the way back to its file."""

    suite: Suite
    tasks: tuple[Task, ...]
    """Those that agents train on."""
    held_out: tuple[Task, ...]
    """Those that are only evaluated."""
    tuning: tuple[Task, ...]
    """Those that tuning trains on instead; none where it takes the suite's."""
    notes: tuple[str, ...]
    """What was chosen for the user, in sentences."""
    path: Path
    """The file it was loaded from."""
    document: Document
    """The plain values after ``extends`` and overrides."""

    def where(self, key_path: tuple[str | int, ...]) -> str:
        """``file:line:column`` of a key, such as ``("agents", "m3po", "horizon")``, or of what holds it."""
        return self.document.where(key_path)


def shipped_suites() -> dict[str, Path]:
    """Name and file of every suite that comes with the package."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


AgentCheck: TypeAlias = Callable[[str, Mapping[str, Any]], Iterable[tuple[KeyPath, str]]]
"""From the name and values of an entry of ``agents`` to its faults: key path below ``agents`` and sentence."""


def load_suite(source: str, overrides: Sequence[str] = (), check_agent: AgentCheck | None = None) -> LoadedSuite:
    """Load a suite from a file or by a shipped suite's name, from any folder.

    ``overrides`` are ``key.path=value`` texts, their values YAML; a null removes a key. Raises :class:`SuiteError` with
    one sentence per fault. Suites know no agents: whoever does passes ``check_agent``, so that a suite with other
    faults says those of its agents in the same pass.
    """
    path = _find(source)
    document = _read(path, ())
    document = Document(copy.deepcopy(document.values), document.places)
    messages = [wrong for override in overrides if (wrong := _override(document, override)) is not None]

    def fault(key_path: KeyPath, sentence: str) -> None:
        messages.append(f"{document.where(key_path)}: {sentence}")

    suite = validate(document.values)
    if isinstance(suite, list):
        for key_path, sentence in suite:
            fault(key_path, sentence)
        for key_path, sentence in _agent_faults(document, check_agent):
            fault(key_path, sentence)
    tasks = resolve_tasks(document, fault)
    most = max(len(tasks.trained), len(tasks.tuning))
    if isinstance(suite, Suite) and suite.mode == "joint" and suite.budget.num_envs < most:
        expected = f"expected at least {most}, one for each task of a joint suite"
        fault(("budget", "num_envs"), f"budget.num_envs: found {suite.budget.num_envs}; {expected}")
    if isinstance(suite, Suite) and suite.mode == "per_task" and tasks.held_out:
        fault(("held_out",), "held_out: an agent of one task cannot be evaluated on others; expected 'mode: joint'")
    if isinstance(suite, Suite):
        for key_path, number in _numbers_of_seeds(suite):
            if number > MOST_SEEDS:
                expected = f"expected a number of seeds, at most {MOST_SEEDS}, or the seeds themselves: [{number}]"
                fault(key_path, f"{'.'.join(key_path)}: found {number}; {expected}")
    if messages or isinstance(suite, list):
        raise SuiteError(messages)
    notes = (*tasks.notes, *_uneven(suite, len(tasks.trained)))
    return LoadedSuite(suite, tasks.trained, tasks.held_out, tasks.tuning, notes, path, document)


def _uneven(suite: Suite, num_tasks: int) -> Iterator[str]:
    """What to say where the tasks of a joint suite do not share its environments evenly."""
    if suite.mode != "joint":
        return
    for num_envs in suite.sweep.get("budget.num_envs", [suite.budget.num_envs]):
        more = num_envs % num_tasks if isinstance(num_envs, int) else 0
        if more:
            yield (
                f"{num_envs} environments for {num_tasks} tasks: {more} of the tasks train in one more than the "
                f"others; take a multiple of {num_tasks}"
            )


def _numbers_of_seeds(suite: Suite) -> list[tuple[tuple[str, ...], int]]:
    """Where a suite gives a number of seeds, and which."""
    given = [(("seeds",), suite.seeds), (("tuning", "seeds"), suite.tuning.seeds if suite.tuning else None)]
    return [(key_path, seeds) for key_path, seeds in given if isinstance(seeds, int)]


def _agent_faults(document: Document, check: AgentCheck | None) -> list[tuple[KeyPath, str]]:
    agents = document.values.get("agents")
    if check is None or not isinstance(agents, Mapping):
        return []
    entries = [(name, values) for name, values in agents.items() if isinstance(values, Mapping)]
    return [(("agents", *path), sentence) for name, values in entries for path, sentence in check(name, values)]


def schema() -> dict[str, Any]:
    """JSON schema of a suite file, for editors."""
    result = Suite.model_json_schema()
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    required = result.pop("required")
    result["properties"]["extends"] = {
        "type": "string",
        "description": "A file (relative to this one) or a shipped suite's name. This file is laid over it: mappings "
        "are merged, lists and values replaced, and a null removes what is inherited.",
    }
    result["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    return result


def _find(source: str, folder: Path = Path()) -> Path:
    shipped = shipped_suites()
    if source in shipped:
        return shipped[source]
    path = folder / source
    if os.path.isfile(path):  # unlike Path's, false for what cannot be a path
        return path
    found = "a folder" if os.path.isdir(path) else "no such file"
    match = nearest(Path(source).stem, shipped)
    hint = f"; nearest: {match!r}" if match else ""
    raise SuiteError(f"{path}: {found}; expected a suite file or a shipped suite ({', '.join(shipped)}){hint}")


def _read(path: Path, chain: tuple[Path, ...]) -> Document:
    """The document at ``path`` laid over what it extends; ``chain`` are the files that led here."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SuiteError(f"{path}: found {size} bytes; a suite file has at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not a text in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    document = read(text, str(path))
    if "extends" not in document.values:
        return document
    place = document.where(("extends",))
    base = document.values.pop("extends")
    if not isinstance(base, str):
        raise SuiteError(f"{place}: extends: found {base!r}; expected a file or the name of a shipped suite")
    try:
        base_path = _find(base, path.parent)
    except SuiteError as error:
        raise SuiteError(f"{place}: extends: {error}") from error
    chain = (*chain, path.resolve())
    if base_path.resolve() in chain:
        circle = " -> ".join(step.name for step in (*chain, base_path))
        raise SuiteError(f"{place}: extends: the files extend each other in a circle: {circle}")
    return merge(_read(base_path, chain), document)


def _override(document: Document, override: str) -> str | None:
    """Apply one ``key.path=value`` to ``document``; returns what is wrong with it, if anything is."""
    place = f"--set {override}"
    key, equals, text = override.partition("=")
    if not equals or not key:
        return f"{place}: expected key.path=value"
    try:
        value = read_value(text, place)
    except SuiteError as error:
        return str(error)
    path: KeyPath = ()
    holder: Any = document.values
    parts = key.split(".")
    for part in parts[:-1]:
        fault = _check_part(holder, path, part, last=False)
        if fault:
            return f"{place}: {fault}"
        step = int(part) if isinstance(holder, list) else part
        path = (*path, step)
        holder = holder.setdefault(step, {}) if isinstance(holder, dict) else holder[step]
    fault = _check_part(holder, path, parts[-1], last=True)
    if fault:
        return f"{place}: {fault}"
    _put(document, holder, path, parts[-1], value, place)
    return None


def _put(document: Document, holder: Any, path: KeyPath, part: str, value: Any, place: str) -> None:
    step: str | int = int(part) if isinstance(holder, list) else part
    path = (*path, step)
    for old in [known for known in document.places if known[: len(path)] == path]:
        del document.places[old]
    if value is None and isinstance(holder, dict):
        holder.pop(step, None)
        return
    holder[step] = value
    document.places[path] = place


def _check_part(holder: Any, path: KeyPath, part: str, *, last: bool) -> str | None:
    """Why ``part`` cannot follow ``path``, or ``None``."""
    if isinstance(holder, list):
        fits = part.isdecimal() and int(part) < len(holder)
        return None if fits else f"found {part!r}; expected a position from 0 to {len(holder) - 1}"
    if not isinstance(holder, dict):
        return f"{'.'.join(map(str, path))} is the value {holder!r} and has no key {part!r}"
    if path == ("agents",) and not last:
        return None if part in holder else unknown("agent", part, holder)
    known = known_keys(path)
    return None if known is None or part in known else unknown("key", part, known)

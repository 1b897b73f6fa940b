"""Reading a suite file: YAML 1.2 into plain values, with the place of every key, and nothing executed.

A *key path* is a tuple of keys and list indices, ``("agents", "m3po", "horizon")``; the empty one is the document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from suites.errors import SuiteError

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_NODES = 20_000
"""A document that expands to more values than this is refused: aliases of aliases grow without bound."""

_SHOWN = 60
_TAG = "tag:yaml.org,2002:"
_NUMBERS = {_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"}
# Dates have no use in a suite; what looks like one is text.
_TEXTS = {_TAG + "str", _TAG + "timestamp", _TAG + "merge", _TAG + "value"}
_EXPONENT = re.compile(r"[-+]?[0-9_.]+[eE][-+]?[0-9]+")


@dataclass
class Document:
    """Plain values and where each came from (``file:line:column``)."""

    values: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Place of a path, or of the nearest part of it that is written down."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, "")


def read(text: str, file: str) -> Document:
    """Parse ``text``, called ``file`` in messages. Raises :class:`SuiteError` with all faults found."""
    node = _compose(text, file)
    if node is None:
        raise SuiteError(f"{file}:1:1: the file is empty; expected a mapping with the keys of a suite")
    if not isinstance(node, MappingNode):
        raise SuiteError(f"{_place(file, node)}: found {_kind(node)}; expected a mapping with the keys of a suite")
    reader = _Reader(file)
    values = reader.value(node, ())
    if reader.faults:
        raise SuiteError(reader.faults)
    return Document(values, reader.places)


def read_value(text: str, what: str) -> Any:
    """One value, such as the right-hand side of ``--set``."""
    node = _compose(text, what)
    if node is None:
        return None
    reader = _Reader(what)
    value = reader.value(node, ())
    if reader.faults:
        raise SuiteError(reader.faults)
    return value


def merge(base: Document, change: Document) -> Document:
    """``change`` laid over ``base`` as a JSON merge patch (RFC 7386).

    Mappings are merged key by key, everything else replaces, and a null removes what was inherited.
    """
    merged = Document(dict(base.values), dict(base.places))
    _merge(merged, merged.values, change, change.values, ())
    merged.places[()] = change.where(())
    return merged


def _merge(
    merged: Document, target: dict[str, Any], change: Document, values: Mapping[str, Any], path: KeyPath
) -> None:
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            target[key] = dict(target[key])
            merged.places[here] = change.where(here)
            _merge(merged, target[key], change, value, here)
            continue
        for inherited in [place for place in merged.places if place[: len(here)] == here]:
            del merged.places[inherited]
        if value is None:
            target.pop(key, None)
            continue
        target[key] = value
        merged.places |= {place: spot for place, spot in change.places.items() if place[: len(here)] == here}


def _compose(text: str, file: str) -> Node | None:
    try:
        return YAML(typ="safe", pure=True).compose(text)  # type: ignore[no-any-return]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise SuiteError(f"{place}: this is not YAML: {_problem(error)}") from error
    except YAMLError as error:
        raise SuiteError(f"{file}: this is not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise SuiteError(f"{file}: the values are nested too deeply") from error


def _problem(error: MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "found a tab where spaces are expected; YAML is indented with spaces"
    return problem if error.context is None else f"{problem} ({error.context})"


class _Reader:
    """Turns nodes into values, noting places and faults as it goes."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._constructor = YAML(typ="safe", pure=True).constructor
        self._nodes = 0
        self.places: dict[KeyPath, str] = {}
        self.faults: list[str] = []

    def value(self, node: Node, path: KeyPath, within: tuple[Node, ...] = ()) -> Any:
        self.places.setdefault(path, _place(self._file, node))
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SuiteError(
                f"{_place(self._file, node)}: the file expands to more than {MAX_NODES} values; use fewer aliases"
            )
        if any(node is outer for outer in within):
            self._fault(node, "an alias refers to the value it stands in")
            return None
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, (*within, node))
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(child, (*path, index), (*within, node)) for index, child in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in _TEXTS:
            return node.value
        if isinstance(node, ScalarNode) and node.tag in _NUMBERS:
            return self._number(node)
        self._fault(node, f"the tag {_short(node.tag)!r} is not allowed; a suite holds plain values only")
        return None

    def _mapping(self, node: MappingNode, path: KeyPath, within: tuple[Node, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first: dict[str, Node] = {}
        for key, child in node.value:
            if not isinstance(key, ScalarNode):
                self._fault(key, f"found {_kind(key)} as a key; expected a name")
                continue
            name = str(key.value)
            if name == "<<" and key.tag == _TAG + "merge":
                self._fault(key, "merge keys (<<) are not supported; use 'extends' or write the values out")
                continue
            if name in first:
                line = first[name].start_mark.line + 1
                self._fault(key, f"the key {name!r} stands here a second time; it is already on line {line}")
                continue
            first[name] = key
            self.places[(*path, name)] = _place(self._file, key)
            values[name] = self.value(child, (*path, name), within)
        return values

    def _number(self, node: ScalarNode) -> Any:
        try:
            value = self._constructor.construct_object(node)
        except (ValueError, YAMLError):
            self._fault(node, f"{node.value!r} looks like a number but is none; put quotes around a text")
            return None
        # 1e6 is how people write a million; a whole number wherever one is expected.
        if isinstance(value, float) and _EXPONENT.fullmatch(node.value) and value.is_integer():
            return int(value)
        return value

    def _fault(self, node: Node, sentence: str) -> None:
        self.faults.append(f"{_place(self._file, node)}: {sentence}")


def _place(file: str, node: Node) -> str:
    return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _kind(node: Node) -> str:
    if isinstance(node, SequenceNode):
        return "a list"
    if isinstance(node, MappingNode):
        return "a mapping"
    value = str(node.value)  # all of a file that is no YAML, such as a table, is one value
    return f"the single value {value if len(value) <= _SHOWN else value[: _SHOWN - 3] + '...'!r}"


def _short(tag: Any) -> str:
    return str(tag).replace(_TAG, "!!")

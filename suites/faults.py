"""What is wrong with the plain values of a suite file, as sentences about key paths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from suites.errors import nearest, unknown
from suites.source import KeyPath
from suites.spec import Budget, Evaluation, Protocol, Suite, TaskGroup, Tuned, Tuning

_EXPECTED = {
    "int_type": "a whole number",
    "string_type": "a text",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}


_NAMED_ID = "; a gymnasium id with '/' goes into the group's options: names: [mine], options: {id: namespace/Name-v0}"


def validate(values: dict[str, Any]) -> Suite | list[tuple[KeyPath, str]]:
    """The suite that ``values`` describe, or every fault of its form."""
    try:
        # Through JSON and strictly: lists become tuples, but "5" and true do not become numbers.
        return Suite.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        return list(dict.fromkeys(_faults(error.errors(), values)))


def known_keys(path: KeyPath) -> tuple[str, ...] | None:
    """The keys a mapping at ``path`` may have, or ``None`` where they are free (agents, options)."""
    model = _model(path)
    return None if model is None else tuple(model.model_fields)


def _model(path: KeyPath) -> type[BaseModel] | None:
    if not path:
        return Suite
    if path[0] == "tuning" and path[1:2] != ("tasks",):
        return Tuning if len(path) == 1 else _model(path[1:])
    groups = path[1:] if path[0] == "tuning" else path
    if groups[0] in ("tasks", "held_out") and (len(groups) == 1 or (len(groups) == 2 and isinstance(groups[1], int))):
        return TaskGroup
    if path[0] == "tuned" and len(path) == 2:
        return Tuned
    if path[-1] == "protocol":
        return Protocol
    if path == ("budget",):
        return Budget
    return Evaluation if path == ("evaluation",) else None


def _faults(errors: list[ErrorDetails], values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    for error in errors:
        missing = error["type"] == "missing"
        located = _locate(error["loc"][:-1] if missing else error["loc"], values)
        if located is None:
            continue
        path, value = located
        if missing:
            key = ".".join(map(str, (*path, error["loc"][-1])))
            yield path, f"the key {key!r} is missing"
        elif error["type"] == "extra_forbidden":
            yield path, unknown("key", str(path[-1]), known_keys(path[:-1]) or ())
        else:
            hint = _NAMED_ID if "names" in path and "/" in str(value) else ""
            yield path, f"{'.'.join(map(str, path))}: found {_shown(value)}; expected {_expected(error, value)}{hint}"


def _locate(location: tuple[int | str, ...], values: Any) -> tuple[KeyPath, Any] | None:
    """Key path and value of an error; ``None`` for one about a form the value does not have.

    Where two forms are allowed (a mapping or a list of them, a name or a mapping) pydantic tells what is wrong with
    both, and puts a label for the form into the location.
    """
    path: KeyPath = ()
    for part in location:
        if part == "[key]":
            return path, path[-1]
        in_list = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if in_list or (isinstance(values, dict) and part in values):
            path, values = (*path, part), values[part]
        elif _form(str(part)) is not _form_of(values):
            return None
    return path, values


def _form(label: str) -> type:
    """The form that pydantic's label for one of several allowed ones stands for."""
    if label.startswith(("tuple", "constrained-tuple")):
        return list
    # the checks of a model's own are part of its label
    return dict if label.startswith("function-after[") else str


def _form_of(value: Any) -> type:
    return type(value) if isinstance(value, list | dict) else str


def _expected(error: ErrorDetails, value: Any) -> str:
    kind, message = error["type"], error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind in {"string_pattern_mismatch", "string_too_long"}:
        return "a name of at most 80 letters, digits, '.', '_' and '-', beginning with a letter or digit"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "literal_error" and isinstance(value, str):
        match = nearest(value, error["ctx"]["expected"].replace("'", "").split(" or "))
        return f"{message}; nearest: {match!r}" if match else message
    return message


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping with the keys {', '.join(map(repr, value)) or '(none)'}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

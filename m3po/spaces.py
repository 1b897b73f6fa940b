"""What tuning varies: search spaces in YAML, beside a configuration or in a suite, checked against its fields."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from m3po.api import AgentConfig, SearchSpace
from suites.errors import SuiteError, unknown
from suites.source import read

__all__ = ["FILE", "agent_spaces", "read_spaces"]

FILE = "search.yaml"
"""Beside the module of a configuration."""

Fault: TypeAlias = tuple[tuple[str | int, ...], str]
"""Key path and sentence."""


def agent_spaces(agent: str, config_class: type[AgentConfig]) -> dict[str, SearchSpace]:
    """The spaces that come with an agent; none without a :data:`FILE`. Raises :class:`SuiteError` for faults."""
    path = Path(inspect.getfile(config_class)).with_name(FILE)
    if not path.is_file():
        return {}
    document = read(path.read_text(encoding="utf-8"), str(path))
    spaces, faults = read_spaces(agent, config_class, document.values)
    if faults:
        raise SuiteError([f"{document.where(place)}: {sentence}" for place, sentence in faults])
    return spaces


def read_spaces(
    agent: str, config_class: type[AgentConfig], declared: Mapping[str, Any]
) -> tuple[dict[str, SearchSpace], list[Fault]]:
    """The spaces that are right, by field, and what is wrong with the others: key paths below ``declared``."""
    spaces: dict[str, SearchSpace] = {}
    faults: list[Fault] = []
    for key, value in declared.items():
        if key not in config_class.model_fields:
            faults.append(((key,), unknown(f"{agent} key", key, config_class.model_fields)))
            continue
        try:
            space = SearchSpace.model_validate(value)
        except ValidationError as error:
            for fault in error.errors():
                message = str(fault["msg"]).removeprefix("Value error, ")
                faults.append(((key, *fault["loc"]), f"search space of {key!r}: {message}"))
            continue
        if (misfit := _misfit(config_class, key, space)) is not None:
            faults.append(((key,), f"search space of {key!r}: {misfit}"))
        spaces[key] = space
    return spaces, faults


def _misfit(config_class: type[AgentConfig], key: str, space: SearchSpace) -> str | None:
    """Why some value of ``space`` is none that the field may have, or ``None``."""
    field = config_class.model_fields[key]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in _samples(space):
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            reason = str(error.errors()[0]["msg"])
            hint = "; for whole numbers add 'integer: true'" if error.errors()[0]["type"] == "int_from_float" else ""
            return f"it contains {value!r}, which the field cannot be ({reason[:1].lower()}{reason[1:]}){hint}"
    return None


def _samples(space: SearchSpace) -> Iterator[Any]:
    """All choices, or the ends of a range and a number between them that is only whole where all are."""
    if space.choices is not None:
        yield from space.choices
    elif space.low is not None and space.high is not None:
        ends = (space.low, space.high)
        yield from (map(int, ends) if space.integer else (*ends, space.low + (space.high - space.low) / math.pi))

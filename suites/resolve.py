"""From the task groups of a suite file to tasks with everything resolved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from suites.errors import SuiteError, unknown
from suites.families import Family, family
from suites.protocols import protocol
from suites.source import Document, KeyPath
from suites.spec import Protocol, Task, TaskGroup

Fault = Callable[[KeyPath, str], None]
"""Notes a sentence about what stands at a key path."""


def resolve_tasks(document: Document, fault: Fault) -> tuple[Task, ...]:
    """The tasks a suite file declares, in order; every fault is noted, and what is faulty is left out.

    Works on plain values, so that a misspelt task is reported beside a misspelt key.
    """
    tasks: list[Task] = []
    paths: list[KeyPath] = []
    values = document.values
    for path, group in _groups(values):
        found = _family(path, group, fault)
        if found is None:
            continue
        rules = _protocol(path, group, values, found, fault)
        for task_path, name in _names(path, group, found, fault):
            if rules is not None:
                tasks.append(Task(name=name, family=group.family, protocol=rules, options=group.options))
                paths.append(task_path)
                _check_options(path, tasks[-1], found, fault)
    return tuple(_unique(tasks, paths, document, fault))


def _groups(values: dict[str, Any]) -> list[tuple[KeyPath, TaskGroup]]:
    declared = values.get("tasks")
    entries: list[tuple[KeyPath, Any]] = (
        [(("tasks", index), entry) for index, entry in enumerate(declared)]
        if isinstance(declared, list)
        else [(("tasks",), declared)]
    )
    groups = []
    for path, entry in entries:
        known = {key: value for key, value in entry.items() if key in TaskGroup.model_fields} if _is_map(entry) else {}
        try:
            groups.append((path, TaskGroup.model_validate(known)))
        except ValidationError:
            continue  # the suite's own validation tells of it
    return groups


def _family(path: KeyPath, group: TaskGroup, fault: Fault) -> Family | None:
    try:
        return family(group.family)
    except SuiteError as error:
        fault((*path, "family"), str(error))
        return None


def _protocol(path: KeyPath, group: TaskGroup, values: dict[str, Any], found: Family, fault: Fault) -> Protocol | None:
    """The group's protocol, else the suite's, else the family's; the action repeat likewise."""
    from_group, from_suite = group.protocol, _of_type(values.get("protocol"), str)
    name = from_group or from_suite or found.default_protocol
    place: KeyPath = (*path, "protocol") if from_group else ("protocol",) if from_suite else (*path, "family")
    try:
        rules = protocol(name)
    except SuiteError as error:
        fault(place, str(error))
        return None
    if rules.score != "return" and not found.has_success:
        fault(place, f"protocol {name!r} scores success, which the family {found.name!r} does not report")
        return None
    repeat = group.action_repeat or _of_type(values.get("action_repeat"), int)
    try:
        return protocol(name, repeat)
    except SuiteError as error:
        fault((*path, "action_repeat") if group.action_repeat else ("action_repeat",), str(error))
        return None


def _names(path: KeyPath, group: TaskGroup, found: Family, fault: Fault) -> list[tuple[KeyPath, str]]:
    if group.set is not None:
        sets = found.sets()
        if group.set not in sets:
            fault((*path, "set"), unknown(f"set of {found.name} tasks", group.set, sets))
            return []
        return [((*path, "set"), name) for name in sets[group.set]]
    known = found.tasks()
    names: list[tuple[KeyPath, str]] = []
    for index, name in enumerate(group.names or ()):
        if name in known:
            names.append(((*path, "names", index), name))
        else:
            fault((*path, "names", index), unknown(f"{found.name} task", name, known))
    if not group.names:
        fault((*path, "names"), "found no names; expected at least one task")
    return names


def _check_options(path: KeyPath, task: Task, found: Family, fault: Fault) -> None:
    if not task.options:
        return
    try:
        found.spaces(task)
    except SuiteError as error:
        fault((*path, "options"), str(error))


def _unique(tasks: Sequence[Task], paths: Sequence[KeyPath], document: Document, fault: Fault) -> list[Task]:
    first: dict[str, KeyPath] = {}
    unique: list[Task] = []
    for task, path in zip(tasks, paths, strict=True):
        if task.name in first:
            fault(path, f"the task {task.name!r} is listed twice; first at {document.where(first[task.name])}")
        else:
            first[task.name] = path
            unique.append(task)
    return unique


def _of_type(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)

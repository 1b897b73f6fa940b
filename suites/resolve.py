"""From the task groups of a suite file to tasks with everything resolved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from suites.errors import SuiteError, unknown
from suites.families import Family, family, takes_any_name
from suites.parity import certified
from suites.pools import unavailable
from suites.protocols import own_protocol, protocol, with_action_repeat
from suites.source import Document, KeyPath
from suites.spec import Protocol, Task, TaskGroup

DECLARED: tuple[KeyPath, ...] = (("tasks",), ("held_out",), ("tuning", "tasks"))
"""Where a suite declares tasks."""

Fault = Callable[[KeyPath, str], None]
"""Notes a sentence about what stands at a key path."""


@dataclass(frozen=True)
class ResolvedTasks:
    """What a suite file's task groups come to."""

    trained: tuple[Task, ...]
    held_out: tuple[Task, ...]
    tuning: tuple[Task, ...]
    """Those that tuning trains on instead of the suite's; none: it takes the suite's."""
    notes: tuple[str, ...]
    """What was chosen for the user, in sentences."""


def resolve_tasks(document: Document, fault: Fault) -> ResolvedTasks:
    """The tasks a suite file declares, in order; every fault is noted, and what is faulty is left out.

    Works on plain values, so that a misspelt task is reported beside a misspelt key.
    """
    tasks: list[Task] = []
    paths: list[KeyPath] = []
    engines = _Engines(fault)
    for path, group in [group for key in DECLARED for group in _groups(document.values, key)]:
        found = _family(path, group, fault)
        if found is None:
            continue
        rules = _protocol(path, group, document.values, found, fault)
        choice = group.engine or _of_type(document.values.get("engine"), str) or "native"
        for task_path, name in _names(path, group, found, fault):
            if rules is not None:
                task = Task(name=name, family=group.family, protocol=rules, options=group.options)
                tasks.append(engines.choose(task, choice, (*path, "engine") if group.engine else ("engine",)))
                paths.append(task_path)
                _check(path, task_path, tasks[-1], found, fault)
    unique = _unique(tasks, paths, document, fault)
    return ResolvedTasks(
        trained=tuple(task for task, path in unique if path[0] == "tasks"),
        held_out=tuple(task for task, path in unique if path[0] == "held_out"),
        tuning=tuple(task for task, path in unique if path[0] == "tuning"),
        notes=engines.notes(),
    )


class _Engines:
    """Chooses the engine of each task, and says what was chosen and what it is worth."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._fast: list[str] = []
        self._slow: list[str] = []
        self._doubts: list[str] = []
        self._missing: set[str] = set()

    def choose(self, task: Task, choice: str, path: KeyPath) -> Task:
        """``task`` with its engine."""
        if choice not in ("auto", "envpool"):
            return task
        fast = task.model_copy(update={"engine": "envpool"})
        missing = unavailable(task)
        if missing is not None and choice == "envpool" and missing not in self._missing:
            self._fault(path, missing)
        if missing is not None:
            self._missing.add(missing)
            self._slow.append(task.name)
            return task
        certain, reason = certified(task)
        if not certain and choice == "auto":
            self._slow.append(task.name)
            return task
        if not certain:
            self._doubts.append(f"not certified: {reason}")
        self._fast.append(task.name)
        return fast

    def notes(self) -> tuple[str, ...]:
        """Which tasks EnvPool got, and what is known against those it should not have been given."""
        if not self._fast and not self._slow:
            return ()
        native = f"; native: {', '.join(self._slow)}" if self._slow else ""
        first = f"EnvPool simulates {len(self._fast)} of {len(self._fast) + len(self._slow)} tasks{native}"
        return (first, *sorted(self._missing), *self._doubts)


def _groups(values: dict[str, Any], where: KeyPath) -> list[tuple[KeyPath, TaskGroup]]:
    declared: Any = values
    for key in where:
        declared = declared.get(key) if _is_map(declared) else None
    entries: list[tuple[KeyPath, Any]] = (
        [((*where, index), entry) for index, entry in enumerate(declared)]
        if isinstance(declared, list)
        else [(where, declared)]
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
    from_group, from_suite = group.protocol, _declared(values.get("protocol"))
    declared = from_group or from_suite or found.default_protocol
    place: KeyPath = (*path, "protocol") if from_group else ("protocol",) if from_suite else (*path, "family")
    if not declared:
        expected = "expected 'protocol': a name, or one written out"
        fault(place, f"the family {found.name!r} has no protocol of its own; {expected}")
        return None
    try:
        rules = protocol(declared) if isinstance(declared, str) else own_protocol(declared)
    except SuiteError as error:
        fault(place, str(error))
        return None
    if rules.score != "return" and not found.has_success:
        fault(place, f"protocol {rules.name!r} scores success, which the family {found.name!r} does not report")
        return None
    repeat = group.action_repeat or _of_type(values.get("action_repeat"), int)
    try:
        return with_action_repeat(rules, repeat)
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
        if name in known or takes_any_name(found):
            names.append(((*path, "names", index), name))
        else:
            fault((*path, "names", index), unknown(f"{found.name} task", name, known))
    if not group.names:
        fault((*path, "names"), "found no names; expected at least one task")
    return names


def _check(path: KeyPath, task_path: KeyPath, task: Task, found: Family, fault: Fault) -> None:
    """Ask the family about what it alone can judge: options, and names it does not list."""
    if not (task.options or takes_any_name(found)):
        return
    try:
        found.spaces(task)
    except SuiteError as error:
        fault((*path, "options") if task.options else task_path, str(error))


def _unique(
    tasks: Sequence[Task], paths: Sequence[KeyPath], document: Document, fault: Fault
) -> list[tuple[Task, KeyPath]]:
    first: dict[str, KeyPath] = {}
    unique: list[tuple[Task, KeyPath]] = []
    for task, path in zip(tasks, paths, strict=True):
        if task.name in first and path[0] == "tuning" and first[task.name][0] != "tuning":
            place = document.where(first[task.name])
            fault(path, f"tuning task {task.name!r}: the suite evaluates it ({place}); expected tasks that it does not")
        elif task.name in first:
            fault(path, f"the task {task.name!r} is listed twice; first at {document.where(first[task.name])}")
        else:
            first[task.name] = path
            unique.append((task, path))
    return unique


def _declared(value: Any) -> str | Protocol | None:
    """The suite's protocol as far as it can be understood; the suite's own validation tells of the rest."""
    if not _is_map(value):
        return value if isinstance(value, str) else None
    try:
        return Protocol.model_validate(value)
    except ValidationError:
        return None


def _of_type(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)

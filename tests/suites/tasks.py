"""Short ways to tasks, for the tests of this room."""

from suites.families import family
from suites.protocols import protocol
from suites.spec import Protocol, Task


def task(family_name: str, name: str, *, decisions: int | None = None, action_repeat: int | None = None) -> Task:
    """A task under its family's default protocol, its episodes shortened to ``decisions``."""
    rules: Protocol = protocol(family(family_name).default_protocol, action_repeat)
    if decisions is not None:
        rules = rules.model_copy(update={"decisions": decisions})
    return Task(name=name, family=family_name, protocol=rules)

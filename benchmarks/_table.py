"""What every benchmark script shares: its options, and measured values as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Measurement:
    """One measured value; ``bar`` is what it must satisfy, such as ``"< 5"``, where there is such a thing."""

    name: str
    value: float
    unit: str
    bar: str | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value satisfies its bar; ``None`` without one."""
        if self.bar is None:
            return None
        relation, limit = self.bar.split()
        return self.value >= float(limit) if relation == ">=" else self.value < float(limit)


def options(description: str, devices: Sequence[str] = ()) -> argparse.Namespace:
    """``quick`` and ``json`` from the command line, and which of ``devices``, the first by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="short measurements: does it run, not how fast")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    if devices:
        parser.add_argument("--device", choices=devices, default=devices[0], help="where the agents compute")
    return parser.parse_args()


def show(title: str, measurements: Sequence[Measurement], as_json: bool) -> int:
    """Print the measurements; returns the exit code, 1 when a bar is missed."""
    if as_json:
        print(json.dumps([{**asdict(each), "holds": each.holds} for each in measurements], indent=2))
    else:
        _print_table(title, measurements)
    return int(any(each.holds is False for each in measurements))


def number(value: float) -> str:
    """Four digits, or all before the point."""
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _print_table(title: str, measurements: Sequence[Measurement]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "value", "unit", "bar", "holds", title=title)
    table.columns[1].justify = "right"
    for each in measurements:
        verdict = {True: "yes", False: "NO", None: ""}[each.holds]
        table.add_row(each.name, number(each.value), each.unit, each.bar, verdict)
    Console().print(table)

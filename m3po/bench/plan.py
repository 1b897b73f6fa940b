"""What is done, what is missing, and what it will cost, judged by what was measured so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from m3po.bench.records import FINAL, CellEntry, CellStatus

__all__ = ["Disk", "Estimate", "Plan", "disk", "estimate", "make_plan"]


@dataclass(frozen=True)
class Estimate:
    """Wall seconds until all cells are done, with the fastest and slowest speeds measured as ``low`` and ``high``.

    All ``None`` where some agent that has work left was never measured.
    """

    seconds: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Disk:
    """Megabytes of the cells' folders: now, and when all are done at most; that is ``None`` where some agent that has
    work left was never measured."""

    now: float
    at_end: float | None


@dataclass(frozen=True)
class Plan:
    """A study's cells with their states, and the estimate of what is left."""

    suite: str
    cells: tuple[dict[str, Any], ...]
    counts: Mapping[str, int]
    env_steps_left: int
    speeds: Mapping[str, dict[str, float]]
    """Per agent: mean, lowest and highest environment steps per second of one cell."""
    memory_mb: Mapping[str, float]
    """Per agent: the highest peak of memory of one cell so far."""
    jobs: int
    estimate: Estimate
    disk: Disk

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def make_plan(suite: str, cells: Sequence[CellEntry], statuses: Mapping[str, CellStatus], jobs: int) -> Plan:
    """The plan of a study whose cells run ``jobs`` at a time."""
    states = [statuses[cell.id].state for cell in cells]
    speeds = {agent: _summary(rates) for agent, rates in sorted(_rates(cells, statuses).items())}
    return Plan(
        suite=suite,
        cells=tuple(describe(cell, statuses[cell.id]) for cell in cells),
        counts={state: states.count(state) for state in dict.fromkeys(states)},
        env_steps_left=sum(_left(statuses[cell.id]) for cell in cells),
        speeds=speeds,
        memory_mb=_memory(cells, statuses),
        jobs=jobs,
        estimate=estimate(cells, statuses, jobs),
        disk=disk(cells, statuses),
    )


def describe(cell: CellEntry, status: CellStatus) -> dict[str, Any]:
    """A cell as JSON values: which it is and where it stands."""
    return {**cell.model_dump(mode="json"), **status.model_dump(mode="json", exclude={"id"})}


def estimate(cells: Iterable[CellEntry], statuses: Mapping[str, CellStatus], jobs: int) -> Estimate:
    """Time until everything is done, from each agent's measured speed and ``jobs`` cells at a time."""
    cells = list(cells)
    rates = _rates(cells, statuses)
    totals = {"mean": 0.0, "slowest": 0.0, "fastest": 0.0}
    longest = 0.0
    for cell in cells:
        left = _left(statuses[cell.id])
        if not left:
            continue
        if cell.agent not in rates:
            return Estimate()
        speed = _summary(rates[cell.agent])
        longest = max(longest, left / speed["mean"])
        for kind in totals:
            totals[kind] += left / speed[kind]
    seconds = {kind: total / max(1, jobs) for kind, total in totals.items()}
    # no plan ends before its longest cell does
    return Estimate(max(seconds["mean"], longest), seconds["fastest"], max(seconds["slowest"], longest))


def disk(cells: Iterable[CellEntry], statuses: Mapping[str, CellStatus]) -> Disk:
    """What all cells take; one that cannot tell yet takes as much as others of its agent on average."""
    cells = list(cells)
    at_end = {cell.id: _disk_at_end(statuses[cell.id]) for cell in cells}
    known: dict[str, list[float]] = {}
    for cell in cells:
        if (size := at_end[cell.id]) is not None:
            known.setdefault(cell.agent, []).append(size)
    now = sum(statuses[cell.id].disk_mb or 0.0 for cell in cells)
    if any(cell.agent not in known for cell in cells):
        return Disk(now, None)
    return Disk(now, sum(fmean(known[cell.agent]) if (size := at_end[cell.id]) is None else size for cell in cells))


def _disk_at_end(status: CellStatus) -> float | None:
    return status.disk_mb if status.state in FINAL else status.disk_mb_at_end


def _memory(cells: Iterable[CellEntry], statuses: Mapping[str, CellStatus]) -> dict[str, float]:
    found: dict[str, float] = {}
    for cell in cells:
        if peak := statuses[cell.id].peak_memory_mb:
            found[cell.agent] = max(peak, found.get(cell.agent, 0.0))
    return found


def _left(status: CellStatus) -> int:
    return 0 if status.state in FINAL else max(0, status.env_steps - status.env_step)


def _rates(cells: Iterable[CellEntry], statuses: Mapping[str, CellStatus]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {}
    for cell in cells:
        rate = statuses[cell.id].steps_per_second
        if rate:
            rates.setdefault(cell.agent, []).append(rate)
    return rates


def _summary(rates: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(rates), "slowest": min(rates), "fastest": max(rates)}

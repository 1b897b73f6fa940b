"""What a run shows, in a terminal and without one."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from m3po.bench.display import PlainDisplay, TableDisplay, duration, make_display, size, summary, unheard
from m3po.bench.plan import Disk, disk, estimate, make_plan
from m3po.bench.records import CellEntry, CellStatus, State


def _cell(number: int, agent: str = "ppo") -> CellEntry:
    return CellEntry(id=f"task{number}.{agent}.s0.1a2b3c4d", agent=agent, seed=0, tasks=(f"task{number}",))


def _status(cell: CellEntry, state: State, env_step: int = 0, rate: float | None = None) -> CellStatus:
    return CellStatus(id=cell.id, state=state, env_step=env_step, env_steps=1000, steps_per_second=rate)


def _console(height: int = 30, *, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=120, height=height, color_system=None), out


def test_a_table_shows_state_speed_score_and_time_left() -> None:
    cell = _cell(1)
    console, out = _console(terminal=True)
    status = _status(cell, "running", 500, 250.0).model_copy(update={"last_score": 0.4567, "eta_seconds": 125.0})
    with make_display([cell], 1, console) as display:
        assert isinstance(display, TableDisplay)
        display({cell.id: status})
    shown = out.getvalue()
    for text in ("task1.ppo.s0", "running", "500", "250", "0.457", "2:05", "1 cell: 1 running; about 0:02 left"):
        assert text in shown, text


def test_a_large_grid_shows_the_running_and_the_recent_cells() -> None:
    cells = [_cell(number) for number in range(100)]
    statuses = {cell.id: _status(cell, "pending") for cell in cells}
    console, out = _console(height=14, terminal=True)
    with TableDisplay(cells, 2, console) as display:
        display(statuses)
        statuses[cells[70].id] = _status(cells[70], "running")
        statuses[cells[3].id] = _status(cells[3], "done")
        display(statuses)
    last = out.getvalue().rpartition("cell ")[2]
    assert "task70.ppo" in last
    assert "task3.ppo" in last
    assert "task50.ppo" not in last
    assert "and 98 more cells" in last


def test_without_a_terminal_every_change_is_a_line() -> None:
    cells = [_cell(1), _cell(2)]
    console, out = _console(terminal=False)
    with make_display(cells, 1, console) as display:
        assert isinstance(display, PlainDisplay)
        for state in ("pending", "running", "running", "failed"):
            failed = _status(cells[0], state, 10).model_copy(update={"message": "why" if state == "failed" else ""})  # type: ignore[arg-type]
            display({cells[0].id: failed, cells[1].id: _status(cells[1], "done", 1000)})
    assert out.getvalue().splitlines() == [
        "1 of 2 cells are already finished",
        "task1.ppo.s0.1a2b3c4d: running, at env step 10 of 1,000",
        "task1.ppo.s0.1a2b3c4d: failed, at env step 10 of 1,000, why",
    ]


def test_the_estimate_follows_from_measured_speeds() -> None:
    cells = [_cell(1), _cell(2), _cell(3), _cell(4)]
    statuses = {
        cells[0].id: _status(cells[0], "done", 1000, 10.0),
        cells[1].id: _status(cells[1], "running", 500, 20.0),
        cells[2].id: _status(cells[2], "pending"),
        cells[3].id: _status(cells[3], "diverged", 100),
    }
    # left: 500 + 1000 env steps; mean speed 15/s, two at a time: 1500 / 15 / 2 = 50 s, but the longest cell alone
    # takes 1000 / 15 = 66.7 s; fastest 1500 / 20 / 2 = 37.5 s; slowest 1500 / 10 / 2 = 75 s
    found = estimate(cells, statuses, 2)
    assert found.seconds == pytest.approx(1000 / 15)
    assert found.low == pytest.approx(37.5)
    assert found.high == pytest.approx(75)
    plan = make_plan("suite", cells, statuses, 2)
    assert plan.env_steps_left == 1500
    assert plan.disk == Disk(0.0, None)
    takes = {
        0: {"disk_mb": 5.0},
        1: {"disk_mb": 3.0, "disk_mb_at_end": 6.0},
        3: {"disk_mb": 1.0, "disk_mb_at_end": 9.0},
    }
    for cell, of in takes.items():
        statuses[cells[cell].id] = statuses[cells[cell].id].model_copy(update=of)
    # now 5 + 3 + 1; at the end the finished 5, the running 6, the diverged 1, and of the pending their mean, 4
    assert disk(cells, statuses) == Disk(9.0, 16.0)
    assert plan.counts == {"done": 1, "running": 1, "pending": 1, "diverged": 1}


def test_an_agent_never_measured_leaves_time_and_disk_unknown() -> None:
    cells = [_cell(1), _cell(2, "m3po")]
    grown = _status(cells[0], "running", 500, 20.0).model_copy(update={"disk_mb": 2.0, "disk_mb_at_end": 3.0})
    statuses = {cells[0].id: grown, cells[1].id: _status(cells[1], "pending")}
    assert estimate(cells, statuses, 1).seconds is None
    assert disk(cells, statuses) == Disk(2.0, None)
    assert summary(cells, statuses, 1) == "2 cells: 1 pending, 1 running"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.4, "0:00"), (65, "1:05"), (3_725, "1:02:05"), (400_000, "4.6 days")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("megabytes", "text"), [(0.0123, "0.0123 MB"), (999, "999 MB"), (1234.5, "1.23 GB")])
def test_sizes(megabytes: float, text: str) -> None:
    assert size(megabytes) == text


def test_what_nobody_hears_any_more_is_no_error_nor_are_the_last_words() -> None:
    ear, mouth = os.pipe()
    with open(mouth, "w") as stream:
        console = Console(file=unheard(stream))
        console.print("starting")
        assert os.read(ear, 100) == b"starting\n"
        os.close(ear)
        console.print("running")
        stream.write("done")  # written by the command itself when all is over
        stream.flush()

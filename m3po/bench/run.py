"""Run one cell: all that a launcher needs to call, in this process or as ``python -m m3po.bench.run CELL_DIR``."""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from m3po.bench.evaluate import Evaluator
from m3po.bench.heartbeat import Heartbeat
from m3po.bench.interrupt import heeded
from m3po.bench.loop import Diverged, Preempted, train
from m3po.bench.provenance import gather
from m3po.bench.records import FINAL, Cell, CellStatus, State
from m3po.bench.session import CellSession, StopRequest
from m3po.bench.store import CellFolder, DiskFull, StoreError
from m3po.registry import RegistryError, agent_class, agent_config
from suites.errors import EnvError, SuiteError
from suites.vector import VectorEnv, env_spec

__all__ = ["BUSY", "EXIT_CODES", "OUT_OF_SPACE", "run_cell"]

EXIT_CODES: dict[State, int] = {"done": 0, "failed": 1, "preempted": 3, "diverged": 4}
OUT_OF_SPACE = 5
"""Exit code of a worker that could not write; its status may be missing for the same reason."""
BUSY = 75
"""Exit code of a worker that found its cell held by another process."""


def run_cell(
    path: Path,
    *,
    device: str = "cpu",
    num_processes: int = 1,
    stop: StopRequest | None = None,
    watchdog: bool = False,
) -> CellStatus | None:
    """Train the cell in ``path`` to its end, or to a request to stop; returns its last status.

    Goes on from the newest checkpoint, bit for bit. Returns ``None`` where another process holds the cell. A cell that
    fails is not an exception: its status says so. With ``watchdog`` a hung environment ends this process. Raises
    :class:`StoreError` where even a status cannot be written.
    """
    folder = CellFolder(path)
    cell = folder.cell()
    with folder.held() as ours:
        if not ours:
            return None
        status = folder.status(cell.budget.env_steps)
        if status.state in FINAL:
            return status
        with Heartbeat(folder, cell, watchdog) as heartbeat:
            state, message = _outcome(folder, cell, heartbeat, device, num_processes, stop or StopRequest())
        return heartbeat.finish(state, message)


def _outcome(
    folder: CellFolder, cell: Cell, heartbeat: Heartbeat, device: str, num_processes: int, stop: StopRequest
) -> tuple[State, str]:
    """Train, and put every way it may end into a state and a sentence."""
    try:
        _train(folder, cell, heartbeat, device, num_processes, stop)
    except Preempted as event:
        return "preempted", f"{event}; run again to go on"
    except Diverged as event:
        return "diverged", str(event)
    except (StoreError, RegistryError, SuiteError, EnvError) as error:
        print(error, file=sys.stderr, flush=True)
        return "failed", str(error).replace(f"{folder.path}{os.sep}", "")  # a results folder may move
    except Exception as error:
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {error}"
    return "done", ""


def _train(
    folder: CellFolder, cell: Cell, heartbeat: Heartbeat, device: str, num_processes: int, stop: StopRequest
) -> None:
    config = agent_config(cell.agent_type).model_validate(cell.config)
    make_agent = agent_class(cell.agent_type)
    if stop.asked():  # while everything was imported
        raise Preempted(stop.reason)
    with (
        VectorEnv(
            cell.tasks,
            cell.budget.num_envs,
            seed=cell.seed,
            stream=cell.stream,
            num_processes=num_processes,
            spec=env_spec(cell.evaluated),
        ) as env,
        Evaluator(cell, num_processes) as evaluator,
    ):
        agent = make_agent(env.spec, config, seed=cell.seed, device=device)
        session = CellSession(folder, cell, agent, env, evaluator, stop)
        step, carry = session.start()
        folder.starts.append([{"env_step": env.env_step, **gather(device, cell.agent_type)}])
        heartbeat.watch(session)
        train(agent, env, step, carry, cell.budget.env_steps, session)


def _obey_signals(stop: StopRequest) -> None:
    """The first signal asks for a stop behind a checkpoint; the second ends the process at once."""
    signals = itertools.count(1)  # of signals alone: the scheduler may have asked before the first, in its own way

    def handle(number: int, frame: FrameType | None) -> None:
        if next(signals) > 1:
            os._exit(EXIT_CODES["preempted"])
        stop.ask(f"stopped by {signal.Signals(number).name}")

    for number in heeded():
        signal.signal(number, handle)


def _stop_with_parent(stop: StopRequest) -> None:
    """Ask for a stop when the launcher, which holds the other end of standard input, writes to it or dies."""

    def wait() -> None:
        stop.ask("stopped by its scheduler" if os.read(0, 1) else "its scheduler is gone")

    threading.Thread(target=wait, name="parent", daemon=True).start()


class _Lossy(io.FileIO):
    """A file that drops what cannot be written."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _print_lossily() -> None:
    """Print what fits: the log lies on the disk that may be full, and no cell ends for a line of it."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(_Lossy(descriptor, "w", closefd=False))
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, text)


def main() -> int:
    """Entry point of a worker process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m m3po.bench.run", description="Run one cell of a study.")
    parser.add_argument("cell", type=Path, help="folder of the cell, with its cell.json")
    parser.add_argument("--device", default="cpu", help="passed to the agent")
    parser.add_argument("--env-processes", type=int, default=1, help="processes that step environments")
    parser.add_argument("--supervised", action="store_true", help="stop when standard input speaks or closes")
    options = parser.parse_args()
    _print_lossily()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    stop = StopRequest()
    _obey_signals(stop)
    if options.supervised:
        _stop_with_parent(stop)
    try:
        status = run_cell(
            options.cell, device=options.device, num_processes=options.env_processes, stop=stop, watchdog=True
        )
    except StoreError as error:
        print(error, file=sys.stderr, flush=True)
        return OUT_OF_SPACE if isinstance(error, DiskFull) else EXIT_CODES["failed"]
    return BUSY if status is None else EXIT_CODES[status.state]


if __name__ == "__main__":
    sys.exit(main())

"""What the harness costs: PPO on mt10 against the stepping ceiling, overhead, start of a cell, memory of mt50.

Cells run as ``m3po-bench run`` runs them: a worker process from the local launcher, results in a temporary folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from _processes import group, resident
from _table import Measurement, options, show
from environments import PROCESSES, free_processes, package_freely

from m3po.bench.launch.local import LocalLauncher
from m3po.bench.store import CellFolder
from m3po.bench.study import build_study
from suites.catalog import load_suite

SAMPLE_SECONDS = 0.2


@contextmanager
def cell_of(suite: str, agent: str, env_steps: int, changes: Sequence[str] = ()) -> Iterator[CellFolder]:
    """A fresh cell of one agent of a shipped suite, evaluated with one episode per task at its start and end."""
    loaded = load_suite(suite, changes)
    others = [f"agents.{name}=null" for name in loaded.suite.agents if name != agent]
    short = [f"budget.env_steps={env_steps}", f"evaluation.every={env_steps}", "evaluation.episodes=1", "seeds=1"]
    (cell,) = build_study(load_suite(suite, [*changes, *others, *short])).cells
    with tempfile.TemporaryDirectory() as results:
        folder = CellFolder(Path(results) / cell.id)
        folder.create(cell)
        yield folder


def finish(folder: CellFolder, watch: Callable[[int], None] = lambda leader: None, device: str = "cpu") -> None:
    """Run a cell to its end, calling ``watch`` with its process group now and then."""
    job = LocalLauncher(slots=1, device=device, env_processes=PROCESSES).start(folder)
    try:
        while (code := job.poll()) is None:
            watch(job.process.pid)
            time.sleep(SAMPLE_SECONDS)
    finally:
        job.kill()
    if code != 0:
        raise SystemExit(
            f"{folder.id} ended with exit code {code}: {folder.status().message}\n{folder.log.read_text()}"
        )


def training(quick: bool) -> list[Measurement]:
    """PPO on mt10 end to end, without its evaluations, and the ceiling before and after it.

    The ceiling is that of the simulators PPO trains on. They are twice as fast as Meta-World's own code, which is shown
    too.
    """
    tasks = load_suite("mt10").tasks
    episodes = 1 if quick else 6
    before = free_processes(tasks, episodes)
    with cell_of("mt10", "ppo", 20_000 if quick else 200_000) as folder:
        finish(folder)
        row = folder.metrics.rows()[-1]
    ceiling = (before + free_processes(tasks, episodes)) / 2
    package = free_processes(tasks, episodes, package_freely)
    speed = row["env_step"] / row["seconds"]
    overhead = row["time/other"] / row["seconds"]
    return [
        Measurement(f"mt10: {PROCESSES} free processes, Meta-World's own code", package, "steps/s"),
        Measurement(f"mt10: {PROCESSES} free processes (ceiling)", ceiling, "steps/s"),
        Measurement("mt10: ppo training", speed, "steps/s"),
        Measurement("mt10: ppo training / Meta-World's own code", speed / package, "share", ">= 0.60"),
        Measurement("mt10: ppo training / ceiling", speed / ceiling, "share", ">= 0.60"),
        Measurement("mt10: ppo, environments' share of time", row["time/env"] / row["seconds"], "share"),
        Measurement("mt10: ppo, agent's share of time", row["time/agent"] / row["seconds"], "share"),
        Measurement("mt10: ppo, harness's share of time", overhead, "share", "< 0.03"),
    ]


START = """
import sys, time
from pathlib import Path
import m3po.bench.evaluate, m3po.bench.run
from m3po.bench.loop import Preempted
from suites.vector import VectorEnv

building = 0.0

class Timed(VectorEnv):
    def __init__(self, *arguments, **options):
        global building
        start = time.perf_counter()
        super().__init__(*arguments, **options)
        building += time.perf_counter() - start

def arrive(*arguments):
    print(time.time() - float(sys.argv[2]) - building, flush=True)
    raise Preempted("only the start was wanted")

m3po.bench.run.VectorEnv = m3po.bench.evaluate.VectorEnv = Timed
m3po.bench.run.train = arrive
m3po.bench.run.run_cell(Path(sys.argv[1]))
"""
"""A worker whose environments note how long they take to be built, and whose training is the end."""


def start(agent: str) -> Measurement:
    """Seconds from starting a worker to its first decision, less those of building the environments."""
    with cell_of("mt10", agent, 1_000_000) as folder:
        command = [sys.executable, "-c", START, str(folder.path), str(time.time())]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measurement(f"mt10: start of a cell of {agent}, beyond building", float(done.stdout), "s", "< 5")


def memory(quick: bool) -> Measurement:
    """Peak memory of an mt50 cell with its training and evaluation environments."""
    samples: list[float] = []
    with cell_of("mt50", "ppo", 12_000 if quick else 50_000) as folder:
        # looking costs the cell time: the kernel counts its pages
        finish(folder, lambda leader: samples.append(sum(map(resident, group(leader)))))
    return Measurement("mt50: ppo, 50 environments, peak of all processes (PSS)", max(samples) / 1024, "GB", "< 4")


def main() -> int:
    arguments = options(__doc__)
    rows = training(arguments.quick)
    rows += [start(agent) for agent in (("ppo",) if arguments.quick else ("ppo", "m3po", "dreamerv3"))]
    rows.append(memory(arguments.quick))
    return show("The harness", rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())

"""Environment steps per second of our PPO and SAC and of Stable-Baselines3's, training end to end on one core.

    python benchmarks/speed_sb3.py --algorithm ppo --task walker-walk --turns 12

Task, environments and hyper-parameters are those of ``parity_sb3.py``. Both train in processes of their own and in
turns, a rollout's worth of environment steps each (A B, B A ...): while one trains the other sleeps, so that whatever
the machine does meets both alike. It is processor time, with the arithmetic of one thread; the first turn of each warms
up. The interval is a bootstrap's over pairs of turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from _table import Measurement, show

from m3po.bench.launch.local import KEEP_MEMORY, ONE_THREAD

if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in (ONE_THREAD | KEEP_MEMORY).items()):
    # Threads and the allocator are settled before torch is there: as in the workers of `m3po-bench run`.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD, **KEEP_MEMORY})

import numpy as np
from parity_sb3 import NUM_ENVS, OURS, THEIRS, Policy, Run, known, train_ours, train_theirs
from rich.progress import track

TURN = {"ppo": 2048, "sac": 512}
"""Decisions of all environments in one turn: a rollout of PPO."""
BAR = {"ppo": ">= 2"}
RESAMPLES = 2000


@dataclass
class Turn:
    """Stands where a run's evaluations would: hands over after every ``every`` environment steps."""

    run: Run
    to_other: Connection
    done: int = 0
    began: float = 0.0

    def wait(self) -> None:
        """Until it is our turn."""
        self.to_other.recv()
        self.began = time.process_time()

    def look(self, env_step: int, policy: Policy) -> None:
        """Hand over if the turn is done."""
        if env_step < (self.done + 1) * self.run.every:
            return
        self.done += 1
        self.to_other.send(time.process_time() - self.began)
        if self.done * self.run.every < self.run.env_steps:
            self.wait()


def take_turns(run: Run, to_other: Connection) -> None:
    """Train, in a process of its own."""
    with closing(run.environments(NUM_ENVS[run.algorithm], "train")) as env:
        turn = Turn(run, to_other)
        turn.wait()
        (train_ours if run.implementation == OURS else train_theirs)(run, env, turn.look)


def seconds_of_turns(run: Run, turns: int) -> dict[str, list[float]]:
    """Processor seconds of each turn of both, without the first."""
    spawn = multiprocessing.get_context("spawn")
    talk: dict[str, Callable[[], float]] = {}
    processes = []
    for who in (OURS, THEIRS):
        here, there = spawn.Pipe()
        process = spawn.Process(target=take_turns, args=(replace(run, implementation=who), there), daemon=True)
        process.start()
        there.close()
        processes.append(process)

        def once(here: Connection = here) -> float:
            here.send(None)
            taken: float = here.recv()
            return taken

        talk[who] = once
    taken: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for turn in track(range(turns), description="turns"):
        for who in (OURS, THEIRS)[:: 1 if turn % 2 == 0 else -1]:
            taken[who].append(talk[who]())
    for process in processes:
        process.join()
    return {who: seconds[1:] for who, seconds in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=sorted(NUM_ENVS), required=True)
    parser.add_argument("--task", type=known, required=True, help="a name of dm_control or Meta-World")
    parser.add_argument("--action-repeat", type=int, default=1)
    parser.add_argument("--turns", type=int, default=12, help="of each, the first one to warm up")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    o = parser.parse_args()
    if o.turns < 3:
        parser.error(f"--turns is {o.turns}; an interval needs 3 at least, the first one warms up")
    steps = TURN[o.algorithm] * o.action_repeat
    run = Run(OURS, o.algorithm, o.task, o.action_repeat, seed=0, env_steps=steps * o.turns, every=steps)
    taken = {who: np.array(seconds) for who, seconds in seconds_of_turns(run, o.turns).items()}
    pairs = np.random.default_rng(0).integers(0, o.turns - 1, size=(RESAMPLES, o.turns - 1))
    ratios = taken[THEIRS][pairs].sum(1) / taken[OURS][pairs].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    ratio = float(taken[THEIRS].sum() / taken[OURS].sum())
    rows = [Measurement(f"{who}: training", steps / float(s.mean()), "steps/s") for who, s in taken.items()]
    rows += [
        Measurement(f"{OURS} / {THEIRS}", ratio, "times", BAR.get(o.algorithm)),
        Measurement(f"{OURS} / {THEIRS}, 95 % from", float(low), "times"),
        Measurement(f"{OURS} / {THEIRS}, 95 % to", float(high), "times"),
    ]
    return show(f"{o.algorithm}, {o.task}, action repeat {o.action_repeat}, one core", rows, o.json)


if __name__ == "__main__":
    sys.exit(main())

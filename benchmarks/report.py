"""What a report costs: a study of 10 agents, 50 tasks, 10 seeds and 100 evaluations from files to page, and intervals.

The study is made of random numbers in the harness's own form, one agent per task, so 5,000 cells; ``--quick`` is a
hundredth of it. The report is written by a process of its own, whose memory is measured. Intervals are held against
rliable's resampler on the same scores, with as many resamples, in the same process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _table import Measurement, options, show
from rliable import library, metrics

from analysis import stats

AGENTS, TASKS, SEEDS, EVALUATIONS, EVERY = 10, 50, 10, 100, 10_000
EPISODES = 10
PROTOCOL = {"name": "p", "action_repeat": 1, "decisions": 500, "score": "return", "low": 0.0, "high": 1000.0}

CHILD = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from analysis.frame import load
from analysis.report.study import write_summary
from analysis.summary import summarise
times = [time.perf_counter() - began]
results = load(Path(sys.argv[1])); times.append(time.perf_counter() - began)
summary = summarise(results); times.append(time.perf_counter() - began)
write_summary(summary, Path(sys.argv[1]) / "report"); times.append(time.perf_counter() - began)
print(*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


def write_study(folder: Path, agents: int, tasks: int, seeds: int) -> None:
    """Files as the harness writes them."""
    entries: list[dict[str, object]] = [
        {"name": f"t{t}", "family": "toy", "protocol": PROTOCOL, "engine": "native"} for t in range(tasks)
    ]
    cells: list[dict[str, object]] = [
        {"id": f"t{t}.a{a}.s{s}", "agent": f"a{a}", "seed": s, "tasks": [f"t{t}"]}
        for t in range(tasks)
        for a in range(agents)
        for s in range(seeds)
    ]
    common: dict[str, object] = {
        "format": 1,
        "budget": {"env_steps": EVERY * (EVALUATIONS - 1), "num_envs": 1},
        "evaluation": {"every": EVERY, "episodes": EPISODES},
    }
    study = {
        **common, "suite": "s", "version": 1, "mode": "per_task", "agents": [f"a{a}" for a in range(agents)],
        "seeds": list(range(seeds)), "tasks": entries, "cells": cells,
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(study))
    rng = np.random.default_rng(0)
    for cell, task in zip(cells, (e for e in entries for _ in range(agents * seeds)), strict=True):
        write_cell(folder / str(cell["id"]), cell, task, common, rng)


def write_cell(
    folder: Path, cell: dict[str, object], task: dict[str, object], common: dict[str, object], rng: np.random.Generator
) -> None:
    folder.mkdir()
    described = {**common, **cell, "suite_version": 1, "tasks": [task], "config": {}, "config_hash": "0"}
    (folder / "cell.json").write_text(json.dumps(described))
    last = EVERY * (EVALUATIONS - 1)
    (folder / "status.json").write_text(json.dumps({"id": cell["id"], "state": "done", "env_step": last}))
    level = rng.uniform(200, 900) * np.linspace(0, 1, EVALUATIONS)[:, None] ** 0.5
    scores = level + rng.normal(0, 20, (EVALUATIONS, EPISODES))
    row = (
        f'{{"suite":"s","protocol":"p","agent":"{cell["agent"]}","config_hash":"0","seed":{cell["seed"]},'
        f'"task":"{task["name"]}","env_step":%d,"episode":%d,"return":%.4f,"success_any":null,"success_last":null,'
        '"score":%.4f,"length":500,"seconds":%d,"updates":%d}\n'
    )
    lines = (
        row % (at * EVERY, episode, score, score, at, at * 10)
        for at, of in enumerate(scores)
        for episode, score in enumerate(of)
    )
    (folder / "evaluations.jsonl").write_text("".join(lines))


def report(quick: bool) -> list[Measurement]:
    """Seconds and memory from files to page."""
    agents, tasks, seeds = (3, 5, 3) if quick else (AGENTS, TASKS, SEEDS)
    with tempfile.TemporaryDirectory() as scratch:
        write_study(Path(scratch), agents, tasks, seeds)
        done = subprocess.run([sys.executable, "-c", CHILD, scratch], capture_output=True, text=True, check=True)
    imported, read, computed, drawn, memory = map(float, done.stdout.split())
    return [
        Measurement("report: reading", read - imported, "s"),
        Measurement("report: computing", computed - read, "s"),
        Measurement("report: drawing and writing", drawn - computed, "s"),
        Measurement("report: all of it", drawn, "s", "< 60"),
        Measurement("report: peak memory", memory, "GB", "< 2"),
    ]


def intervals(quick: bool) -> list[Measurement]:
    """Seconds for the intervals of four metrics of one agent."""
    scores = np.random.default_rng(1).uniform(0, 1, (SEEDS, TASKS))
    rounds = 1 if quick else 5
    ours, theirs = [], []

    def four(of: np.ndarray) -> np.ndarray:
        return np.array(
            [metrics.aggregate_iqm(of), metrics.aggregate_median(of), metrics.aggregate_mean(of),
             metrics.aggregate_optimality_gap(of)]
        )  # fmt: skip

    for _ in range(rounds):
        began = time.perf_counter()
        stats.aggregates("a", scores)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        library.get_interval_estimates({"a": scores}, four, reps=stats.RESAMPLES)
        theirs.append(time.perf_counter() - began)
    return [
        Measurement("intervals of four metrics, 10 runs of 50 tasks: ours", float(np.median(ours)), "s"),
        Measurement("the same: rliable's resampler", float(np.median(theirs)), "s"),
        Measurement("intervals: times faster", float(np.median(theirs) / np.median(ours)), "×", ">= 10"),
    ]


def main() -> int:
    arguments = options(__doc__)
    return show("Reports", [*report(arguments.quick), *intervals(arguments.quick)], arguments.json)


if __name__ == "__main__":
    sys.exit(main())

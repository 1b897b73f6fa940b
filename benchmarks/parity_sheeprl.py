"""Our DreamerV3 beside sheeprl's, 1 million parameters: returns on one task, and the speed of a gradient step.

    python benchmarks/parity_sheeprl.py run --seeds 2 --env-steps 10000 --folder F --sheeprl PYTHON
    python benchmarks/parity_sheeprl.py table --folder F
    python benchmarks/parity_sheeprl.py speed --sheeprl PYTHON

``run`` leaves one file per finished run in the folder and passes by those that are there. ``table`` compares what is
there, with 95 % bootstrap intervals. ``speed`` needs no folder.

sheeprl is not among our dependencies: PYTHON is V/bin/python of a virtual environment of its own, made by

    python -m venv V
    V/bin/pip install -c constraints.txt torch numpy dm_control gymnasium lightning "hydra-core<1.4" torchmetrics \\
        tensorboard python-dotenv rich moviepy opencv-python-headless
    V/bin/pip install --no-deps sheeprl==0.8.4

(last and alone, because it asks for an OpenCV that needs the libraries of a display).

Equal are the sizes and trained parameters, batch, gradient steps per decision, decisions before the first, replay
capacity, step size, action repeat and, at the defaults of both, everything else of the algorithm and its optimiser.
Evaluations play the same ten episodes with the most likely latents and the actor's mean. sheeprl is run by its own
command line, as it is; it draws the training episodes after the first from the system's entropy, so that a run of it
cannot be repeated.

``speed`` is processor time in the training loops of both, one thread each, in turns (A B, B A ...): while one draws
batches, learns from them and writes the latents back, the other waits. To be timed, two functions of sheeprl's loop are
wrapped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from _processes import Turns, Worker
from _table import Measurement, show

from m3po.bench.launch.local import KEEP_MEMORY, ONE_THREAD

if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in (ONE_THREAD | KEEP_MEMORY).items()):
    # Threads and the allocator are settled before torch is there, and for both: processes started from here inherit it.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD, **KEEP_MEMORY})

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.config import DreamerV3Config
from m3po.api import transition
from suites.protocols import protocol
from suites.seeding import episode_seed
from suites.spec import Stream, Task
from suites.vector import VectorEnv

if TYPE_CHECKING:
    from parity_sb3 import Comparison, Rows, Summary

OURS, THEIRS, VERSION = "ours", "sheeprl", "0.8.4"
EPISODES = 10
TASK, ACTION_REPEAT = "cartpole-swingup", 2
EVERY = 2_000
"""Environment steps between evaluations."""
SHAPES = ((8, 32, 20), (16, 64, 8))
"""Batch, length, and gradient steps in a turn; returns are those of the first."""
WARM_UP = 5
"""Gradient steps before the first turn."""


def config(batch: int, length: int, **others: Any) -> DreamerV3Config:
    """Ours, with one gradient step per decision."""
    return DreamerV3Config(
        preset="size1m",
        batch_size=batch,
        batch_length=length,
        train_ratio=batch * length,
        replay_capacity=10_000,
        **others,
    )


def arguments(c: DreamerV3Config, seed: int, decisions: int, folder: Path) -> list[str]:
    """sheeprl's, for the same; what is not named here is the default of both."""
    domain, task = TASK.split("-", 1)
    return [
        "exp=dreamer_v3_5",
        "algo=dreamer_v3_5_1M",
        "env=dmc",
        f"env.wrapper.domain_name={domain}",
        f"env.wrapper.task_name={task}",
        "env.wrapper.from_pixels=False",
        "env.wrapper.from_vectors=True",
        "env.num_envs=1",
        f"env.action_repeat={ACTION_REPEAT}",
        "env.max_episode_steps=-1",  # dm_control's own limit, which is our protocol's
        "env.capture_video=False",
        "algo.cnn_keys.encoder=[]",
        "algo.mlp_keys.encoder=[state]",
        f"algo.total_steps={decisions}",
        f"algo.learning_starts={c.learning_starts}",
        f"algo.replay_ratio={c.train_ratio / (c.batch_size * c.batch_length)}",
        f"algo.per_rank_batch_size={c.batch_size}",
        f"algo.per_rank_sequence_length={c.batch_length}",
        f"algo.optimizer.lr={c.learning_rate}",
        "algo.run_test=False",
        f"buffer.size={c.replay_capacity}",
        "buffer.memmap=False",
        "buffer.checkpoint=False",
        f"checkpoint.every={EVERY // ACTION_REPEAT}",
        "checkpoint.keep_last=null",
        "checkpoint.save_last=False",
        "metric.log_level=0",  # which is faster
        "model_manager.disabled=True",
        f"seed={seed}",
        "num_threads=1",
        "fabric.accelerator=cpu",
        f"log_root={folder}",
        "root_dir=sheeprl",
        "run_name=run",
        f"hydra.run.dir={folder}/hydra",
        "hydra.output_subdir=null",
    ]


def command(implementation: str, python: str, what: str, job: dict[str, Any]) -> list[str]:
    """Of a process that trains or takes turns."""
    theirs = str(Path(__file__).with_name("_sheeprl.py"))
    script = [sys.executable, __file__] if implementation == OURS else [python, theirs]
    return [*script, what, json.dumps(job)]


def environments(number: int, seed: int, stream: Stream) -> VectorEnv:
    """Of the task, all alike."""
    task = Task(name=TASK, family="dm_control", protocol=protocol("dmc-1000", ACTION_REPEAT))
    return VectorEnv([task], number, seed=seed, stream=stream)


def play(agent: DreamerV3, env: VectorEnv) -> Iterator[None]:
    """The loop of :mod:`m3po.api`; whoever iterates updates the agent."""
    step, carry = env.reset(), agent.initial_carry(env.num_envs)
    while True:
        decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
        following = env.step(decision.action)
        agent.observe(transition(step, decision, following))
        yield
        step, carry = following, decision.carry


def train(job: dict[str, Any]) -> None:
    """Train our agent and evaluate it when that is due; writes one line each time."""
    run = Run(**job["run"])
    with (
        closing(environments(1, run.seed, "train")) as env,
        closing(environments(EPISODES, run.seed, "evaluate")) as shown,
        Path(job["file"]).open("w") as file,
    ):
        agent = DreamerV3(env.spec, DreamerV3Config(**job["config"]), seed=run.seed, device="cpu")
        for _ in play(agent, env):
            agent.update()
            if env.env_step % EVERY == 0:
                row = {
                    "env_step": env.env_step,
                    "gradient_steps": agent.learner.optimizer.steps,
                    "parameters": sum(p.numel() for p in agent.learner.optimizer.parameters),
                    "return": fmean(episodes(agent, shown)),
                }
                file.write(json.dumps(job["run"] | row) + "\n")
            if env.env_step >= run.env_steps:
                break


def episodes(agent: DreamerV3, env: VectorEnv) -> list[float]:
    """Returns of the first episode of each environment; all are equally long."""
    step, carry = env.reset(), agent.initial_carry(env.num_envs)
    while not step.episodes:
        decision = agent.act(carry, step.observation, step.first, step.task, explore=False)
        step, carry = env.step(decision.action), decision.carry
    return [episode.episode_return for episode in step.episodes]


def turns(job: dict[str, Any]) -> None:
    """Gradient steps of our agent in its training loop."""
    gate = Turns()
    with closing(environments(1, 0, "train")) as env:
        agent = DreamerV3(env.spec, DreamerV3Config(**job["config"]), seed=0, device="cpu")
        for _ in play(agent, env):
            if agent.credit >= 1:
                gate.begin()
                agent.update()
                gate.end()


@dataclass(frozen=True)
class Run:
    """One training, and everything that decides it."""

    implementation: str
    seed: int
    env_steps: int
    learning_rate: float

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.implementation}-{self.env_steps}-rate{self.learning_rate:g}-seed{self.seed}"

    def do(self, folder: Path, python: str) -> bool:
        """Do it in a process of its own, unless its file is there; returns whether it is now."""
        finished, unfinished, log = (folder / f"{self.name}.{ending}" for ending in ("jsonl", "part", "log"))
        if finished.exists():
            return True
        print(f"{time.strftime('%H:%M:%S')} {self.name}", flush=True)
        with tempfile.TemporaryDirectory() as working, log.open("w") as printed:
            batch, length, _ = SHAPES[0]
            c = config(batch, length, learning_rate=self.learning_rate)
            job = {
                "run": asdict(self),
                "config": c.model_dump(),
                "file": str(unfinished),
                "arguments": arguments(c, self.seed, self.env_steps // ACTION_REPEAT, Path(working)),
                "logs": f"{working}/sheeprl/run/version_0",
                "episodes": [episode_seed("evaluate", self.seed, TASK, episode) for episode in range(EPISODES)],
            }
            this = command(self.implementation, python, "train", job)
            code = subprocess.run(this, stdout=printed, stderr=subprocess.STDOUT, check=False).returncode
        if code == 0:
            unfinished.rename(finished)
            log.unlink()
        else:
            print(f"{self.name} ended with exit code {code}; {log} says why.", file=sys.stderr)
        return code == 0


def run_all(runs: Sequence[Run], folder: Path, python: str, slots: int) -> int:
    """Do the runs that have no file yet; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(slots) as pool:
        return int(not all(list(pool.map(lambda run: run.do(folder, python), runs))))


def _return_of(evaluation: int, rows: Rows) -> float:
    return float(rows[evaluation]["return"])


def compare(folder: Path) -> list[Comparison]:
    """What the files of a folder say of each setting, over the seeds that both implementations have."""
    # Only here: what tables need would count as memory of our worker.
    from parity_sb3 import compare_summaries, pairs

    def setting_of(row: dict[str, Any]) -> str:
        return f"{TASK}, {row['env_steps']:,} steps, step size {row['learning_rate']:g}"

    comparisons = []
    for setting, runs in pairs(folder, setting_of, THEIRS).items():
        summaries: dict[str, Summary] = {
            f"return at {row['env_step']:,}": ("return", partial(_return_of, n)) for n, row in enumerate(runs[OURS][0])
        }
        summaries |= {
            "return, mean over evaluations": ("return", lambda rows: fmean(row["return"] for row in rows)),
            "gradient steps": ("steps", lambda rows: float(rows[-1]["gradient_steps"])),
            "parameters": ("number", lambda rows: float(rows[-1]["parameters"])),
        }
        comparisons += compare_summaries(setting, runs, summaries, THEIRS)
    return comparisons


def speed(batch: int, length: int, steps: int, rounds: int, python: str) -> list[Measurement]:
    """Processor milliseconds of a gradient step, and peak memory, environment and all."""
    c = config(batch, length, learning_starts=128)
    answers = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        job = {"config": c.model_dump(), "arguments": arguments(c, 0, 1_000_000, folder)}
        workers = {
            who: stack.enter_context(closing(Worker(command(who, python, "turns", job)))) for who in (OURS, THEIRS)
        }
        for worker in workers.values():
            worker.turn(WARM_UP)
        for number in range(rounds):
            for who in (THEIRS, OURS) if number % 2 else (OURS, THEIRS):
                answers[who].append(workers[who].turn(steps))
    ratios = [theirs["cpu_ms"] / ours["cpu_ms"] for ours, theirs in zip(answers[OURS], answers[THEIRS], strict=True)]
    label = f"{batch} x {length}"
    rows = [
        Measurement(f"{label}: gradient step, {who}", median(answer["cpu_ms"] for answer in each), "ms")
        for who, each in answers.items()
    ]
    rows.append(Measurement(f"{label}: gradient step, {THEIRS} / {OURS}", median(ratios), "ratio", ">= 1.5"))
    memory = {who: each[-1]["peak_mb"] for who, each in answers.items()}
    rows += [Measurement(f"{label}: peak memory, {who}", value, "MB") for who, value in memory.items()]
    ratio = memory[THEIRS] / memory[OURS]
    return [*rows, Measurement(f"{label}: peak memory, {THEIRS} / {OURS}", ratio, "ratio", ">= 1")]


def interpreter(python: str) -> str:
    """``python``, if sheeprl is there; else a sentence and the end."""
    hint = f"The first lines of {Path(__file__).name} say how to make an environment for it."
    try:
        this = [python, "-c", "import sheeprl; print(sheeprl.__version__)"]
        done = subprocess.run(this, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(
            f"--sheeprl {python}: no interpreter can be started there ({error.strerror}). {hint}"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SystemExit(f"--sheeprl {python}: sheeprl cannot be imported there ({reason}). {hint}")
    if (found := done.stdout.split()[-1]) != VERSION:
        raise SystemExit(f"--sheeprl {python}: found sheeprl {found}, expected {VERSION}. {hint}")
    return python


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do what is missing of a comparison of returns")
    run.add_argument("--seeds", type=int, default=2, help="seeds 0 ... n-1")
    run.add_argument("--env-steps", type=int, default=10_000)
    run.add_argument("--learning-rate", type=float, default=DreamerV3Config().learning_rate, help="step size of both")
    run.add_argument("--slots", type=int, default=1, help="runs at a time")
    table = commands.add_parser("table", help="compare the returns of what was done")
    for command in (run, table):
        command.add_argument("--folder", type=Path, required=True)
    speed = commands.add_parser("speed", help="compare gradient steps")
    speed.add_argument("--rounds", type=int, default=7, help="turns of each")
    for command in (run, speed):
        command.add_argument("--sheeprl", metavar="PYTHON", required=True, help="interpreter that has sheeprl")
    for command in (table, speed):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for name, user in (("train", "run"), ("turns", "speed")):
        commands.add_parser(name, help=f"one process of ours (used by {user})").add_argument("job", type=json.loads)
    return parser.parse_args()


def main() -> int:
    o = options()
    if o.command in ("train", "turns"):
        {"train": train, "turns": turns}[o.command](o.job)
        return 0
    if o.command == "table":
        from parity_sb3 import show_comparisons

        if comparisons := compare(o.folder):
            return show_comparisons(comparisons, o.json)
        raise SystemExit(f"{o.folder}: there is no seed that both have finished.")
    python = interpreter(o.sheeprl)
    if o.command == "speed":
        rows = [row for shape in SHAPES for row in speed(*shape, o.rounds, python)]
        return show(f"DreamerV3 1M beside sheeprl {VERSION}, one thread", rows, o.json)
    if o.env_steps < EVERY:
        raise SystemExit(f"--env-steps {o.env_steps}: the first evaluation is at {EVERY}; give as many or more.")
    runs = [
        Run(implementation, seed, o.env_steps, o.learning_rate)
        for seed in range(o.seeds)
        for implementation in (OURS, THEIRS)
    ]
    return run_all(runs, o.folder, python, o.slots)


if __name__ == "__main__":
    sys.exit(main())

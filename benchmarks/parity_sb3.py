"""Our PPO and SAC beside Stable-Baselines3's: one task, environment, set of hyper-parameters and evaluation for both.

    python benchmarks/parity_sb3.py run --algorithm ppo --task walker-walk --seeds 5 --env-steps 300000 --folder F
    python benchmarks/parity_sb3.py table --folder F
    python benchmarks/parity_sb3.py figure --folder F --out parity.png

``run`` leaves one file per run in the folder and passes by those that are there. ``table`` compares what is there: the
score of the last evaluation and the mean over all (the area under the curve), with 95 % bootstrap intervals;
``figure`` draws the curves with theirs.

PPO plays eight environments; theirs has ``VecNormalize`` for observations and rewards, which ours does itself. SAC
plays one. The hyper-parameters are the defaults of our configuration. Evaluations play the same ten episodes, with the
policy's mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from _table import Measurement, number, show

from m3po.bench.launch.local import KEEP_MEMORY, ONE_THREAD

if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in (ONE_THREAD | KEEP_MEMORY).items()):
    # Threads and the allocator are settled before torch is there: as in the workers of `m3po-bench run`.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD, **KEEP_MEMORY})

import numpy as np
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from analysis import stats
from analysis.figures import drawing, style
from analysis.improvement import probability_of_improvement
from m3po.api import transition
from m3po.registry import agent_class, agent_config
from suites.families import family
from suites.protocols import protocol
from suites.spec import Task
from suites.vector import VectorEnv

OURS, THEIRS = "ours", "sb3"
FAMILIES = ("dm_control", "metaworld", "toy")
NUM_ENVS = {"ppo": 8, "sac": 1}
EPISODES = 10
FEWEST_SEEDS = 5
"""With fewer a bootstrap interval is no verdict."""

Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Actions ``[N, A]`` without exploration for observations ``[N, D]``."""
Look = Callable[[int, Policy], None]
"""Called behind every step of all environments, with the environment steps so far."""


@dataclass(frozen=True)
class Run:
    """One training, and everything that decides it."""

    implementation: str
    algorithm: str
    task: str
    action_repeat: int
    seed: int
    env_steps: int
    every: int

    @property
    def file_name(self) -> str:
        """Of its results."""
        parts = (self.algorithm, self.task, f"repeat{self.action_repeat}", self.env_steps, self.implementation)
        return "-".join(map(str, parts)) + f"-seed{self.seed}.jsonl"

    def environments(self, number: int, stream: Any) -> VectorEnv:
        """Of its task, all alike."""
        of = family_of(self.task)
        rules = protocol(family(of).default_protocol, self.action_repeat)
        return VectorEnv([Task(name=self.task, family=of, protocol=rules)], number, seed=self.seed, stream=stream)


def family_of(task: str) -> str:
    """Where a task is from. Raises :class:`ValueError`."""
    for name in FAMILIES:
        if task in family(name).tasks():
            return name
    raise ValueError(f"there is no task {task!r}")


def known(task: str) -> str:
    """A task named on the command line."""
    try:
        family_of(task)
    except ValueError as error:
        near = get_close_matches(task, [each for name in FAMILIES for each in family(name).tasks()], n=3)
        hint = f"; do you mean {' or '.join(near)}?" if near else ""
        raise argparse.ArgumentTypeError(f"{error}{hint}") from error
    return task


@dataclass
class Curve:
    """Evaluations of a run, made when they are due and appended to a file; ``seconds`` of training leave them out."""

    run: Run
    env: VectorEnv
    file: Path
    done: int = 0
    started: float = field(default_factory=time.perf_counter)

    def look(self, env_step: int, policy: Policy) -> None:
        """Evaluate ``policy`` if ``env_step`` has come to the next evaluation."""
        if env_step < (self.done + 1) * self.run.every:
            return
        seconds = time.perf_counter() - self.started
        episodes = self._episodes(policy)
        row = {
            **asdict(self.run),
            "env_step": env_step,
            "seconds": seconds,
            "return": float(np.mean([episode.episode_return for episode in episodes])),
            "success": float(np.mean([bool(episode.success_any) for episode in episodes])),
        }
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.done += 1
        self.started = time.perf_counter() - seconds

    def _episodes(self, policy: Policy) -> list[Any]:
        """The first episode of each environment."""
        step = self.env.reset()
        finished: dict[int, Any] = {}
        while len(finished) < self.env.num_envs:
            step = self.env.step(policy(step.observation))
            for episode in step.episodes:
                finished.setdefault(episode.env, episode)
        return list(finished.values())


def train_ours(run: Run, env: VectorEnv, look: Look) -> None:
    """Our agent, in the loop of :mod:`m3po.api`."""
    config = agent_config(run.algorithm)()
    agent = agent_class(run.algorithm)(env.spec, config, seed=run.seed, device="cpu")

    def policy(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        number = len(observation)
        first, task = np.zeros(number, np.bool_), np.zeros(number, np.int64)
        return agent.act(agent.initial_carry(number), observation, first, task, explore=False).action

    step, carry = env.reset(), agent.initial_carry(env.num_envs)
    while env.env_step < run.env_steps:
        decision = agent.act(carry, step.observation, step.first, step.task, explore=True)
        following = env.step(decision.action)
        agent.observe(transition(step, decision, following))
        agent.update()
        step, carry = following, decision.carry
        look(env.env_step, policy)


def train_theirs(run: Run, env: VectorEnv, look: Look) -> None:
    """Stable-Baselines3's agent in the same environments."""
    import torch
    from _sb3 import Envs
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.vec_env import VecNormalize

    c: Any = agent_config(run.algorithm)()
    common = {"seed": run.seed, "device": "cpu", "gamma": c.gamma, "learning_rate": c.learning_rate}
    if run.algorithm == "sac":
        envs: Envs | VecNormalize = Envs(env)
        model: Any = SAC(
            "MlpPolicy",
            envs,
            buffer_size=c.replay_capacity,
            learning_starts=c.learning_starts,
            batch_size=c.batch_size,
            tau=c.tau,
            policy_kwargs={"net_arch": list(c.hidden)},
            **common,
        )
    else:
        envs = VecNormalize(Envs(env), gamma=c.gamma)
        model = PPO(
            "MlpPolicy",
            envs,
            n_steps=c.rollout_size // env.num_envs,
            batch_size=c.minibatch_size,
            n_epochs=c.epochs,
            gae_lambda=c.lam,
            clip_range=c.clip,
            ent_coef=c.entropy_coef,
            vf_coef=c.value_coef,
            max_grad_norm=c.max_grad_norm,
            policy_kwargs={"net_arch": list(c.hidden), "activation_fn": torch.nn.Tanh},
            **common,
        )

    def policy(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        seen = envs.normalize_obs(observation) if isinstance(envs, VecNormalize) else observation
        action: NDArray[np.float32] = model.predict(seen, deterministic=True)[0]
        return action

    def callback(local: Any, scope: Any) -> bool:
        look(env.env_step, policy)
        return env.env_step < run.env_steps

    model.learn(run.env_steps // run.action_repeat, callback=callback)


def one(run: Run, folder: Path) -> None:
    """Do a run and write its file."""
    train = train_ours if run.implementation == OURS else train_theirs
    unfinished = folder / f"{run.file_name}.{os.getpid()}.part"  # two at the same run must not write into one file
    with (
        closing(run.environments(NUM_ENVS[run.algorithm], "train")) as env,
        closing(run.environments(EPISODES, "evaluate")) as shown,
    ):
        train(run, env, Curve(run, shown, unfinished).look)
    unfinished.rename(folder / run.file_name)


def run_all(runs: Sequence[Run], folder: Path, slots: int) -> int:
    """Do the runs that have no file yet, each in a process of its own; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)

    def do(run: Run) -> int:
        if (folder / run.file_name).exists():
            return 0
        command = [sys.executable, __file__, "one", "--folder", str(folder), json.dumps(asdict(run))]
        print(f"{time.strftime('%H:%M:%S')} {run.file_name}", flush=True)
        return subprocess.run(command, check=False).returncode

    with ThreadPoolExecutor(slots) as pool:
        return int(any(list(pool.map(do, runs))))


@dataclass(frozen=True)
class Comparison:
    """One number of both, with 95 % intervals."""

    setting: str
    seeds: int
    label: str
    unit: str
    ours: stats.Estimate
    theirs: stats.Estimate
    better: stats.Estimate
    """Probability that a run of ours is above one of theirs."""
    rival: str = THEIRS

    def measurements(self) -> list[Measurement]:
        """Flat, for JSON; the bar, with enough seeds: ours is not shown to be worse."""
        parts = {OURS: self.ours, self.rival: self.theirs, f"P({OURS} > {self.rival})": self.better}
        rows = []
        for name, found in parts.items():
            unit = "share" if found is self.better else self.unit
            for end, value in (("", found.estimate), (", 95 % from", found.low), (", 95 % to", found.high)):
                if value is not None:
                    judged = found is self.better and end.endswith("to") and self.seeds >= FEWEST_SEEDS
                    rows.append(
                        Measurement(
                            f"{self.setting}: {self.label}: {name}{end}", value, unit, ">= 0.5" if judged else None
                        )
                    )
        return rows


Rows = list[dict[str, Any]]
"""Evaluations of a run, in their order."""

Summary = tuple[str, Callable[[Rows], float]]
"""Unit of a number, and how the rows of a run give it."""


def setting_of(row: dict[str, Any]) -> str:
    """What else than seed and implementation decides a run."""
    return f"{row['algorithm']}, {row['task']}, action repeat {row['action_repeat']}, {row['env_steps']:,} steps"


def pairs(
    folder: Path, setting_of: Callable[[dict[str, Any]], str] = setting_of, rival: str = THEIRS
) -> dict[str, dict[str, list[Rows]]]:
    """The runs in a folder by setting and implementation, of the seeds that both implementations have."""
    curves: dict[str, dict[str, dict[int, Rows]]] = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        of = rows[0]
        curves[setting_of(of)][of["implementation"]][of["seed"]] = rows
    found = {}
    for setting, runs in curves.items():
        if seeds := sorted(set(runs[OURS]) & set(runs[rival])):
            found[f"{setting}, {len(seeds)} seeds"] = {w: [runs[w][seed] for seed in seeds] for w in (OURS, rival)}
    return found


def compare_setting(setting: str, runs: dict[str, list[Rows]]) -> list[Comparison]:
    """Last evaluation and mean over evaluations; ``runs`` are rows of runs by implementation."""
    summaries: dict[str, Summary] = {}
    for measure in ("return", "success") if any(row["success"] for row in runs[OURS][0]) else ("return",):
        summaries |= {
            f"{measure}, last evaluation": (measure, partial(_last, measure)),
            f"{measure}, mean over evaluations": (measure, partial(_mean, measure)),
        }
    return compare_summaries(setting, runs, summaries)


def _last(measure: str, rows: Rows) -> float:
    return float(rows[-1][measure])


def _mean(measure: str, rows: Rows) -> float:
    return float(np.mean([row[measure] for row in rows]))


def compare_summaries(
    setting: str, runs: dict[str, list[Rows]], summaries: dict[str, Summary], rival: str = THEIRS
) -> list[Comparison]:
    """Numbers of a setting by their labels."""
    comparisons = []
    for label, (unit, summary) in summaries.items():
        ours, theirs = (np.array([[summary(rows)] for rows in runs[who]]) for who in (OURS, rival))
        estimates = stats.aggregate(OURS, "mean", ours), stats.aggregate(rival, "mean", theirs)
        better = probability_of_improvement((OURS, rival), (ours, theirs))
        comparisons.append(Comparison(setting, len(ours), label, unit, *estimates, better, rival))
    return comparisons


def show_comparisons(comparisons: Sequence[Comparison], as_json: bool) -> int:
    """Print them as tables or as JSON; returns the exit code, 1 when a bar is missed."""
    measurements = [row for each in comparisons for row in each.measurements()]
    if as_json:
        return show("", measurements, as_json)
    print_tables(comparisons)
    return int(any(row.holds is False for row in measurements))


def print_tables(comparisons: Sequence[Comparison]) -> None:
    """One table for each setting."""
    from rich.console import Console
    from rich.table import Table

    def text(found: stats.Estimate) -> str:
        if found.low is None or found.high is None or found.low == found.high:
            return number(found.estimate)
        return f"{number(found.estimate)} [{number(found.low)}, {number(found.high)}]"

    for (setting, rival), rows in groupby(comparisons, key=lambda each: (each.setting, each.rival)):
        table = Table("", OURS, rival, f"P({OURS} > {rival})", title=setting)
        for each in rows:
            table.add_row(each.label, text(each.ours), text(each.theirs), text(each.better))
        Console().print(table)


def draw(found: dict[str, dict[str, list[Rows]]], out: Path) -> None:
    """Mean return over seeds against environment steps, a panel for each setting."""
    import matplotlib

    with matplotlib.rc_context(style.RC):
        figure = drawing.new_figure(style.WIDTH, 0.6 + 1.9 * math.ceil(len(found) / 3))
        panels = figure.subplots(math.ceil(len(found) / 3), 3, squeeze=False).ravel()
        for axes, (setting, runs) in zip(panels, found.items(), strict=False):
            axes.set_title(textwrap.fill(setting, 30), fontsize=7)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            for who, paint in style.colours((OURS, THEIRS)).items():
                steps = [row["env_step"] for row in runs[who][0]]
                returns = np.array([[row["return"] for row in rows] for rows in runs[who]])
                bands = [stats.aggregate(who, "mean", column[:, None]) for column in returns.T]
                axes.plot(steps, [band.estimate for band in bands], color=paint, label=who)
                if all(band.low is not None and band.high is not None for band in bands):
                    low, high = ([getattr(band, end) for band in bands] for end in ("low", "high"))
                    axes.fill_between(steps, low, high, color=paint, alpha=0.18, linewidth=0)
        for axes in panels[len(found) :]:
            axes.set_visible(False)
        figure.supylabel("Return", fontsize=8.5)
        figure.supxlabel("Environment steps (bands: 95 % bootstrap intervals over seeds)", fontsize=8.5)
        panels[0].legend(fontsize=8)
        figure.savefig(out)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do what is missing of a comparison")
    run.add_argument("--algorithm", choices=sorted(NUM_ENVS), required=True)
    run.add_argument("--task", nargs="+", type=known, required=True, help="names of dm_control or Meta-World")
    run.add_argument("--seeds", type=int, default=5, help="seeds 0 ... n-1")
    run.add_argument("--env-steps", type=int, default=300_000)
    run.add_argument("--every", type=int, default=25_000, help="environment steps between evaluations")
    run.add_argument("--action-repeat", type=int, default=1)
    run.add_argument("--slots", type=int, default=2, help="runs at a time")
    table = commands.add_parser("table", help="compare what was done")
    table.add_argument("--json", action="store_true", help="print JSON instead of a table")
    figure = commands.add_parser("figure", help="draw what was done")
    figure.add_argument("--out", type=Path, required=True, help="file, such as parity.png")
    one = commands.add_parser("one", help="do one run (used by run)")
    one.add_argument("run", type=lambda text: Run(**json.loads(text)))
    for command in (run, table, figure, one):
        command.add_argument("--folder", type=Path, required=True)
    return parser.parse_args()


def main() -> int:
    o = options()
    if o.command == "figure":
        draw(pairs(o.folder), o.out)
        return 0
    if o.command == "table":
        comparisons = [each for setting, runs in pairs(o.folder).items() for each in compare_setting(setting, runs)]
        return show_comparisons(comparisons, o.json)
    if o.command == "one":
        one(o.run, o.folder)
        return 0
    runs = [
        Run(implementation, o.algorithm, task, o.action_repeat, seed, o.env_steps, o.every)
        for seed in range(o.seeds)
        for task in o.task
        for implementation in (OURS, THEIRS)
    ]
    return run_all(runs, o.folder, o.slots)


if __name__ == "__main__":
    sys.exit(main())

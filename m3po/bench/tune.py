"""Search an agent's configuration: trials are cells of the same store, on seeds that no final run uses.

Optuna proposes (ask and tell, a journal file, seeded TPE), the scheduler runs. A trial's value is the mean normalised
final score over tasks and tuning seeds; a diverged cell counts 0. The first trial is the configuration as it stands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from m3po.bench.experiment import cores
from m3po.bench.search import Problem, Search, claim, ended, open_study
from m3po.bench.store import CellFolder, StoreError, explained, write_text
from m3po.bench.study import to_yaml
from suites.catalog import LoadedSuite, load_suite, shipped_suites

__all__ = ["Tuning", "TuningOutcome", "TuningTrial", "tune_agent"]


@dataclass(frozen=True)
class Tuning:
    """What is asked for."""

    loaded: LoadedSuite
    agent: str
    trials: int
    env_steps: int | None
    source: str
    """The suite as the user named it: a path or a shipped name."""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class TuningTrial:
    """One configuration and what it was worth. ``score`` is ``None`` where it could not be measured."""

    number: int
    state: str
    score: float | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class TuningOutcome:
    """How tuning ended."""

    trials: tuple[TuningTrial, ...]
    best: TuningTrial | None
    suite_file: Path | None
    sentence: str
    exit_code: int


def tune_agent(
    tuning: Tuning, results: Path, out: Path, *, jobs: int | None, device: str, console: Console
) -> TuningOutcome:
    """Run trials until there are ``tuning.trials``, then write ``<out>/<suite>-tuned-<agent>.yaml``.

    Trials of earlier calls count; one that was killed is asked for again, once. Raises :class:`SuiteError` for a bad
    suite or agent, and :class:`StoreError` where another tuner works here or another study left its trials.
    """
    problem = Problem.of(tuning.loaded, tuning.agent, tuning.env_steps)
    folder = results / tuning.loaded.suite.name / "tuning" / tuning.agent
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with CellFolder(folder).held() as ours:
        if not ours:
            raise StoreError(f"another process is tuning in {folder}; wait for it, or stop it")
        claim(folder, problem)
        search = Search(problem, folder, open_study(folder, problem), jobs or cores(), device, console)
        interrupted = search.run(tuning.trials)
        return _conclude(tuning, problem, search.study, out, interrupted)


def _summary(trial: FrozenTrial) -> TuningTrial:
    values = trial.user_attrs.get("values", {})
    if trial.state != TrialState.COMPLETE:
        return TuningTrial(trial.number, trial.user_attrs.get("message", "killed twice"), None, values)
    diverged = trial.user_attrs.get("diverged", 0)
    return TuningTrial(trial.number, f"done, {diverged} cells diverged" if diverged else "done", trial.value, values)


def _conclude(tuning: Tuning, problem: Problem, study: optuna.Study, out: Path, interrupted: bool) -> TuningOutcome:
    counted = ended(study)
    trials = tuple(_summary(trial) for trial in counted)
    if interrupted:
        sentence = f"interrupted after {len(trials)} of {tuning.trials} trials; run the same command again to go on"
        return TuningOutcome(trials, None, None, sentence, 3)
    valid = [_summary(trial) for trial in counted if trial.user_attrs.get("valid")]
    if not valid:
        return TuningOutcome(
            trials, None, None, "no valid trial: every one failed or diverged; no suite was written", 1
        )
    best = max(valid, key=lambda trial: (trial.score or 0.0, -trial.number))
    path = out / f"{tuning.loaded.suite.name}-tuned-{tuning.agent}.yaml"
    with explained("create", out):
        out.mkdir(parents=True, exist_ok=True)
    write_text(path, _suite_text(tuning, problem, best, trials[0], len(trials), out))
    load_suite(str(path))
    return TuningOutcome(trials, best, path, f"best: trial {best.number + 1}, score {best.score:.4f}; suite: {path}", 0)


def _suite_text(tuning: Tuning, problem: Problem, best: TuningTrial, first: TuningTrial, count: int, out: Path) -> str:
    """The source suite with the best values laid over it, and where they come from."""
    suite = problem.suite
    name = f"{suite.name}-tuned-{tuning.agent}"
    base = tuning.source
    if base not in shipped_suites():
        base = Path(os.path.relpath(tuning.loaded.path.resolve(), out.resolve())).as_posix()
    packages = ", ".join(f"{package} {version(package)}" for package in ("m3po-bench", "optuna"))
    score = "could not be measured" if first.score is None else f"had {first.score:.4f}"
    notes = [
        f"The values of agent {tuning.agent} were found by: m3po-bench tune (Optuna, TPE).",
        f"Study: suite {suite.name}, version {suite.version}; trial {best.number + 1}, the best of {count}.",
        f"Score: {best.score:.4f}, the mean normalised final score; trial 1, the configuration as it stood, {score}.",
        f"Seeds: {', '.join(map(str, problem.seeds))} of the stream 'tune'; final runs use none of them.",
        f"Budget of a trial's cell: {suite.budget.env_steps} env steps in {suite.budget.num_envs} environments.",
        f"Versions: {packages}.",
    ]
    if tuning.overrides:
        notes.append(f"Tuned with --set {' --set '.join(tuning.overrides)}, which this file does not repeat.")
    document = {"extends": base, "name": name, "agents": {tuning.agent: dict(best.values)}}
    return "".join(f"# {note}\n" for note in notes) + to_yaml(document)

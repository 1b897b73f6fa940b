"""Ask, run, tell: the search behind ``tune``, whose trials survive a kill.

Optuna's journal holds the trials; the cells lie beside it. The sampler is seeded by the trial's number, so that an
interruption changes no proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError
from rich.console import Console

from m3po.api import AgentConfig, SearchSpace
from m3po.bench.experiment import run_folders
from m3po.bench.provenance import gather
from m3po.bench.records import Cell, CellStatus
from m3po.bench.scheduler import Interrupt
from m3po.bench.store import CellFolder, StoreError, drop_torn_tail, explained, read_json, write_json
from m3po.bench.study import AgentEntry, build_study, make_cell, search_space
from m3po.registry import agent_config
from suites.catalog import LoadedSuite
from suites.errors import SuiteError, unknown
from suites.spec import Suite, Task
from suites.vector import env_spec

__all__ = ["Problem", "Search", "claim", "ended", "open_study"]

SEED_OFFSET = 10_000
"""Tuning seeds are the suite's seeds plus this, on the stream ``tune``: they share nothing with the final runs."""

STARTUP_TRIALS = 5
"""Trials drawn at random before the sampler models what it has seen."""


@dataclass(frozen=True)
class Problem:
    """What every trial shares."""

    suite: Suite
    units: tuple[tuple[Task, ...], ...]
    agent: str
    agent_type: str
    values: Mapping[str, Any]
    config_class: type[AgentConfig]
    space: Mapping[str, SearchSpace]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, loaded: LoadedSuite, agent: str, env_steps: int | None) -> Problem:
        """The problem of tuning ``agent``, with trials of ``env_steps``. Raises :class:`SuiteError`."""
        suite = loaded.suite
        study = build_study(loaded)
        if agent not in suite.agents:
            raise SuiteError(f"{loaded.path}: {unknown('agent', agent, suite.agents)}")
        values = dict(suite.agents[agent])
        agent_type = str(values.pop("agent", agent))
        space = search_space(suite, agent, agent_config(agent_type))
        if not space:
            raise SuiteError(
                f"{loaded.path}: agent {agent!r} names nothing to search; add for example "
                f"tune: {{{agent}: {{learning_rate: {{low: 1e-5, high: 1e-2, log: true}}}}}}"
            )
        if env_steps is not None:
            suite = suite.model_copy(update={"budget": suite.budget.model_copy(update={"env_steps": env_steps})})
        seeds = tuple(dict.fromkeys(cell.seed + SEED_OFFSET for cell in study.cells))
        return cls(suite, study.units, agent, agent_type, values, agent_config(agent_type), space, seeds)

    def cells(self, values: Mapping[str, Any]) -> list[Cell]:
        """The cells of one trial. Raises ``ValueError`` with a sentence where this configuration cannot work."""
        try:
            config = self.config_class.model_validate({**self.values, **values})
        except ValidationError as error:
            raise ValueError("; ".join(str(fault["msg"]) for fault in error.errors())) from error
        budget = self.suite.budget
        for unit in self.units:
            if sentences := config.check(env_spec(unit), budget.num_envs, budget.env_steps):
                raise ValueError("; ".join(sentences))
        entry = AgentEntry(self.agent, self.agent_type, config, budget)
        return [make_cell(self.suite, unit, entry, seed, stream="tune") for seed in self.seeds for unit in self.units]

    def defaults(self) -> dict[str, Any]:
        """Values of the searched fields as they stand, where the search space contains them."""
        config = self.config_class.model_validate(dict(self.values))
        found = {name: getattr(config, name) for name in self.space}
        return {name: value for name, value in found.items() if _contains(self.space[name], value)}

    def meaning(self) -> dict[str, Any]:
        """All that must hold still for trials to be comparable, as JSON values."""
        return {
            "suite_version": self.suite.version,
            "agent_type": self.agent_type,
            "values": dict(self.values),
            "space": {name: space.model_dump(mode="json") for name, space in self.space.items()},
            "budget": self.suite.budget.model_dump(mode="json"),
            "evaluation": self.suite.evaluation.model_dump(mode="json"),
            "tasks": [[task.model_dump(mode="json") for task in unit] for unit in self.units],
            "seeds": list(self.seeds),
        }


def _contains(space: SearchSpace, value: Any) -> bool:
    if space.choices is not None:
        return value in space.choices
    low, high = space.low, space.high
    return isinstance(value, int | float) and low is not None and high is not None and low <= value <= high


def claim(folder: Path, problem: Problem) -> None:
    """Write down what is searched; refuse where earlier trials searched something else."""
    path = folder / "tuning.json"
    meaning = {"format": 1, **problem.meaning()}
    if not path.exists():
        write_json(path, meaning)
        return
    found = read_json(path)
    if found != meaning:
        differing = sorted(key for key in meaning if found.get(key) != meaning[key])
        raise StoreError(
            f"the trials in {folder} were made with other {', '.join(differing)}; "
            "restore them, or move that folder away to start anew"
        )


def open_study(folder: Path, problem: Problem) -> optuna.Study:
    """The Optuna study in the folder's journal, whose holder we are."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "journal.log"
    drop_torn_tail(journal)
    journal.with_name("journal.log.lock").unlink(missing_ok=True)  # a tuner that was killed leaves it behind
    with explained("open", journal):
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(
            storage=storage, study_name=problem.agent, direction="maximize", load_if_exists=True
        )
    _requeue(study)
    if not study.trials:
        defaults = problem.defaults()
        study.enqueue_trial(defaults, user_attrs={"names": list(defaults)})
    return study


def _requeue(study: optuna.Study) -> None:
    """Ask again, with the same values, for trials a kill cut short: once, and without a limit after a polite stop."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        attempts = trial.user_attrs.get("attempts", 0) + (0 if trial.user_attrs.get("stopped") else 1)
        study.tell(trial.number, state=TrialState.FAIL)
        if attempts <= 1 and "values" in trial.user_attrs:
            study.enqueue_trial(trial.params, user_attrs={"names": list(trial.params), "attempts": attempts})


@dataclass
class Search:
    """Asks, runs, tells."""

    problem: Problem
    folder: Path
    study: optuna.Study
    jobs: int
    device: str
    console: Console
    interrupt: Interrupt = field(init=False)

    def __post_init__(self) -> None:
        self.interrupt = Interrupt(self.console.print)

    def run(self, wanted: int) -> bool:
        """Run trials until ``wanted`` have ended; true when interrupted."""
        at_once = max(1, self.jobs // (len(self.problem.units) * len(self.problem.seeds)))
        while (missing := wanted - len(ended(self.study))) > 0 and not self.interrupt.count:
            self._run_batch(min(at_once, missing), wanted)
        return self.interrupt.count > 0

    def _run_batch(self, size: int, wanted: int) -> None:
        """Run ``size`` trials side by side."""
        cells: dict[int, list[Cell]] = {}
        trials: dict[int, Trial] = {}
        for _ in range(size):
            # a sampler seeded by the trial's number proposes the same whether or not tuning was interrupted
            self.study.sampler = optuna.samplers.TPESampler(
                seed=len(self.study.trials), n_startup_trials=STARTUP_TRIALS
            )
            trial = self.study.ask()
            values = _suggest(trial, self.problem.space)
            trial.set_user_attr("values", values)
            try:
                cells[trial.number] = self.problem.cells(values)
                trials[trial.number] = trial
            except ValueError as error:
                trial.set_user_attr("message", f"cannot work: {error}")
                self.study.tell(trial, state=TrialState.FAIL)
            shown = ", ".join(f"{name}={value}" for name, value in values.items())
            self.console.print(f"trial {trial.number + 1} of {wanted}: {shown}", markup=False, highlight=False)
        statuses = self._run_cells([cell for group in cells.values() for cell in group])
        for number, trial in trials.items():
            self._tell(trial, [statuses[cell.id] for cell in cells[number]])

    def _run_cells(self, cells: Sequence[Cell]) -> dict[str, CellStatus]:
        unique = list({cell.id: cell for cell in cells}.values())
        provenance = gather(self.device)
        folders = [CellFolder(self.folder / cell.id) for cell in unique]
        for cell, folder in zip(unique, folders, strict=True):
            folder.create(cell.model_copy(update={"provenance": provenance}))
        return run_folders(
            unique, folders, jobs=self.jobs, device=self.device, console=self.console, interrupt=self.interrupt
        )

    def _tell(self, trial: Trial, statuses: Sequence[CellStatus]) -> None:
        states = {status.state for status in statuses}
        if states <= {"done", "diverged"}:
            trial.set_user_attr("diverged", [status.state for status in statuses].count("diverged"))
            trial.set_user_attr("valid", "done" in states)
            self.study.tell(trial, fmean(_score(status) for status in statuses))
        elif self.interrupt.count:
            trial.set_user_attr("stopped", True)  # stays open: the next call goes on with its cells
        else:
            messages = dict.fromkeys(status.message for status in statuses if status.state == "failed")
            trial.set_user_attr("message", "; ".join(messages))
            self.study.tell(trial, state=TrialState.FAIL)


def _score(status: CellStatus) -> float:
    """What a cell adds to its trial: its final score, or the worst value where it diverged."""
    return 0.0 if status.state == "diverged" or status.last_score is None else status.last_score


def _suggest(trial: Trial, space: Mapping[str, SearchSpace]) -> dict[str, Any]:
    names = trial.user_attrs.get("names", list(space))
    return {name: _suggest_one(trial, name, space[name]) for name in names}


def _suggest_one(trial: Trial, name: str, space: SearchSpace) -> Any:
    if space.choices is not None:
        return trial.suggest_categorical(name, list(space.choices))
    assert space.low is not None
    assert space.high is not None
    if space.integer:
        return trial.suggest_int(name, round(space.low), round(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: all that were measured, could not work, or were killed twice."""

    def counts(trial: FrozenTrial) -> bool:
        known = trial.user_attrs
        given_up = known.get("attempts", 0) > 0 and not known.get("stopped")
        return trial.state == TrialState.COMPLETE or "message" in known or given_up

    return [trial for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL)) if counts(trial)]

"""Search agents' configurations: trials are cells of the same store, on seeds that no final run uses.

Optuna proposes (ask and tell), the scheduler runs. A trial's score is the mean normalised final score over tasks and
tuning seeds; a diverged cell counts 0. The first trial is the configuration as it stands.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from m3po.bench.experiment import cores
from m3po.bench.ledger import record
from m3po.bench.problem import Problem, searchable
from m3po.bench.search import Search
from m3po.bench.store import StoreError, explained, write_text
from m3po.bench.study import build_study, to_yaml
from m3po.bench.trials import answering, open_study, turn, working
from suites.catalog import LoadedSuite, load_suite, shipped_suites
from suites.errors import SuiteError
from suites.spec import Name, Tuned, Tuning

__all__ = ["Found", "Request", "TuningOutcome", "TuningTrial", "tune_agents", "tuning_folder"]

HEADER = "# Found by m3po-bench tune"
"""How a suite begins that tuning wrote, and may replace."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    loaded: LoadedSuite
    agents: tuple[str, ...]
    settings: Tuning
    source: str
    """The suite as the user named it: a path or a shipped name."""
    overrides: tuple[str, ...] = ()
    storage: str | None = None
    """URL of the database that holds the trials; default: a journal in the results."""

    @classmethod
    def of(
        cls,
        loaded: LoadedSuite,
        agents: Sequence[str],
        source: str,
        *,
        trials: int | None = None,
        env_steps: int | None = None,
        overrides: Sequence[str] = (),
        storage: str | None = None,
    ) -> Request:
        """What the suite's section ``tuning`` asks for, with what is given beside it; no agents: all that
        name something to search.

        Raises :class:`SuiteError` where nothing says how long to search.
        """
        given = {"trials": trials, "env_steps": env_steps}
        settings = loaded.suite.tuning or Tuning()
        settings = settings.model_copy(update={key: value for key, value in given.items() if value is not None})
        if settings.trials is None and settings.total_env_steps is None and settings.hours is None:
            raise SuiteError(
                f"{loaded.path}: nothing says how long to search; give --trials, or in the suite "
                "tuning: {trials: 20}, {total_env_steps: 1e6} or {hours: 8}"
            )
        build_study(loaded)  # says what is wrong with the suite before agents are asked for their fields
        asked = agents or searchable(loaded.suite) or loaded.suite.agents
        return cls(loaded, tuple(dict.fromkeys(asked)), settings, source, tuple(overrides), storage)

    @property
    def name(self) -> str:
        """Of the tuned suite. Raises :class:`SuiteError` where it would be too long for one."""
        name = f"{self.loaded.suite.name}-tuned" + (f"-{self.agents[0]}" if len(self.agents) == 1 else "")
        try:
            TypeAdapter(Name).validate_python(name)
        except ValidationError as error:
            raise SuiteError(
                f"{self.loaded.path}: the tuned suite would be called {name}, which no suite can be "
                f"({error.errors()[0]['msg']}); give the suite a shorter name, such as with --set name=short"
            ) from error
        return name


@dataclass(frozen=True)
class TuningTrial:
    """One configuration and what it was worth. ``score`` is ``None`` where it could not be measured."""

    number: int
    state: str
    score: float | None
    values: Mapping[str, Any]
    default: bool
    """Whether it is the configuration as it stands."""
    whole: bool
    """Whether it was not ended early."""


@dataclass(frozen=True)
class Found:
    """What the search of one agent came to so far."""

    problem: Problem
    trials: tuple[TuningTrial, ...]
    repeats: int
    """Proposals that only repeated one of these, and were not run."""
    best: TuningTrial | None
    env_steps: int
    hours: float

    @property
    def agent(self) -> str:
        """Name of the agent."""
        return self.problem.agent

    @property
    def stood(self) -> float | None:
        """Score of the configuration as it stands, where it was measured."""
        return next((trial.score for trial in self.trials if trial.default), None)

    @property
    def origin(self) -> Tuned:
        """What the tuned suite says of it."""
        return Tuned(
            suite=self.problem.suite.name,
            version=self.problem.suite.version,
            trials=len(self.trials),
            env_steps=self.env_steps,
            hours=self.hours,
            seeds=self.problem.seeds,
            tasks=tuple(task.name for unit in self.problem.units for task in unit),
            default=self.stood,
            scores=tuple(trial.score for trial in self.trials if trial.whole and trial.score is not None),
        )


@dataclass(frozen=True)
class TuningOutcome:
    """How tuning ended."""

    found: tuple[Found, ...]
    suite_file: Path | None
    sentence: str
    exit_code: int


def tuning_folder(results: Path, suite: str, agent: str) -> Path:
    """Where the search of one agent lies: its trials, and their cells."""
    return results / suite / "tuning" / agent


def tune_agents(
    request: Request, results: Path, out: Path, *, jobs: int | None, device: str, console: Console
) -> TuningOutcome:
    """Search one agent after the other, then write ``<out>/<suite>-tuned.yaml`` (of one agent: ``…-tuned-<agent>``).

    Trials of earlier calls count, those of other processes too; one that was killed, or whose cells failed, is asked
    for again, once. Where nothing works the search is given up, with a sentence. Raises :class:`SuiteError` for a bad
    suite or agent, and :class:`m3po.bench.store.StoreError` where the suite could not be written, another search left
    its trials, or the storage cannot be opened, read or written.
    """
    problems = [Problem.of(request.loaded, agent, request.settings) for agent in request.agents]
    path = out / f"{request.name}.yaml"  # says at once where there can be no such suite
    _check_place(path)
    found = []
    for problem in problems:
        one, search = _search(problem, request, results, jobs or cores(), device, console)
        found.append(one)
        so_far = f"after {len(one.trials)} trials of {one.agent}"
        if search.trouble:
            return TuningOutcome(tuple(found), None, f"given up {so_far}: {search.trouble}", 2 if search.invalid else 1)
        if search.interrupt.count:
            done = f"interrupted {so_far}; run the same command again to go on"
            return TuningOutcome(tuple(found), None, done, 3)
    return _conclude(request, found, path)


def _check_place(path: Path) -> None:
    """Say before a search where its suite could not be written behind it. Raises :class:`StoreError`."""
    try:
        if path.is_dir() or (path.exists() and not path.read_bytes().startswith(HEADER.encode())):
            raise StoreError(
                f"the tuned suite would replace {path}, which tuning did not write; "
                "move it away, or name another folder with --out"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StoreError(
            f"the tuned suite could not be written into {path.parent} ({error.strerror or error}); "
            "name a folder with --out that can be written"
        ) from error


def _search(
    problem: Problem, request: Request, results: Path, jobs: int, device: str, console: Console
) -> tuple[Found, Search]:
    """Search one agent; what was found, and the search, which knows how it ended."""
    _ = problem.rungs  # says at once where the budget has no room for them
    if len(problem.seeds) == 1:
        console.print(f"warning: {problem.agent}: one seed a trial; the best of many is then mostly the luckiest")
    if outside := sorted(problem.space.keys() - problem.defaults().keys()):
        console.print(
            f"warning: {problem.agent}: the space leaves out {', '.join(outside)} as it stands: "
            "trial 1 has it, and no other trial can"
        )
    for name, value, fault in problem.hopeless():
        console.print(
            f"warning: {problem.agent}: {name}={value} cannot work with everything else as it stands ({fault}); each "
            "trial that draws it is spent on nothing: leave it out under tune, or change what stands beside it",
            markup=False,
        )
    folder = tuning_folder(results, problem.suite.name, problem.agent)
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with working(folder) as worker, answering(request.storage):
        study = open_study(folder, problem, request.storage)
        search = Search(problem, folder, study, worker, jobs, device, console)
        search.run()
        with turn(folder):
            return _found(problem, record(folder, problem, study)), search


def _found(problem: Problem, ledger: Mapping[str, Any]) -> Found:
    entries = ledger["trials"]
    trials = tuple(_summary(entry) for entry in entries)
    valid = [trial for trial, entry in zip(trials, entries, strict=True) if entry["valid"]]
    best = max(valid, key=lambda trial: (trial.score or 0.0, -trial.number), default=None)
    cost = ledger["cost"]
    return Found(problem, trials, ledger["repeats"], best, cost["env_steps"], round(cost["seconds"] / 3600, 4))


def _summary(entry: Mapping[str, Any]) -> TuningTrial:
    state = str(entry["message"] or entry["state"])
    if entry["diverged"]:
        state += f", {entry['diverged']} cells diverged"
    return TuningTrial(
        entry["number"], state, entry["score"], entry["values"], entry["default"], entry["state"] != "pruned"
    )


def _conclude(request: Request, found: Sequence[Found], path: Path) -> TuningOutcome:
    lost = [one.agent for one in found if one.best is None]
    if lost:
        reason = "every one failed or diverged; no suite was written"
        return TuningOutcome(tuple(found), None, f"no valid trial of {', '.join(lost)}: {reason}", 1)
    write_text(path, _suite_text(request, found, path.parent))
    build_study(load_suite(str(path)))
    scores = "; ".join(
        f"best of {one.agent}: trial {one.best.number + 1} of {len(one.trials)}, score {one.best.score:.4f}"
        + (f" (proposals that repeated others: {one.repeats})" if one.repeats else "")
        for one in found
        if one.best is not None
    )
    return TuningOutcome(tuple(found), path, f"{scores}; suite: {path}", 0)


def _suite_text(request: Request, found: Sequence[Found], out: Path) -> str:
    """The suite as it was tuned, ``--set`` included, with the best values laid over it, and where they come from."""
    problem = found[0].problem
    suite, settings = problem.suite, problem.settings
    base = request.source
    if base not in shipped_suites():
        base = Path(os.path.relpath(request.loaded.path.resolve(), out.resolve())).as_posix()
    packages = ", ".join(f"{package} {version(package)}" for package in ("m3po-bench", "optuna"))
    pruner = "" if settings.pruner == "none" else f", pruner {settings.pruner}"
    tasks = "its own" if not request.loaded.tuning else ", ".join(task.name for unit in problem.units for task in unit)
    notes = [
        f"{HEADER.removeprefix('# ')} (Optuna, sampler {settings.sampler}{pruner}). {packages}.",
        f"Study: suite {suite.name}, version {suite.version}; tasks: {tasks}.",
        *map(_origin, found),
        "Score: the mean normalised final score; trial 1 is the configuration as it stood; a diverged cell counts 0.",
        f"Seeds: {', '.join(map(str, problem.seeds))} of the stream 'tune'; final runs use none of them.",
        f"Budget of a trial's cell: {suite.budget.env_steps} env steps in {suite.budget.num_envs} environments.",
    ]
    if request.overrides:
        notes.append(f"Tuned with --set {' --set '.join(request.overrides)}, which this file holds too.")
    best = {one.agent: dict(one.best.values) for one in found if one.best is not None}
    tuned = {one.agent: one.origin.model_dump(mode="json") for one in found}
    document = {"extends": base, "name": request.name, "agents": best, "tuned": tuned}
    if request.overrides or any(
        value is None or isinstance(value, Mapping) for values in best.values() for value in values.values()
    ):
        # below "extends" a null would remove what is inherited, and a mapping be merged into it: all is written out
        whole = request.loaded.document.values
        agents = {agent: {**whole["agents"].get(agent, {}), **values} for agent, values in best.items()}
        tuned = {**whole.get("tuned", {}), **tuned}
        document = {**whole, "name": request.name, "agents": {**whole["agents"], **agents}, "tuned": tuned}
    return "".join(f"# {' '.join(note.split())}\n" for note in notes) + to_yaml(document)


def _origin(one: Found) -> str:
    """The best of an agent, what it is better than, and what finding it took."""
    assert one.best is not None
    stood = "could not be measured" if one.stood is None else f"had {one.stood:.4f}"
    return (
        f"{one.agent}: trial {one.best.number + 1}, the best of {len(one.trials)}, scores {one.best.score:.4f}; "
        f"trial 1 {stood}. Proposals that repeated others: {one.repeats}. "
        f"Cost: {one.env_steps} env steps, {one.hours:.2f} hours of training."
    )

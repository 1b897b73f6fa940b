"""The trials of a search in Optuna's storage, which survive kills and may be shared by several processes.

Every process takes its turn (:func:`turn`) to ask and to tell. It is a worker while it lives: what it was trying when
it died is asked for again.
"""

from __future__ import annotations

import secrets
import shutil
import warnings
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from m3po.api import SearchSpace
from m3po.bench.problem import Problem, claim, label
from m3po.bench.store import CellFolder, DiskFull, StoreError, drop_torn_tail, explained, locked
from suites.errors import SuiteError
from suites.spec import PrunerName, SamplerName, Tuning

__all__ = [
    "MOST_RETRIES",
    "STARTUP_TRIALS",
    "answering",
    "ask_again",
    "barren",
    "ended",
    "numbers",
    "open_study",
    "proposed",
    "repeats",
    "requeue",
    "running",
    "sampler",
    "suggest",
    "turn",
    "working",
]

JOURNAL = "journal.log"

GO_ON = "what was told before is kept, and the same command goes on"

STARTUP_TRIALS = 5
"""Trials drawn at random before a sampler models what it has seen, and before the median is a measure. (ours)"""

POPULATION = 10
"""Trials of one generation of NSGA-II. (ours: Optuna's 50 are more than most searches have)"""

MOST_RETRIES = 1
"""How often a trial is asked for again after an accident; what failed twice fails for reasons of its own."""

OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

SAMPLERS: Mapping[SamplerName, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    "random": lambda seed: RandomSampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    "cmaes": lambda seed: CmaEsSampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    # one sequence for all trials, of which each takes the next point
    "qmc": lambda seed: QMCSampler(scramble=True, seed=0, warn_asynchronous_seeding=False),
    "nsgaii": lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
}


class _Standing:
    """A storage in which trials that failed are not there."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [trial for trial in trials if trial.state != TrialState.FAIL]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def _standing(study: optuna.Study) -> optuna.Study:
    """The study without failed trials: one that was interrupted goes on as another, and would compete with itself."""
    return optuna.Study(study.study_name, cast(BaseStorage, _Standing(study._storage)), study.sampler, study.pruner)


class _Halving(SuccessiveHalvingPruner):
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return super().prune(_standing(study), trial)


class _Hyperband(HyperbandPruner):
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return super().prune(_standing(study), trial)


PRUNERS: Mapping[PrunerName, Callable[[Tuning], BasePruner]] = {
    "none": lambda how: NopPruner(),
    "wilcoxon": lambda how: WilcoxonPruner(),
    # curves are reported at the steps 1, r, r² … of r = reduction_factor, whatever they are in environment steps
    "halving": lambda how: _Halving(min_resource=1, reduction_factor=how.reduction_factor),
    "hyperband": lambda how: _Hyperband(
        min_resource=1,
        max_resource=how.reduction_factor ** (how.rungs - 1),
        reduction_factor=how.reduction_factor,
    ),
    "median": lambda how: MedianPruner(n_startup_trials=STARTUP_TRIALS),
}


def sampler(name: SamplerName, number: int) -> BaseSampler:
    """The sampler called ``name``, seeded by how many trials were proposed before: an interruption changes nothing.

    But for CMA-ES, which reckons with trials that were asked for again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[name](number)


def _pruner(settings: Tuning) -> BasePruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return PRUNERS[settings.pruner](settings)


class _KernelLock(JournalFileOpenLock):
    """A journal's lock that the kernel frees when its holder dies, perhaps in the middle of a line."""

    def __init__(self, path: Path, journal: Path) -> None:
        self._path, self._journal = path, journal
        self._held = ExitStack()

    def acquire(self) -> bool:
        with ExitStack() as stack:
            stack.enter_context(locked(self._path))
            drop_torn_tail(self._journal)  # ours would be glued onto it, and no worker could read on
            self._held = stack.pop_all()
        return True

    def release(self) -> None:
        self._held.close()


class _Journal(JournalFileBackend):
    """A journal that tells in a sentence what is wrong with it, however long the search has gone on by then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told("open"):
            super().__init__(str(path), _KernelLock(path.with_name("journal.lock"), path))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        with self._told("read"):
            yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._told("append to"):
            super().append_logs(logs)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            with explained(doing, self._path):
                yield
        except DiskFull:
            raise
        except StoreError as error:
            raise StoreError(f"{error}; {GO_ON}") from error
        except ValueError as error:
            raise StoreError(
                f"{self._path} is damaged: a line of it is no JSON; "
                f"restore it, or move {self._path.parent} away to search anew"
            ) from error


def turn(folder: Path) -> AbstractContextManager[None]:
    """A block in which no other process asks or tells in the search of ``folder``."""
    return locked(folder / "turn.lock")


@contextmanager
def working(folder: Path) -> Iterator[str]:
    """Be a worker of the search during the block; yields a name that :func:`_lives` knows as long as we live."""
    worker = CellFolder(folder / "workers" / secrets.token_hex(8))
    with explained("create", worker.path):
        worker.path.mkdir(parents=True)
    try:
        with worker.held():
            yield worker.id
    finally:
        shutil.rmtree(worker.path, ignore_errors=True)


def open_study(folder: Path, problem: Problem, url: str | None = None) -> optuna.Study:
    """The Optuna study of the search in ``folder``: in a journal there, or in the database at ``url``.

    Raises :class:`StoreError` where the trials there are of another search or the storage cannot be opened, and
    :class:`SuiteError` where the sampler's package is missing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, objectives = f"{problem.suite.name}-{problem.agent}", problem.settings.objectives
    if problem.settings.sampler == "cmaes" and find_spec("cmaes") is None:
        raise SuiteError("tuning: the sampler 'cmaes' needs the package cmaes: pip install cmaes")
    with turn(folder):
        identifier = claim(folder, problem, "journal" if url is None else "database")
        study = optuna.create_study(
            storage=JournalStorage(_Journal(folder / JOURNAL)) if url is None else _database(url),
            study_name=name if url is None else f"{name}-{identifier}",  # a database may hold many searches
            directions=["maximize" if objective == "score" else "minimize" for objective in objectives],
            pruner=_pruner(problem.settings),
            load_if_exists=True,
        )
        requeue(study, folder)
        if not study.trials:
            defaults = problem.defaults()
            labels = {name: label(value) for name, value in defaults.items()}
            study.enqueue_trial(labels, user_attrs={"names": list(defaults), "default": True})
    return study


@contextmanager
def answering(url: str | None) -> Iterator[None]:
    """Turn what the loss of the database at ``url`` raises in the block into a :class:`StoreError`."""
    try:
        yield
    except Exception as error:
        # what lies below is the driver's affair, and Optuna's: this room imports neither
        lost = isinstance(error, StorageInternalError) or type(error).__module__.startswith("sqlalchemy")
        if url is None or not lost:
            raise
        reason = _reason(error.__cause__ or error)
        raise StoreError(f"the storage{_place(url)} failed in the middle of the search ({reason}); {GO_ON}") from error


def _database(url: str) -> BaseStorage:
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # whatever the database's driver raises, or its absence
        raise StoreError(
            f"the storage{_place(url)} cannot be opened ({_reason(error)}); expected a URL such as "
            "postgresql+psycopg://user@host/name, a running server, and pip install 'm3po-bench[postgres]'"
        ) from error


def _reason(error: BaseException) -> str:
    """The first line of what an error says, which has no line of its own for SQL and links."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _place(url: str) -> str:
    """Which database a URL means, with neither user nor password; nothing where it does not show where they stand."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if "://" not in url or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return ""
    return f" {parts.scheme}://{parts.hostname or ''}{parts.path}"


def requeue(study: optuna.Study, folder: Path) -> None:
    """Ask again, with the same values, for trials whose worker is gone.

    Once, and without limit after a polite stop, or as long as their cells get further in between.
    """
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _lives(trial, folder):
            continue
        known = trial.user_attrs
        if "repeats" in known:
            study.tell(trial.number, state=TrialState.FAIL)
            continue
        reached = sum(CellFolder(folder / cell).status().env_step for cell in known.get("cells", ()))
        excused = known.get("stopped") or reached > known.get("reached", 0)
        attempts = known.get("attempts", 0) + (0 if excused else 1)
        study.tell(trial.number, state=TrialState.FAIL)
        params = trial.params if "values" in known else trial.system_attrs.get("fixed_params")
        if attempts <= MOST_RETRIES and params is not None:
            ask_again(study, trial, params, attempts, max(reached, known.get("reached", 0)))


def ask_again(
    study: optuna.Study, trial: FrozenTrial | Trial, params: Mapping[str, Any], attempts: int, reached: int = 0
) -> None:
    """Queue a trial with the same values instead of one that failed for the ``attempts``-th time.

    ``reached`` are the environment steps that its cells had taken when its worker died.
    """
    again = {"default": trial.user_attrs.get("default", False), "instead": trial.number}
    known = {"names": list(params), "attempts": attempts, "reached": reached}
    study.enqueue_trial(dict(params), user_attrs={**again, **known})


def running(study: optuna.Study, folder: Path) -> list[FrozenTrial]:
    """Trials that a living worker has under way."""
    return [trial for trial in study.get_trials(states=(TrialState.RUNNING,)) if _lives(trial, folder)]


def _lives(trial: FrozenTrial, folder: Path) -> bool:
    worker = trial.user_attrs.get("worker")
    return worker is not None and CellFolder(folder / "workers" / worker).is_held()


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: all that were measured or pruned, could not work, or failed or were killed twice.

    What only repeated another is none of them.
    """
    again = _asked_again(study)

    def counts(trial: FrozenTrial) -> bool:
        known = trial.user_attrs
        if trial.number in again or "repeats" in known:
            return False
        given_up = known.get("attempts", 0) > 0 and not known.get("stopped")
        return trial.state != TrialState.FAIL or "message" in known or given_up

    return [trial for trial in study.get_trials(states=OVER) if counts(trial)]


def repeats(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose configuration another one has or had: they were not run."""
    return [trial for trial in study.get_trials(states=OVER) if "repeats" in trial.user_attrs]


def barren(study: optuna.Study) -> int:
    """How many of the latest trials, in a row, could not begin or only repeated others."""
    latest = reversed(study.get_trials(deepcopy=False, states=OVER))
    idle = takewhile(lambda trial: "cells" not in trial.user_attrs or "repeats" in trial.user_attrs, latest)
    return sum(1 for _ in idle)


def proposed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were not asked for again instead of others, and did not die before they had values."""
    again = _asked_again(study)

    def lost(trial: FrozenTrial) -> bool:
        return trial.state == TrialState.FAIL and "values" not in trial.user_attrs and trial.number not in again

    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if "instead" not in trial.user_attrs and not lost(trial)]


def numbers(study: optuna.Study) -> dict[int, int]:
    """Numbers of the trials, from 0, by Optuna's: one that is asked for again keeps its own, and none is left out.

    Repeats have none.
    """
    counted = [trial.number for trial in proposed(study) if "repeats" not in trial.user_attrs]
    found = {trial: number for number, trial in enumerate(counted)}
    for trial in study.get_trials(deepcopy=False):
        if "instead" in trial.user_attrs:
            found[trial.number] = found[trial.user_attrs["instead"]]
    return found


def _asked_again(study: optuna.Study) -> set[int | None]:
    """Optuna's numbers of the trials instead of which others were asked for."""
    return {trial.user_attrs.get("instead") for trial in study.get_trials(deepcopy=False)}


def suggest(trial: Trial, space: Mapping[str, SearchSpace]) -> dict[str, Any]:
    """Values of the searched fields for a trial; of fewer fields where it is the configuration as it stands."""
    names = trial.user_attrs.get("names", list(space))
    return {name: _suggest(trial, name, space[name]) for name in names}


def _suggest(trial: Trial, name: str, space: SearchSpace) -> Any:
    if space.choices is not None:
        labels = [label(choice) for choice in space.choices]
        return space.choices[labels.index(trial.suggest_categorical(name, labels))]
    assert space.low is not None
    assert space.high is not None
    if space.integer:
        return trial.suggest_int(name, round(space.low), round(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)

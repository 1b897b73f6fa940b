"""What a search has found and what it took, as ``trials.json``: all that a report needs, whatever Optuna's storage."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, Trial, TrialState

from m3po.bench.problem import Problem
from m3po.bench.store import CellFolder, write_json
from m3po.bench.trials import ended, numbers, repeats
from suites.spec import Objective

__all__ = ["LEDGER", "Cost", "cost_of", "needed", "record", "write_ledger"]

LEDGER = "trials.json"


@dataclass(frozen=True)
class Cost:
    """What cells took together."""

    env_steps: int
    seconds: float
    """Of training; evaluation is not counted."""

    @property
    def hours(self) -> float:
        """The same in hours."""
        return self.seconds / 3600


def cost_of(folder: Path, trials: Iterable[FrozenTrial | Trial]) -> Cost:
    """What the cells of ``trials`` took so far, each counted once whatever number of trials share it."""
    cells = dict.fromkeys(cell for trial in trials for cell in trial.user_attrs.get("cells", ()))
    statuses = [CellFolder(folder / cell).status() for cell in cells]
    return Cost(sum(status.env_step for status in statuses), sum(status.seconds for status in statuses))


def needed(cell: CellFolder, objective: Objective) -> float:
    """Training seconds or gradient updates of a finished cell; of a diverged one those it would have needed."""
    status = cell.status()
    if objective == "seconds":
        found = status.seconds
    else:
        rows = cell.evaluations.rows()
        found = float((rows[-1].get("updates") if rows else None) or 0.0)
    return found * status.env_steps / status.env_step if status.state == "diverged" and status.env_step else found


def write_ledger(folder: Path, problem: Problem, study: optuna.Study) -> None:
    """Replace ``trials.json``. Raises :class:`m3po.bench.store.StoreError`."""
    write_json(folder / LEDGER, record(folder, problem, study))


def record(folder: Path, problem: Problem, study: optuna.Study) -> dict[str, Any]:
    """The content of ``trials.json``."""
    number = numbers(study)
    trials = sorted(ended(study), key=lambda trial: number[trial.number])
    cost = cost_of(folder, study.get_trials())
    return {
        "format": 1,
        **problem.meaning(),
        "fields": {name: _default(problem, name) for name in problem.space},
        "trials": [_entry(folder, trial, number[trial.number]) for trial in trials],
        "repeats": len(repeats(study)),
        "importance": _importance(study, problem),
        "cost": {"env_steps": cost.env_steps, "seconds": round(cost.seconds, 3)},
        "versions": {package: version(package) for package in ("m3po-bench", "optuna")},
    }


def _default(problem: Problem, name: str) -> Any:
    value = getattr(problem.config_class.model_validate(dict(problem.values)), name)
    return list(value) if isinstance(value, tuple) else value


def _entry(folder: Path, trial: FrozenTrial, number: int) -> dict[str, Any]:
    known, cost = trial.user_attrs, cost_of(folder, [trial])
    measured = trial.state != TrialState.FAIL
    values: list[float] = (trial.values or [trial.value]) if measured else []
    return {
        "number": number,
        "default": bool(known.get("default")),
        "state": "pruned" if "pruned" in known else "done" if measured else "failed",
        "message": known.get("message", "" if measured else "killed twice"),
        "values": known.get("values", {}),
        "score": values[0] if measured else None,
        "objectives": values,
        "scores": known.get("scores", []),
        "diverged": known.get("diverged", 0),
        "valid": bool(known.get("valid")),
        "env_steps": cost.env_steps,
        "seconds": round(cost.seconds, 3),
    }


def _importance(study: optuna.Study, problem: Problem) -> Mapping[str, float]:
    """PED-ANOVA's share of each field in what sets good trials apart; empty where trials do not tell."""
    whole = [
        trial
        for trial in study.get_trials(states=(TrialState.COMPLETE,))
        if trial.params.keys() == problem.space.keys()
    ]
    measured = optuna.create_study(directions=study.directions)
    measured.add_trials(whole)
    # told what to look at, it takes lower values for better
    target = (lambda trial: -trial.values[0]) if len(study.directions) > 1 else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(
                measured, evaluator=PedAnovaImportanceEvaluator(), target=target, normalize=False
            )
    except (ValueError, RuntimeError):  # too few trials, or all alike
        return {}
    total = sum(found.values())
    return {name: value / total for name, value in found.items()} if total > 0 else {}

"""A search made of seeded random numbers, in the form the harness writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.analysis.synthetic import RETURN, dump

SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "integer": False, "choices": None},
    "clip": {"low": 0.1, "high": 0.3, "log": False, "integer": False, "choices": None},
    "minibatch_size": {"low": None, "high": None, "log": False, "integer": False, "choices": [64, 128, 256]},
}
DEFAULTS = {"learning_rate": 3e-4, "clip": 0.2, "minibatch_size": 64}


def write_search(folder: Path, trials: int = 20, objectives: tuple[str, ...] = ("score",), **changes: Any) -> Path:
    """Write ``trials.json`` of a search in which the best learning rate is 1e-3 and the rest means little."""
    rng = np.random.default_rng(0)
    entries = [_trial(number, rng, len(objectives) > 1) for number in range(trials)]
    record = {
        "format": 1,
        "suite": "quick",
        "suite_version": 2,
        "mode": "per_task",
        "agent": "ppo",
        "agent_type": "ppo",
        "values": {},
        "space": SPACE,
        "budget": {"env_steps": 1000, "num_envs": 4},
        "evaluation": {"every": 500, "episodes": 2},
        "tasks": [[{"name": "cartpole-swingup", "family": "dm_control", "protocol": RETURN}]],
        "seeds": [10_000, 10_001],
        "search": {"objectives": list(objectives), "sampler": "tpe", "pruner": "none"},
        "fields": DEFAULTS,
        "trials": entries,
        "importance": {"learning_rate": 0.8, "clip": 0.15, "minibatch_size": 0.05},
        "cost": {"env_steps": 2000 * trials, "seconds": 7200.0},
        "versions": {"m3po-bench": "0.1.0", "optuna": "5.0.0"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    dump(folder / "trials.json", {**record, **changes})
    return folder


def _trial(number: int, rng: np.random.Generator, with_compute: bool) -> dict[str, Any]:
    """The first is the configuration as it stood; the fourth diverged, the fifth was ended early, the sixth failed."""
    rate = 10 ** rng.uniform(-4, -2)
    values = {"learning_rate": rate, "clip": rng.uniform(0.1, 0.3), "minibatch_size": int(rng.choice([64, 128, 256]))}
    values = DEFAULTS if number == 0 else values
    score = float(np.exp(-(np.log10(values["learning_rate"] / 1e-3) ** 2)) - 0.05 * rng.random())
    state = {4: "pruned", 5: "failed"}.get(number, "done")
    compute = [100 * 256 / values["minibatch_size"]] if with_compute else []
    return {
        "number": number,
        "default": number == 0,
        "state": state,
        "message": "cannot work: a reason" if state == "failed" else "",
        "values": values,
        "score": None if state == "failed" else 0.0 if number == 3 else score,
        "objectives": [] if state == "failed" else [0.0 if number == 3 else score, *compute],
        "scores": [],
        "diverged": 2 if number == 3 else 0,
        "valid": state == "done" and number != 3,
        "env_steps": 0 if state == "failed" else 2000,
        "seconds": 0.0 if state == "failed" else 360.0,
    }

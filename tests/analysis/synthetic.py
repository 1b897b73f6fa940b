"""A results folder made of seeded random numbers, in the form the harness writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RETURN = {"name": "dmc-1000", "action_repeat": 2, "decisions": 500, "score": "return", "low": 0.0, "high": 1000.0}
SUCCESS = {
    "name": "metaworld-v3",
    "action_repeat": 1,
    "decisions": 500,
    "score": "success_any",
    "low": 0.0,
    "high": 1.0,
}
SKILL = {"m3po": 0.85, "ppo": 0.4, "dreamerv3": 0.6, "random": 0.02}


@dataclass
class Synthetic:
    """Writes studies below ``root``; ``score(agent, seed, task, fraction of budget)`` is normalised."""

    root: Path
    agents: Sequence[str] = ("m3po", "ppo", "dreamerv3")
    seeds: Sequence[int] = (0, 1, 2)
    tasks: Sequence[tuple[str, dict[str, Any]]] = (("cartpole-swingup", RETURN), ("reach-v3", SUCCESS))
    mode: str = "per_task"
    suite: str = "quick"
    env_steps: int = 10_000
    every: int = 1_000
    episodes: int = 5
    version: int = 1
    held_out: Sequence[tuple[str, dict[str, Any]]] = ()
    engines: Mapping[str, str] = field(default_factory=dict)
    family: str = "toy"
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[dict[str, Any]] = ()
    sweep: dict[str, Any] | None = None
    starts: bool = False
    """Whether cells say what worked on them; the first releases did not."""
    score: Callable[[str, int, str, float], float] | None = None
    cells: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / self.suite

    def write(self) -> Path:
        """Write every cell as done and ``study.json``; returns the folder of the study."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [name for name, _ in self.tasks]
        units = [names] if self.mode == "joint" else [[name] for name in names]
        self.cells = [
            {"id": cell_id(agent, seed, unit), "agent": agent, "seed": seed, "tasks": unit}
            for unit in units
            for agent in self.agents
            for seed in self.seeds
        ]
        self.write_study()
        for cell in self.cells:
            self.write_cell(cell)
        return self.folder

    def write_study(self, **changes: Any) -> None:
        study = {
            "format": 1,
            "suite": self.suite,
            "version": self.version,
            "mode": self.mode,
            "budget": {"env_steps": self.env_steps, "num_envs": 1},
            "evaluation": {"every": self.every, "episodes": self.episodes},
            "agents": list(self.agents),
            "seeds": list(self.seeds),
            "tasks": [self._task(name) for name, _ in self.tasks],
            "held_out": [self._task(name) for name, _ in self.held_out],
            "sweep": self.sweep,
            "settings": dict.fromkeys(self.agents, self.settings) if self.settings else {},
            "cells": self.cells,
        }
        dump(self.folder / "study.json", {**study, **changes})

    def write_cell(self, cell: dict[str, Any], *, state: str = "done", last: int | None = None, **changes: Any) -> None:
        """Write one cell's files up to the environment step ``last``; ``changes`` go into ``cell.json``."""
        last = self.env_steps if last is None else last
        folder = self.folder / cell["id"]
        folder.mkdir(exist_ok=True)
        described = {
            "format": 1,
            **cell,
            "suite": self.suite,
            "suite_version": self.version,
            "agent_type": cell["agent"],
            "stream": "train",
            "mode": self.mode,
            "tasks": [self._task(name) for name in cell["tasks"]],
            "held_out": [self._task(name) for name, _ in self.held_out],
            "config": {"preset": "default"},
            "config_hash": cell["id"].rsplit(".", 1)[1],
            "budget": {"env_steps": self.env_steps, "num_envs": 1},
            "evaluation": {"every": self.every, "episodes": self.episodes},
            "provenance": {"commit": "c0ffee", "dirty": False, "cpu": "Abacus", "cores": 2, "device": "cpu"},
        }
        dump(folder / "cell.json", {**described, **changes})
        status = {"id": cell["id"], "state": state, "env_step": last, "env_steps": self.env_steps, "message": ""}
        dump(folder / "status.json", {**status, "peak_memory_mb": 512.0})
        if self.starts:
            dump_lines(folder / "starts.jsonl", [{"env_step": 0, **({**described, **changes})["provenance"]}])
        rows = [row for step in range(0, last + 1, self.every) for row in self.rows(described, step)]
        (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, cell: dict[str, Any], env_step: int) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "protocol": entry["protocol"]["name"],
                "agent": cell["agent"],
                "config_hash": cell["config_hash"],
                "seed": cell["seed"],
                "task": entry["name"],
                "env_step": env_step,
                "episode": episode,
                "return": raw,
                "success_any": None if entry["protocol"]["score"] == "return" else raw > 0,
                "success_last": None if entry["protocol"]["score"] == "return" else raw > 0,
                "score": raw,
                "length": 500,
                "seconds": env_step / 100,
            }
            for entry in (*cell["tasks"], *cell["held_out"])
            for episode, raw in enumerate(self._scores(cell, entry, env_step))
        ]

    def write_insides(self, kinds: Mapping[str, str], steps_ahead: int = 8) -> None:
        """Give every cell training metrics, and diagnostics of ``kinds``: axes by name, such as ``task horizon``."""
        for cell in self.cells:
            rng = np.random.default_rng([*cell["id"].encode()])
            tasks = len(cell["tasks"]) + len(self.held_out)
            sizes = {"task": tasks, "horizon": steps_ahead}
            steps = range(self.every, self.env_steps + 1, self.every)
            metrics = [
                {"env_step": step, "seconds": 1.0, "agent/loss": 1000 / step + rng.random(), "agent/updates": step / 2}
                for step in steps
            ]
            rows = [
                diagnostic(step, name, axes.split(), _random(rng, [sizes[axis] for axis in axes.split()]))
                for step in steps
                for name, axes in kinds.items()
            ]
            dump_lines(self.folder / cell["id"] / "metrics.jsonl", metrics)
            dump_lines(self.folder / cell["id"] / "diagnostics.jsonl", rows)

    def _task(self, name: str) -> dict[str, Any]:
        protocol = dict((*self.tasks, *self.held_out))[name]
        own = {"family": self.family, "engine": self.engines.get(name, "native"), "options": dict(self.options)}
        return {**task(name, protocol), **own}

    def _scores(self, cell: dict[str, Any], entry: dict[str, Any], env_step: int) -> list[float]:
        protocol, fraction = entry["protocol"], env_step / self.env_steps
        low, high = protocol["low"], protocol["high"]
        if self.score is not None:
            normalised = self.score(cell["agent"], cell["seed"], entry["name"], fraction)
            return [low + normalised * (high - low)] * self.episodes
        rng = np.random.default_rng([*f"{cell['agent']}{entry['name']}".encode(), cell["seed"]])
        skill = SKILL.get(cell["agent"], 0.5) * rng.uniform(0.7, 1.1)
        level = skill * (1 - np.exp(-4 * fraction * rng.uniform(0.6, 1.6)))
        rng = np.random.default_rng([*f"{cell['agent']}{entry['name']}".encode(), cell["seed"], env_step])
        if protocol["score"] == "return":
            return [
                float(low + (high - low) * np.clip(level + rng.normal(0, 0.05), 0, 1)) for _ in range(self.episodes)
            ]
        return [float(rng.random() < level) for _ in range(self.episodes)]


def cell_id(agent: str, seed: int, tasks: Sequence[str]) -> str:
    unit = tasks[0] if len(tasks) == 1 else "joint"
    return f"{unit}.{agent}.s{seed}.1a2b3c4d".replace("/", "-")


def task(name: str, protocol: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "family": "toy", "protocol": protocol, "options": {}}


def diagnostic(env_step: int, name: str, axes: Sequence[str], values: Any) -> dict[str, Any]:
    title = name.replace("_", " ").capitalize()
    return {"env_step": env_step, "name": name, "title": title, "axes": list(axes), "values": values}


def _random(rng: np.random.Generator, shape: Sequence[int]) -> Any:
    return np.asarray(rng.random(tuple(shape))).tolist()


def dump_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))

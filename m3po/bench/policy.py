"""What a cell learned, as a function from observations to actions: for films, and for code of your own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3po.api import Agent, Carry
from m3po.bench.checkpoints import Checkpoints
from m3po.bench.evaluate import evaluation_seed
from m3po.bench.records import Cell
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.study import check_names
from m3po.registry import agent_class, agent_config
from suites.families import TaskEnv, family
from suites.seeding import EpisodeSeed
from suites.spec import EnvSpec, Task
from suites.vector import env_spec

__all__ = ["Policy", "load_policy"]


@dataclass
class Policy:
    """A trained agent on one task. It neither explores nor learns, as in an evaluation.

    What it keeps from one decision to the next (a recurrent state, a plan) belongs to an episode: call :meth:`reset`
    before another one.
    """

    agent: Agent
    cell: Cell
    task: Task
    env_step: int
    """Of the checkpoint: environment steps of training."""
    _spec: EnvSpec = field(init=False, repr=False)
    _index: int = field(init=False, repr=False)
    _carry: Carry = field(init=False, repr=False)
    _first: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._spec, self._index = env_spec(self.cell.evaluated), self.cell.evaluated.index(self.task)
        self.reset()

    def reset(self) -> None:
        """Forget the episode: the next observation begins another."""
        self._carry, self._first = self.agent.initial_carry(1), True

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The action float32 ``[A]`` in [-1, 1] for one ``observation`` of the task: ``[D]`` without padding, or an
        image ``[H, W, C]``.

        Raises ``ValueError`` for another shape.
        """
        decision = self.agent.act(
            self._carry, self._padded(observation), np.array([self._first]), np.array([self._index]), explore=False
        )
        self._carry, self._first = decision.carry, False
        action: NDArray[np.float32] = decision.action[0, self._spec.action_mask[self._index]]
        return action

    def make_env(self) -> TaskEnv:
        """An environment of the task as it was trained on: ``reset(seed)``, ``step(action)``, ``close()``."""
        return family(self.task.family).make(self.task)

    def episode(self, number: int) -> EpisodeSeed:
        """What the evaluation's episode of that number (from 0) starts from, for ``env.reset``."""
        return EpisodeSeed(*evaluation_seed(self.cell), self.task.name, number)

    def _padded(self, observation: NDArray[Any]) -> NDArray[Any]:
        """``[1, D]`` as the agent knows it, or an image ``[1, H, W, C]``."""
        spec = self._spec
        images = len(spec.observation_shape) > 1
        expected = spec.observation_shape if images else (int(spec.observation_mask[self._index].sum()),)
        if np.shape(observation) != expected:
            raise ValueError(f"{self.task.name}: an observation has shape {np.shape(observation)}, expected {expected}")
        padded = np.zeros((1, *spec.observation_shape), dtype=spec.observation_dtype)
        padded[0, ..., : expected[-1]] = observation
        return padded


def load_policy(cell: str | Path, task: str | None = None, *, device: str = "cpu") -> Policy:
    """What the cell in the folder ``cell``, such as ``results/lite/cartpole-swingup.m3po.s0.2b77e849``, has learned.

    ``task``: one that it is evaluated on; needed where that are several. Nothing is unpickled, and the agent's code is
    that of the installed package. Raises :class:`StoreError` where there is no cell or no checkpoint,
    :class:`SuiteError` for a task that is not the cell's, and :class:`RegistryError` where its agent is not installed.
    """
    folder = CellFolder(Path(cell))
    if not (folder.path / "cell.json").exists():
        raise StoreError(
            f"{folder.path} is not the folder of a cell (it has no cell.json); name one, results/<suite>/<cell id>"
        )
    found = folder.cell()
    names = [of.name for of in found.evaluated]
    if task is None and len(names) > 1:
        raise StoreError(f"{folder.path} knows several tasks; name one of {', '.join(names)}")
    check_names("task", [task] if task else [], names)
    agent, env_step = _trained(folder, found, device)
    return Policy(agent, found, found.evaluated[names.index(task or names[0])], env_step)


def _trained(folder: CellFolder, cell: Cell, device: str) -> tuple[Agent, int]:
    """The agent as its newest checkpoint has it, and the environment steps of that."""
    config = agent_config(cell.agent_type).model_validate(cell.config)
    agent = agent_class(cell.agent_type)(env_spec(cell.evaluated), config, seed=cell.seed, device=device)
    for again in (True, False):  # training may replace the newest while it is read; then there is a newer one
        checkpoint = Checkpoints(folder.path / "checkpoints").newest()
        try:
            if checkpoint is not None:
                agent.load(checkpoint.path / "agent")
                return agent, checkpoint.env_step
        except FileNotFoundError:
            if not again:
                raise
    if folder.status().state == "done":  # run would leave it alone
        raise StoreError(
            f"{folder.path}: the cell is done, but its checkpoints are not here (a packed study is without them); take "
            "the folder it was packed from, or delete this one and run the study again"
        )
    raise StoreError(f"{folder.path}: the cell has no checkpoint yet; run it first")

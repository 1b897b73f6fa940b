"""What was learned, in code of one's own."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from m3po.bench.policy import load_policy
from m3po.bench.run import run_cell
from m3po.bench.store import CellFolder, StoreError
from suites.errors import SuiteError
from tests.bench.conftest import ROOT, MakeCell, evaluation_rows

PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
TWO_TASKS = "{family: toy, names: [toy-reach, toy-terminate]}"


@pytest.fixture
def trained(make_cell: MakeCell) -> CellFolder:
    cell = make_cell(budget="{env_steps: 40, num_envs: 4}", evaluation="{every: 40, episodes: 10}")
    assert run_cell(cell.path) is not None
    return cell


def test_the_readme_plays_the_episodes_that_were_evaluated(trained: CellFolder) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "load_policy" in block)
    code = re.sub(r"results/lite/[\w.-]+", trained.path.as_posix(), code)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    rows = [row["return"] for row in evaluation_rows(trained.path) if row["env_step"] == 40]
    assert [float(line) for line in printed.getvalue().split()] == pytest.approx(rows, rel=1e-6)
    assert len(set(rows)) > 1  # the episodes differ


def test_a_policy_starts_an_episode_as_it_started_the_one_before(trained: CellFolder) -> None:
    policy = load_policy(str(trained.path))
    observation = policy.make_env().reset(policy.episode(0))
    actions = [policy(observation) for _ in range(3)]
    assert not np.array_equal(actions[0], actions[2])  # it remembers
    policy.reset()
    np.testing.assert_array_equal([policy(observation) for _ in range(3)], actions)
    assert (policy.env_step, policy.task.name, actions[0].dtype) == (40, "toy-reach", np.float32)


def test_of_several_tasks_one_is_named_and_padding_is_not_seen(make_cell: MakeCell) -> None:
    cell = make_cell(tasks=TWO_TASKS, mode="joint", budget="{env_steps: 40, num_envs: 4}")
    assert run_cell(cell.path) is not None
    with pytest.raises(StoreError, match="knows several tasks; name one of toy-reach, toy-terminate"):
        load_policy(cell.path)
    with pytest.raises(SuiteError, match="unknown task 'toy-raech'; nearest: 'toy-reach'"):
        load_policy(cell.path, "toy-raech")
    for name in ("toy-reach", "toy-terminate"):
        policy = load_policy(cell.path, name)
        env = policy.make_env()
        observation = env.reset(policy.episode(0))
        action = policy(observation)
        assert (observation.shape, len(action)) == env.spaces
        with pytest.raises(
            ValueError, match=rf"{name}: an observation has shape \(9,\), expected \({len(observation)},\)"
        ):
            policy(np.zeros(9))


def test_a_finished_cell_without_its_checkpoints_is_told_apart(trained: CellFolder) -> None:
    """As in a packed study: to run it, which leaves finished cells alone, would not help."""
    shutil.rmtree(trained.path / "checkpoints")
    with pytest.raises(StoreError, match="the cell is done, but its checkpoints are not here"):
        load_policy(trained.path)


def test_what_has_learned_nothing_is_no_policy(make_cell: MakeCell, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no checkpoint yet; run it first"):
        load_policy(make_cell().path)
    with pytest.raises(
        StoreError, match=r"is not the folder of a cell \(it has no cell.json\); name one, results/<suite>"
    ):
        load_policy(tmp_path)

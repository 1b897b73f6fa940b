"""A sweep makes several agents of one, and an axis for a figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from m3po.bench.store import read_json
from m3po.bench.study import Study, StudyFolder, open_study
from suites.errors import SuiteError
from tests.bench.conftest import SUITE

Write = Callable[..., Path]


@pytest.fixture
def swept(plugin: Path, write_suite: Write) -> Callable[[str], Study]:
    def build(sweep: str, agents: str = "{nudge: {}, other: {agent: nudge}}") -> Study:
        return open_study(str(write_suite(SUITE + f"sweep: {sweep}\n", agents=agents)))

    return build


def test_the_number_of_environments_is_swept_for_all_agents(swept: Callable[..., Study], tmp_path: Path) -> None:
    study = swept("{budget.num_envs: [2, 8]}")
    assert [(cell.agent, cell.budget.num_envs) for cell in study.cells] == [
        ("nudge-num_envs-2", 2),
        ("nudge-num_envs-8", 8),
        ("other-num_envs-2", 2),
        ("other-num_envs-8", 8),
    ]
    assert len({cell.config_hash for cell in study.cells}) == 2, "what moves a result moves the hash, a name does not"
    StudyFolder(tmp_path / "results").create(study, {})
    record = read_json(tmp_path / "results" / "study.json")
    assert record["agents"] == list(study.agents)
    assert record["sweep"]["key"] == "num_envs"
    assert record["sweep"]["points"][1] == {"agent": "nudge-num_envs-8", "base": "nudge", "value": 8}


def test_a_field_is_swept_for_its_agent_alone(swept: Callable[..., Study]) -> None:
    study = swept("{agents.other.rate: [0.1, 1e-3]}")
    assert [(cell.agent, cell.config["rate"]) for cell in study.cells[1:]] == [
        ("other-rate-0.1", 0.1),
        ("other-rate-0.001", 0.001),
    ]
    assert study.cells[0].agent == "nudge"


def test_two_keys_span_every_combination_and_no_axis(swept: Callable[..., Study]) -> None:
    study = swept("{agents.nudge.rate: [0.1, 0.2], budget.num_envs: [2, 3]}", "{nudge: {}}")
    assert study.agents == tuple(f"nudge-rate-{rate}-num_envs-{n}" for rate in (0.1, 0.2) for n in (2, 3))
    assert study.sweep is None


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ("{budget.env_steps: [10, 20]}", r"8:9: sweep budget.env_steps: only budget.num_envs and agents"),
        ("{agents.nugde.rate: [1, 2]}", r"unknown agent 'nugde'; nearest: 'nudge'"),
        ("{agents.nudge.rat: [0.1, 0.2]}", r"unknown nudge key 'rat'; nearest: 'rate'"),
        ("{agents.nudge.rate: [0.1, fast]}", r"8:9: 'rate' of agent 'nudge' is 'fast'"),
        ("{budget.num_envs: [0, 2]}", r"sweep budget.num_envs: found 0; expected whole numbers from 1 on"),
        ("{budget.num_envs: [2, 2]}", r"the value 2 is listed twice"),
        ("{agents.nudge.rate: [0.1, '0.1']}", r"8:9: 'nudge-rate-0.1' names two agents; rename one"),
        ("{agents.nudge.fault: [a b, a_b]}", r"8:9: 'nudge-fault-a_b' names two agents"),
        ("{budget.num_envs: []}", r"sweep.budget.num_envs: found \[\]; expected at least one entry"),
    ],
)
def test_an_impossible_sweep_is_told_with_its_place(swept: Callable[..., Study], sweep: str, sentence: str) -> None:
    with pytest.raises(SuiteError, match=sentence):
        swept(sweep)


def test_a_swept_agent_is_not_taken_for_one_of_that_name(swept: Callable[..., Study]) -> None:
    with pytest.raises(SuiteError, match=r"6:21: 'nudge-rate-0.1' names two agents; rename one"):
        swept("{agents.nudge.rate: [0.1, 0.2]}", "{nudge: {}, nudge-rate-0.1: {agent: nudge, rate: 0.9}}")


def test_the_written_suite_asks_for_the_same_cells(swept: Callable[..., Study], tmp_path: Path) -> None:
    study = swept("{budget.num_envs: [2, 8]}")
    StudyFolder(tmp_path / "results").create(study, {})
    again = open_study(str(tmp_path / "results" / "suite.yaml"))
    assert [cell.id for cell in again.cells] == [cell.id for cell in study.cells]
    assert json.loads((tmp_path / "results" / "study.json").read_text())["format"] == 1

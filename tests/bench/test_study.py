"""From a suite to cells: ids, hashes, and every error with its position before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from analysis.study import read_study
from baselines.ppo.config import PPOConfig
from m3po.api import AgentConfig
from m3po.bench.store import StoreError
from m3po.bench.study import AgentEntry, Study, StudyFolder, build_study, find_study, open_study
from suites.catalog import load_suite
from suites.errors import SuiteError
from suites.spec import Budget

pytestmark = pytest.mark.usefixtures("plugin")

WriteSuite = Callable[..., Path]


@pytest.fixture
def study(write_suite: WriteSuite) -> Callable[..., Study]:
    return lambda **lines: build_study(load_suite(str(write_suite(**lines))))


def _errors(path: Path) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        build_study(load_suite(str(path)))
    return [message.removeprefix(f"{path}:") for message in caught.value.messages]


def test_cells_are_units_times_agents_times_seeds(study: Callable[..., Study]) -> None:
    tasks = "{family: toy, set: all}"
    apart = study(tasks=tasks, agents="{nudge: {}, random: {}}", seeds="[3, 0]")
    assert len(apart.cells) == 2 * 2 * 2
    assert [cell.id.rpartition(".")[0] for cell in apart.cells[:4]] == [
        "toy-reach.nudge.s3",
        "toy-reach.random.s3",
        "toy-terminate.nudge.s3",
        "toy-terminate.random.s3",
    ]
    together = study(tasks=tasks, mode="joint", seeds="1")
    assert [cell.id.rpartition(".")[0] for cell in together.cells] == ["joint.nudge.s0"]
    assert together.cells[0].entry.tasks == ("toy-reach", "toy-terminate")


def test_whatever_moves_a_result_moves_the_hash_and_nothing_else(study: Callable[..., Study]) -> None:
    plain = study().cells[0]
    assert study(seeds="2").cells[1].config_hash == plain.config_hash, "the seed has a place of its own in the id"
    assert study(agents="{nudge: {rate: 0.05}}").cells[0].id == plain.id, "a default written out is the default"
    assert study(agents="{random: {}, nudge: {}}").cells[1].id == plain.id
    changes = {
        "agents": "{nudge: {rate: 0.5}}",
        "budget": "{env_steps: 404, num_envs: 4}",
        "evaluation": "{every: 100, episodes: 4}",
        "tasks": "{family: toy, names: [toy-reach], action_repeat: 2}",
        "mode": "joint",
    }
    for key, value in changes.items():
        assert study(**{key: value}).cells[0].config_hash != plain.config_hash, key


def test_the_shown_name_may_differ_from_the_implementation(study: Callable[..., Study]) -> None:
    cell = study(agents="{bold: {agent: nudge, preset: bold}}").cells[0]
    assert (cell.agent, cell.agent_type, cell.config["rate"]) == ("bold", "nudge", 0.5)


def test_held_out_tasks_have_no_part_in_whether_an_agent_can_work(
    study: Callable[..., Study], write_suite: WriteSuite
) -> None:
    # The uniform actions of one task leave room in a budget of 400 environment steps, those of two do not.
    agents = "{sac: {learning_starts: 250}}"
    held_out = "joint\nheld_out: {family: toy, names: [toy-terminate]}"
    assert len(study(agents=agents, mode=held_out).cells) == 1
    (error,) = _errors(write_suite(agents=agents, mode="joint", tasks="{family: toy, set: all}"))
    assert "the uniform actions of the start take 500 environment steps" in error


def test_all_errors_at_once_with_their_positions(write_suite: WriteSuite) -> None:
    path = write_suite(
        agents="\n  nudge: {rat: 0.1, batch: x}\n  radnom: {}\n  other: {agent: nudge, batch: 9}", tune="{nudge: {}}"
    )
    assert _errors(path) == [
        "7:21: 'batch' of agent 'nudge' is 'x': input should be a valid integer, unable to parse string as an integer",
        "7:11: unknown nudge key 'rat'; nearest: 'rate'; known: batch, fault, pause, preset, rate",
        "8:3: unknown agent 'radnom'; nearest: 'random'; known: dreamerv3, m3po, nudge, ppo, random, sac, tdmpc2",
        "9:3: agent 'other' cannot work: batch (9) is above the 4 environments",
    ]


def test_a_preset_that_is_no_name_is_an_error(write_suite: WriteSuite) -> None:
    path = write_suite(agents="{nudge: {preset: [bold]}}")
    assert _errors(path) == ["6:18: 'preset' of agent 'nudge' is ['bold']: input should be a valid string"]


def test_an_unknown_preset_hides_no_other_fault(write_suite: WriteSuite) -> None:
    path = write_suite(agents="{nudge: {preset: bald, batch: x}}")
    assert _errors(path) == [
        "6:18: 'preset' of agent 'nudge' is 'bald': expected one of default, bold",
        "6:32: 'batch' of agent 'nudge' is 'x': input should be a valid integer, unable to parse string as an integer",
    ]


def test_a_seed_is_not_taken_for_a_number_of_seeds(write_suite: WriteSuite, study: Callable[..., Study]) -> None:
    path = write_suite(seeds="20250101\ntuning: {trials: 1, seeds: 20240101}")
    expected = "expected a number of seeds, at most 1000, or the seeds themselves"
    assert _errors(path) == [
        f"7:1: seeds: found 20250101; {expected}: [20250101]",
        f"8:21: tuning.seeds: found 20240101; {expected}: [20240101]",
    ]
    assert len(study(seeds="1000").cells) == 1000
    assert study(seeds="[20250101]").cells[0].seed == 20250101


def test_search_spaces_are_checked(write_suite: WriteSuite, tmp_path: Path) -> None:
    path = write_suite()
    path.write_text(
        path.read_text() + "tune:\n  nudge:\n    rat: {low: 0, high: 1}\n    rate: {low: 2, high: 1}\n"
        "    pause: {low: 0, high: .inf}\n  rundom: {}\n"
    )
    assert _errors(path) == [
        "10:5: unknown nudge key 'rat'; nearest: 'rate'; known: batch, fault, pause, preset, rate",
        "11:5: search space of 'rate': 'low' (2) must be below 'high' (1)",
        "12:5: search space of 'pause': a range ends at finite numbers, not at 0 and inf",
        "13:3: unknown agent 'rundom'; known: nudge",
    ]


def test_tuning_on_the_seeds_that_judge_is_an_error(write_suite: WriteSuite) -> None:
    path = write_suite(seeds="[0, 7]")
    origin = (
        "{suite: tiny, version: 1, trials: 2, env_steps: 9, hours: 0, seeds: [0], tasks: [toy-reach], scores: [0.5]}"
    )
    path.write_text(path.read_text() + f"tuning: {{seeds: [7, 8]}}\ntuned:\n  nudge: {origin}\n")
    assert _errors(path) == [
        "8:10: tuning seeds: 7 judge the agents of this suite too; expected seeds that it does not use",
        f"10:{10 + origin.index('seeds')}: agent 'nudge' was tuned on seeds: 0 judge the agents of this suite too; "
        "expected seeds that it does not use",
    ]


def test_a_study_tells_what_tuning_took(study: Callable[..., Study], tmp_path: Path) -> None:
    origin = "{suite: tiny, version: 1, trials: 2, env_steps: 9, hours: 0.5, seeds: [10000], tasks: [t], scores: [0.5]}"
    built = study(seeds=f"1\ntuned: {{nudge: {origin}}}")
    folder = StudyFolder(tmp_path / "tiny")
    folder.create(built, {})
    (tuned,) = read_study(folder.path).tuned
    assert (tuned.agent, tuned.trials, tuned.hours, tuned.scores) == ("nudge", 2, 0.5, (0.5,))
    assert built.cells == study().cells, "where values come from is no part of what a cell is"


def test_a_seed_listed_twice_runs_once_with_a_warning(study: Callable[..., Study]) -> None:
    built = study(seeds="[4, 4, 0]")
    assert [cell.seed for cell in built.cells] == [4, 0]
    assert "seed 4 is listed more than once" in built.warnings[0]
    assert ":7:1:" in built.warnings[0]


def test_the_written_suite_loads_and_asks_for_the_same_cells(
    study: Callable[..., Study], write_suite: WriteSuite, tmp_path: Path
) -> None:
    built = build_study(load_suite(str(write_suite()), ["agents.nudge.rate=0.3"]))
    folder = StudyFolder(tmp_path / "results" / "tiny")
    folder.create(built, {"python": "3"})
    again = build_study(load_suite(str(folder.path / "suite.yaml")))
    assert [cell.id for cell in again.cells] == [cell.id for cell in built.cells]
    assert [entry.id for entry in folder.entries()] == [cell.id for cell in built.cells]
    sealed = json.loads((folder.path / built.cells[0].id / "cell.json").read_text())
    assert sealed["provenance"] == {"python": "3"}
    folder.create(built, {"python": "4"})
    assert json.loads((folder.path / built.cells[0].id / "cell.json").read_text()) == sealed, "a sealed cell stays"
    (folder.path / built.cells[0].id / "cell.json").write_text("{")
    folder.create(built, {"python": "4"})
    assert json.loads((folder.path / built.cells[0].id / "cell.json").read_text())["provenance"] == {"python": "4"}


def test_results_are_found_by_folder_and_by_suite(
    study: Callable[..., Study], write_suite: WriteSuite, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    suite = str(write_suite())
    with pytest.raises(StoreError, match="suite 'tiny' has no results in"):
        find_study(suite, results)
    with pytest.raises(
        StoreError, match=r"nowhere/else: no such folder, and no suite; there are no studies in .* run a"
    ):
        find_study("nowhere/else", results)
    StudyFolder(results / "tiny").create(study(), {})
    for source in (suite, str(results / "tiny"), str(results)):
        assert find_study(source, results).path == results / "tiny"
    StudyFolder(results / "other").create(study(), {})
    expected = (
        f"quik: no such folder, and no suite (nearest: 'quick'); name the folder of a study ({results / 'other'}, "
    )
    with pytest.raises(StoreError, match=re.escape(expected)):
        find_study("quik", results)
    with pytest.raises(StoreError, match="several studies \\(other, tiny\\); name one"):
        find_study(str(results), results)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="holds none"):
        find_study(str(tmp_path / "empty"), results)


def test_faults_of_the_suite_and_of_its_agents_are_said_in_one_pass(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("extends: lite\nagents:\n  ppoo: {}\n  ppo: {clipp: 1}\nbudgt: {}\n")
    with pytest.raises(SuiteError) as caught:
        open_study(str(path))
    said = "\n".join(caught.value.messages)
    assert f"{path}:5:1: unknown key 'budgt'; nearest: 'budget'" in said
    assert f"{path}:4:9: unknown ppo key 'clipp'; nearest: 'clip'" in said
    assert f"{path}:3:3: unknown agent 'ppoo'; nearest: 'ppo'" in said


def test_each_setting_says_who_set_it() -> None:
    study = open_study("quick", ["agents.ppo.clip=0.25"])
    of = {entry.name: {row["field"]: row for row in entry.settings()} for entry in study.entries}
    ppo = of["ppo"]
    assert (ppo["clip"]["value"], ppo["clip"]["set_by"]) == (0.25, "suite")
    small = PPOConfig.PRESETS[ppo["preset"]["value"]]
    assert {name for name, row in ppo.items() if row["set_by"].startswith("preset")} == set(small) - {"clip"}
    assert ppo["max_grad_norm"]["set_by"] == "default"
    assert all(row["about"] for row in ppo.values() if row["field"] != "preset")


def test_a_configuration_with_a_field_that_has_no_default_says_who_set_it() -> None:
    class Needy(AgentConfig):
        """Of another package."""

        PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "wide": {"widths": (64, 64)}}
        rate: float
        """Has to be given."""
        widths: tuple[int, ...] = (8,)
        """Of layers."""

    def told(**values: Any) -> dict[str, str]:
        entry = AgentEntry("a", "needy", Needy(**values), Budget(env_steps=1))
        return {row["field"]: row["set_by"] for row in entry.settings()}

    assert told(rate=0.1) == {"preset": "default", "rate": "suite", "widths": "default"}
    assert told(rate=0.1, preset="wide") == {"preset": "suite", "rate": "suite", "widths": "preset wide"}
    assert told(rate=0.1, preset="wide", widths=(1,))["widths"] == "suite"

"""Tuning: trials are cells, a kill loses nothing, the best values end in a suite that loads."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from optuna.trial import Trial
from typer.testing import CliRunner

from m3po.bench.cli import app
from m3po.bench.evaluate import TUNING_OFFSET
from m3po.bench.run import run_cell
from m3po.bench.store import CellFolder, StoreError
from m3po.bench.study import build_study, open_study
from m3po.bench.trials import turn
from suites.catalog import load_suite
from suites.errors import SuiteError
from suites.seeding import episode_seed
from tests.analysis.searches import write_search
from tests.bench.conftest import Cli, evaluation_rows, wait_for

WriteSuite = Callable[..., Path]


def _tuning(folder: Path) -> Path:
    return folder / "results" / "tiny" / "tuning" / "nudge"


def _cells(folder: Path) -> list[Path]:
    return sorted(path.parent for path in _tuning(folder).glob("*/cell.json"))


def _found(answer: str, agent: str = "nudge") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer)["agents"][agent]
    return found


class Tune(Protocol):
    def __call__(self, *arguments: object, exit_code: int = 0) -> str: ...


@pytest.fixture
def tune(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """``m3po-bench tune`` in this process and ``tmp_path``; what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, exit_code: int = 0) -> str:
        result = CliRunner().invoke(app, ["tune", *map(str, arguments)])
        if isinstance(result.exception, SuiteError | StoreError):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result.stdout

    return run


def test_tuning_writes_a_suite_that_loads(tune: Tune, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(budget="{env_steps: 100, num_envs: 4}")
    answer = tune(suite, "--agent", "nudge", "--trials", 3, "--env-steps", 40, "--json")
    found = _found(answer)
    assert len(found["trials"]) == 3
    assert found["trials"][0]["values"] == {"rate": 0.05}, "the first trial is the configuration as it stands"
    assert found["best"]["score"] == max(trial["score"] for trial in found["trials"])
    path = tmp_path / json.loads(answer)["suite"]
    tuned = load_suite(str(path)).suite
    assert tuned.name == "tiny-tuned-nudge"
    assert tuned.agents == {"nudge": found["best"]["values"]}
    assert tuned.budget.env_steps == 100, "the tuning budget is not the study's"
    origin = tuned.tuned["nudge"]
    assert (origin.suite, origin.trials, origin.seeds, origin.tasks) == ("tiny", 3, (10_000,), ("toy-reach",))
    assert origin.env_steps == 3 * 40
    assert list(origin.scores) == [trial["score"] for trial in found["trials"]]
    assert origin.default == found["trials"][0]["score"]
    text = path.read_text()
    assert "Seeds: 10000" in text
    assert str(tmp_path) not in text

    assert found["repeats"] == 0

    more = tune(suite, "--agent", "nudge", "--trials", 4, "--env-steps", 40, "--json")
    assert _found(more)["trials"][:3] == found["trials"], "earlier trials count"
    with pytest.raises(StoreError, match="were made with other budget"):
        tune(suite, "--agent", "nudge", "--trials", 4, "--env-steps", 80)
    with pytest.raises(SuiteError, match="was tuned on seeds: 10000 judge the agents of this suite too"):
        build_study(load_suite(str(path), ["seeds=[10000]"]))


def test_an_agent_with_nothing_to_search_stays_as_it_is(tune: Tune, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents="{nudge: {}, random: {}}", seeds="1\ntuning: {trials: 1, env_steps: 40}")
    answer = tune(suite, "--json")
    assert json.loads(answer)["agents"].keys() == {"nudge"}
    tuned = load_suite(str(tmp_path / json.loads(answer)["suite"])).suite
    assert tuned.agents["random"] == {}
    with pytest.raises(SuiteError, match="agent 'random' names nothing to search"):
        tune(suite, "--agent", "random")


def test_all_agents_get_the_same_budget_and_one_suite(tune: Tune, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(
        agents="{nudge: {}, bold: {agent: nudge, preset: bold}}",
        seeds="1\ntuning: {trials: 2, env_steps: 40, seeds: 2, tasks: {family: toy, names: [toy-terminate]}}",
    )
    answer = tune(suite, "--json")
    assert [len(_found(answer, agent)["trials"]) for agent in ("nudge", "bold")] == [2, 2]
    assert [_found(answer, agent)["cost"]["env_steps"] for agent in ("nudge", "bold")] == [2 * 2 * 40] * 2
    tuned = load_suite(str(tmp_path / json.loads(answer)["suite"])).suite
    assert tuned.name == "tiny-tuned"
    assert tuned.tuned.keys() == {"nudge", "bold"}
    assert tuned.tuned["bold"].tasks == ("toy-terminate",)
    assert tuned.agents["bold"]["agent"] == "nudge", "what was not searched stays"
    cells = [json.loads((cell / "cell.json").read_text()) for cell in _cells(tmp_path)]
    assert {(cell["seed"], cell["tasks"][0]["name"]) for cell in cells} == {
        (10_000, "toy-terminate"),
        (10_001, "toy-terminate"),
    }


def test_the_suite_runs_what_the_best_trial_ran_also_with_set(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path
) -> None:
    overrides = ["agents.nudge={preset: bold,\n pause: 0.001}", "budget.num_envs=2", "seeds=2"]
    options = [option for override in overrides for option in ("--set", override)]
    arguments = ("--agent", "nudge", "--trials", 2, "--env-steps", 40, *options, "--json")
    answer = json.loads(tune(write_suite(agents="{nudge: {batch: 1}}"), *arguments))
    tuned = open_study(str(tmp_path / answer["suite"]))
    configs = [json.loads((cell / "cell.json").read_text())["config"] for cell in _cells(tmp_path)]
    rate = answer["agents"]["nudge"]["best"]["values"]["rate"]
    best = next(config for config in configs if config["rate"] == rate)
    assert tuned.cells[0].config == best
    assert (best["preset"], best["pause"], best["batch"]) == ("bold", 0.001, 2), "what --set replaced is not inherited"
    assert (tuned.suite.budget.num_envs, len(tuned.cells)) == (2, 2)
    assert "# Tuned with --set agents.nudge={preset: bold" in (tmp_path / answer["suite"]).read_text()


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_folder_that_cannot_hold_the_suite_is_said_before_the_search(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"could not be written into {out} .*name a folder with --out"):
        tune(write_suite(), "--agent", "nudge", "--trials", 1, "--out", out)
    assert not (tmp_path / "results").exists()


def test_a_file_that_tuning_did_not_write_is_never_replaced(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite = write_suite(name="tiny-tuned-nudge.yaml")
    with pytest.raises(StoreError, match=r"would replace tiny-tuned-nudge\.yaml, which tuning did not write; move it"):
        tune(suite, "--agent", "nudge", "--trials", 1)
    assert not (tmp_path / "results").exists()


def test_an_agent_that_cannot_work_as_it_stands_is_said_before_the_search(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite = write_suite(agents="{ppo: {preset: small}}", budget="{env_steps: 2000, num_envs: 4}")
    told = r"tiny\.yaml:6:10: agent 'ppo' cannot work as it stands in a trial of 1000 env steps: one rollout takes 1024"
    with pytest.raises(SuiteError, match=told):
        tune(suite, "--trials", 1, "--env-steps", 1000)
    assert not (tmp_path / "results").exists()


def test_a_field_that_the_suite_sweeps_is_not_searched(tune: Tune, write_suite: WriteSuite) -> None:
    suite = write_suite(seeds="1\nsweep: {agents.nudge.rate: [0.1, 0.2]}")
    with pytest.raises(SuiteError, match=r"tiny\.yaml:8:9: the suite sweeps agents\.nudge\.rate, and tuning would"):
        tune(suite, "--agent", "nudge", "--trials", 1)


def test_nothing_that_says_how_long_is_an_error(tune: Tune, write_suite: WriteSuite) -> None:
    with pytest.raises(SuiteError, match="nothing says how long to search; give --trials"):
        tune(write_suite())


def test_two_processes_share_the_trials(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents="{nudge: {pause: 0.02}}")
    arguments = ("tune", suite, "--trials", 4, "--env-steps", 120, "--jobs", 1, "--json")
    _tuning(tmp_path).mkdir(parents=True)
    with turn(_tuning(tmp_path)):  # so that both are there before either begins
        processes = [cli.start(*arguments), cli.start(*arguments)]
        wait_for(lambda: len(list(_tuning(tmp_path).glob("workers/*"))) == 2, what="two workers")
    ended = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert ended[0][0] == ended[1][0], "both tell of the same trials"
    assert len(json.loads(ended[0][0])["agents"]["nudge"]["trials"]) == 4
    assert all("trial" in err for _, err in ended), "both had a part in them"
    assert len(_cells(tmp_path)) == 4


def test_halving_goes_on_from_checkpoints_and_changes_no_result(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite = write_suite(seeds="1\ntuning: {trials: 4, pruner: halving, rungs: 2, evaluation: {every: 40, episodes: 2}}")
    trials = _found(tune(suite, "--env-steps", 120, "--json"))["trials"]
    ends = {cell: CellFolder(cell).status() for cell in _cells(tmp_path)}
    assert {(status.state, status.env_step) for status in ends.values()} <= {("done", 120), ("preempted", 40)}
    assert sorted(trial["state"] for trial in trials) == sorted(
        {"done": "done", "preempted": "pruned"}[status.state] for status in ends.values()
    )
    whole = next(cell for cell, status in ends.items() if status.state == "done")
    undisturbed = tmp_path / "undisturbed" / whole.name
    undisturbed.mkdir(parents=True)
    shutil.copy(whole / "cell.json", undisturbed)
    run_cell(undisturbed)
    assert evaluation_rows(whole) == evaluation_rows(undisturbed), "pausing at a rung changes no bit"


def test_a_search_has_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_search(tmp_path / "tuning" / "ppo")
    monkeypatch.setattr("analysis.report.search.write", lambda search, out: search / "report" / "report.html")
    shown = CliRunner().invoke(app, ["report", str(folder)])
    assert shown.stdout.strip() == str(folder / "report" / "report.html")


def test_tuning_seeds_are_no_final_seeds(tune: Tune, write_suite: WriteSuite, tmp_path: Path) -> None:
    tune(write_suite(), "--agent", "nudge", "--trials", 1, "--env-steps", 40)
    (cell,) = _cells(tmp_path)
    record = json.loads((cell / "cell.json").read_text())
    assert (record["stream"], record["seed"]) == ("tune", 10_000)
    seeds = {
        episode_seed(stream, seed, "toy-reach", 0)
        for stream, seed in (("tune", 10_000), ("tune", 10_000 + TUNING_OFFSET), ("train", 0), ("evaluate", 0))
    }
    assert len(seeds) == 4


def test_a_killed_trial_is_asked_again_with_the_same_values(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    arguments = (
        "tune",
        write_suite(agents="{nudge: {pause: 0.02}}"),
        "--agent",
        "nudge",
        "--trials",
        1,
        "--env-steps",
        200,
        "--set",
        "tuning.pruner=halving",
        "--set",
        "tuning.rungs=2",
    )
    process = cli.start(*arguments)
    wait_for(lambda: [cell for cell in _cells(tmp_path) if CellFolder(cell).status().env_step > 40], what="a trial")
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = cli(*arguments, "--json")
    assert last.returncode == 0, last.stderr
    assert [trial["values"] for trial in _found(last.stdout)["trials"]] == [{"rate": 0.05}]
    assert len(_cells(tmp_path)) == 1, "the cell of the killed trial went on"


def test_trials_that_all_diverge_are_no_result(tune: Tune, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents="{nudge: {fault: nan}}")
    assert "no valid trial" in tune(suite, "--agent", "nudge", "--trials", 2, exit_code=1)
    assert not list(tmp_path.glob("*-tuned-*"))


def test_an_agent_that_always_fails_ends_its_search(tune: Tune, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents="{nudge: {fault: crash}}", budget="{env_steps: 200, num_envs: 4}")
    answer = tune(suite, "--agent", "nudge", "--trials", 20, "--jobs", 2, exit_code=2)
    answer = " ".join(answer.split())
    assert "given up after 0 trials of nudge: the configuration as it stands, which all others are held" in answer
    assert "failed with: ZeroDivisionError: the agent broke; put that right and run the same command again" in answer
    assert not list(tmp_path.glob("*-tuned-*"))


def test_a_database_that_is_lost_in_a_search_is_told_without_its_password(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(trial: Trial, space: object) -> None:
        Path("trials.db").write_bytes(b"no database" * 1000)
        trial.set_user_attr("values", {})

    monkeypatch.setattr("m3po.bench.search.suggest", lose)
    told = (
        r"the storage sqlite:///trials\.db failed in the middle of the search \(.*not a database\); what was told "
        "before is kept, and the same command goes on"
    )
    with pytest.raises(StoreError, match=told):
        tune(write_suite(), "--agent", "nudge", "--trials", 1, "--storage", "sqlite:///trials.db")


def test_a_trial_that_cannot_work_counts_and_says_why(tune: Tune, write_suite: WriteSuite) -> None:
    text = "{nudge: {batch: {choices: [64]}}}"
    suite = write_suite(text=SUITE_WITH_TUNE.format(tune=text))
    answer = tune(suite, "--agent", "nudge", "--trials", 2, "--env-steps", 40, "--json")
    states = [trial["state"] for trial in _found(answer)["trials"]]
    # the configuration as it stands has batch 2, which the space does not contain: it runs as it is
    assert states == ["done", "cannot work: batch (64) is above the 4 environments"]
    told = " ".join(tune(suite, "--agent", "nudge", "--trials", 2, "--env-steps", 40).split())
    assert "warning: nudge: the space leaves out batch as it stands: trial 1 has it, and no other trial can" in told
    assert "warning: nudge: batch=64 cannot work with everything else as it stands (batch (64) is above the 4" in told


SUITE_WITH_TUNE = """\
name: tiny
tasks: {{family: toy, names: [toy-reach]}}
mode: per_task
budget: {{env_steps: 400, num_envs: 4}}
evaluation: {{every: 100, episodes: 3}}
agents: {{nudge: {{}}}}
seeds: 1
tune: {tune}
"""


def test_a_null_that_was_found_best_is_what_the_suite_runs(
    tune: Tune, plugin: Path, write_suite: WriteSuite, tmp_path: Path
) -> None:
    (plugin / "maybe_agent.py").write_text(
        "from bench_test_agents import Nudge, NudgeConfig\n"
        "class MaybeConfig(NudgeConfig):\n    maybe: float | None = 0.5\n"
        "class Maybe(Nudge):\n    Config = MaybeConfig\n"
    )
    points = plugin / "test_agents-1.0.dist-info" / "entry_points.txt"
    points.write_text("[m3po.agents]\nnudge = bench_test_agents:Nudge\nmaybe = maybe_agent:Maybe\n")
    suite = write_suite(
        agents="{maybe: {maybe: null, rate: 0.1}, nudge: {}}", seeds="2\ntune: {maybe: {maybe: {choices: [null, 0.5]}}}"
    )
    answer = tune(suite, "--agent", "maybe", "--trials", 1, "--env-steps", 40, "--json")
    assert _found(answer, "maybe")["best"]["values"] == {"maybe": None}
    tuned = open_study(str(tmp_path / json.loads(answer)["suite"]))
    assert (tuned.suite.name, tuned.suite.budget.env_steps, tuned.agents) == (
        "tiny-tuned-maybe",
        400,
        ("maybe", "nudge"),
    )
    assert (tuned.cells[0].config["maybe"], tuned.cells[0].config["rate"]) == (None, 0.1)
    assert tuned.suite.tuned["maybe"].trials == 1


def test_a_name_that_the_tuned_suite_cannot_have_is_said_before_the_search(
    tune: Tune, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite = write_suite(name="long.yaml")
    with pytest.raises(SuiteError, match=r"would be called x+-tuned-nudge, .*at most 80 .* --set name=short"):
        tune(suite, "--agent", "nudge", "--trials", 1, "--set", f"name={'x' * 70}")
    assert not (tmp_path / "results").exists()
    assert not list(tmp_path.glob("*-tuned-*"))

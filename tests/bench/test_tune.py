"""Tuning: trials are cells, a kill loses nothing, the best values end in a suite that loads."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from m3po.bench.evaluate import TUNING_OFFSET
from m3po.bench.store import CellFolder
from suites.catalog import load_suite
from suites.seeding import episode_seed
from tests.bench.conftest import Cli, wait_for

WriteSuite = Callable[..., Path]


def _tuning(folder: Path) -> Path:
    return folder / "results" / "tiny" / "tuning" / "nudge"


def _cells(folder: Path) -> list[Path]:
    return sorted(path.parent for path in _tuning(folder).glob("*/cell.json"))


def test_tuning_writes_a_suite_that_loads(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(budget="{env_steps: 100, num_envs: 4}")
    done = cli("tune", suite, "--agent", "nudge", "--trials", 3, "--env-steps", 40, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["trials"]) == 3
    assert answer["trials"][0]["values"] == {"rate": 0.05}, "the first trial is the configuration as it stands"
    assert answer["best"]["score"] == max(trial["score"] for trial in answer["trials"])
    tuned = load_suite(str(tmp_path / answer["suite"]))
    assert tuned.suite.name == "tiny-tuned-nudge"
    assert tuned.suite.agents == {"nudge": answer["best"]["values"]}
    assert tuned.suite.budget.env_steps == 100, "the tuning budget is not the study's"
    text = (tmp_path / answer["suite"]).read_text()
    assert "3" in text
    assert "Seeds: 10000" in text
    assert str(tmp_path) not in text

    more = cli("tune", suite, "--agent", "nudge", "--trials", 4, "--env-steps", 40, "--json")
    assert json.loads(more.stdout)["trials"][:3] == answer["trials"], "earlier trials count"

    other = cli("tune", suite, "--agent", "nudge", "--trials", 4, "--env-steps", 80)
    assert other.returncode == 2
    assert "were made with other budget" in other.stderr


def test_tuning_seeds_are_no_final_seeds(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    done = cli("tune", write_suite(), "--agent", "nudge", "--trials", 1, "--env-steps", 40)
    assert done.returncode == 0, done.stderr
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
    )
    process = cli.start(*arguments)
    wait_for(lambda: [cell for cell in _cells(tmp_path) if CellFolder(cell).status().env_step > 40], what="a trial")
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = cli(*arguments, "--json")
    assert last.returncode == 0, last.stderr
    assert [trial["values"] for trial in json.loads(last.stdout)["trials"]] == [{"rate": 0.05}]
    assert len(_cells(tmp_path)) == 1, "the cell of the killed trial went on"


def test_trials_that_all_diverge_are_no_result(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    done = cli("tune", write_suite(agents="{nudge: {fault: nan}}"), "--agent", "nudge", "--trials", 2)
    assert done.returncode == 1
    assert "no valid trial" in done.stdout
    assert not list(tmp_path.glob("*-tuned-*"))


def test_a_trial_that_cannot_work_counts_and_says_why(cli: Cli, write_suite: WriteSuite) -> None:
    text = "{nudge: {batch: {choices: [64]}}}"
    suite = write_suite(text=SUITE_WITH_TUNE.format(tune=text))
    done = cli("tune", suite, "--agent", "nudge", "--trials", 2, "--env-steps", 40, "--json")
    assert done.returncode == 0, done.stderr
    states = [trial["state"] for trial in json.loads(done.stdout)["trials"]]
    # the configuration as it stands has batch 2, which the space does not contain: it runs as it is
    assert states == ["done", "cannot work: batch (64) is above the 4 environments"]


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

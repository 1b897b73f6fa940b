"""The command line: answers, exit codes, and speed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from m3po.bench import cli as module
from m3po.bench.checkpoints import Checkpoints
from m3po.bench.experiment import resolve_device
from m3po.bench.launch import brief
from m3po.bench.study import StudyFolder, build_study
from suites.catalog import load_suite
from tests.analysis.synthetic import Synthetic
from tests.bench.conftest import Cli, evaluation_rows

WriteSuite = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]
FIGURES = "analysis.figures.study.FIGURES"
"""None are drawn where a test reads the rest of a report: that takes seconds."""


@pytest.fixture
def call(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command here; returns exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            module.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    program = "import sys\nfrom m3po.bench.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    program += "print([name for name in ('torch', 'numpy', 'pandas', 'optuna', 'pydantic') if name in sys.modules])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.endswith("[]\n")
    for command in (
        "run",
        "plan",
        "status",
        "report",
        "compare",
        "tune",
        "validate",
        "doctor",
        "schema",
        "list",
        "show",
    ):
        assert f"\n  {command} " in done.stdout
    # processor time: what the clock on the wall shows where nothing else is running
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_validating_a_suite_imports_no_torch(write_suite: WriteSuite) -> None:
    program = "import sys\nfrom m3po.bench.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as end: "
    program += "print(end.code, [name for name in ('torch', 'metaworld', 'mujoco', 'pandas') if name in sys.modules])"
    command = [sys.executable, "-c", program, "validate", "quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 []\n"), done.stdout


def test_run_status_plan_and_report(cli: Cli, call: Call, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite(agents="{nudge: {}, random: {}}")
    code, out, _ = call("plan", suite, "--json")
    before = json.loads(out)
    assert code == 0
    assert before["counts"] == {"pending": 2}
    assert before["env_steps_left"] == 800
    assert before["estimate"] == {"seconds": None, "low": None, "high": None}

    done = cli("run", suite)
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path, done.stdout.splitlines()[-1].removeprefix("report: ")).exists()

    code, out, _ = call("status", suite, "--json")
    assert code == 0
    for cell in json.loads(out)["cells"]:
        assert cell["state"] == "done"
        assert cell["env_step"] == 400
        assert cell["tasks"] == ["toy-reach"]
        assert {"id", "agent", "seed", "steps_per_second", "last_score"} <= cell.keys()

    code, out, _ = call("plan", suite, "--json")
    assert json.loads(out)["counts"] == {"done": 2}

    code, out, err = call("play", suite, "--agent", "random")
    assert (code, out) == (2, "")
    assert err  # toy tasks show no pictures, or there is no encoder: a sentence in either case

    code, out, _ = call("plan", suite, "--set", "seeds=3")
    assert "4 pending" in out
    assert "about" in out
    assert call("status", "results/tiny")[0] == 0


def test_plan_measures_one_cell_of_each_agent_and_keeps_what_it_trained(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brief, "TELLING_SECONDS", 0.5)
    agents = "{slow: {agent: nudge, pause: 0.02}, nudge: {pause: 0.01}}"
    suite = write_suite(agents=agents, budget="{env_steps: 100_000, num_envs: 4}", seeds="2")
    code, out, _ = call("plan", suite, "--measure", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["counts"] == {"preempted": 2, "pending": 2}
    assert all(cell["env_step"] > 0 for cell in plan["cells"] if cell["state"] == "preempted")
    assert {cell["agent"] for cell in plan["cells"] if cell["state"] == "preempted"} == {"slow", "nudge"}
    assert plan["speeds"].keys() == {"slow", "nudge"}
    # by hand: an update of slow takes 0.02 s and 4 steps, so at most 200 steps a second; 200,000 steps are left
    assert plan["estimate"]["seconds"] > 100_000 / 200
    code, out, _ = call("plan", suite, "--measure", "--json")
    assert json.loads(out)["cells"] == plan["cells"], "what is known is not measured again"


def test_more_jobs_than_cores_are_only_slower(
    call: Call, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3po.bench.experiment.cores", lambda: 1)
    suite = write_suite(budget="{env_steps: 16, num_envs: 8}", seeds="2")  # enough for processes of their own
    code, out, _ = call("run", suite, "--jobs", "2", "--no-report")
    assert code == 0, out


def test_report_prints_where_it_wrote(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StudyFolder(tmp_path / "results" / "tiny").create(build_study(load_suite(str(write_suite()))), {})
    asked: list[tuple[Path, Path | None]] = []

    def write(results: Path, out: Path | None) -> Path:
        asked.append((results, out))
        return Path("report.html")

    monkeypatch.setattr("analysis.report.study.write", write)
    assert call("report", write_suite(), "--out", "there") == (0, "report.html\n", "")
    assert call("report", "results/tiny", "--json")[1] == '{"report": "report.html"}\n'
    assert asked == [(Path("results/tiny"), Path("there")), (Path("results/tiny"), None)]


def test_one_process_at_a_time_writes_the_report_beside_its_results(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results" / "tiny"
    StudyFolder(folder).create(build_study(load_suite(str(write_suite()))), {})
    found: list[bool] = []

    def write(results: Path, out: Path | None) -> Path:
        with (folder / "report.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(True)
        return Path("report.html")

    monkeypatch.setattr("analysis.report.study.write", write)
    assert call("report", "results/tiny")[0] == 0
    assert found == [True]


def test_a_report_that_cannot_be_written_does_not_decide_how_a_run_ended(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIGURES, {})
    suite = write_suite(budget="{env_steps: 8, num_envs: 4}")
    assert call("run", suite, "--no-report")[0] == 0
    (tmp_path / "results" / "tiny" / "report").write_text("a file, not a folder")
    code, out, err = call("run", suite)
    assert (code, "1 done" in out) == (0, True), (out, err)
    assert "the report cannot be written" in err
    assert "m3po-bench report results/tiny tries again" in err


@pytest.mark.parametrize("seeds", [1, 2])
def test_plan_does_not_wait_for_cells_that_another_run_works_on(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int
) -> None:
    monkeypatch.setattr(brief, "TELLING_SECONDS", 0.5)
    agents, budget = "{nudge: {pause: 0.01}}", "{env_steps: 100_000, num_envs: 4}"
    suite = write_suite(agents=agents, budget=budget, seeds=str(seeds))
    first, *others = StudyFolder(tmp_path / "results" / "tiny").create(build_study(load_suite(str(suite))), {})
    holder = ExitStack()
    holder.enter_context(first.held())
    end = threading.Timer(15, holder.close)  # so that whoever waits has an end
    end.start()
    code, out, _ = call("plan", suite, "--measure", "--json")
    end.cancel()
    holder.close()
    assert code == 0
    assert first.status().env_step == 0
    assert all(folder.status().env_step > 0 for folder in others)
    assert ("nudge" in json.loads(out)["speeds"]) == bool(others)


def test_a_failed_cell_ends_in_1_and_is_explained(cli: Cli, write_suite: WriteSuite) -> None:
    done = cli("run", write_suite(agents="{nudge: {fault: exit}, random: {}}"), "--no-report", "--json")
    assert done.returncode == 1
    states = {cell["agent"]: (cell["state"], cell["message"]) for cell in json.loads(done.stdout)["cells"]}
    assert states["random"] == ("done", "")
    assert states["nudge"] == (
        "failed",
        "its process ended with exit code 17 without a word; see log.txt in its folder",
    )


def test_some_of_the_cells_are_planned_and_run(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIGURES, {})
    suite = write_suite(
        tasks="{family: toy, names: [toy-reach, toy-terminate]}", agents="{nudge: {}, random: {}}", seeds="2"
    )
    chosen = ["--agent", "random", "--task", "toy-reach", "--seed", "1"]
    expected = [("random", ["toy-reach"], 1)]
    for command, state in (("plan", "pending"), ("run", "done")):
        code, out, _ = call(command, suite, *chosen, "--json")
        cells = json.loads(out)["cells"]
        assert [(cell["agent"], cell["tasks"], cell["seed"]) for cell in cells] == expected
        assert {cell["state"] for cell in cells} == {state}
        assert code == 0
    everything = json.loads(call("status", suite, "--json")[1])["cells"]
    assert sorted(cell["state"] for cell in everything) == ["done"] + 7 * ["pending"]
    report = (tmp_path / "results" / "tiny" / "report" / "report.md").read_text()
    assert "toy-terminate.random.s1" in report, "what is missing of the whole study"


def test_bad_input_is_a_sentence_and_ends_in_2(call: Call, write_suite: WriteSuite, tmp_path: Path) -> None:
    suite = write_suite()
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    cases = [
        (("run", "no-such-suite"), "no such file"),
        (("run", suite, "--set", "agents.nudge.rat=1"), "unknown nudge key 'rat'; nearest: 'rate'"),
        (("run", suite, "--set", "agents.ndge={}"), "unknown agent 'ndge'; nearest: 'nudge'"),
        (("run", suite, "--results", blocked), f"cannot create {blocked / 'tiny'}"),
        (("run", suite, "--device", "tpu"), "unknown device 'tpu'; expected auto, cpu or cuda"),
        (("run", suite, "--jobs", "0"), "--jobs"),
        (("run", suite, "--agent", "ndge"), "unknown agent 'ndge'; nearest: 'nudge'"),
        (("run", suite, "--agent", ""), "unknown agent ''"),
        (("plan", suite, "--task", "toy-reech"), "unknown task 'toy-reech'; nearest: 'toy-reach'"),
        (("run", suite, "--seed", "7"), "unknown seed '7'; known: 0"),
        (("run", suite, "--jbos", "1"), "No such option"),
        (("status", suite), "suite 'tiny' has no results in results; run it first"),
        (("status", tmp_path), "should hold the results of a study, but holds none"),
        (("report", "nowhere"), "nowhere: no such folder, and no suite; there are no studies in results"),
        (("tune", suite, "--agent", "nugde", "--trials", "1"), "unknown agent 'nugde'; nearest: 'nudge'"),
        (("validate", suite, "--set", "agents.nudge.batch=5"), "batch (5) is above the 4 environments"),
        (("show", "agent", "nudg"), "unknown agent 'nudg'; nearest: 'nudge'"),
        (("frobnicate",), "No such command"),
    ]
    for arguments, sentence in cases:
        code, _, err = call(*arguments)
        assert code == 2, arguments
        assert sentence in err, (arguments, err)
        assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_at_the_start(call: Call, write_suite: WriteSuite, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o555)
    code, _, err = call("run", write_suite())
    assert code == 2
    assert "permission denied; make the folder writable" in err


def test_a_cell_that_only_another_user_may_read_hinders_no_other_cell(
    call: Call, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(budget="{env_steps: 8, num_envs: 4}", seeds="2")
    _, theirs = StudyFolder(tmp_path / "results" / "tiny").create(build_study(load_suite(str(suite))), {})

    def denied(plain: Callable[..., object]) -> Callable[..., object]:
        def wrapper(self: Path, *arguments: object, **options: object) -> object:
            if theirs.id in self.parts:  # as with umask 077, but for tests that are root's too
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            return plain(self, *arguments, **options)

        return wrapper

    monkeypatch.setattr(Path, "stat", denied(Path.stat))
    monkeypatch.setattr(Path, "read_bytes", denied(Path.read_bytes))
    code, out, err = call("run", suite, "--seed", "0", "--no-report")
    assert code == 0, (out, err)
    code, out, _ = call("plan", suite, "--json")
    assert code == 0
    states = {cell["id"]: (cell["state"], "ermission denied" in cell["message"]) for cell in json.loads(out)["cells"]}
    assert states == {theirs.id: ("failed", True), theirs.id.replace(".s1.", ".s0."): ("done", False)}
    assert call("status", suite)[0] == 0


def test_where_output_cannot_go_is_said_and_a_reader_who_leaves_changes_no_exit_code(cli: Cli) -> None:
    command = [sys.executable, "-c", "from m3po.bench.cli import main; main()", "list", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, open(writer, "w") as left:
        answers = [
            subprocess.run(command, cwd=cli.folder, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
            for out in (full, left)
        ]
    assert [answer.returncode for answer in answers] == [2, 0]
    assert answers[0].stderr.startswith("cannot write to /dev/stdout: no space left on device")
    assert answers[1].stderr == ""


def test_a_name_too_long_for_a_file_is_a_name_like_any_other(call: Call) -> None:
    name = "a" * 300
    for command in ("run", "status", "report", "pack"):
        code, _, err = call(command, name)
        missing = "no such file" if command == "run" else "no such folder, and no suite"
        assert (code, err.partition(";")[0]) == (2, f"{name}: {missing}"), command
    code, _, err = call("doctor", name)
    assert code == 2
    assert "is no suite, no suite file and no task of a family" in err


def test_our_own_faults_show_a_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("m3po.bench.views.inventory_view", broken)
    with pytest.raises(ZeroDivisionError):
        module.main(["list"])


def test_a_missing_gpu_is_an_error_and_never_a_silent_cpu(
    call: Call, plugin: Path, write_suite: WriteSuite, tmp_path: Path
) -> None:
    # a torch without a GPU, the same on every machine
    (plugin / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    code, _, err = call("run", write_suite(), "--device", "cuda")
    assert code == 2
    assert "torch finds no GPU" in err
    assert not (tmp_path / "results").exists(), "refused before the first cell"


def test_auto_takes_a_gpu_wherever_there_is_one_and_says_where_it_cannot(
    call: Call, plugin: Path, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr("m3po.bench.experiment.GPU_SIGNS", ("no-such-tool", str(driver)))
    (plugin / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: True)\n")
    assert resolve_device("auto") == "cuda", "as in a container without nvidia-smi"
    (plugin / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    code, _, err = call("run", write_suite(budget="{env_steps: 8, num_envs: 4}"), "--no-report")
    assert code == 0
    assert "torch finds no GPU it can use" in err
    assert "--device cuda makes that an error" in err
    assert call("run", write_suite(budget="{env_steps: 8, num_envs: 4}"), "--no-report", "--device", "cpu")[2] == ""


def test_everything_can_be_shown(call: Call, write_suite: WriteSuite) -> None:
    code, out, _ = call("show", "agent", "nudge", "--json")
    assert code == 0
    fields = {row["field"]: row for row in json.loads(out)["fields"]}
    assert fields["rate"] == {"field": "rate", "type": "float", "default": 0.05, "about": "Size of a nudge."}
    assert json.loads(out)["presets"]["bold"] == {"rate": 0.5}
    code, out, _ = call("show", "agent", "nudge")
    assert "Environments a nudge looks at." in out
    code, out, _ = call("show", "suite", write_suite(), "--json")
    assert [task["name"] for task in json.loads(out)["tasks"]] == ["toy-reach"]
    assert "toy-reach" in call("show", "suite", write_suite())[1]
    code, out, _ = call("list", "--json")
    listed = json.loads(out)
    assert {"nudge", "random", "ppo", "m3po", "dreamerv3"} <= {row["name"] for row in listed["agents"]}
    assert {"quick", "mt50"} <= {row["name"] for row in listed["suites"]}
    assert {"metaworld", "dm_control"} <= {row["name"] for row in listed["families"]}
    assert json.loads(call("schema")[1])["properties"]["extends"]
    assert json.loads(call("validate", write_suite(), "--json")[1])["cells"] == 1


def test_a_full_disk_fails_the_cell_and_the_same_command_goes_on(
    cli: Cli, write_suite: WriteSuite, tmp_path: Path
) -> None:
    suite = write_suite(agents="{nudge: {rate: 0.01}}")
    # no file may exceed 3 kB: a checkpoint fits, but not the whole table of metrics with 40 rows of 170 bytes
    program = f"{sys.executable} -c 'from m3po.bench.cli import main; main()'"
    limited = ["bash", "-c", f"ulimit -f 3; exec {program} run {suite} --no-report"]
    # nor may Python write its caches then: it would leave them cut short, for whoever imports them next to fail on
    whole = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(limited, cwd=tmp_path, env=whole, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert (
        ": cannot append to metrics.jsonl: file too large; free some space and run the same command again"
        in done.stdout
    )
    assert "Traceback" not in done.stderr
    (cell,) = [path.parent for path in (tmp_path / "results" / "tiny").glob("*/cell.json")]
    kept = Checkpoints(cell / "checkpoints").newest()
    assert kept is not None
    assert kept.env_step == max(row["env_step"] for row in evaluation_rows(cell)) > 0
    again = cli("run", suite, "--no-report")
    assert again.returncode == 0, again.stderr
    assert [row["env_step"] for row in evaluation_rows(cell)] == [step for step in range(0, 401, 100) for _ in range(3)]


def test_a_table_from_elsewhere_is_reported_beside_it(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIGURES, {})
    rows = [f"{agent},t,{seed},{score + seed}" for agent, score in (("a", 10), ("b", 20)) for seed in range(3)]
    (tmp_path / "mine.csv").write_text("\n".join(["agent,task,seed,return", *rows]) + "\n")
    code, printed, _ = call("report", "mine.csv", "--low", "0", "--high", "100")
    assert (code, printed) == (0, "mine-report/report.html\n")
    assert "b's IQM 0.21" in (tmp_path / "mine-report" / "report.md").read_text()  # by hand: mean of 20, 21, 22


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("mine.csv", "--low", "0"), "--low and --high go together"),
        (("mine.csv",), "normalised to 0 and to 1 is missing"),
        (("mine.csv", "--low", "0", "--high", "1", "--score", "retrun"), "expected a column retrun"),
        (("quick", "--low", "0"), "are for a CSV table, which quick is not"),
        (("mien.csv", "--low", "0", "--high", "1"), "which mien.csv is not: there is no such file"),
    ],
)
def test_what_is_wrong_with_a_table_or_its_options_is_said(
    tmp_path: Path, call: Call, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "mine.csv").write_text("agent,task,seed,return\na,t,0,1\n")
    code, _, error = call("report", *options)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_table_is_no_study(tmp_path: Path, call: Call) -> None:
    (tmp_path / "mine.csv").write_text("agent,task,seed,return\n" + "a,t,0,1\n" * 1000)
    code, _, error = call("compare", "mine.csv", "mine.csv")
    assert (code, len(error) < 200) == (2, True), error
    assert "mine.csv: a table, which only m3po-bench report reads" in error
    code, _, error = call("validate", "mine.csv")
    assert (code, len(error) < 200) == (2, True), error


def test_agents_of_a_table_are_reported_beside_a_study(call: Call, write_suite: WriteSuite, tmp_path: Path) -> None:
    assert call("run", write_suite(budget="{env_steps: 16, num_envs: 4}"), "--no-report")[0] == 0
    rows = [f"mine,toy-reach,{seed},{step},{step / 16}" for seed in range(2) for step in (0, 16)]
    (tmp_path / "mine.csv").write_text("\n".join(["agent,task,seed,env_step,return", *rows, ""]))
    code, out, _ = call("report", "results/tiny", "--beside", "mine.csv", "--json")
    assert (code, json.loads(out)) == (0, {"report": "mine-beside-tiny/report.html"})
    document = json.loads((tmp_path / "mine-beside-tiny" / "report.json").read_text())
    assert {row["agent"] for row in document["aggregates"]} == {"nudge", "mine"}
    for wrong, sentence in (
        (("mine.csv", "--beside", "mine.csv"), "--beside is for a study, and mine.csv is a table"),
        (("results/tiny", "--beside", "mine.csv", "--low", "0"), "are for a CSV table"),
        (("results/tiny", "--beside", "nothing.csv"), "nothing.csv: cannot be read"),
    ):
        code, _, err = call("report", *wrong)
        assert code == 2
        assert sentence in " ".join(err.replace("│", " ").split()), err


def test_two_studies_are_compared(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def level(start: float) -> Callable[[str, int, str, float], float]:
        return lambda agent, seed, task, fraction: (start + seed / 50) * fraction

    Synthetic(tmp_path / "old", score=level(0.2)).write()
    Synthetic(tmp_path / "new", score=level(0.6)).write()
    code, printed, _ = call("compare", "old/quick", "new", "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["settings"] == []
    first = found["changes"][0]
    assert (first["agent"], first["task"], first["apart"]) == ("m3po", None, True)
    assert first["contrast"]["difference"]["estimate"] == pytest.approx(0.4)  # by hand: 0.6 − 0.2
    assert "0.40 [0." in call("compare", "old", "new")[1]
    assert call("compare", "old", "nowhere")[0] == 2

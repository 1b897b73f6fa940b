"""The command line: each command parses, calls once, prints. Heavy imports stay inside the commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3po.bench.interrupt import Interrupt, Stopped

if TYPE_CHECKING:
    from rich.console import Console

    from m3po.bench.study import Study
    from m3po.bench.views import View

__all__ = ["app", "main"]

app = typer.Typer(
    name="m3po-bench",
    help="Compare reinforcement-learning agents on many tasks: one suite file is one study.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
show = typer.Typer(no_args_is_help=True, help="Explain one agent or one suite.", rich_markup_mode=None)
app.add_typer(show, name="show")

BAD_INPUT, INTERRUPTED = 2, 3

SuiteArgument = Annotated[str, typer.Argument(help="Path of a suite file, or name of a shipped suite.")]
ResultsArgument = Annotated[str, typer.Argument(help="Results folder of a study, or a suite's path or name.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder that holds the results of all studies.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the suite.")]
JobsOption = Annotated[int | None, typer.Option("--jobs", min=1, help="Cells that run at once. Default: the cores.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
AgentsOption = Annotated[list[str] | None, typer.Option("--agent", help="Only this agent; may be repeated.")]
TasksOption = Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")]
SeedsOption = Annotated[list[int] | None, typer.Option("--seed", help="Only this seed; may be repeated.")]
DEFAULT_RESULTS = Path("results")


@app.command()
def run(
    suite: SuiteArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    set_: SetOption = None,
    agent: AgentsOption = None,
    task: TasksOption = None,
    seed: SeedsOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the report at the end.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Run what is missing of a suite, then write its report. Run it again to go on after any interruption."""
    from m3po.bench.experiment import run_study
    from m3po.bench.views import run_summary

    study = _study(suite, set_)
    cells = study.chosen(agent or (), task or (), seed or ())
    console = _progress(stderr=as_json)
    outcome = run_study(study, cells, results, jobs=jobs, device=_device(device), console=console)
    path = _last_report(outcome.folder.path) if report and not outcome.interrupted else None
    _print(run_summary(outcome, path), as_json)
    raise typer.Exit(outcome.exit_code)


def _last_report(folder: Path) -> Path | None:
    """The report of a run. Where it cannot be written that is said, and changes nothing of how the run ended."""
    from analysis.report.study import write
    from m3po.bench.report import write_report

    try:
        return write_report(write, folder)
    except _user_errors() as error:
        typer.echo(f"{error}\nthe cells are as the run says; m3po-bench report {folder} tries again", err=True)
        return None


@app.command()
def plan(
    suite: SuiteArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    set_: SetOption = None,
    agent: AgentsOption = None,
    task: TasksOption = None,
    seed: SeedsOption = None,
    jobs: JobsOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First let a cell of every agent run until it tells its pace.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what is done, missing and failed, and what the rest will cost. Without --measure nothing is run."""
    from m3po.bench.experiment import cores, measure_study
    from m3po.bench.plan import make_plan
    from m3po.bench.study import StudyFolder
    from m3po.bench.views import plan_view

    study = _study(suite, set_)
    chosen = study.chosen(agent or (), task or (), seed or ())
    if measure:
        where = _device(device)
        if not measure_study(study, chosen, results, jobs=jobs, device=where, console=_progress(stderr=as_json)):
            raise Stopped
    cells = [cell.entry for cell in chosen]
    statuses = StudyFolder(results / study.suite.name).statuses(cells, study.suite.budget.env_steps)
    _print(plan_view(make_plan(study.suite.name, cells, statuses, jobs or cores())), as_json)


@app.command()
def status(source: ResultsArgument, results: ResultsOption = DEFAULT_RESULTS, as_json: JsonOption = False) -> None:
    """Show where every cell of a study stands."""
    from m3po.bench.study import find_study
    from m3po.bench.views import status_view

    _print(status_view(find_study(source, results)), as_json)


@app.command()
def report(
    source: Annotated[str, typer.Argument(help="Results folder of a study, a suite's path or name, or a CSV table.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the report. Default: in the results.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    low: Annotated[float | None, typer.Option("--low", help="Of a table: the score that counts as 0.")] = None,
    high: Annotated[float | None, typer.Option("--high", help="Of a table: the score that counts as 1.")] = None,
    score: Annotated[str | None, typer.Option("--score", help="Of a table: the column with the score.")] = None,
    beside: Annotated[
        list[str] | None, typer.Option("--beside", help="A CSV table whose agents join those of the study.")
    ] = None,
    joint: Annotated[bool, typer.Option("--joint", help="Of a table: one run is one agent on all tasks.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a study, of a search in its folder ``tuning``, or of a table from elsewhere; print its path.

    A table has the columns agent, task, seed, a score, and env_step for curves. With --beside the study's tasks and
    protocols count, and the report lies beside the (first) table.
    """
    from analysis import tuning
    from analysis.report import search as search_report
    from analysis.report.study import write, write_summary
    from m3po.bench.report import write_report
    from m3po.bench.study import find_study

    if os.path.isfile(source) and ".csv" in Path(source).suffixes:
        from analysis.summary import summarise
        from analysis.tidy import read_csv

        if beside:
            raise typer.BadParameter(f"--beside is for a study, and {source} is a table; put both tables into one")
        table = read_csv(Path(source), bounds=_bounds(low, high), score=score, joint=joint)
        default = Path(source).with_name(f"{table.study.suite}-report")
        path = write_summary(summarise(table), default if out is None else out)
    elif beside and (low, high, joint) == (None, None, False):
        path = _report_beside(find_study(source, results).path, [Path(table) for table in beside], score, out)
    elif (low, high, score, joint) != (None, None, None, False):
        why = ": there is no such file" if ".csv" in Path(source).suffixes else ", by its name (.csv)"
        raise typer.BadParameter(f"--low, --high, --score and --joint are for a CSV table, which {source} is not{why}")
    elif os.path.isfile(Path(source) / tuning.LEDGER):
        path = write_report(search_report.write, Path(source), out)
    else:
        path = write_report(write, find_study(source, results).path, out)
    typer.echo(json.dumps({"report": str(path)}) if as_json else str(path))


@app.command()
def play(
    source: ResultsArgument,
    agent: Annotated[list[str] | None, typer.Option("--agent", help="Agent to watch; may be repeated.")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Task to watch; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Seed. Default: the lowest.")] = None,
    episode: Annotated[int, typer.Option("--episode", min=0, help="Which of the evaluation's episodes.")] = 0,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Film what agents learned: an evaluation episode of the newest checkpoint, as mp4 beside its cell.

    The next report shows the videos.
    """
    from dataclasses import asdict

    from m3po.bench.play import films
    from m3po.bench.study import find_study

    made = films(
        find_study(source, results), agent or (), task or (), seed or (), episode=episode, device=_device(device)
    )
    if as_json:
        typer.echo(json.dumps([{**asdict(played), "path": str(path)} for path, played in made], indent=1))
    else:
        for path, played in made:
            typer.echo(f"{path}: {played}")


@app.command()
def compare(
    before: Annotated[str, typer.Argument(help="Results folder of a study, or a suite's path or name.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Show what changed between two studies: settings, and the scores of the agents they share with intervals."""
    from analysis.compare import compare as comparison
    from analysis.frame import load
    from m3po.bench.study import find_study
    from m3po.bench.views import comparison_view

    both = [load(find_study(source, results).path) for source in (before, after)]
    _print(comparison_view(comparison(*both)), as_json)


@app.command()
def pack(
    source: ResultsArgument,
    out: Annotated[Path | None, typer.Option("--out", help="The file. Default: STUDY.tar.xz here.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Pack a study's finished cells into one small file, without checkpoints: to share, to keep, to go on elsewhere.

    Unpack it in a results folder with "tar xf"; report and run take it from there.
    """
    from m3po.bench.pack import pack as packed
    from m3po.bench.study import find_study
    from m3po.bench.views import pack_view

    _print(pack_view(packed(find_study(source, results), out)), as_json)


def _bounds(low: float | None, high: float | None) -> tuple[float, float] | None:
    if low is None or high is None:
        if (low, high) != (None, None):
            raise typer.BadParameter("--low and --high go together: the scores that count as 0 and as 1")
        return None
    return low, high


@app.command()
def tune(
    suite: SuiteArgument,
    agent: Annotated[
        list[str] | None, typer.Option("--agent", help="Agent to tune; again for more. Default: all.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Configurations to try for each, those already done included.")
    ] = None,
    env_steps: Annotated[int | None, typer.Option("--env-steps", min=1, help="Budget of one tuning cell.")] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="URL of a database for the trials. Default: a file in the results.")
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    out: Annotated[Path, typer.Option("--out", help="Folder for the tuned suite file.")] = Path("."),
    set_: SetOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search agents' configurations with Optuna and write a suite with the best found. Several may share a search."""
    from m3po.bench.tune import Request, tune_agents
    from m3po.bench.views import tune_view
    from suites.catalog import load_suite

    loaded = load_suite(suite, set_ or ())
    request = Request.of(
        loaded, agent or (), suite, trials=trials, env_steps=env_steps, overrides=set_ or (), storage=storage
    )
    outcome = tune_agents(request, results, out, jobs=jobs, device=_device(device), console=_progress(stderr=as_json))
    _print(tune_view(outcome), as_json)
    raise typer.Exit(outcome.exit_code)


@app.command()
def validate(suite: SuiteArgument, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """Check a suite wholly, agents' configurations included, without running anything."""
    from m3po.bench.views import validation_view

    _print(validation_view(_study(suite, set_)), as_json)


@app.command()
def doctor(
    names: Annotated[list[str] | None, typer.Argument(help="Suites or tasks. Default: all shipped suites.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer episodes of each expert.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes. Default: the cores.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that every task here is what it should be: seeds, spaces, lengths, experts, versions, renderer."""
    from m3po.bench.doctor import diagnose, find_tasks
    from m3po.bench.experiment import cores
    from m3po.bench.views import doctor_view

    tasks = find_tasks(names or ())
    diagnosis = diagnose(tasks, quick=quick, jobs=jobs or cores(), console=_console(stderr=True))
    _print(doctor_view(diagnosis), as_json)
    raise typer.Exit(diagnosis.exit_code)


@app.command()
def schema() -> None:
    """Print the JSON schema of suite files, for editors."""
    from suites.catalog import schema as suite_schema

    typer.echo(json.dumps(suite_schema(), indent=2))


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List agents, suites and environment families."""
    from m3po.bench.views import inventory_view

    _print(inventory_view(), as_json)


@show.command("agent")
def show_agent(name: Annotated[str, typer.Argument(help="Name of an agent.")], as_json: JsonOption = False) -> None:
    """Explain every field of an agent's configuration, with its default."""
    from m3po.bench.views import agent_view

    _print(agent_view(name), as_json)


@show.command("suite")
def show_suite(suite: SuiteArgument, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """Show a suite with everything resolved: tasks, protocols, agents, cells."""
    from m3po.bench.views import suite_view

    _print(suite_view(_study(suite, set_)), as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exits 0 all done, 1 some cells failed, 2 bad input, 3 interrupted. Our own faults show a trace."""
    try:
        # what has to come to an end behind a checkpoint listens itself
        with Interrupt().listening(patience=0):
            app(arguments)
    except Stopped:
        with suppress(OSError):  # a terminal that was closed
            typer.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not isinstance(error, _user_errors()):
            raise
        typer.echo(str(error), err=True)
        sys.exit(BAD_INPUT)


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for the user."""
    from analysis.study import ResultsError
    from m3po.bench.experiment import DeviceError
    from m3po.bench.store import StoreError
    from m3po.registry import RegistryError
    from suites.errors import EnvError, SuiteError

    return (SuiteError, EnvError, RegistryError, StoreError, DeviceError, ResultsError)


def _report_beside(study: Path, tables: Sequence[Path], score: str | None, out: Path | None) -> Path:
    """Report the study with the agents of the tables beside its own; returns the page."""
    from analysis.frame import load
    from analysis.report.study import write_summary
    from analysis.summary import summarise
    from analysis.tidy import beside, read_frame

    found = load(study)
    for table in tables:
        found = beside(found, read_frame(table), score=score, where=str(table))
    default = tables[0].with_name(f"{tables[0].name.partition('.')[0]}-beside-{found.study.suite}")
    return write_summary(summarise(found), default if out is None else out)


def _study(suite: str, overrides: Sequence[str] | None) -> Study:
    from m3po.bench.study import open_study

    study = open_study(suite, overrides or ())
    for warning in study.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for note in study.notes:
        typer.echo(note, err=True)
    return study


def _device(wanted: str) -> str:
    from m3po.bench.experiment import resolve_device

    return resolve_device(wanted, lambda sentence: typer.echo(sentence, err=True))


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr)
    # a pipe has no width: there tables keep their natural one
    return console if console.is_terminal else Console(stderr=stderr, width=200)


def _progress(*, stderr: bool) -> Console:
    """Where a command says how far it is: losing its reader ends no cell."""
    from m3po.bench.display import unheard

    console = _console(stderr=stderr)
    console.file = unheard(console.file)
    return console


def _print(view: View, as_json: bool) -> None:
    """Print a view: its data as JSON, or its text. Raises :class:`StoreError` where that is not possible."""
    from m3po.bench.store import explained

    with explained("write to", Path("/dev/stdout")):
        try:
            if as_json:
                typer.echo(json.dumps(view.data, indent=1, ensure_ascii=False))
            else:
                _console(stderr=False).print(view.text, markup=False, highlight=False)
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try once more at its end
            if not isinstance(error, BrokenPipeError):  # whoever reads has read enough; the exit code still counts
                raise

"""Ask, run, tell: the search behind ``tune``.

A trial is run in stages: all its cells to their end; or, for the Wilcoxon pruner, some cells after the others; or, for
the pruners of curves, all cells up to one rung after the other, each going on from its checkpoint.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from m3po.bench.experiment import run_folders
from m3po.bench.interrupt import Interrupt
from m3po.bench.ledger import cost_of, needed, write_ledger
from m3po.bench.problem import Problem
from m3po.bench.provenance import gather
from m3po.bench.records import FINAL, Cell, CellStatus, normalised_score
from m3po.bench.store import FREE_SPACE, CellFolder
from m3po.bench.trials import (
    MOST_RETRIES,
    ask_again,
    barren,
    ended,
    numbers,
    proposed,
    requeue,
    running,
    sampler,
    suggest,
    turn,
)

__all__ = ["Search"]

WAIT_SECONDS = 0.5
"""How often a worker without a trial of its own looks whether the others are done."""

HOPELESS = 20
"""So many proposals in a row that could not work or only repeated others end the search: its space holds no more."""

MISHAPS = 3
"""So many configurations in a row that failed without a score of any cell end it too: not all can be bad."""


@dataclass(frozen=True)
class Stage:
    """A part of a trial: cells by their places in it, and the environment step up to which they run."""

    number: int
    cells: tuple[int, ...]
    until: int


@dataclass
class Attempt:
    """A trial under way: its cells and the scores they have so far, by their places."""

    trial: Trial
    number: int
    """The one that is shown, from 1."""
    cells: Sequence[Cell]
    scores: dict[int, float] = field(default_factory=dict)
    diverged: set[int] = field(default_factory=set)
    open: bool = True
    """Whether it is still to be told how it ended."""

    @property
    def score(self) -> float:
        return fmean(self.scores.values())


@dataclass
class Search:
    """Asks, runs, tells, as one of perhaps several workers on a study."""

    problem: Problem
    folder: Path
    study: optuna.Study
    worker: str
    jobs: int
    device: str
    console: Console
    interrupt: Interrupt = field(init=False)
    exhausted: bool = False
    """Whether the last look found budget left and no use for it, see :data:`HOPELESS`."""
    trouble: str = ""
    """Why the search cannot go on here, as a sentence."""
    invalid: bool = False
    """Whether that lies in the configuration as it stands."""
    _unmeasured: dict[str, Trial] = field(default_factory=dict)
    """By their values, the latest trials in a row that failed without a score of any cell."""

    def __post_init__(self) -> None:
        self.interrupt = Interrupt(self.console.print)

    def run(self) -> bool:
        """Run trials until the budget of the search is spent, by whomever, or :attr:`trouble`; true when interrupted.

        A wish to stop that comes while trials are asked for or told waits until that is written down; a second one
        does not.
        """
        with self.interrupt.listening(patience=1):
            while not self.interrupt.count and not self.trouble and (attempts := self.ask()) is not None:
                self.run_batch(attempts)
        return self.interrupt.count > 0

    def ask(self) -> list[Attempt] | None:
        """New trials that can work, as many as run side by side; none where others are at work, ``None`` at the end."""
        with turn(self.folder):
            requeue(self.study, self.folder)
            room = min(self._room(), max(1, self.jobs // self._wave))
            attempts = [self._propose() for _ in range(room)]
            write_ledger(self.folder, self.problem, self.study)
            if not room and not running(self.study, self.folder):
                if self.exhausted:
                    self._say(
                        f"the last {HOPELESS} proposals could not work or only repeated earlier ones: "
                        "the search ends before its budget does; widen its space to find more"
                    )
                return None
        if not room:
            time.sleep(WAIT_SECONDS)
        return [attempt for attempt in attempts if attempt is not None]

    @property
    def _wave(self) -> int:
        """Cells of a trial that run side by side: all, or of a trial that may end early a quarter of them."""
        cells = self.problem.num_cells
        return min(self.jobs, max(1, cells // 4)) if self.problem.settings.pruner == "wilcoxon" else cells

    def _room(self) -> int:
        """How many trials may begin now within the budget of the search."""
        settings, counted, under_way = self.problem.settings, ended(self.study), running(self.study, self.folder)
        room: float = math.inf
        if settings.trials is not None:
            room = settings.trials - len(counted) - len(under_way)
        if settings.total_env_steps is not None:
            planned = self.problem.num_cells * self.problem.suite.budget.env_steps
            left = settings.total_env_steps - cost_of(self.folder, counted).env_steps
            room = min(room, left // planned - len(under_way))
        if settings.hours is not None:
            spent, ran = cost_of(self.folder, counted).hours, sum("cells" in trial.user_attrs for trial in counted)
            expected = spent / max(1, ran)
            # what a trial takes, the first one tells
            fit = (settings.hours - spent) // expected if expected else 1
            room = min(room, fit - len(under_way))
        self.exhausted = room >= 1 and barren(self.study) >= HOPELESS
        if self.exhausted:
            room = 0
        return int(max(0, min(room, self.jobs)))  # never more than can run

    def _propose(self) -> Attempt | None:
        """Ask for one trial; ``None`` where it cannot work or repeats another, which is told at once."""
        settings = self.problem.settings
        stuck = barren(self.study) >= HOPELESS // 2  # a sampler that has learned may never try what is left
        self.study.sampler = sampler("random" if stuck else settings.sampler, len(proposed(self.study)))
        trial = self.study.ask()
        trial.set_user_attr("worker", self.worker)
        values = suggest(trial, self.problem.space)
        trial.set_user_attr("values", values)
        fault, cells = "", []
        try:
            cells = self.problem.cells(values)
            trial.set_user_attr("cells", [cell.id for cell in cells])
        except ValueError as error:
            fault = f"cannot work: {error}"
        number = numbers(self.study)
        shown = ", ".join(f"{name}={value}" for name, value in values.items())
        if (other := self._same(trial)) is not None:
            self._say(f"not run again, as it repeats trial {number[other.number] + 1}: {shown}")
            self._repeat(trial, other)
            return None
        of = "" if settings.trials is None else f" of {settings.trials}"
        again = ", once more" if "instead" in trial.user_attrs else ""
        self._say(f"trial {number[trial.number] + 1}{of}{again}: {shown}")
        if fault:
            self._say(f"trial {number[trial.number] + 1} {fault}")
            trial.set_user_attr("message", fault)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        return Attempt(trial, number[trial.number] + 1, cells)

    def _same(self, trial: Trial) -> FrozenTrial | None:
        """The trial that has the configuration of this one, which was proposed now; over, or under way."""
        if "instead" in trial.user_attrs:
            return None
        others = [*ended(self.study), *running(self.study, self.folder)]
        return next((other for other in others if other.number != trial.number and _alike(trial, other)), None)

    def _repeat(self, trial: Trial, other: FrozenTrial) -> None:
        """Tell of a trial what is known from another, so that the sampler learns what it would by running it."""
        trial.set_user_attr("repeats", other.number)
        for step, value in other.intermediate_values.items():
            trial.report(value, step)
        under_way = other.state == TrialState.RUNNING
        measured = other.state == TrialState.COMPLETE
        self.study.tell(trial, other.values if measured else None, state=TrialState.FAIL if under_way else other.state)

    def _say(self, sentence: str) -> None:
        self.console.print(sentence, markup=False, highlight=False)

    def _stages(self, attempt: Attempt) -> list[Stage]:
        """The parts of a trial; as many for every trial."""
        places = list(range(len(attempt.cells)))
        if self.problem.settings.pruner != "wilcoxon":
            return [Stage(number, tuple(places), until) for number, until in enumerate(self.problem.rungs)]
        random.Random(attempt.trial.number).shuffle(places)  # so that no task always comes first
        (whole,) = self.problem.rungs
        waves = [tuple(places[first : first + self._wave]) for first in range(0, len(places), self._wave)]
        return [Stage(number, wave, whole) for number, wave in enumerate(waves)]

    def run_batch(self, attempts: Sequence[Attempt]) -> None:
        """Run trials side by side, stage by stage, until each has been told how it ended."""
        stages = [self._stages(attempt) for attempt in attempts]
        for parts in zip(*stages, strict=True):
            if self.trouble:
                break
            under_way = [(attempt, stage) for attempt, stage in zip(attempts, parts, strict=True) if attempt.open]
            cells = [attempt.cells[place] for attempt, stage in under_way for place in stage.cells]
            statuses = self._run_cells(cells, parts[0].until)
            with turn(self.folder):
                for attempt, stage in under_way:
                    self._judge(attempt, stage, statuses, last=stage.number == len(stages[0]) - 1)
                write_ledger(self.folder, self.problem, self.study)
        for attempt in attempts:
            if attempt.open:
                self._leave(attempt)

    def _run_cells(self, cells: Sequence[Cell], until: int) -> dict[str, CellStatus]:
        """Run cells up to an environment step, as far as they are not there yet; returns their statuses."""
        unique = {cell.id: cell for cell in cells}
        provenance = gather(self.device)
        missing = []
        for name, cell in unique.items():
            folder = CellFolder(self.folder / name)
            folder.create(cell.model_copy(update={"provenance": provenance}))
            folder.allow(until, cell.budget.env_steps)
            if not self._arrived(cell, folder.live_status(), until):
                missing.append(cell)
        ran: dict[str, CellStatus] = {}
        if missing:
            ran = run_folders(
                missing,
                [CellFolder(self.folder / cell.id) for cell in missing],
                jobs=self.jobs,
                device=self.device,
                console=self.console,
                interrupt=self.interrupt,
            )
        return {name: ran[name] if name in ran else CellFolder(self.folder / name).live_status() for name in unique}

    def _judge(self, attempt: Attempt, stage: Stage, statuses: Mapping[str, CellStatus], *, last: bool) -> None:
        """Take in what a stage gave, and tell how the trial ended if it did."""
        found = {place: statuses[attempt.cells[place].id] for place in stage.cells}
        if all(self._arrived(attempt.cells[place], status, stage.until) for place, status in found.items()):
            for place, status in found.items():
                score = self._score(attempt.cells[place], status, stage.until)
                if score is None:
                    self._fail(attempt, f"a task of {status.id} could not be evaluated; its log says why")
                    return
                attempt.scores[place] = score
            self._unmeasured.clear()
            attempt.diverged |= {place for place, status in found.items() if status.state == "diverged"}
            self._tell(attempt, stage, last=last)
        elif self.interrupt.count:
            self._leave(attempt)
        else:
            messages = dict.fromkeys(status.message for status in found.values() if status.state == "failed")
            message = "; ".join(messages) or "a cell did not come as far as it was to; its log says why"
            if any(self._arrived(attempt.cells[place], status, stage.until) for place, status in found.items()):
                self._unmeasured.clear()
            elif not attempt.scores:
                self._unmeasured[json.dumps(attempt.trial.params)] = attempt.trial
            self._mishap(attempt, message)

    def _leave(self, attempt: Attempt) -> None:
        """Leave a trial as it is: the next call asks for it again and goes on with its cells."""
        attempt.trial.set_user_attr("stopped", True)
        attempt.open = False

    def _mishap(self, attempt: Attempt, message: str) -> None:
        """Cells failed, for all we know by accident: as after a kill, the trial is asked for once more."""
        if FREE_SPACE in message or self.trouble:
            self.trouble = self.trouble or message
            self._leave(attempt)
            return
        self._fail(attempt, message)
        if (failed := self._failed(attempt.trial)) <= MOST_RETRIES:
            ask_again(self.study, attempt.trial, attempt.trial.params, failed)
        elif attempt.trial.user_attrs.get("default") and json.dumps(attempt.trial.params) in self._unmeasured:
            self._give_up("the configuration as it stands, which all others are held against, failed", message)
            self.invalid = True
        if len(self._unmeasured) >= MISHAPS:
            self._give_up(f"{len(self._unmeasured)} configurations in a row failed without a score, the last", message)

    def _give_up(self, what: str, message: str) -> None:
        """End the search; of the trials that failed without a score none is lost."""
        self.trouble = f"{what} with: {message}; put that right and run the same command again to go on"
        for trial in self._unmeasured.values():
            if self._failed(trial) > MOST_RETRIES:
                ask_again(self.study, trial, trial.params, 0)
        self._unmeasured.clear()

    def _failed(self, trial: Trial) -> int:
        """How often a trial that failed has failed by now."""
        return int(trial.user_attrs.get("attempts", 0)) + 1

    def _fail(self, attempt: Attempt, message: str) -> None:
        attempt.trial.set_user_attr("message", message)
        attempt.open = False
        self._say(f"trial {attempt.number} failed: {message}")
        self.study.tell(attempt.trial, state=TrialState.FAIL)

    def _arrived(self, cell: Cell, status: CellStatus, until: int) -> bool:
        """Whether a cell is as far as ``until``: it is over, or it paused behind the evaluation there."""
        paused = status.state == "preempted" and until < cell.budget.env_steps
        return status.state in FINAL or (paused and self._score(cell, status, until) is not None)

    def _score(self, cell: Cell, status: CellStatus, until: int) -> float | None:
        """What a cell adds to its trial: its score at ``until``, or the worst value, 0, where it diverged."""
        if status.state == "diverged":
            return 0.0
        score = self._score_at(cell, status, until)
        return None if score is None else max(0.0, score)  # a score below 0 would make divergence worth while

    def _score_at(self, cell: Cell, status: CellStatus, until: int) -> float | None:
        if until >= cell.budget.env_steps:
            return status.last_score
        rows = [row for row in CellFolder(self.folder / cell.id).evaluations.rows() if row["env_step"] >= until]
        scores: dict[str, list[float]] = {}
        for row in rows:
            if row["env_step"] == rows[0]["env_step"]:
                scores.setdefault(row["task"], []).append(row["score"])
        return normalised_score(cell.tasks, scores)

    def _tell(self, attempt: Attempt, stage: Stage, *, last: bool) -> None:
        """Report to the pruner, and tell the trial's end where the pruner or its last stage brings it."""
        trial, settings = attempt.trial, self.problem.settings
        if settings.pruner == "wilcoxon":
            for place in stage.cells:
                trial.report(attempt.scores[place], place)
        elif settings.pruner != "none":
            trial.report(attempt.score, settings.reduction_factor**stage.number)
        # What every other trial is held against is measured whole.
        prunable = settings.pruner != "none" and not last and not trial.user_attrs.get("default")
        pruned = prunable and trial.should_prune()
        if not last and not pruned:
            return
        trial.set_user_attr("diverged", len(attempt.diverged))
        trial.set_user_attr("scores", [attempt.scores.get(place) for place in range(len(attempt.cells))])
        if pruned:
            trial.set_user_attr("pruned", stage.until)
        trial.set_user_attr("valid", not pruned and len(attempt.diverged) < len(attempt.cells))
        attempt.open = False
        self._say(f"trial {attempt.number}: score {attempt.score:.4f}" + (", ended early" if pruned else ""))
        if pruned and settings.pruner != "wilcoxon":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            # of a trial that Wilcoxon's test ended, the mean so far is the best guess (as Optuna advises)
            self.study.tell(trial, [attempt.score, *self._compute(attempt)])

    def _compute(self, attempt: Attempt) -> list[float]:
        """The second objective: what the trial took, a diverged cell as if it had gone on to its end."""
        return [
            sum(needed(CellFolder(self.folder / cell.id), objective) for cell in attempt.cells)
            for objective in self.problem.settings.objectives[1:]
        ]


def _alike(trial: Trial, other: FrozenTrial) -> bool:
    """Whether two trials have the same cells, or, where they could not begin, the same values."""
    cells, others = trial.user_attrs.get("cells"), other.user_attrs.get("cells")
    return cells == others and (cells is not None or trial.params == other.params)

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.frame import load
from analysis.report.methods import paragraph
from analysis.report.study import render
from analysis.summary import summarise
from analysis.tidy import from_frame
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import RETURN, SUCCESS, Synthetic


def of(root: Path, **changes: object) -> str:
    return paragraph(summarise(load(Synthetic(root, **changes).write())))  # type: ignore[arg-type]


def test_the_paragraph_says_what_was_done(tmp_path: Path) -> None:
    text = of(tmp_path)
    assert text.startswith(
        "We compare m3po, ppo and dreamerv3 on 2 tasks of the suite quick (version 1), one agent per task, with 3 runs "
        "per agent and task. Each run takes 10,000 environment steps"
    )
    assert "score 5 episodes per task, and final scores are those at 10,000 steps." in text
    assert (
        "Under protocol dmc-1000 a score is the undiscounted return of episodes of 500 decisions and an action repeat "
        "of 2, normalised so that 0 is 0 and 1000 is 1." in text
    )
    assert "Under protocol metaworld-v3 a score is success at any step" in text
    assert "stratified by task" in text


def test_a_joint_study_with_one_task_held_out_says_so(tmp_path: Path) -> None:
    text = of(tmp_path, mode="joint", tasks=[("a", RETURN)], held_out=[("b", RETURN)], seeds=(0,))
    assert "on 1 task of the suite quick (version 1), one agent for all of them, with 1 run per agent." in text
    assert "5 episodes per task and 1 held-out task" in text
    assert "Here a score is" in text
    assert "2,000 resamples, of whole runs," in text


def test_a_joint_run_that_diverged_is_one_run(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, mode="joint", tasks=[("a", RETURN), ("b", RETURN)])
    study.write()
    study.write_cell(study.cells[0], state="diverged", last=5_000)
    text = paragraph(summarise(load(study.folder)))
    assert "1 diverged run counts as 0 from the divergence on." in text


def test_a_table_says_nothing_of_training_and_evaluation(draw_only: DrawOnly) -> None:
    draw_only()
    rows = [
        {"agent": a, "task": "t", "seed": seed, "env_step": step, "score": step + seed}
        for a in ("a", "b")
        for seed in range(2)
        for step in (0, 100)
    ]
    summary = summarise(from_frame(pd.DataFrame(rows), bounds=(0, 200), name="mine"))
    page = render(summary)["report.md"].decode()
    assert (
        "on 1 task of the table mine, one agent per task, with 2 runs per agent and task. Final scores are those at "
        "100 steps. Here a score is" in page
    )
    for claim in ("Each run takes", "repeated actions", "episode", "apart from training", "fixed by the suite",
                  "per cell |", "one way of evaluation", "tasks of the suite", "| Suite"):  # fmt: skip
        assert claim not in page, claim
    assert "with the bounds that were given with the table" in page


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, tasks=[("reach-v3", SUCCESS)])
    study.write()
    for cell in study.cells:
        (study.folder / cell["id"] / "evaluations.jsonl").unlink()
    text = paragraph(summarise(load(study.folder)))
    assert "no run yet" in text
    assert "diverged" not in text

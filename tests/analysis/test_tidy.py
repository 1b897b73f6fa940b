from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.report.study import document, render, write_summary
from analysis.study import ResultsError
from analysis.summary import summarise
from analysis.tidy import from_frame, read_csv

ROOT = Path(__file__).parents[2]


def table(**columns: object) -> pd.DataFrame:
    """Two agents, two tasks, three seeds, two evaluations: the score is 100·seed + env_step + 50 for the first."""
    rows = [
        {
            "agent": agent,
            "task": task,
            "seed": seed,
            "env_step": step,
            "score": 100.0 * seed + step + 50 * (agent == "a"),
        }
        for agent in ("a", "b")
        for task in ("t", "u")
        for seed in range(3)
        for step in (0, 100)
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_every_score_is_where_its_agent_task_seed_and_step_say() -> None:
    summary = summarise(from_frame(table().sample(frac=1, random_state=0), bounds=(0, 1000)))
    scores = summary.scores["a"]
    assert scores.seeds == (0, 1, 2)
    assert scores.steps.tolist() == [0, 100]
    # by hand: (100·seed + 100 + 50) / 1000 at the end, 0.1 less at the start, on both tasks
    np.testing.assert_allclose(scores.final, [[0.15] * 2, [0.25] * 2, [0.35] * 2])
    np.testing.assert_allclose(scores.curves[:, 0], [[0.05, 0.15], [0.15, 0.25], [0.25, 0.35]])
    assert not summary.notes


def test_the_rows_of_one_evaluation_are_its_episodes() -> None:
    episodes = pd.concat([table(), table().assign(score=lambda f: f["score"] + 20)])
    results = from_frame(episodes, bounds=(0, 1000))
    assert results.study.episodes == 2
    np.testing.assert_allclose(summarise(results).scores["b"].final[0], [0.11, 0.11])  # means of 100 and 120


def test_bounds_may_differ_from_task_to_task() -> None:
    frame = table(low=0.0, high=1000.0)
    frame.loc[frame["task"] == "u", ["low", "high"]] = 100.0, 600.0
    scores = summarise(from_frame(frame)).scores["a"]
    np.testing.assert_allclose(scores.final[0], [0.15, 0.1])  # 150 of 0 to 1000; of 100 to 600


def test_final_scores_need_no_steps() -> None:
    final = table().query("env_step == 100").drop(columns="env_step")
    summary = summarise(from_frame(final, bounds=(0, 1000)))
    assert summary.aggregates["a"]["mean"].estimate == pytest.approx(0.25)
    assert not summary.speedups
    assert "as given, without environment steps" in render(summary)["report.md"].decode()


def test_whole_runs_are_drawn_where_one_agent_has_all_tasks() -> None:
    """In run r task t has r and task u has 2 − r, so that whole runs all have the mean 1: no width at all."""
    frame = pd.DataFrame(
        [{"agent": "a", "task": t, "seed": r, "score": s} for r in range(3) for t, s in (("t", r), ("u", 2 - r))]
    )
    joint = summarise(from_frame(frame, bounds=(0, 2), joint=True)).aggregates["a"]["mean"]
    apart = summarise(from_frame(frame, bounds=(0, 2))).aggregates["a"]["mean"]
    assert joint.low == joint.high == pytest.approx(0.5)
    assert apart.low is not None
    assert apart.low < 0.4


def test_seconds_and_updates_let_scores_be_drawn_against_them() -> None:
    frame = table(seconds=lambda f: f["env_step"] * 2.0, updates=lambda f: f["env_step"] / 4)
    assert set(summarise(from_frame(frame, bounds=(0, 1000))).other_axes) == {"seconds", "updates"}


def test_a_run_that_is_not_in_the_table_is_named() -> None:
    frame = table()
    frame = frame[(frame["agent"] != "b") | (frame["task"] != "u") | (frame["seed"] != 1)]
    summary = summarise(from_frame(frame, bounds=(0, 1000)))
    assert [item["cell"] for item in document(summary)["missing"]] == ["u.b.s1"]
    assert np.isnan(summary.scores["b"].final).sum() == 1


def test_agents_need_not_share_their_seeds() -> None:
    """Seeds of a table from elsewhere are only names of runs."""
    frame = table()
    frame.loc[frame["agent"] == "b", "seed"] += 10
    assert not document(summarise(from_frame(frame, bounds=(0, 1000))))["missing"]


def test_a_file_is_named_after_itself_and_its_columns_as_other_tools_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv.gz"
    table().rename(columns={"agent": "algorithm", "env_step": "global_step", "task": "env_id"}).to_csv(path)
    results = read_csv(path, bounds=(0, 1000))
    assert results.study.suite == "mine"
    page = write_summary(summarise(results), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["suite"] == "mine"
    assert "mine" in page.read_text()


def test_an_agent_called_by_a_number_keeps_its_name(tmp_path: Path) -> None:
    table(agent="007").to_csv(tmp_path / "t.csv")
    assert read_csv(tmp_path / "t.csv", bounds=(0, 1)).study.agents == ("007",)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().drop(columns="seed"), "expected one column 'seed', found agent, task, env_step, score"),
        (table().drop(columns="score"), "expected a column score or return or"),
        (table(seed=0.5), "'seed' in row 1 is 0.5, expected a finite whole number from 0"),
        (table(score=["x"] + [1.0] * 23), "'score' in row 1 is x, expected a finite number"),
        (table(score=[1.0] * 23 + [np.inf]), "'score' in row 24 is inf, expected a finite number"),
        (table(agent=["a", None] * 12), "'agent' is empty in row 2"),
        (table(seconds=["soon"] * 24), "'seconds' in row 1 is soon, expected a finite number"),
        (table(suite=["x", "y"] * 12), "holds several suites (x, y); keep the rows of one"),
        (table().iloc[:0], "holds no row"),
    ],
)
def test_what_is_wrong_is_said(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ResultsError, match=re.escape(message)):
        from_frame(frame, bounds=(0, 1000))


def test_bounds_must_be_known_fixed_and_in_order() -> None:
    with pytest.raises(ResultsError, match="normalised to 0 and to 1 is missing"):
        from_frame(table())
    with pytest.raises(ResultsError, match="low 1 of task 't' is not below high 1"):
        from_frame(table(), bounds=(1, 1))
    with pytest.raises(ResultsError, match="task 't' has several bounds"):
        from_frame(table(low=0, high=range(1, 25)))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n3,"4\n5'])
def test_a_file_that_is_no_table_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ResultsError, match=r"bad\.csv: (is no table|expected one column)"):
        read_csv(tmp_path / "bad.csv", bounds=(0, 1))


def test_the_documented_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "analysis.md").read_text(), re.DOTALL):
        exec(block, names)  # our own page
    shown = capsys.readouterr().out
    # by hand: returns 0.9 · 1000 + 30 · seed, clipped nowhere: IQM over seeds 0 to 4 and two equal tasks is 0.96
    assert "IQM 0.96" in shown
    # by hand: theirs ends at 600 + 60 = 660; mine has 9 per 1000 steps + 60, so 660 after 66,667 of 100,000 steps
    assert "mine reaches theirs's 0.66 with 1.50x fewer steps" in shown
    assert (tmp_path / "mine-report" / "report.html").is_file()

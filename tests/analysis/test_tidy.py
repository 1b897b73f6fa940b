from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.frame import load
from analysis.report import efficiency_tables
from analysis.report.headline import speedup_sentences
from analysis.report.study import document, render, write_summary
from analysis.study import ResultsError
from analysis.summary import summarise
from analysis.tidy import beside, from_frame, read_csv
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import SUCCESS, Synthetic

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


def test_runs_that_end_a_few_steps_apart_are_scored_where_their_curves_are() -> None:
    """Not at the evaluation before, which may be the one before training."""
    frame = table()
    frame["env_step"] += (frame["env_step"] > 0) * frame["seed"]  # seeds end at 100, 101 and 102
    summary = summarise(from_frame(frame, bounds=(0, 1000)))
    scores = summary.scores["b"]
    np.testing.assert_allclose(scores.final, scores.curves[..., -1])
    np.testing.assert_allclose(scores.final[:, 0], [0.1, 0.2, 0.3], atol=0.002)
    assert any("the least of them is scored, on the straight line" in note for note in summary.notes)


def test_bounds_may_differ_from_task_to_task() -> None:
    frame = table(low=0.0, high=1000.0)
    frame.loc[frame["task"] == "u", ["low", "high"]] = 100.0, 600.0
    scores = summarise(from_frame(frame)).scores["a"]
    np.testing.assert_allclose(scores.final[0], [0.15, 0.1])  # 150 of 0 to 1000; of 100 to 600


def test_final_scores_need_no_steps(draw_only: DrawOnly) -> None:
    draw_only()
    final = table().query("env_step == 100").drop(columns="env_step")
    summary = summarise(from_frame(final, bounds=(0, 1000)))
    assert summary.aggregates["a"]["mean"].estimate == pytest.approx(0.25)
    assert not summary.speedups
    assert not summary.curves
    assert not summary.task_curves
    report = render(summary)["report.md"].decode()
    assert "Sample efficiency" not in report
    assert "against environment steps" not in report
    assert "as given, without environment steps" in report
    assert report.splitlines()[0] == f"# {summary.results.study.suite}", "a table has no version"


def test_points_of_a_curve_without_their_steps_are_told() -> None:
    """A column of another name is not read, and a mean over training would pass for a final score."""
    notes = summarise(from_frame(table().rename(columns={"env_step": "frame"}), bounds=(0, 1000))).notes
    assert notes[0].startswith("The table has no column env_step: up to 2 rows of a run were taken for episodes")
    named = from_frame(table().rename(columns={"env_step": "total_timesteps"}), bounds=(0, 1000))
    assert named.study.env_steps == 100


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


@pytest.mark.parametrize(("best", "number", "step"), [(0.5, 101, 0.01), (1.5, 151, 0.01), (599.8, 1001, 0.6)])
def test_profiles_have_about_a_thousand_thresholds_at_most(best: float, number: int, step: float) -> None:
    """As where returns are read as if they were normalised."""
    rows = [{"agent": "a", "task": "t", "seed": seed, "score": best} for seed in range(2)]
    thresholds = summarise(from_frame(pd.DataFrame(rows), bounds=(0, 1))).thresholds
    np.testing.assert_allclose(thresholds, np.arange(number) * step, atol=1e-9)
    assert thresholds[-1] >= best


def uneven() -> pd.DataFrame:
    """Task t is trained for 100 steps and u for 1000; a gains 0.9 a step, b 0.6; seeds are 3 apart."""
    rows = [
        {"agent": agent, "task": task, "seed": seed, "env_step": step, "score": gain * step + 3 * seed}
        for agent, gain in (("a", 0.9), ("b", 0.6))
        for task, last in (("t", 100), ("u", 1000))
        for seed in range(3)
        for step in range(0, last + 1, last // 10)
    ]
    return pd.DataFrame(rows)


def test_each_task_goes_on_to_its_own_end() -> None:
    summary = summarise(from_frame(uneven(), bounds=(0, 1000)))
    ends = {(item.agent, item.task.name): (item.steps[-1], item.band.estimate[-1]) for item in summary.task_curves}
    # by hand: 0.6 · 1000 + 3, the mean of three seeds, and the same for the rest
    assert ends["b", "u"] == (1000, pytest.approx(603))
    assert ends["b", "t"] == (100, pytest.approx(63))
    found = {s.task: s for s in summary.speedups if (s.agent, s.reference) == ("a", "b")}
    assert found["u"].target == pytest.approx(0.603)
    assert found["u"].ratio == pytest.approx(1.5)  # a has 603 after 600 / 0.9 of 1000 steps
    assert found["u"].cut_at is None


def test_what_no_task_but_one_has_is_not_called_final() -> None:
    summary = summarise(from_frame(uneven(), bounds=(0, 1000)))
    overall = next(s for s in summary.speedups if (s.task, s.agent) == (None, "a"))
    assert overall.cut_at == 100
    (sentence,) = speedup_sentences(summary).values()
    # by hand: at 100 steps both tasks of b have 60 + 3 · seed, whose IQM over six runs is 63 of 1000
    assert sentence.startswith("a reaches b's IQM 0.06 at 100 steps with 1.5×")
    assert (
        "Curves of all tasks together end at 100 environment steps for a, b, the last that every task has; areas, "
        "ratios and steps to a score of all tasks go no further." in summary.notes
    )
    shown = efficiency_tables.efficiency(summary)
    assert shown.header[2] == "a's 0.093 at 100"
    assert "final" not in shown.caption
    even = summarise(from_frame(uneven().query("env_step <= 100"), bounds=(0, 1000)))
    assert {s.cut_at for s in even.speedups} == {None}
    assert "final IQM" in next(iter(speedup_sentences(even).values()))


def noisy(agent: str, seeds: range, generator: int) -> pd.DataFrame:
    rng = np.random.default_rng(generator)
    rows = [(agent, task, seed, step) for task in ("t", "u", "v") for seed in seeds for step in (0, 50, 100)]
    frame = pd.DataFrame(rows, columns=["agent", "task", "seed", "env_step"])
    return frame.assign(score=rng.normal(500, 100, len(frame)) + 3 * frame["env_step"])


@pytest.mark.parametrize("joint", [False, True])
def test_an_agent_that_joins_with_more_seeds_changes_no_other_number(joint: bool) -> None:
    two = pd.concat([noisy("a", range(5), 0), noisy("b", range(5), 1)])
    before, after = (
        summarise(from_frame(frame, bounds=(0, 1000), joint=joint))
        for frame in (two, pd.concat([noisy("c", range(8), 2), two]))
    )
    assert {item.value for item in before.improvements} <= {item.value for item in after.improvements}
    for agent in before.agents:
        assert after.aggregates[agent] == before.aggregates[agent]
        assert after.predictions[agent] == before.predictions[agent]
        np.testing.assert_array_equal(after.curves[agent].estimate, before.curves[agent].estimate)
        np.testing.assert_array_equal(after.curves[agent].samples, before.curves[agent].samples)
    assert set(before.task_scores) <= set(after.task_scores)
    assert set(before.breadth) <= set(after.breadth)
    assert set(before.speedups) <= set(after.speedups)


def test_runs_of_other_seeds_have_nothing_in_common() -> None:
    """By hand: five runs of a from 0 to 0.4, and the same of b; runs 0 to 4 of both drawn together always tie."""
    rows = [{"agent": agent, "task": "t", "seed": s, "score": s} for agent in ("a", "b") for s in range(5)]
    frame = pd.DataFrame(rows)
    together = summarise(from_frame(frame, bounds=(0, 10))).improvements[0].value
    assert (together.low, together.estimate, together.high) == (0.5, 0.5, 0.5)
    frame.loc[frame["agent"] == "b", "seed"] += 10
    apart = summarise(from_frame(frame, bounds=(0, 10))).improvements[0].value
    assert apart.low is not None
    assert apart.high is not None
    # each of the two means of five runs has a spread of √(2/5) runs: an interval is far from a point
    assert apart.low < 0.2
    assert apart.high > 0.8


def test_a_file_is_named_after_itself_and_its_columns_as_other_tools_do(tmp_path: Path, draw_only: DrawOnly) -> None:
    draw_only()
    path = tmp_path / "mine.csv.gz"
    table().rename(columns={"agent": "algorithm", "env_step": "global_step", "task": "env_id"}).to_csv(path)
    results = read_csv(path, bounds=(0, 1000))
    assert results.study.suite == "mine"
    page = write_summary(summarise(results), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["suite"] == "mine"
    assert "mine" in page.read_text()


@pytest.mark.parametrize("name", ["007", "None", "NA", "nan", "null"])
def test_a_name_that_looks_like_something_else_stays_a_name(tmp_path: Path, name: str) -> None:
    table(agent=name, task=name).rename(columns={"task": "env"}).to_csv(tmp_path / "t.csv")
    study = read_csv(tmp_path / "t.csv", bounds=(0, 1)).study
    assert (study.agents, study.tasks[0].name) == ((name,), name)


def test_a_name_that_is_not_there_is_told(tmp_path: Path) -> None:
    table(agent=["a", ""] * 12).to_csv(tmp_path / "t.csv")
    with pytest.raises(ResultsError, match="'agent' is empty in row 2"):
        read_csv(tmp_path / "t.csv", bounds=(0, 1))


@pytest.mark.parametrize("other", ["global_step", "steps"])
def test_two_columns_that_mean_the_same_are_refused(tmp_path: Path, other: str) -> None:
    frame = table().rename(columns={"env_step": "step"})
    frame.assign(**{other: frame["step"]}).to_csv(tmp_path / "t.csv", index=False)
    message = f"expected one column 'env_step', found agent, task, seed, step, score, {other}"
    with pytest.raises(ResultsError, match=message):
        read_csv(tmp_path / "t.csv", bounds=(0, 1))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().drop(columns="seed"), "expected one column 'seed', found agent, task, env_step, score"),
        (table().drop(columns="score"), "expected a column score or return or"),
        (table(seed=0.5), "'seed' in row 1 is 0.5, expected a finite whole number from 0"),
        # as a float it is 2⁵³, the seed before it
        (
            table(seed=2**53 + 1),
            "'seed' in row 1 is 9007199254740993, expected a finite whole number from 0 and below 2⁵³",
        ),
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], draw_only: DrawOnly
) -> None:
    draw_only()
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "analysis.md").read_text(), re.DOTALL):
        exec(block, names)  # our own page
    shown = capsys.readouterr().out
    # by hand: returns 0.9 · 1000 + 30 · seed, clipped nowhere: IQM over seeds 0 to 4 and two equal tasks is 0.96
    assert "IQM 0.96" in shown
    # by hand: theirs ends at 600 + 60 = 660; mine has 9 per 1000 steps + 60, so 660 after 66,667 of 100,000 steps
    assert re.findall(r".* reaches .*", shown) == ["mine reaches theirs's 0.66 with 1.50x fewer steps"]
    assert (tmp_path / "mine-report" / "report.html").is_file()


def elsewhere() -> pd.DataFrame:
    """Two runs on the tasks of the synthetic study, of 10,000 steps, that go on to 12,000."""
    steps = np.arange(0, 12_001, 4_000)
    cartpole = pd.DataFrame({"task": "cartpole-swingup", "return": 0.05 * steps, "global_step": steps})
    reach = pd.DataFrame({"task": "reach-v3", "success_any": steps / 16_000, "global_step": steps})
    both = pd.concat([cartpole, reach])
    return pd.concat([both.assign(agent="mine", seed=seed) for seed in (0, 7)], ignore_index=True)


def test_agents_from_elsewhere_stand_beside_those_of_a_study(study: Synthetic, draw_only: DrawOnly) -> None:
    draw_only("aggregates")
    alone = summarise(load(study.folder))
    both = summarise(beside(load(study.folder), elsewhere(), where="somewhere/theirs.csv"))
    assert both.agents == (*alone.agents, "mine")
    for agent in alone.agents:
        np.testing.assert_array_equal(both.scores[agent].final, alone.scores[agent].final)
    mine = both.scores["mine"]
    # by hand: at 10,000 steps a return of 500 of 1000, and success in 10/16 of the episodes
    np.testing.assert_allclose(mine.final, [[0.5, 0.625]] * 2)
    assert (mine.seeds, set(mine.final_steps.values())) == ((0, 7), {10_000})
    assert mine.steps.tolist() == [0, 4_000, 8_000, 10_000]
    assert {pair.x for pair in both.improvements} == {*alone.agents, "mine"}
    assert any(note.startswith("mine is from theirs.csv: that it was measured as") for note in both.notes)
    report = render(both)["report.md"].decode()
    assert "Configuration, training and evaluation of mine are not known." in report
    assert "Scores of mine are those of theirs.csv." in report


def test_the_column_of_scores_beside_a_study_may_be_named(study: Synthetic) -> None:
    frame = elsewhere().drop(columns=["return", "success_any"]).assign(won=0.25)
    found = beside(load(study.folder), frame, score="won")
    np.testing.assert_allclose(summarise(found).scores["mine"].final, [[0.25 / 1000, 0.25]] * 2)


def test_held_out_tasks_count_beside_a_joint_study(tmp_path: Path) -> None:
    held = Synthetic(tmp_path, mode="joint", held_out=[("door-open-v3", SUCCESS)])
    held.write()
    frame = elsewhere()
    frame = pd.concat([frame, frame[frame["task"] == "reach-v3"].assign(task="door-open-v3")], ignore_index=True)
    summary = summarise(beside(load(held.folder), frame))
    assert len({cell.id for cell in summary.results.cells if cell.agent == "mine"}) == 2
    assert "mine" in {gap.agent for gap in summary.generalisation}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda frame: frame.replace("reach-v3", "raech-v3"),
            "quick has no task 'raech-v3'; expected one of cartpole-",
        ),
        (lambda frame: frame.replace("mine", "ppo"), "quick has an agent 'ppo' too; give that of the table another"),
        (lambda frame: frame.drop(columns="return"), "expected a column return or score with the scores of cartpole-"),
        (lambda frame: frame.drop(columns="seed"), "expected one column 'seed'"),
        (lambda frame: frame.assign(success_any="often"), "'score' in row 5 is often, expected a finite number"),
    ],
)
def test_a_table_that_does_not_fit_beside_a_study_is_refused(study: Synthetic, change: Any, sentence: str) -> None:
    with pytest.raises(ResultsError) as error:
        beside(load(study.folder), change(elsewhere()), where="mine.csv")
    assert str(error.value).startswith("mine.csv: ")
    assert sentence in str(error.value)


def test_nothing_stands_beside_a_sweep(study: Synthetic) -> None:
    points = [{"agent": agent, "base": "m3po", "value": value} for value, agent in enumerate(study.agents)]
    study.write_study(sweep={"key": "rate", "points": points})
    with pytest.raises(ResultsError, match="cannot stand beside quick, whose agents are those of a sweep"):
        beside(load(study.folder), elsewhere())

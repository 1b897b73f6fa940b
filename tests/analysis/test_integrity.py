"""Everything missing, uneven or mixed is told in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from analysis.frame import load
from analysis.integrity import checks, missing, notes
from analysis.report import tables
from analysis.report.study import write
from analysis.scores import agent_scores
from analysis.summary import summarise
from tests.analysis.conftest import DrawOnly
from tests.analysis.synthetic import SUCCESS, Synthetic

PPO = "cartpole-swingup.ppo.s{}.1a2b3c4d"


def change(study: Synthetic, identifier: str, **changes: Any) -> None:
    study.write_cell(next(cell for cell in study.cells if cell["id"] == identifier), **changes)


def told(study: Synthetic) -> list[str]:
    results = load(study.folder)
    found = {agent: agent_scores(results, agent) for agent in results.study.agents}
    return notes(results, {agent: of for agent, of in found.items() if of.num_tasks})


def test_a_complete_study_has_no_notes(study: Synthetic) -> None:
    assert told(study) == []


def test_states_are_counted_and_named(study: Synthetic) -> None:
    change(study, PPO.format(0), state="failed")
    change(study, PPO.format(1), state="diverged", last=5_000)
    assert told(study) == [
        f"1 cell of 18 diverged and counted as 0 from there on: {PPO.format(1)}.",
        f"1 cell of 18 failed and counted as missing: {PPO.format(0)}.",
        "Tasks differ in their number of runs: ppo 2 to 3.",
    ]


def test_seconds_of_different_machines_are_told(study: Synthetic) -> None:
    change(study, PPO.format(0), provenance={"commit": "c0ffee", "cpu": "Babbage", "cores": 4, "device": "cpu"})
    assert told(study) == [
        "Seconds of training are of different machines and not to be compared: Abacus, 2 cores, trained on cpu; "
        "Babbage, 4 cores, trained on cpu."
    ]


def test_a_single_run_is_told(study: Synthetic) -> None:
    study.suite, study.seeds = "single", [3]
    study.write()
    assert told(study) == ["No intervals for m3po, ppo, dreamerv3: with a single run of a task there is none."]


def test_a_task_with_a_single_run_beside_others_with_more_is_told(study: Synthetic) -> None:
    for seed in (0, 1):
        shutil.rmtree(study.folder / PPO.format(seed))
    found = told(study)
    assert "No intervals over all tasks for ppo: with a single run of a task there is none." in found
    summary = summarise(load(study.folder))
    rows = {row[0]: row for row in tables.aggregates(summary).rows}
    assert rows["ppo"][1].endswith(" (no interval)")
    column = tables.per_task(summary).header.index("ppo")
    cells = {row[0]: row[column] for row in tables.per_task(summary).rows}
    assert cells["cartpole-swingup"].endswith(" (n = 1, no interval)")
    assert cells["reach-v3"].endswith("] (n = 3)")


def test_an_agent_without_a_task_is_not_compared(study: Synthetic) -> None:
    for seed in study.seeds:
        shutil.rmtree(study.folder / PPO.format(seed))
    expected = "ppo has no score on cartpole-swingup: its aggregates cover 1 of 2 tasks"
    assert any(expected in note for note in told(study))


def test_unequal_last_steps_are_told(study: Synthetic) -> None:
    for cell in study.cells:
        if cell["agent"] == "ppo":
            study.write_cell(cell, last=8_000 if cell["seed"] else 9_000)
    assert told(study) == [
        "Agents are scored at different environment steps: ppo at 8,000; m3po, dreamerv3 at 10,000.",
        "Finished runs of ppo end at different steps; the least of them is scored.",
    ]


def test_tasks_of_one_agent_scored_at_different_steps_are_told(study: Synthetic) -> None:
    """As while a study runs: of a task without a finished run, what was reached is scored."""
    for cell in study.cells:
        if cell["agent"] == "ppo" and cell["id"].startswith("cartpole"):
            change(study, cell["id"], state="running", last=4_000)
    notes = told(study)
    sentence = "Agents are scored at different environment steps: m3po, dreamerv3 at 10,000; ppo at 4,000 to 10,000."
    assert sentence in notes, notes


def test_mixtures_are_named(study: Synthetic) -> None:
    change(study, PPO.format(0), config={"lr": 1.0}, provenance={"commit": "deadbeef", "dirty": True, "source": "ab12"})
    change(study, PPO.format(1), budget={"env_steps": 5})
    change(study, PPO.format(2), evaluation={"every": 1, "episodes": 3})
    assert told(study) == [
        "Cells of ppo were made with different configurations.",
        "Some cells were made for another budget (5) than the study's 10,000 steps.",
        "Some cells were evaluated with 3 episodes, the study asks for 5.",
        "The cells were made by 2 versions of the code: c0ffee, deadbeef with changes (source ab12).",
    ]


def test_a_cell_that_another_version_went_on_with_is_told(study: Synthetic) -> None:
    """What planned it says nothing of who did the work."""
    starts = [(0, "c0ffee", "2.12.0"), (4_000, "deadbeef", "2.13.0")]
    rows = [
        {"env_step": at, "commit": commit, "dirty": False, "packages": {"torch": torch, "numpy": "2.3.5"}}
        for at, commit, torch in starts
    ]
    (study.folder / PPO.format(0) / "starts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert told(study) == [
        "The cells were made by 2 versions of the code: c0ffee, deadbeef.",
        "The cells were made with 2 versions of torch: 2.12.0, 2.13.0.",
    ]
    found = {check.sentence: check.passed for check in checks(load(study.folder), {}, [])}
    assert found["2 versions of the code."] is False
    assert found["The cells were made with 2 versions of torch: 2.12.0, 2.13.0."] is False


def test_two_spellings_of_a_package_are_one(study: Synthetic) -> None:
    rows = [
        {"env_step": 0, "packages": {name: version}} for name, version in (("dm_control", "1"), ("dm-control", "2"))
    ]
    (study.folder / PPO.format(0) / "starts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "The cells were made with 2 versions of dm-control: 1, 2." in told(study)


def test_cells_made_by_two_forms_of_an_agents_code_are_told(study: Synthetic, draw_only: DrawOnly) -> None:
    """A researcher's own agent changes more often than its version."""
    draw_only()
    for seed, source in enumerate(("ab12", "cd34")):
        code = {"package": "my-agents", "version": "1.0", "source": source}
        row = {"env_step": 0, "commit": "c0ffee", "dirty": False, "agent": code}
        (study.folder / PPO.format(seed) / "starts.jsonl").write_text(json.dumps(row) + "\n")
    both = "my-agents 1.0 (source ab12)", "my-agents 1.0 (source cd34)"
    sentence = f"The cells of ppo were made by 2 versions of its code: {both[0]}, {both[1]}."
    assert told(study) == [sentence]
    assert sentence in failed(study)
    page = (write(study.folder).parent / "report.md").read_text()
    assert f"| Agents of other packages | ppo: {both[0]}; ppo: {both[1]} |" in page
    assert f"ppo is that of {both[0]}." in page


def test_what_planned_a_cell_is_not_taken_for_what_made_it(study: Synthetic, draw_only: DrawOnly) -> None:
    draw_only()
    for cell in study.cells[:2]:
        (study.folder / cell["id"] / "starts.jsonl").unlink()
    sentence = "2 cells planned by commit c0ffee; what did the work was not recorded."
    assert sentence in failed(study)
    page = (write(study.folder).parent / "report.md").read_text()
    assert f"* look: {sentence}" in page
    assert "| Code | commit c0ffee; 2 cells planned by commit c0ffee; what did the work was not recorded |" in page
    # what was planned and never began has no maker
    for cell in study.cells[:2]:
        change(study, cell["id"], state="pending", last=0)
        (study.folder / cell["id"] / "starts.jsonl").unlink()
    assert sentence not in failed(study)


def test_superseded_cells_are_listed(study: Synthetic) -> None:
    shutil.copytree(study.folder / PPO.format(0), study.folder / "old.ppo.s0.00000000")
    assert told(study) == ["1 cell no longer in the suite left out: old.ppo.s0.00000000."]


def test_missing_cells_say_why(study: Synthetic) -> None:
    change(study, PPO.format(0), state="failed")
    change(study, PPO.format(1), state="running", last=4_000)
    shutil.rmtree(study.folder / PPO.format(2))
    results = load(study.folder)
    # Seed 1 is the only run of ppo on cartpole-swingup and is scored where it stands, so it is not missing.
    scores = {agent: agent_scores(results, agent) for agent in results.study.agents}
    assert [(cell.id, why) for cell, why in missing(results, scores)] == [
        (PPO.format(0), "failed"),
        (PPO.format(2), "not started"),
    ]


def failed(study: Synthetic, *damaged: str) -> list[str]:
    results = load(study.folder)
    scores = {agent: agent_scores(results, agent) for agent in results.study.agents}
    return [check.sentence for check in checks(results, scores, damaged) if not check.passed]


def test_a_complete_study_fails_no_check_but_those_it_was_made_to(study: Synthetic) -> None:
    assert failed(study) == [
        "3 runs at least of every agent and task: fewer than 5, so that intervals are wide.",
        "2 protocols or engines, also reported each for itself.",
    ]


def test_five_seeds_of_one_protocol_fail_no_check(tmp_path: Path) -> None:
    study = Synthetic(tmp_path, seeds=range(5), tasks=[("reach-v3", SUCCESS)], starts=True)
    study.write()
    assert failed(study) == []


def test_checks_fail_one_by_one(study: Synthetic) -> None:
    change(study, PPO.format(0), state="diverged", last=5_000)
    change(study, PPO.format(1), state="running", last=5_000)
    change(study, PPO.format(2), suite_version=9)
    found = failed(study, "metrics.jsonl")
    for sentence in ("16 of 18 cells finished.", "1 cell diverged.", "There is a damaged file; see the notes above.",
                     "There is a cell measured by other rules; see the notes above."):  # fmt: skip
        assert sentence in found

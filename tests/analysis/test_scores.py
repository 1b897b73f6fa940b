"""Normalised matrices: missing is never zero, diverged is, and each agent has its own last step."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.frame import load
from analysis.scores import MAX_POINTS, AgentScores, agent_scores
from tests.analysis.synthetic import Synthetic

PPO = "cartpole-swingup.ppo.s{}.1a2b3c4d"


def ramp(agent: str, seed: int, task: str, fraction: float) -> float:
    """A known learning curve: (seed + 1) / 10 at the end, a straight line from 0."""
    return (seed + 1) / 10 * fraction


@pytest.fixture
def known(study: Synthetic) -> Synthetic:
    study.score = ramp
    study.write()
    return study


def scores(study: Synthetic, env_step: int | None = None) -> AgentScores:
    return agent_scores(load(study.folder), "ppo", env_step)


def change(study: Synthetic, seed: int, **changes: object) -> None:
    identifier = PPO.format(seed)
    study.write_cell(next(c for c in study.cells if c["id"] == identifier), **changes)  # type: ignore[arg-type]


def test_normalised_by_the_protocol_alone(known: Synthetic) -> None:
    of = scores(known)
    # dmc returns of 100, 200, 300 out of 1000 and success rates of 0.1, 0.2, 0.3
    np.testing.assert_allclose(of.final, [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]], atol=1e-12)
    assert of.final_steps == {"cartpole-swingup": 10_000, "reach-v3": 10_000}
    np.testing.assert_allclose(of.steps, np.arange(0, 10_001, 1_000))
    np.testing.assert_allclose(of.curves[2, 0], 0.3 * of.steps / 10_000, atol=1e-12)


def test_a_failed_run_is_missing_not_zero(known: Synthetic) -> None:
    change(known, 0, state="failed")
    of = scores(known)
    assert np.isnan(of.final[0, 0])
    assert np.isnan(of.curves[0, 0]).all()
    assert of.runs_per_task.tolist() == [2, 3]


def test_a_running_run_is_missing_until_it_arrives(known: Synthetic) -> None:
    change(known, 0, state="running", last=6_000)
    of = scores(known)
    assert np.isnan(of.final[0, 0])
    assert of.final_steps["cartpole-swingup"] == 10_000
    earlier = scores(known, env_step=6_000)
    np.testing.assert_allclose(earlier.final[:, 0], [0.06, 0.12, 0.18], atol=1e-12)


def test_while_nothing_is_done_all_are_scored_where_the_last_one_stands(known: Synthetic) -> None:
    for seed, last in enumerate((4_000, 6_000, 9_000)):
        change(known, seed, state="running", last=last)
    of = scores(known)
    assert of.final_steps["cartpole-swingup"] == 4_000
    np.testing.assert_allclose(of.final[:, 0], [0.04, 0.08, 0.12], atol=1e-12)


def test_finished_runs_of_unequal_length_are_scored_at_the_least(known: Synthetic) -> None:
    change(known, 2, last=8_000)
    of = scores(known)
    assert of.final_steps == {"cartpole-swingup": 8_000, "reach-v3": 10_000}
    np.testing.assert_allclose(of.final[:, 0], [0.08, 0.16, 0.24], atol=1e-12)
    assert of.steps[-1] == 8_000


def test_a_diverged_run_counts_as_zero_from_there_on(known: Synthetic) -> None:
    change(known, 1, state="diverged", last=5_000)
    of = scores(known)
    np.testing.assert_allclose(of.final[:, 0], [0.1, 0.0, 0.3], atol=1e-12)
    np.testing.assert_allclose(of.curves[1, 0], [0, 0.02, 0.04, 0.06, 0.08, 0, 0, 0, 0, 0, 0], atol=1e-12)


def test_all_diverged_are_scored_at_the_budget(known: Synthetic) -> None:
    for seed in known.seeds:
        change(known, seed, state="diverged", last=3_000)
    of = scores(known)
    assert of.final_steps["cartpole-swingup"] == known.env_steps
    assert of.final[:, 0].tolist() == [0, 0, 0]


def test_an_agent_without_results_has_nothing(known: Synthetic) -> None:
    of = agent_scores(load(known.folder), "nobody")
    assert (of.num_tasks, of.env_step, of.steps.size) == (0, 0, 0)
    assert np.isnan(of.final).all()


def test_joint_runs_fill_all_tasks(known: Synthetic) -> None:
    known.mode, known.suite = "joint", "joint"
    of = agent_scores(load(known.write()), "ppo")
    np.testing.assert_allclose(of.final, [[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]], atol=1e-12)


def test_long_curves_are_thinned_and_keep_their_ends(known: Synthetic) -> None:
    known.suite, known.every, known.agents, known.episodes = "long", 20, ["ppo"], 1
    of = agent_scores(load(known.write()), "ppo")
    assert len(of.steps) == MAX_POINTS
    assert (of.steps[0], of.steps[-1]) == (0, 10_000)


def test_a_task_that_is_behind_does_not_cut_the_others(known: Synthetic) -> None:
    for seed in range(3):
        change(known, seed, state="running", last=1_000)
    of = scores(known)
    assert of.uneven
    assert of.steps.tolist() == [0, 1_000]
    steps, curves = of.task_curves("reach-v3")
    assert steps.tolist() == list(range(0, 10_001, 1_000))
    np.testing.assert_allclose(curves[:, -1], [0.1, 0.2, 0.3], atol=1e-12)
    assert of.task_curves("cartpole-swingup")[0].tolist() == [0, 1_000]


def test_what_was_evaluated_before_training_only_has_no_score(known: Synthetic) -> None:
    change(known, 0, state="running", last=0)
    change(known, 1, state="running", last=4_000)
    change(known, 2, state="preempted", last=6_000)
    of = scores(known)
    assert of.final_steps["cartpole-swingup"] == 4_000  # not 0
    np.testing.assert_allclose(of.final[:, 0], [np.nan, 0.08, 0.12], atol=1e-12)
    for axis in ("updates", "seconds"):
        assert (0, "cartpole-swingup") not in agent_scores(load(known.folder), "ppo", axis=axis).runs
    for seed in range(3):
        change(known, seed, state="running", last=0)
    assert (scores(known).num_tasks, scores(known).steps[-1]) == (1, 10_000)
    assert scores(known, env_step=0).num_tasks == 2  # it is asked for
    change(known, 0, state="done", last=0)
    assert scores(known).num_tasks == 2
    change(known, 0, state="diverged", last=0)
    assert scores(known).final[0, 0] == 0

"""What people look at must mean what its name says, and looking must change nothing (the contract tests that)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from m3po.algorithm import diagnosis
from m3po.algorithm.agent import M3PO
from m3po.algorithm.model import TaskModel, WorldModel
from m3po.kit.nets import last_linear

from .conftest import make_batch, make_spec, tiny
from .test_policy_update import rollout


class KnowsTheFuture(WorldModel):
    """Its dynamics are looked up: what is reached from where."""

    reached: list[Tensor]

    def dynamics(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        return self.reached.pop(0)


def test_a_perfect_model_has_error_0_and_standing_still_has_error_1() -> None:
    spec = make_spec()
    model, batch = KnowsTheFuture(spec, tiny()), make_batch(spec, horizon=4)
    with torch.no_grad():
        model.reached = list(model.encode(batch["next_observation"], batch["task"]))
        start = model.encode(batch["observation"][0], batch["task"][0])
    perfect = diagnosis.latent_errors(model, batch, 2)["model_error"]
    assert perfect.axes == ("task", "horizon")
    np.testing.assert_allclose(perfect.values, np.zeros((2, 4)), atol=1e-9)
    model.reached = [start] * 4
    np.testing.assert_allclose(diagnosis.latent_errors(model, batch, 2)["model_error"].values, np.ones((2, 4)))


def test_steps_behind_the_end_of_an_episode_are_left_out() -> None:
    spec = make_spec(tasks=1)
    model, batch = KnowsTheFuture(spec, tiny()), make_batch(spec, horizon=3, size=2)
    with torch.no_grad():
        reached = list(model.encode(batch["next_observation"], batch["task"]))
    # The first subsequence ends with its second step: its prediction three steps ahead, a wild one, must not count.
    batch["truncated"][1, 0] = True
    model.reached = [*reached[:2], reached[2] + torch.tensor([[100.0], [0.0]])]
    errors = diagnosis.latent_errors(model, batch, 1)["model_error"].values
    np.testing.assert_allclose(errors, np.zeros((1, 3)), atol=1e-9)


def test_an_unseen_task_is_unknown_not_zero() -> None:
    spec = make_spec(tasks=3)
    model, batch = WorldModel(spec, tiny()), make_batch(make_spec(tasks=2))
    assert np.isnan(diagnosis.latent_errors(model, batch, 3)["model_error"].values).all(-1).tolist() == [False] * 2 + [
        True
    ]


def test_values_of_experienced_steps_and_the_share_of_their_bonus() -> None:
    # An untrained model believes 0: Q_MB = 0. V_f = 0, so Q_MF = r: means 1 (task 0) and 3 (task 1), as the gaps.
    spec = make_spec()
    config = tiny(random_prior=0.0)
    model, batch = WorldModel(spec, config), make_batch(spec, horizon=1, size=4)
    task = batch["task"][0]
    bound = TaskModel(model, task, torch.full((4,), 0.9), terminates=False)
    step = {name: rows[0] for name, rows in batch.items()} | {"reward": torch.tensor([0.5, 2.0, 1.5, 4.0])}
    with torch.no_grad():
        latent = model.encode(step["observation"], task)
    shown = diagnosis.experienced_values(bound, latent, step, 0.5, config, 2)
    np.testing.assert_allclose(shown["value_model_based"].values, [0, 0], atol=1e-6)
    np.testing.assert_allclose(shown["value_model_free"].values, [1, 3], atol=1e-6)
    np.testing.assert_allclose(shown["value_gap"].values, [1, 3], atol=1e-6)
    # Of two gaps of a task one is a deviation below the mean and one above: bonuses 0 and 0.5 · 1, beside 1.5 and 4.
    np.testing.assert_allclose(shown["discrepancy_share"].values, [0.5 / 2 / 2, 0.5 / 4.5 / 2], atol=1e-5)


@pytest.mark.parametrize("form", ["none", "advantage"])
def test_a_bonus_that_enters_no_reward_has_no_share_of_it(form: str) -> None:
    spec = make_spec()
    config = tiny(actor_data="fresh", trust_region="clip", discrepancy=form, planner="none", epochs=1)
    agent = M3PO(spec, config, seed=0, device="cpu")
    for transition in rollout(agent, 8):
        agent.observe(transition)
    metrics = agent.update()
    assert (metrics["beta"] > 0, metrics["bonus"] > 0) == (form == "advantage",) * 2
    shown = agent.diagnose()
    assert "value_gap" in shown
    assert "discrepancy_share" not in shown


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_the_discrepancy_moves_weight_only_where_it_has_any(beta: float) -> None:
    spec, config = make_spec(tasks=1), tiny(discrepancy="planning")
    agent = M3PO(spec, config, seed=0, device="cpu")
    with torch.no_grad():
        # So that the critic and the H-step return differ.
        torch.nn.init.normal_(last_linear(agent.model.critics[0]).weight)
    task = torch.zeros(5, dtype=torch.int64)
    bound = TaskModel(agent.model, task, agent.gamma[task], terminates=False)
    latent = torch.rand(5, config.latent)
    noise = torch.randn(1, config.horizon, config.samples, 5, spec.action_dim)
    shown = diagnosis.planning_effects(bound, latent, noise, torch.ones(5), beta, config, 1)
    assert (shown["discrepancy_share"].values > 1e-3).all() == (beta > 0)
    assert (shown["planner_gain"].values > 0).all()


def test_similarity_of_embeddings_is_their_cosine() -> None:
    model = WorldModel(make_spec(), tiny(task_embedding=2))
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    shown = diagnosis.embedding_similarity(model)["embedding_similarity"]
    np.testing.assert_allclose(shown.values, [[1, 0.5**0.5], [0.5**0.5, 1]], atol=1e-6)
    assert diagnosis.embedding_similarity(WorldModel(make_spec(tasks=1), tiny())) == {}

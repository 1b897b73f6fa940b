"""TD-MPC2's planner, on worlds simple enough to know the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.tdmpc2 import planner
from baselines.tdmpc2.config import TDMPC2Config
from baselines.tdmpc2.model import Rows
from baselines.tdmpc2.planner import Imagined, Noise, Plan, draw_heads, gumbel, imagine, plan, value_of

H, A = 3, 2
CONFIG = TDMPC2Config(num_q=2, num_samples=64, num_pi_trajs=4, num_elites=8, iterations=4)


class Line:
    """A latent is a point z ``[..., 1]`` that the first action entry moves; the reward is −(z' − goal)².

    The policy is ``advice`` everywhere, plus its noise times ``spread``. Head m says the value is ``heads[m]``. The
    episode ends beyond ``edge``.
    """

    def __init__(
        self, goal: float = 0.5, advice: float = 0.0, heads: Sequence[float] = (0.0, 0.0), edge: float = 1e9
    ) -> None:
        self.goal, self.advice, self.heads, self.edge = goal, advice, heads, edge

    def next(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
        return z + a[..., :1]

    def reward_logits(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
        return -((self.next(z, a, rows) - self.goal) ** 2)

    def scalar(self, logits: Tensor) -> Tensor:
        return logits.squeeze(-1)

    def sample_action(self, z: Tensor, rows: Rows, noise: Tensor) -> Tensor:
        return (self.advice + 0 * noise) * rows.action_mask

    def q_logits(self, z: Tensor, a: Tensor, rows: Rows, *, heads: Sequence[int]) -> Tensor:
        return torch.stack([torch.full_like(z, self.heads[m]) for m in heads])

    def termination_logit(self, z: Tensor, rows: Rows) -> Tensor:
        return z.squeeze(-1) - self.edge


def rows_of(num_envs: int, gamma: float = 0.9, actions: Sequence[float] = (1.0, 1.0)) -> Rows:
    return Rows(torch.zeros(num_envs, 0), torch.tensor(actions).expand(num_envs, A), torch.full((num_envs,), gamma))


def noise_for(num_envs: int, seed: int = 0, config: TDMPC2Config = CONFIG) -> Noise:
    return Noise.draw(config, num_envs, A, torch.Generator().manual_seed(seed), np.random.default_rng(seed))


def planned(world: Line, latent: Tensor, noise: Noise | None = None, **values: Any) -> Plan:
    num_envs = len(latent)
    given: dict[str, Any] = {
        "rows": rows_of(num_envs),
        "mean": torch.zeros(H, num_envs, A),
        "config": CONFIG,
        "explore": False,
        "terminates": False,
        **values,
    }
    return plan(world, latent, noise=noise or noise_for(num_envs), **given)


def test_imagined_rewards_are_discounted_and_the_rest_by_gamma_to_the_horizon() -> None:
    # Actions 1, 1, 1 from 0 with the goal at 0: rewards −1, −4, −9.
    actions = torch.ones(H, 1, 1, A)
    found = imagine(Line(goal=0.0), torch.zeros(1, 1), rows_of(1), lambda t, z: actions[t], H, terminates=False)
    assert found.rewards.item() == pytest.approx(-1 - 0.9 * 4 - 0.81 * 9)
    assert found.discount.item() == pytest.approx(0.729)
    assert found.latent.item() == 3.0
    assert torch.equal(found.actions, actions)


def test_nothing_counts_behind_the_end_of_an_episode() -> None:
    actions = torch.ones(H, 1, 1, A)
    # z goes 1, 2, 3: the second step ends the episode and still earns its reward.
    world = Line(goal=0.0, edge=1.5)
    found = imagine(world, torch.zeros(1, 1), rows_of(1), lambda t, z: actions[t], H, terminates=True)
    assert found.rewards.item() == pytest.approx(-1 - 0.9 * 4)
    assert found.discount.item() == 0.0
    # Where no termination was ever seen the head was never trained, and is not asked.
    found = imagine(world, torch.zeros(1, 1), rows_of(1), lambda t, z: actions[t], H, terminates=False)
    assert found.discount.item() == pytest.approx(0.729)


def test_value_behind_the_horizon_is_the_mean_of_the_two_heads() -> None:
    imagined = Imagined(torch.zeros(H, 1, 1, A), torch.zeros(1, 1, 1), torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    value = value_of(Line(heads=(9.0, 3.0, 7.0)), rows_of(1), imagined, torch.zeros(1, 1, A), heads=[1, 2])
    # (3 + 7)/2 = 5; the smaller would be 3.
    assert value.item() == pytest.approx(2 + 0.5 * 5)


def test_a_plan_goes_to_the_goal() -> None:
    # The goal is within one step, and staying there is best: 0.5, then 0, then 0.
    found = planned(Line(goal=0.5), torch.zeros(1, 1), config=CONFIG.model_copy(update={"temperature": 50.0}))
    assert found.mean[:, 0, 0].tolist() == pytest.approx([0.5, 0.0, 0.0], abs=0.15)


def test_candidates_of_the_policy_are_considered() -> None:
    # Plans around 0 with a small σ never get near 0.9; the policy's candidates are there.
    config = CONFIG.model_copy(update={"max_std": 0.05, "iterations": 1, "temperature": 50.0})
    found = planned(Line(goal=2.7, advice=0.9), torch.zeros(1, 1), noise_for(1, config=config), config=config)
    assert found.mean[:, 0, 0].tolist() == pytest.approx([0.9] * H, abs=0.01)


def test_no_candidates_of_the_policy_is_a_choice() -> None:
    config = CONFIG.model_copy(update={"num_pi_trajs": 0, "temperature": 50.0})
    found = planned(Line(goal=0.5, advice=0.9), torch.zeros(1, 1), noise_for(1, config=config), config=config)
    assert found.mean[0, 0, 0].item() == pytest.approx(0.5, abs=0.15)


def test_a_plan_begins_around_the_last_one() -> None:
    # All rewards alike: the elites are as good as any, and the mean stays near where it began.
    class Flat(Line):
        def reward_logits(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
            return torch.zeros_like(z + a[..., :1])

    config = CONFIG.model_copy(update={"max_std": 0.05, "num_pi_trajs": 0, "num_elites": 64})
    mean = torch.tensor([0.6, -0.3, 0.1]).view(H, 1, 1).expand(H, 1, A)
    found = planned(Flat(), torch.zeros(1, 1), noise_for(1, config=config), config=config, mean=mean)
    # 4 iterations of 64 samples with σ = 0.05: 0.0125 away, five deviations.
    assert torch.allclose(found.mean, mean, atol=0.0625)


def test_exploring_disturbs_the_chosen_action_by_what_is_left_of_sigma() -> None:
    # So hot that the best elite is all there is: σ falls to its smallest, 0.05.
    config = CONFIG.model_copy(update={"temperature": 1e6})
    noise = noise_for(1)._replace(action=torch.tensor([[2.0, -3.0]]))
    calm = planned(Line(), torch.zeros(1, 1), noise, config=config)
    moved = planned(Line(), torch.zeros(1, 1), noise, config=config, explore=True)
    expected = (calm.action + 0.05 * noise.action).clamp(-1, 1)
    assert torch.allclose(moved.action, expected, atol=1e-5)
    assert torch.equal(moved.mean, calm.mean)


def test_an_elite_is_chosen_by_its_share_not_by_being_the_best() -> None:
    config = CONFIG.model_copy(update={"num_elites": 2, "iterations": 1, "temperature": 1.0})
    base = noise_for(1, config=config)

    def first_action(numbers: Tensor) -> float:
        return planned(Line(), torch.zeros(1, 1), base._replace(gumbel=numbers), config=config).action[0, 0].item()

    best, second = (first_action(torch.tensor(g).view(2, 1)) for g in ([9.0, 0.0], [0.0, 9.0]))
    assert best != second
    drawn = [first_action(gumbel(2, 1, torch.Generator().manual_seed(seed))) for seed in range(200)]
    assert set(drawn) == {best, second}
    # The elites' mean tells the share w of the best: μ = w best + (1 − w) second.
    mean = planned(Line(), torch.zeros(1, 1), base, config=config).mean[0, 0, 0].item()
    share = (mean - second) / (best - second)
    # 200 draws: a deviation of at most 0.035, four of them.
    assert np.mean([a == best for a in drawn]) == pytest.approx(share, abs=0.14)


def test_environments_planned_together_are_planned_as_if_alone() -> None:
    latent, noise = torch.tensor([[0.0], [1.0], [-2.0]]), noise_for(3)
    together = planned(Line(), latent, noise, explore=True)
    for n in range(3):
        own = Noise(
            **{
                name: part if name == "heads" else part[..., n : n + 1] if name == "gumbel" else part[..., n : n + 1, :]
                for name, part in noise._asdict().items()
            }
        )
        alone = planned(Line(), latent[n : n + 1], own, explore=True)
        assert torch.allclose(together.action[n], alone.action[0], atol=1e-5)
        assert torch.allclose(together.mean[:, n], alone.mean[:, 0], atol=1e-5)


def test_slices_for_the_cache_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    latent, noise = torch.tensor([[0.0], [1.0], [-2.0]]), noise_for(3)
    whole = planned(Line(), latent, noise, explore=True)
    monkeypatch.setattr(planner, "_ROWS_AT_ONCE", 21)
    sliced = planned(Line(), latent, noise, explore=True)
    assert torch.equal(whole.action, sliced.action)
    assert torch.equal(whole.mean, sliced.mean)


def test_padded_actions_stay_out_of_a_plan() -> None:
    found = planned(Line(), torch.zeros(2, 1), rows=rows_of(2, actions=(1.0, 0.0)), explore=True)
    assert found.action[:, 0].all()
    assert not found.action[:, 1].any()
    assert not found.mean[..., 1].any()


def test_values_that_are_no_numbers_are_worth_nothing() -> None:
    class Broken(Line):
        def reward_logits(self, z: Tensor, a: Tensor, rows: Rows) -> Tensor:
            reward = super().reward_logits(z, a, rows)
            return torch.where(a[..., :1] > 0.2, torch.nan, reward - 10)

    found = planned(Broken(), torch.zeros(1, 1), explore=True)
    assert torch.isfinite(found.action).all()
    # Not a number counts as 0, which is more than what is known to be bad.
    assert found.mean[0, 0, 0] > 0.2


def test_two_heads_are_drawn_and_never_one_twice() -> None:
    stream = np.random.default_rng(0)
    drawn = {tuple(sorted(draw_heads(5, stream))) for _ in range(200)}
    # All ten pairs; one of them stays away with a probability of 10 · 0.9²⁰⁰ < 10⁻⁸.
    assert drawn == {(i, j) for j in range(5) for i in range(j)}


@pytest.mark.parametrize(("action_dim", "iterations"), [(19, 4), (20, 6)])
def test_many_actions_get_two_more_refinements(action_dim: int, iterations: int) -> None:
    noise = Noise.draw(CONFIG, 1, action_dim, torch.Generator(), np.random.default_rng(0))
    assert len(noise.candidates) == len(noise.last) == len(noise.heads) == iterations


def test_gumbel_numbers_choose_by_probability() -> None:
    log_p = torch.tensor([0.1, 0.2, 0.7]).log()[:, None]
    chosen = (log_p + gumbel(3, 10_000, torch.Generator().manual_seed(0))).argmax(0)
    # Deviations of at most 0.005, four of them.
    assert (torch.bincount(chosen) / 10_000).tolist() == pytest.approx([0.1, 0.2, 0.7], abs=0.02)

"""What DreamerV3 learns from: targets, weights and masks of its losses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.learner import Imagined, Learner
from baselines.dreamerv3.rssm import State
from suites.spec import EnvSpec

TINY = DreamerV3Config(
    deter=16, hidden=8, stoch=3, classes=4, blocks=4, units=8, layers=1, imagination=4, warmup=0, learning_rate=1e-2
)
T, B = 6, 5


def spec(observation_sizes: tuple[int, ...] = (3,), action_sizes: tuple[int, ...] = (2,)) -> EnvSpec:
    tasks = len(observation_sizes)
    return EnvSpec(
        observation_shape=(max(observation_sizes),),
        observation_dtype="float32",
        action_dim=max(action_sizes),
        observation_mask=np.arange(max(observation_sizes)) < np.array(observation_sizes)[:, None],
        action_mask=np.arange(max(action_sizes)) < np.array(action_sizes)[:, None],
        max_episode_steps=np.full(tasks, 10),
        action_repeat=np.ones(tasks, np.int64),
        task_names=tuple(f"task-{k}" for k in range(tasks)),
    )


def learner(config: DreamerV3Config = TINY, env_spec: EnvSpec | None = None) -> Learner:
    return Learner(env_spec or spec(), config, seed=4, device="cpu")


def rows(observation_size: int = 3, action_size: int = 2, **changes: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    none = torch.zeros(T, B, dtype=torch.bool)
    plain = {
        "observation": torch.randn(T, B, observation_size, generator=generator),
        "action": torch.rand(T, B, action_size, generator=generator) * 2 - 1,
        "reward": torch.randn(T, B, generator=generator),
        "first": none,
        "terminal": none,
        "last": none,
        "task": torch.zeros(T, B, dtype=torch.int64),
    }
    return plain | changes


def at(t: int) -> Tensor:
    """True in row ``t`` of the first sequence alone."""
    mark = torch.zeros(T, B, dtype=torch.bool)
    mark[t, 0] = True
    return mark


def kept(batch: int = B) -> dict[str, Tensor]:
    """The latent state before a sequence as replay keeps it: all zero, so that every latent is of class 0."""
    return {"deter": torch.zeros(batch, 16, dtype=torch.float16), "stoch": torch.zeros(batch, 3, dtype=torch.uint8)}


def losses(own: Learner, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return own.world_model_losses(batch, own.recalled(kept()))[1]


def test_a_sequence_goes_on_from_the_state_before_it() -> None:
    own, batch = learner(), rows(first=at(0))
    generator = torch.Generator().manual_seed(8)
    other = {
        "deter": torch.randn(B, 16, generator=generator).half(),
        "stoch": torch.randint(4, (B, 3), generator=generator, dtype=torch.uint8),
    }
    before = own.recalled(other)
    assert torch.equal(before.stoch.argmax(-1), other["stoch"].long())
    noise = own.generator.get_state()
    plain, _ = own.world_model_losses(batch, own.recalled(kept()))
    own.generator.set_state(noise)
    changed, _ = own.world_model_losses(batch, before)
    # The first sequence begins an episode and forgets; the others go on.
    assert torch.equal(plain.deter[:, 0], changed.deter[:, 0])
    assert (plain.deter[0, 1:] != changed.deter[0, 1:]).any(-1).all()


def test_an_update_gives_the_states_it_found() -> None:
    own, batch = learner(), rows()
    noise = own.generator.get_state()
    expected, _ = own.world_model_losses(batch, own.recalled(kept()))
    own.generator.set_state(noise)
    metrics, found = own.update(batch, kept())
    assert torch.equal(found.deter, expected.deter)
    assert not found.stoch.requires_grad
    # One state is kept as half precision and classes, and comes back within its rounding of 2⁻¹¹.
    again = own.recalled(found.kept())
    torch.testing.assert_close(again.deter, found.deter, atol=2**-11, rtol=2**-11)
    torch.testing.assert_close(again.stoch, found.stoch)
    assert metrics["updates"] == 1
    assert metrics["parameters"] == sum(p.numel() for p in own.optimizer.parameters)


def test_reward_and_value_start_at_zero() -> None:
    own = learner()
    feature = torch.randn(7, own.model.feature_size)
    for head in (own.model.reward, own.critic, own.slow_critic):
        assert torch.equal(head.mean(head(feature)), torch.zeros(7))


def test_truncation_does_not_teach_that_an_episode_ends() -> None:
    plain = losses(learner(), rows())["continue"]
    truncated = losses(learner(), rows(last=at(3)))["continue"]
    terminated = losses(learner(), rows(last=at(3), terminal=at(3)))["continue"]
    assert truncated == plain
    assert terminated != plain


def test_the_discount_is_part_of_continuing() -> None:
    own = learner(TINY.model_copy(update={"horizon": 4.0}))
    batch = rows(terminal=at(3))
    states, found = own.world_model_losses(batch, own.recalled(kept()))
    probability = torch.sigmoid(own.model.continuation(own.model.feature(states, batch["task"])))
    # Binary cross-entropy with targets γ = 1 − 1/4, and 0 at the one terminal.
    target = torch.where(at(3), 0.0, 0.75)
    expected = -(target * probability.log() + (1 - target) * (1 - probability).log()).mean()
    torch.testing.assert_close(found["continue"], expected)


def test_padding_changes_nothing() -> None:
    env_spec = spec((3, 2), (2, 1))
    task = (torch.arange(B) % 2).expand(T, B).clone()
    batch = rows(task=task)
    odd = task.bool()
    noisy = {name: value.clone() for name, value in batch.items()}
    noisy["observation"][..., 2][odd] = float("nan")
    noisy["action"][..., 1][odd] = 0.7
    clean, _ = learner(env_spec=env_spec).update(batch, kept())
    assert clean == learner(env_spec=env_spec).update(noisy, kept())[0]
    noisy["observation"][..., 1][odd] += 1.0
    assert clean != learner(env_spec=env_spec).update(noisy, kept())[0]


def test_padded_reconstructions_and_actions_get_no_gradient() -> None:
    own = learner(env_spec=spec((3, 2), (2, 1)))
    task = torch.ones(T, B, dtype=torch.int64)
    states, model_losses = own.world_model_losses(rows(task=task), own.recalled(kept()))
    last = own.model.decoder[-1].bias
    (gradient,) = torch.autograd.grad(model_losses["reconstruction"], last, retain_graph=True)
    assert gradient[2] == 0
    assert (gradient[:2] != 0).all()
    flat = State(states.deter.detach().flatten(0, 1), states.stoch.detach().flatten(0, 1))
    imagined = own.imagine(flat, task.flatten())
    imagined = imagined._replace(reward=torch.ones_like(imagined.reward))
    _, behaviour = own.actor_critic_losses(imagined, task.flatten())
    for bias in (own.actor.mean.bias, own.actor.std.bias):
        (gradient,) = torch.autograd.grad(behaviour["actor"], bias, retain_graph=True)
        assert gradient[1] == 0
        assert gradient[0] != 0


def test_tasks_are_told_apart() -> None:
    own = learner(env_spec=spec((3, 3), (2, 2)))
    observation = torch.randn(1, 3)
    one, other = (own.model.token(own.model.visible(observation, k), k) for k in (torch.tensor([0]), torch.tensor([1])))
    assert not torch.equal(one, other)


def dream(own: Learner, *, reward: float = 1.0, discount: float = 1.0) -> Imagined:
    H, R = TINY.imagination, 8
    feature = torch.randn(H + 1, R, own.model.feature_size, generator=torch.Generator().manual_seed(1))
    action = torch.randn(H, R, 2, generator=torch.Generator().manual_seed(2))
    return Imagined(feature, action, torch.full((H + 1, R), reward), torch.full((H + 1, R), discount))


def test_imagined_returns_by_hand() -> None:
    own = learner(TINY.model_copy(update={"lam": 0.5}))
    returns, _ = own.actor_critic_losses(dream(own, reward=2.0, discount=0.8), torch.zeros(8, dtype=torch.int64))
    # Values start at 0, so G₄ = 2 and Gₜ = 2 + 0.8 · 0.5 · Gₜ₊₁: 2, 2.8, 3.12, 3.248 from the end.
    torch.testing.assert_close(returns[:, 0], torch.tensor([3.248, 3.12, 2.8, 2.0]))


def test_small_returns_are_not_blown_up() -> None:
    own = learner(TINY.model_copy(update={"lam": 0.0}))
    own.actor_critic_losses(dream(own, reward=0.5), torch.zeros(8, dtype=torch.int64))
    # With λ = 0 and values of 0 every return is 0.5: their range is 0, and the floor of 1 divides.
    assert own.scale.scale().item() == 1.0


def test_large_returns_are_scaled_by_their_range() -> None:
    own = learner(TINY.model_copy(update={"lam": 1.0}))
    _, behaviour = own.actor_critic_losses(dream(own, reward=1000.0), torch.zeros(8, dtype=torch.int64))
    # Returns are 4000, 3000, 2000, 1000, each 8 times: P₅ = 1000, P₉₅ = 4000, and the first batch sets the range.
    assert own.scale.scale().item() == pytest.approx(3000)
    assert behaviour["actor"].abs() < 10


def test_a_tasks_large_returns_do_not_shrink_anothers_advantages() -> None:
    own = learner(TINY.model_copy(update={"lam": 0.0, "ent_coef": 0.0}), env_spec=spec((3, 3), (2, 2)))
    task = torch.tensor([0, 1] * 4)
    imagined = dream(own)
    # λ = 0 and values of 0: returns are the rewards, from 0 to 7000 in task 0 and from 0 to 1 in task 1.
    imagined.reward[1:, task == 0] = torch.tensor([0.0, 1000.0, 6000.0, 7000.0]).expand(4, 4)
    imagined.reward[1:, task == 1] = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, 4)
    own.actor_critic_losses(imagined, task)
    # Within each task quarters have the same return, so P₅ and P₉₅ are its ends; the floor is 1.
    assert own.scale.scale().tolist() == pytest.approx([7000, 1])


def test_the_actors_gradient_is_reinforce() -> None:
    own = learner(TINY.model_copy(update={"ent_coef": 0.0, "lam": 0.0}))
    imagined = dream(own, reward=3.0)
    _, behaviour = own.actor_critic_losses(imagined, torch.zeros(8, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(behaviour["actor"], own.actor.mean.bias)
    dist = own.actor(imagined.feature[:-1])
    log_prob = torch.distributions.Normal(dist.mean, dist.std).log_prob(imagined.action).sum(-1)
    # With λ = 0, values of 0, weights of 1 and the range's floor of 1, every advantage is the reward, 3.
    (expected,) = torch.autograd.grad(-(log_prob * 3.0).mean(), own.actor.mean.bias)
    torch.testing.assert_close(gradient, expected)


def test_dreams_behind_a_probable_end_count_little() -> None:
    own = learner()
    zeros = torch.zeros(8, dtype=torch.int64)
    _, ended = own.actor_critic_losses(dream(own, discount=0.0), zeros)
    assert ended["actor"] == ended["critic"] == 0


def test_replayed_values_stop_at_an_episodes_end() -> None:
    own = learner(TINY.model_copy(update={"horizon": 10.0}))
    seen: list[Tensor] = []
    original = own.critic.losses
    own.critic.losses = lambda logits, *targets: (seen.append(targets[0]), original(logits, *targets))[1]  # type: ignore[method-assign]
    reward = torch.ones(T, B)
    states = State(torch.zeros(T, B, 16), torch.zeros(T, B, 3, 4))
    boot = torch.full((T, B), 100.0)
    own.replay_value_loss(states, rows(reward=reward, last=at(3)), boot)
    truncated = seen[0][:, 0]
    seen.clear()
    own.replay_value_loss(states, rows(reward=reward, last=at(3), terminal=at(3)), boot)
    terminated = seen[0][:, 0]
    # The decision into row 3: its reward, and behind a time limit the imagined return of the state reached.
    assert truncated[2].item() == pytest.approx(1 + 0.9 * 100)
    assert terminated[2].item() == pytest.approx(1)
    # One earlier: 1 + 0.9 (0.05 · 100 + 0.95 G), G as above.
    assert truncated[1].item() == pytest.approx(1 + 0.9 * (5 + 0.95 * 91))
    assert terminated[1].item() == pytest.approx(1 + 0.9 * (5 + 0.95 * 1))


def test_the_step_between_two_episodes_is_not_learned_from() -> None:
    own, states = learner(), State(torch.zeros(T, B, 16), torch.zeros(T, B, 3, 4))
    with torch.no_grad():
        # Not uniform, so that the loss depends on the target.
        own.critic.logits[-1].bias.copy_(torch.linspace(-1, 1, TINY.bins))
    boot = torch.zeros(T, B)
    wild = torch.zeros(T, B)
    wild[4, 0] = 1e6
    # Row 4 follows the last row 3 of an episode; its reward cannot reach any value.
    assert own.replay_value_loss(states, rows(reward=wild, last=at(3)), boot) == own.replay_value_loss(
        states, rows(reward=torch.zeros(T, B), last=at(3)), boot
    )


def test_one_update_moves_every_network() -> None:
    own = learner()
    before = {name: value.clone() for name, value in own.modules.state_dict().items()}
    for _ in range(3):
        metrics, _ = own.update(rows(), kept())
    assert all(np.isfinite(value) for value in metrics.values())
    after = own.modules.state_dict()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert still <= {"scale.low", "scale.high"}


def test_the_slow_critic_follows() -> None:
    own = learner()
    with torch.no_grad():
        for parameter in own.critic.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in own.slow_critic.parameters()]
    own.update(rows(), kept())
    for old, fast, slow in zip(before, own.critic.parameters(), own.slow_critic.parameters(), strict=True):
        # rate 0.02
        torch.testing.assert_close(slow, 0.98 * old + 0.02 * fast)


def test_the_critic_is_pulled_towards_the_slow_one() -> None:
    plain, pulled = (learner(TINY.model_copy(update={"slow_coef": coef})) for coef in (0.0, 2.0))
    feature, returns = torch.randn(7, plain.model.feature_size), torch.full((7,), 3.0)
    # Both heads start uniform: every cross-entropy is ln 255, and the pull adds twice one.
    for own, expected in ((plain, np.log(255)), (pulled, 3 * np.log(255))):
        loss = own._critic_loss(own.critic(feature), feature, returns)
        torch.testing.assert_close(loss, torch.full((7,), float(expected)))
    with torch.no_grad():
        plain.critic.logits[-1].bias.copy_(torch.linspace(-1, 1, TINY.bins))
    logits = plain.critic(feature)
    assert torch.equal(plain._critic_loss(logits, feature, returns), plain.critic.losses(logits, returns)[:, 0])


def test_dreams_start_from_the_last_observations() -> None:
    own = learner(TINY.model_copy(update={"imagine_last": 2}))
    seen = []
    original = own.imagine
    own.imagine = lambda state, task: (seen.append(len(task)), original(state, task))[1]  # type: ignore[method-assign]
    own.update(rows(), kept())
    assert seen == [2 * B]

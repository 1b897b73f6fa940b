"""DreamerV3 as an agent: its schedule, what it refuses, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.config import DreamerV3Config
from m3po.api import Transition
from suites.spec import EnvSpec

TINY = DreamerV3Config(
    deter=16,
    hidden=8,
    stoch=3,
    classes=4,
    blocks=4,
    units=16,
    layers=1,
    imagination=3,
    batch_size=8,
    batch_length=8,
    train_ratio=16.0,
    learning_starts=24,
    learning_rate=3e-3,
    warmup=20,
)
SPEC = EnvSpec(
    observation_shape=(1,),
    observation_dtype="float32",
    action_dim=1,
    observation_mask=np.ones((1, 1), np.bool_),
    action_mask=np.ones((1, 1), np.bool_),
    max_episode_steps=np.array([6]),
    action_repeat=np.array([1]),
    task_names=("sign",),
)
N = 8


@pytest.mark.parametrize("preset", DreamerV3Config.PRESETS)
def test_presets_are_valid(preset: str) -> None:
    config = DreamerV3Config(preset=preset)
    assert config.check(SPEC, num_envs=8, env_steps=50_000) == []


def test_the_default_is_size12m() -> None:
    assert DreamerV3Config() == DreamerV3Config(preset="size12m").model_copy(update={"preset": "default"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"deter": 100}, "multiple of 'blocks'"),
        ({"bins": 254}, "odd"),
        ({"min_std": 2.0}, "must not exceed"),
        # A class could become impossible, and its KL 0 · log 0.
        ({"unimix": 0.0}, "greater than 0"),
    ],
)
def test_contradictions_are_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DreamerV3Config(**values)  # type: ignore[arg-type]


def test_impossible_plans_are_named() -> None:
    def problems(num_envs: int = 8, env_steps: int = 50_000, **changes: int) -> str:
        return " ".join(TINY.model_copy(update=changes).check(SPEC, num_envs, env_steps))

    assert problems() == ""
    assert "replay_capacity" in problems(replay_capacity=63)
    assert "larger budget" in problems(env_steps=63)
    assert "so that nothing would be learned" in problems(batch_size=10**9)
    assert "imagine_last" in problems(imagine_last=9)


def one_step(agent: DreamerV3, first: bool = False) -> Transition:
    zeros = np.zeros((N, 1), np.float32)
    none, task = np.zeros(N, np.bool_), np.zeros(N, np.int64)
    extras = agent.act(agent.initial_carry(N), zeros, ~none, task, explore=True).extras
    return Transition(zeros, zeros, zeros[:, 0], zeros, none, none, none | first, task, extras)


def test_train_ratio_is_replayed_observations_per_decision() -> None:
    agent = DreamerV3(SPEC, TINY, seed=0, device="cpu")
    updates = 0
    for i in range(40):
        agent.observe(one_step(agent, first=i == 0))
        before = agent.learner.optimizer.steps
        agent.update()
        updates += agent.learner.optimizer.steps - before
        if i < 6:
            # A sequence needs 8 observations: the first one and 7 decisions.
            assert updates == 0
    # 34 rounds of 8 decisions earn 16 replayed observations each; an update uses 8 × 8.
    assert updates == 34 * 8 * 16 // 64


def test_replay_keeps_the_state_that_a_decision_was_taken_in() -> None:
    agent = DreamerV3(SPEC, TINY, seed=0, device="cpu")
    carry, task, none = agent.initial_carry(N), np.zeros(N, np.int64), np.zeros(N, np.bool_)
    states = []
    for i in range(3):
        observation = np.full((N, 1), float(i), np.float32)
        decision = agent.act(carry, observation, none | (i == 0), task, explore=True)
        reward = np.zeros(N, np.float32)
        arguments = (observation, decision.action, reward, observation + 1, none, none, none | (i == 0), task)
        agent.observe(Transition(*arguments, decision.extras))
        carry = decision.carry
        states.append(carry.state)
    assert agent.replay is not None
    storage = agent.replay.storage
    for i, state in enumerate(states):
        # Row 0 is the first observation; row i + 1 is where decision i led, from the state it was taken in.
        assert np.array_equal(storage["deter"][:, i + 1], state.deter.half().numpy())
        assert np.array_equal(storage["stoch"][:, i + 1], state.stoch.argmax(-1).numpy())
    # Evaluation brings nothing to keep.
    assert not agent.act(carry, observation, none, task, explore=False).extras


def test_training_renews_the_states_in_replay() -> None:
    agent = DreamerV3(SPEC, TINY, seed=0, device="cpu")
    before = []
    for i in range(8):
        agent.observe(one_step(agent, first=i == 0))
        assert agent.replay is not None
        before.append(agent.replay.storage["deter"].copy())
        agent.update()
    assert agent.learner.optimizer.steps > 0
    assert not np.array_equal(before[-1], agent.replay.storage["deter"])


def test_evaluation_takes_the_mean_action() -> None:
    agent = DreamerV3(SPEC, TINY, seed=0, device="cpu")
    observation, first = np.ones((N, 1), np.float32), np.ones(N, np.bool_)
    task, carry = np.zeros(N, np.int64), agent.initial_carry(N)
    calm = agent.act(carry, observation, first, task, explore=False).action
    assert (calm == calm[0]).all()
    assert len(np.unique(agent.act(carry, observation, first, task, explore=True).action)) > 1


def test_exploring_samples_the_latents() -> None:
    agent = DreamerV3(SPEC, TINY, seed=0, device="cpu")
    observation, first = np.ones((N, 1), np.float32), np.ones(N, np.bool_)
    task, carry = np.zeros(N, np.int64), agent.initial_carry(N)
    # All environments show the same: the most likely latents are alike, those drawn are not.
    for explore in (False, True):
        latents = agent.act(carry, observation, first, task, explore=explore).carry.state.stoch
        assert (len(latents.unique(dim=0)) > 1) == explore


class SignEnv:
    """The reward is the action times the sign that the episode shows; episodes of six decisions."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.sign = self._signs()

    def _signs(self) -> NDArray[np.float32]:
        return self.generator.choice([-1.0, 1.0], size=(N, 1)).astype(np.float32)


def play(agent: DreamerV3, decisions: int, *, explore: bool, seed: int) -> float:
    """Mean reward over ``decisions`` of N environments; learns when exploring."""
    env, carry, rewards = SignEnv(seed), agent.initial_carry(N), []
    none, task = np.zeros(N, np.bool_), np.zeros(N, np.int64)
    for i in range(decisions):
        first, ended = np.full(N, i % 6 == 0), np.full(N, i % 6 == 5)
        decision = agent.act(carry, env.sign, first, task, explore=explore)
        carry, reward = decision.carry, (decision.action * env.sign)[:, 0]
        rewards.append(reward.mean())
        if explore:
            arguments = (env.sign, decision.action, reward, env.sign, none, ended, first, task, decision.extras)
            agent.observe(Transition(*arguments))
            agent.update()
        if ended[0]:
            env.sign = env._signs()
    return float(np.mean(rewards))


def test_learns_to_answer_what_it_sees() -> None:
    agent = DreamerV3(SPEC, TINY, seed=0, device="cpu")
    assert abs(play(agent, 24, explore=False, seed=1)) < 0.3
    play(agent, 240, explore=True, seed=2)
    # 1 is perfect; answering the same whatever is shown earns 0.
    assert play(agent, 24, explore=False, seed=1) > 0.7

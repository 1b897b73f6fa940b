"""One update of PPO is that of Stable-Baselines3 from the same weights, rollout and order of minibatches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.ppo.agent import PPO
from baselines.ppo.config import PPOConfig
from m3po.api import Metrics, Transition
from tests.baselines.toys import spec_of

gymnasium = pytest.importorskip("gymnasium")
sb3 = pytest.importorskip("stable_baselines3", reason="compares with Stable-Baselines3; install the extra 'dev'")

T, N, D, A = 16, 4, 5, 3
EPOCHS, MINIBATCH = 3, 16
# All the numbers of the loss are there: entropy, and a rate so large that ratios are clipped.
VALUES = {"gamma": 0.97, "entropy": 0.01, "learning_rate": 3e-3}


def agent() -> PPO:
    config = PPOConfig(
        hidden=(16, 16),
        rollout_size=T * N,
        minibatch_size=MINIBATCH,
        epochs=EPOCHS,
        gamma=VALUES["gamma"],
        entropy_coef=VALUES["entropy"],
        learning_rate=VALUES["learning_rate"],
        normalize_observation=False,
        scale_reward=False,
    )
    return PPO(spec_of([D], [A]), config, seed=0, device="cpu")


class Spaces(gymnasium.Env):  # type: ignore[misc, name-defined]
    """Nothing but spaces, from which Stable-Baselines3 makes its networks."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (D,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (A,), np.float32)


def reference() -> Any:
    envs = sb3.common.vec_env.DummyVecEnv([Spaces] * N)
    model = sb3.PPO(
        "MlpPolicy",
        envs,
        n_steps=T,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        gamma=VALUES["gamma"],
        ent_coef=VALUES["entropy"],
        learning_rate=VALUES["learning_rate"],
        policy_kwargs={"net_arch": [16, 16]},
        seed=0,
        device="cpu",
    )
    model.set_logger(sb3.common.logger.Logger(None, []))
    return model


def parameters(policy: Any) -> list[Tensor]:
    """Of its actor and then its critic, in the order of ours: log σ, layers of the actor, layers of the critic."""
    parts = policy.mlp_extractor.policy_net, policy.action_net, policy.mlp_extractor.value_net, policy.value_net
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    return [policy.log_std[None], *(p for layer in layers for p in (layer.weight, layer.bias))]


class Rollout:
    """Made-up steps ``[T, N, ...]``, with a termination and two truncations, one of them at the end."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.observation = draw.normal(size=(T, N, D)).astype(np.float32)
        self.next_observation = np.roll(self.observation, -1, axis=0)
        self.next_observation[-1] = draw.normal(size=(N, D))
        self.reward = draw.normal(size=(T, N)).astype(np.float32)
        self.terminated = np.zeros((T, N), np.bool_)
        self.truncated = np.zeros((T, N), np.bool_)
        self.terminated[3, 0] = self.truncated[6, 1] = self.truncated[T - 1, 2] = True
        ended = self.terminated | self.truncated
        self.next_observation[ended] = draw.normal(size=(ended.sum(), D))
        self.first = np.concatenate([np.ones((1, N), np.bool_), ended[:-1]])


def learn_ours(ours: PPO, rollout: Rollout) -> tuple[NDArray[np.float32], Metrics]:
    """Show the rollout to ours, which acts on it by itself. Returns its actions ``[T, N, A]`` and metrics."""
    actions, metrics = [], {}
    task = np.zeros(N, np.int64)
    for t in range(T):
        decision = ours.act(None, rollout.observation[t], rollout.first[t], task, explore=True)
        actions.append(decision.extras["action"])
        names = "observation", "reward", "next_observation", "terminated", "truncated", "first"
        steps = {name: getattr(rollout, name)[t] for name in names}
        ours.observe(Transition(action=decision.action, task=task, extras=decision.extras, **steps))
        metrics = ours.update()
    return np.stack(actions), metrics


@torch.no_grad()
def show_theirs(theirs: Any, rollout: Rollout, actions: NDArray[np.float32]) -> None:
    """Fill its buffer, as its ``collect_rollouts`` does: a truncation's bootstrap value goes into the reward."""
    buffer, policy = theirs.rollout_buffer, theirs.policy

    def values(observation: NDArray[np.float32]) -> Tensor:
        value: Tensor = policy.predict_values(torch.from_numpy(observation)).flatten()
        return value

    buffer.reset()
    for t in range(T):
        bootstrap = VALUES["gamma"] * values(rollout.next_observation[t]).numpy() * rollout.truncated[t]
        observation = torch.from_numpy(rollout.observation[t])
        value, log_prob, _ = policy.evaluate_actions(observation, torch.from_numpy(actions[t]))
        buffer.add(rollout.observation[t], actions[t], rollout.reward[t] + bootstrap, rollout.first[t], value, log_prob)
    ended = rollout.terminated[-1] | rollout.truncated[-1]
    buffer.compute_returns_and_advantage(values(rollout.next_observation[-1]), ended)


def test_an_update_is_that_of_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = agent(), reference()
    with torch.no_grad():
        for mine, other in zip(ours.model.parameters(), parameters(theirs.policy), strict=True):
            mine.copy_(other)
    shuffle = torch.Generator()
    shuffle.set_state(ours.shuffle.get_state())
    rollout = Rollout()
    actions, metrics = learn_ours(ours, rollout)

    def permutation(size: int) -> NDArray[np.int64]:
        """The order ours drew; its transitions are counted environment by environment, ours step by step."""
        order = torch.randperm(size, generator=shuffle).numpy()
        return order % N * T + order // N

    show_theirs(theirs, rollout, actions)
    monkeypatch.setattr(np.random, "permutation", permutation)
    theirs.train()

    logged = theirs.logger.name_to_value
    assert metrics["clip_fraction"] > 0.01
    assert metrics["policy_loss"] == pytest.approx(logged["train/policy_gradient_loss"], abs=1e-5)
    assert metrics["value_loss"] == pytest.approx(logged["train/value_loss"], abs=1e-5)
    assert metrics["entropy"] == pytest.approx(-logged["train/entropy_loss"], abs=1e-5)
    assert metrics["clip_fraction"] == pytest.approx(logged["train/clip_fraction"], abs=1e-5)
    for mine, other in zip(ours.model.parameters(), parameters(theirs.policy), strict=True):
        torch.testing.assert_close(mine.detach(), other.detach(), atol=1e-5, rtol=0)

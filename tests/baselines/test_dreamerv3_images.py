"""DreamerV3 on images: its layers by hand, its sizes, and that it learns what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from baselines.dreamerv3.agent import Belief, DreamerV3
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.images import Convolution, ImageDecoder, ImageEncoder
from m3po.api import Transition
from m3po.kit.seeding import initialised_from
from suites.spec import EnvSpec

SIDE, N = 48, 4
TINY = DreamerV3Config(
    deter=16,
    hidden=8,
    stoch=3,
    classes=4,
    blocks=4,
    units=16,
    layers=1,
    depth=1,
    imagination=3,
    batch_size=4,
    batch_length=4,
    train_ratio=16.0,
    learning_starts=16,
    learning_rate=5e-3,
    ent_coef=1e-2,
    warmup=5,
    replay_capacity=200,
)


def images(tasks: int = 1, side: int = SIDE) -> EnvSpec:
    return EnvSpec(
        observation_shape=(side, side, 3),
        observation_dtype="uint8",
        action_dim=1,
        observation_mask=np.ones((tasks, side * side * 3), np.bool_),
        action_mask=np.ones((tasks, 1), np.bool_),
        max_episode_steps=np.full(tasks, 6),
        action_repeat=np.ones(tasks, np.int64),
        task_names=tuple(f"task-{k}" for k in range(tasks)),
    )


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_convolution_keeps_the_size() -> None:
    layer = Convolution(3, 4)
    x = random(2, 5, 6, 3)
    expected = F.conv2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=2)
    torch.testing.assert_close(layer(x), expected.permute(0, 2, 3, 1))


def test_doubling_inside_a_convolution_equals_doubling_before_it() -> None:
    layer = Convolution(3, 4, doubled=True)
    with torch.no_grad():
        layer.bias.normal_()
    x = random(2, 5, 6, 3)
    doubled = x.permute(0, 3, 1, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(doubled, layer.weight, layer.bias, padding=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), expected)


def test_convolutions_keep_the_variance() -> None:
    with initialised_from(0):
        layer = Convolution(16, 64)
    inner = layer(random(4, 12, 12, 16))[:, 2:-2, 2:-2]
    # Weights of variance 1/fan-in, inputs of variance 1.
    assert inner.var().item() == pytest.approx(1.0, rel=0.1)


def test_sizes_are_the_published_ones() -> None:
    # size12m: four maps of 32, 48, 64, 64 channels; 64 x 64 pixels shrink to 4 x 4 places.
    encoder = ImageEncoder((64, 64, 3), 16)
    assert [layer.weight.shape[0] for layer in encoder.convolutions] == [32, 48, 64, 64]
    assert encoder(torch.zeros(2, 3, 64, 64, 3)).shape == (2, 3, 4 * 4 * 64)
    decoder = ImageDecoder(deter=32, rest=12, units=8, blocks=8, shape=(64, 64, 3), depth=16)
    assert [layer.weight.shape[0] for layer in decoder.convolutions] == [64, 48, 32, 3]
    decoded = decoder(torch.zeros(2, 3, 32 + 12))
    # Zero biases and zero features: the sigmoid's middle.
    torch.testing.assert_close(decoded, torch.full((2, 3, 64, 64, 3), 0.5))


def test_a_block_of_deter_paints_its_channels_everywhere() -> None:
    decoder = ImageDecoder(deter=4, rest=2, units=8, blocks=2, shape=(48, 48, 3), depth=1)
    feature = torch.zeros(1, 6)
    feature[0, 3] = 1.0  # the second of two blocks
    seen = []
    decoder.norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    decoder(feature)
    # 3 x 3 places of 4 channels: the last two are the second block's.
    assert seen[0].shape == (1, 3, 3, 4)
    assert (seen[0][..., :2] == 0).all()
    assert (seen[0][..., 2:] != 0).all()


@pytest.mark.parametrize("preset", DreamerV3Config.PRESETS)
def test_images_are_welcome(preset: str) -> None:
    assert DreamerV3Config(preset=preset).check(images(side=64), num_envs=8, env_steps=50_000) == []


def test_images_that_do_not_shrink_are_refused() -> None:
    def problems(side: int, **changes: int) -> str:
        return " ".join(TINY.model_copy(update=changes).check(images(side=side), N, 50_000))

    assert problems(48) == ""
    for side in (32, 60, 272):
        assert f"{side} x {side}. Give sides that are multiples of 16 from 48 to 256" in problems(side)
    assert "set 'depth' to a multiple of 8" in problems(48, blocks=8)


class Lamp:
    """The image is black or white; the reward is the action times −1 or 1 accordingly. Episodes of six decisions."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.switch()

    def switch(self) -> None:
        self.sign: NDArray[np.float32] = self.generator.choice([-1.0, 1.0], size=N).astype(np.float32)

    def image(self) -> NDArray[np.uint8]:
        bright = np.where(self.sign > 0, 255, 0).astype(np.uint8)
        return np.broadcast_to(bright[:, None, None, None], (N, SIDE, SIDE, 3)).copy()


def play(agent: DreamerV3, env: Lamp, carry: Belief, decisions: int, *, explore: bool = True) -> tuple[Belief, float]:
    """The carry after ``decisions`` of N environments, and the mean reward; learns when exploring."""
    rewards, none, task = [], np.zeros(N, np.bool_), np.arange(N) % agent.spec.num_tasks
    for i in range(decisions):
        first, ended = np.full(N, i % 6 == 0), np.full(N, i % 6 == 5)
        decision = agent.act(carry, env.image(), first, task, explore=explore)
        carry, reward = decision.carry, decision.action[:, 0] * env.sign
        rewards.append(reward.mean())
        if explore:
            arguments = (env.image(), decision.action, reward, env.image(), none, ended, first, task, decision.extras)
            agent.observe(Transition(*arguments))
            agent.update()
        if ended[0]:
            env.switch()
    return carry, float(np.mean(rewards))


def test_learns_to_answer_what_it_sees() -> None:
    # with TINY's own weight of entropy a policy may settle on one answer for a while; rounding decides whether it does
    agent = DreamerV3(images(), TINY.model_copy(update={"ent_coef": 0.1}), seed=0, device="cpu")
    play(agent, Lamp(2), agent.initial_carry(N), 96)
    _, score = play(agent, Lamp(1), agent.initial_carry(N), 24, explore=False)
    # 1 is perfect; answering the same whatever is shown earns 0.
    assert score > 0.7


def test_saved_agent_goes_on_the_same(tmp_path: Path) -> None:
    agent, env = DreamerV3(images(tasks=2), TINY, seed=0, device="cpu"), Lamp(3)
    carry, _ = play(agent, env, agent.initial_carry(N), 12)
    agent.save(tmp_path, carry)
    other = DreamerV3(images(tasks=2), TINY, seed=1, device="cpu")
    kept = other.load(tmp_path)
    one, same = (play(a, Lamp(4), c, 12)[0] for a, c in ((agent, carry), (other, kept)))
    for mine, its in zip((*one.state, one.action), (*same.state, same.action), strict=True):
        assert torch.equal(mine, its)
    assert agent.learner.optimizer.steps == other.learner.optimizer.steps > 6

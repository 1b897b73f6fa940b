"""DreamerV3 is the original: its sizes, and its losses over three updates, written down from the authors' code.

The numbers were printed by github.com/danijar/dreamerv3 at e3f0224, in float32 on a CPU, from the weights, rows and
kept states below, every latent being its most probable class and every imagined action 0.7 standard deviations above
its mean.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.dreamerv3 import rssm
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.learner import Learner
from baselines.dreamerv3.model import BoundedNormal, TwoHotHead, WorldModel
from suites.spec import EnvSpec

T, B, A = 7, 4, 2
VECTORS, IMAGES = (5,), (48, 48, 3)
SMALL = DreamerV3Config(
    deter=32,
    hidden=12,
    stoch=5,
    classes=4,
    blocks=4,
    units=16,
    depth=1,
    imagination=5,
    learning_rate=1e-2,
    warmup=2,
    batch_size=B,
    batch_length=T,
)


def spec(shape: tuple[int, ...], action_dim: int = A) -> EnvSpec:
    return EnvSpec(
        observation_shape=shape,
        observation_dtype="uint8" if len(shape) == 3 else "float32",
        action_dim=action_dim,
        observation_mask=np.ones((1, math.prod(shape)), np.bool_),
        action_mask=np.ones((1, action_dim), np.bool_),
        max_episode_steps=np.array([500]),
        action_repeat=np.array([1]),
        task_names=("task",),
    )


def wave(*shape: int, phase: float) -> Tensor:
    """Numbers in [-1, 1] without a pattern, the same on every machine."""
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.cos(2.4 * places + 0.1 * places**2 + phase).float().view(shape)


def learner(shape: tuple[int, ...]) -> Learner:
    own = Learner(spec(shape), SMALL, seed=0, device="cpu")
    with torch.no_grad():
        for place, (name, parameter) in enumerate(own.modules.named_parameters()):
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(1.5 * wave(*parameter.shape, phase=place) / fan_in**0.5 + name.endswith("scale"))
    # The original's range of returns starts at 0; so does ours, whose first returns are 0, but not with these weights.
    own.scale.seen.fill_(True)
    own._normal = lambda *shape: torch.full(shape, 0.7)  # type: ignore[method-assign]
    return own


def rows(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Sequences that begin, end by a terminal and end by a time limit in several places."""

    def at(*places: tuple[int, int]) -> Tensor:
        marks = torch.zeros(T, B, dtype=torch.bool)
        for place in places:
            marks[place] = True
        return marks

    first = at((0, 1), (3, 0), (4, 2))
    seen = wave(T, B, *shape, phase=0.5)
    return {
        "observation": (127.5 * (1 + seen)).to(torch.uint8) if len(shape) == 3 else 4 * seen,
        "action": 1.5 * wave(T, B, A, phase=1.5) * ~first[..., None],
        "reward": 3 * wave(T, B, phase=2.5),
        "first": first,
        "last": at((2, 0), (3, 2), (6, 3)),
        "terminal": at((2, 0), (6, 3)),
        "task": torch.zeros(T, B, dtype=torch.int64),
    }


def before() -> dict[str, Tensor]:
    return {
        "deter": wave(B, 32, phase=3.5).half(),
        "stoch": (2 + 2 * wave(B, 5, phase=4.5)).clamp(max=3).to(torch.uint8),
    }


def use_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = rssm.sample_latent
    monkeypatch.setattr(rssm, "sample_latent", lambda probs, noise: sample(probs, None))


LOSSES = {
    VECTORS: {
        "reconstruction": (15.078484, 10.963109),
        "reward": (5.460196, 5.072496),
        "continue": (0.370530, 0.258064),
        "dynamics": (3.210236, 2.164938),
        "representation": (3.210236, 2.164938),
        "actor": (-96.866737, -40.077908),
        "critic": (5.106055, 8.043233),
        "replay_value": (10.212522, 10.175182),
    },
    IMAGES: {
        "reconstruction": (981.428345, 930.548645),
        "reward": (6.638165, 5.945287),
        "continue": (1.865637, 1.696926),
        "dynamics": (5.191995, 2.762065),
        "representation": (5.191995, 2.762065),
        "actor": (-2.314143, 0.645062),
        "critic": (0.418902, 0.511474),
        "replay_value": (10.925270, 10.606554),
    },
}
"""The original's in the first update and in the fourth, which has three before it: warm-up, clipping, momentum."""


@pytest.mark.parametrize("shape", LOSSES, ids=["vectors", "images"])
def test_losses_are_the_originals(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    use_modes(monkeypatch)
    own, batch = learner(shape), rows(shape)
    found = [own.update(batch, before())[0] for _ in range(4)]
    for name, (first, fourth) in LOSSES[shape].items():
        # Sums over hundreds of float32, in another order.
        assert found[0][f"loss/{name}"] == pytest.approx(first, rel=1e-5), name
        assert found[3][f"loss/{name}"] == pytest.approx(fourth, rel=1e-4), name


@pytest.mark.parametrize(
    ("preset", "vectors", "images"),
    [
        ("size1m", 640_867, 686_846),
        ("size12m", 9_738_019, 10_494_158),
        ("size25m", 21_782_947, 23_489_326),
        ("size50m", 38_612_003, 41_650_062),
        ("size100m", 86_622_499, 93_468_238),
        ("size200m", 153_769_507, 165_948_686),
        ("size400m", 345_473_059, 372_896_398),
    ],
)
def test_sizes_are_the_originals(preset: str, vectors: int, images: int) -> None:
    c = DreamerV3Config(preset=preset)
    # Observations and actions of walker-walk.
    for shape, expected in (((24,), vectors), ((64, 64, 3), images)):
        with torch.device("meta"):
            model = WorldModel(spec(shape, action_dim=6), c)
            actor = BoundedNormal(model.feature_size, c.units, c.layers, 6, c.min_std, c.max_std)
            critic = TwoHotHead(model.feature_size, c.units, c.layers, c.bins)
        assert sum(p.numel() for module in (model, actor, critic) for p in module.parameters()) == expected

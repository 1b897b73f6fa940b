"""What is saved comes back bit for bit, and a file can never run code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from m3po.kit.seeding import derive, generator, initialised_from, numpy_generator
from m3po.kit.state import load_state, restore_generator, save_state


def test_a_tree_comes_back(tmp_path: Path) -> None:
    shared = torch.randn(4, 3)
    tree = {
        "numbers": [1, 2.5, True, None, "text", 2**80],
        "tensors": {"a": shared, "view": shared[:, 1], "half": torch.ones(2, dtype=torch.bfloat16)},
        "arrays": (np.arange(3), np.zeros((0, 4), np.float32), np.array([True, False])),
        0: {"exp_avg": torch.zeros(1)},
        "scalar": np.float32(0.1),
        "empty": {},
    }
    save_state(tmp_path / "new", "agent", tree)
    found = load_state(tmp_path / "new", "agent")
    assert found.keys() == tree.keys()
    assert found["numbers"] == tree["numbers"]
    for name, tensor in tree["tensors"].items():
        assert torch.equal(found["tensors"][name], tensor)
        assert found["tensors"][name].dtype == tensor.dtype
    for array, expected in zip(found["arrays"], tree["arrays"], strict=True):
        assert np.array_equal(array, expected)
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
    assert found["scalar"] == np.float32(0.1)
    assert found["empty"] == {}


def test_arrays_may_be_written_to_after_loading(tmp_path: Path) -> None:
    save_state(tmp_path, "agent", {"carry": np.zeros(3)})
    carry = load_state(tmp_path, "agent")["carry"]
    carry[:] = 1
    assert carry.sum() == 3


def test_what_cannot_be_saved_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot save a set at /a/1;"):
        save_state(tmp_path, "agent", {"a": [1, {2}]})


def test_files_are_json_and_safetensors(tmp_path: Path) -> None:
    save_state(tmp_path, "agent", {"a": torch.zeros(1)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.json", "agent.safetensors"]
    json.loads((tmp_path / "agent.json").read_text())


def test_optimiser_state_comes_back(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    save_state(tmp_path, "optimizer", optimizer.state_dict())
    other = torch.optim.Adam(layer.parameters())
    other.load_state_dict(load_state(tmp_path, "optimizer"))
    first, second = (each.state_dict()["state"][0]["exp_avg_sq"] for each in (optimizer, other))
    assert torch.equal(first, second)


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    ours, theirs = generator(0, "act"), numpy_generator(0, "act")
    torch.rand(3, generator=ours)
    theirs.normal(size=3)
    save_state(tmp_path, "random", {"torch": ours, "numpy": theirs})
    expected = torch.rand(3, generator=ours), theirs.normal(size=3)
    state = load_state(tmp_path, "random")
    fresh, fresh_numpy = generator(1, "other"), numpy_generator(1, "other")
    restore_generator(fresh, state["torch"])
    restore_generator(fresh_numpy, state["numpy"])
    assert torch.equal(torch.rand(3, generator=fresh), expected[0])
    assert np.array_equal(fresh_numpy.normal(size=3), expected[1])


def test_a_state_of_another_device_becomes_a_seed() -> None:
    """A GPU's generator has a state of 16 bytes, the host's of 5,056."""
    drawn = []
    for state in (torch.arange(16, dtype=torch.uint8), torch.arange(16, dtype=torch.uint8), torch.zeros(16).byte()):
        stream = generator(0, "act")
        restore_generator(stream, state)
        drawn.append(torch.rand(3, generator=stream))
    first, same, other = drawn
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_streams_differ_by_seed_and_by_name() -> None:
    seeds = {derive(seed, name) for seed in range(50) for name in ("act", "minibatches")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    # int(sha256("act:0")[:8], little-endian) // 2: the same on every machine and in every release.
    assert derive(0, "act") == 417660851914784711


def test_modules_are_initialised_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    with initialised_from(3):
        first = torch.nn.Linear(4, 4).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with initialised_from(3):
        second = torch.nn.Linear(4, 4).weight
    with initialised_from(4):
        other = torch.nn.Linear(4, 4).weight
    assert torch.equal(first, second)
    assert not torch.equal(first, other)

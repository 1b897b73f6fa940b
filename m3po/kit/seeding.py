"""Randomness that is handed in, never global."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["derive", "generator", "initialised_from", "numpy_generator", "repeatable"]


def derive(seed: int, name: str) -> int:
    """A 63-bit seed for the stream ``name`` of an agent's ``seed``; streams do not overlap in practice."""
    return int.from_bytes(hashlib.sha256(f"{name}:{seed}".encode()).digest()[:8], "little") >> 1


def generator(seed: int, name: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for the stream ``name`` of ``seed``."""
    return torch.Generator(device=device).manual_seed(derive(seed, name))


def numpy_generator(seed: int, name: str) -> np.random.Generator:
    """A numpy generator for the stream ``name`` of ``seed``."""
    return np.random.Generator(np.random.PCG64(derive(seed, name)))


@contextmanager
def initialised_from(seed: int) -> Iterator[None]:
    """Build modules inside: torch's layers draw from the global generator, which is seeded here and put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "initialisation"))
        yield


@contextmanager
def repeatable() -> Iterator[None]:
    """Convolve inside: on a GPU the fastest convolutions add up in an order that differs from run to run."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        yield

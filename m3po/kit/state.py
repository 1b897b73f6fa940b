"""Saving and loading of learning state without pickle: tensors in safetensors, the rest in JSON.

A state is a tree of mappings, sequences, numbers, strings, ``None``, torch tensors, numpy arrays and generators of
either. Loading gives tensors back as CPU tensors, arrays as numpy arrays, and of a generator what
:func:`restore_generator` takes. A file from a stranger can be wrong, but never run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from m3po.kit.seeding import derive

__all__ = ["load_state", "restore_generator", "save_state"]


def save_state(directory: Path, name: str, tree: Any) -> None:
    """Write ``tree`` as ``<name>.json`` and ``<name>.safetensors`` into ``directory``."""
    tensors: dict[str, Tensor] = {}
    structure = _pack(tree, "", tensors)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / f"{name}.safetensors")
    (directory / f"{name}.json").write_text(json.dumps(structure))


def load_state(directory: Path, name: str) -> Any:
    """Read what :func:`save_state` wrote."""
    return _unpack(json.loads((directory / f"{name}.json").read_text()), load_file(directory / f"{name}.safetensors"))


def _pack(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    match node:
        case None | bool() | int() | float() | str():
            return node
        case Tensor():
            # A copy: safetensors refuses tensors that share memory.
            tensors[path] = node.detach().cpu().contiguous().clone()
            return {"$tensor": path}
        case np.ndarray():
            tensors[path] = torch.from_numpy(np.array(node, order="C"))
            return {"$array": path}
        case np.generic():
            return node.item()
        case torch.Generator():
            return _pack(node.get_state(), path, tensors)
        case np.random.Generator():
            return _pack(node.bit_generator.state, path, tensors)
        case Mapping():
            # A list of pairs, because JSON keys are strings and optimisers count parameters with integers.
            return {"$items": [[key, _pack(value, f"{path}/{key}", tensors)] for key, value in node.items()]}
        case list() | tuple():
            return [_pack(value, f"{path}/{i}", tensors) for i, value in enumerate(node)]
    raise TypeError(
        f"cannot save a {type(node).__name__} at {path or 'the top'}; use tensors, arrays, generators, numbers or "
        "strings"
    )


def _unpack(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_unpack(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if "$tensor" in node:
        return tensors[node["$tensor"]]
    if "$array" in node:
        return tensors[node["$array"]].numpy()
    return {key: _unpack(value, tensors) for key, value in node["$items"]}


def restore_generator(generator: torch.Generator | np.random.Generator, state: Any) -> None:
    """Set a generator to the ``state`` that was loaded of one.

    Devices have generators of different kinds. The state of another kind becomes a seed: what was saved on a GPU can be
    played, and goes on, on a CPU, with other random numbers.
    """
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        generator.manual_seed(derive(0, state.numpy().tobytes().hex()))

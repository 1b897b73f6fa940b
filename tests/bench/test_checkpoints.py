"""Checkpoints survive a kill at any moment of their writing."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from m3po.bench.checkpoints import Checkpoints, load_tree, save_tree
from m3po.bench.store import StoreError


def _fill(value: int) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        (path / "agent").mkdir()
        (path / "agent" / "weights").write_text(f"weights {value}")
        (path / "state").write_text(f"state {value}")

    return fill


def _newest(folder: Path) -> tuple[int, str]:
    found = Checkpoints(folder).newest()
    assert found is not None
    return found.env_step, (found.path / "agent" / "weights").read_text()


def test_the_older_one_goes_once_the_newer_is_complete(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(10, _fill(1))
    Checkpoints(tmp_path).write(9_000, _fill(2))
    assert _newest(tmp_path) == (9_000, "weights 2")
    assert [path.name for path in tmp_path.iterdir()] == ["9000"]


def test_a_second_checkpoint_of_one_step_replaces_the_first(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        Checkpoints(tmp_path).write(10, _fill(value))
        assert _newest(tmp_path) == (10, f"weights {value}")
    assert len(list(tmp_path.iterdir())) == 1


CALLS = ("fsync", "replace", "unlink", "rmdir", "mkdir", "open")


def test_a_kill_at_every_system_call_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        Checkpoints(folder).write(10, _fill(1))
        if not _killed_at_call(calls, folder):
            break
        assert _newest(folder) in ((10, "weights 1"), (20, "weights 2"))
        Checkpoints(folder).write(30, _fill(3))  # and the next one is written as ever
        assert _newest(folder) == (30, "weights 3")
        assert [path.name for path in folder.iterdir()] == ["30"], "what was torn is cleared away"
        calls += 1
    assert calls > 15
    assert _newest(folder) == (20, "weights 2")


def _killed_at_call(number: int, folder: Path) -> bool:
    """Write a checkpoint in a child that is killed before its call ``number``; false if it came through."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*arguments: object, **options: object) -> object:
                nonlocal count
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return call(*arguments, **options)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        Checkpoints(folder).write(20, _fill(2))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


@pytest.mark.parametrize(
    "damage", ["missing done", "changed", "truncated", "extra", "removed", "newer format", "no text"]
)
def test_torn_or_damaged_ones_are_passed_over_and_named(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpoints(tmp_path / "kept").write(10, _fill(1))
    Checkpoints(tmp_path / "both").write(20, _fill(2))
    both = tmp_path / "both"
    shutil.move(tmp_path / "kept" / "10", both / "10")
    newer = both / "20"
    match damage:
        case "missing done":
            (newer / "done").unlink()
        case "changed":
            (newer / "state").write_text("state X")
        case "truncated":
            (newer / "agent" / "weights").write_text("")
        case "extra":
            (newer / "more").write_text("")
        case "removed":
            (newer / "state").unlink()
        case "newer format":
            (newer / "done").write_text('{"format": 2}')
        case "no text":
            (newer / "done").write_bytes(b"\xff\xfe")
    with caplog.at_level(logging.WARNING):
        assert _newest(both) == (10, "weights 1")
    assert "checkpoint 20 is passed over" in caplog.text


def test_one_that_is_replaced_while_it_is_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Checkpoints(tmp_path).write(10, _fill(1))
    monkeypatch.setattr("m3po.bench.checkpoints._crc", lambda path: Path(path.parent / "gone").stat().st_size)
    assert Checkpoints(tmp_path).newest() is None


def test_a_failed_write_leaves_the_older_one_and_nothing_else(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(10, _fill(1))

    def fail(path: Path) -> None:
        (path / "part").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="no space left on device; free some space"):
        Checkpoints(tmp_path).write(20, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["10"]
    assert _newest(tmp_path) == (10, "weights 1")


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None
    (tmp_path / "notes").mkdir()
    assert Checkpoints(tmp_path).newest() is None


def test_trees_come_back_bit_for_bit(tmp_path: Path) -> None:
    tree = {
        "numbers": [1, 2.5, None, True, "text", 0.1 + 0.2],
        "nested": {"array": np.array([[1.5, np.pi]], np.float32), "flags": [np.array([True, False])]},
        "empty": np.zeros((0, 3)),
        "scalar": np.float64(1 / 3),
    }
    save_tree(tmp_path, "tree", tree)
    found = load_tree(tmp_path, "tree")
    assert found["numbers"] == tree["numbers"]
    assert found["nested"]["array"].dtype == np.float32
    np.testing.assert_array_equal(found["nested"]["array"], tree["nested"]["array"])
    np.testing.assert_array_equal(found["nested"]["flags"][0], [True, False])
    assert found["empty"].shape == (0, 3)
    assert found["scalar"] == 1 / 3


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="array of Python objects"):
        save_tree(tmp_path, "tree", {"x": np.array([object()])})
    np.savez(tmp_path / "evil.npz", a0=np.array([object()], dtype=object))
    (tmp_path / "evil.json").write_text('{"x": {"__array__": "a0"}}')
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_tree(tmp_path, "evil")

"""Files that stay whole: torn tails, full disks, locks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from m3po.bench.store import CellFolder, DiskFull, RowLog, StoreError, drop_torn_tail, locked, read_json, write_json
from tests.bench.conftest import with_size_limit


@pytest.fixture
def log(tmp_path: Path) -> RowLog:
    log = RowLog(tmp_path / "rows.jsonl")
    log.append([{"env_step": 0, "score": 0.1}, {"env_step": 0, "score": 0.2}])
    log.append([{"env_step": 10, "score": 0.3}])
    return log


def test_rows_come_back_in_order(log: RowLog) -> None:
    assert [row["score"] for row in log.rows()] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("cut", range(1, 31))
def test_a_torn_last_line_is_dropped_and_never_glued_onto(log: RowLog, cut: int) -> None:
    # the last row has 31 bytes with its newline: every way of tearing it
    size = log.path.stat().st_size
    os.truncate(log.path, size - cut)
    assert [row["score"] for row in log.rows()] == [0.1, 0.2]
    log.keep_until(10)
    log.append([{"env_step": 20, "score": 0.4}])
    assert [row["score"] for row in log.rows()] == [0.1, 0.2, 0.4]


@pytest.mark.parametrize(("env_step", "kept"), [(-1, []), (0, [0.1, 0.2]), (9, [0.1, 0.2]), (10, [0.1, 0.2, 0.3])])
def test_rows_newer_than_the_checkpoint_are_dropped(log: RowLog, env_step: int, kept: list[float]) -> None:
    log.keep_until(env_step)
    assert [row["score"] for row in log.rows()] == kept


def test_damage_in_the_middle_is_named_with_its_line(log: RowLog) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(lines[0] + b'{"env_step": \xff\n' + lines[2])
    with pytest.raises(StoreError, match="line 2 is damaged"):
        log.rows()


def test_only_the_torn_tail_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"one\ntwo\nthr")
    drop_torn_tail(path)
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"none whole")
    drop_torn_tail(path)
    assert path.read_bytes() == b""


def test_a_row_that_does_not_fit_leaves_the_table_as_it_was(log: RowLog) -> None:
    before = log.path.read_bytes()
    # the limit lies in the middle of the new row: the system takes the first part of it, then refuses
    with pytest.raises(DiskFull, match=r"cannot append to .*file too large; free some space"):
        with_size_limit(len(before) + 20, lambda: log.append([{"env_step": 20, "note": "x" * 100}]))
    assert log.path.read_bytes() == before


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"old": True})
    with pytest.raises(DiskFull):
        with_size_limit(100, lambda: write_json(path, {"new": "x" * 1000}))
    assert read_json(path) == {"old": True}
    assert list(tmp_path.iterdir()) == [path], "the temporary file is gone"


def test_two_hosts_whose_processes_have_one_id_do_not_take_each_others_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace, others = tmp_path / "status.json", Path.replace, [{"host": 2}]

    def while_the_other_writes(self: Path, target: Path) -> Path:
        if others:
            write_json(path, others.pop())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", while_the_other_writes)
    write_json(path, {"host": 1})
    assert read_json(path) == {"host": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text('{"id": ')
    with pytest.raises(StoreError, match=r"cell\.json is damaged"):
        read_json(tmp_path / "cell.json")
    (tmp_path / "cell.json").write_text('{"format": 2}')
    with pytest.raises(StoreError, match=r"cell\.json cannot be understood"):
        CellFolder(tmp_path).cell()


NO_TEXT = b'{"id": "\xff\xfe"}'


def test_a_file_that_is_no_text_is_damaged_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_bytes(NO_TEXT)
    with pytest.raises(StoreError, match=r"cell\.json is damaged"):
        CellFolder(tmp_path).cell()
    (tmp_path / "status.json").write_bytes(NO_TEXT)
    status = CellFolder(tmp_path).live_status(100)
    assert status.state == "failed"
    assert "status.json cannot be understood" in status.message


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", none)
    folder = CellFolder(tmp_path)
    sentence = r"lock: function not implemented; its file system has to offer file locks \(Lustre"
    with pytest.raises(StoreError, match=sentence), folder.held():
        pass
    with pytest.raises(StoreError, match=sentence):
        folder.is_held()
    with pytest.raises(StoreError, match=sentence), locked(tmp_path / "lock"):
        pass


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    program = "import sys,time; from pathlib import Path; from m3po.bench.store import CellFolder\n"
    program += "with CellFolder(Path(sys.argv[1])).held() as ours: print(ours, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert folder.is_held()
        holder.kill()
    assert not folder.is_held()
    with folder.held() as ours:
        assert ours


def test_a_field_of_a_newer_version_makes_no_status_unreadable(tmp_path: Path) -> None:
    written = {"id": tmp_path.name, "state": "done", "env_steps": 100, "carbon": 3.5}
    (tmp_path / "status.json").write_text(json.dumps(written))
    assert CellFolder(tmp_path).status().state == "done"


def test_an_unreadable_status_is_a_failure_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"id": tmp_path.name, "state": "asleep"}))
    status = CellFolder(tmp_path).status(100)
    assert status.state == "failed"
    assert "status.json cannot be understood" in status.message

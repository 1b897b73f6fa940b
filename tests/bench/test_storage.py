"""Where trials are kept: PostgreSQL by URL, started here on loopback; and what optuna-dashboard makes of a search."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.conftest import Cli, wait_for

WriteSuite = Callable[..., Path]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(1)
        return caller.connect_ex(("127.0.0.1", port)) == 0


def postgres_tool(name: str) -> str | None:
    """A program of PostgreSQL, also where Debian keeps it."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(kept[-1]) if kept else None)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a database of a server of our own."""
    initdb, server = postgres_tool("initdb"), postgres_tool("postgres")
    if initdb is None or server is None:
        pytest.skip("postgres is not installed (Debian: postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'm3po-bench[postgres]')")
    # the server refuses to run as root
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="m3po-postgres-"))
    shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "tuner", "--no-sync"],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    command = [server, "-D", data, "-p", str(port), *(part for setting in settings for part in ("-c", setting))]
    process = subprocess.Popen(command, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), what="the server's start")
        yield f"postgresql+psycopg://tuner:secret@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        shutil.rmtree(folder)


def test_two_processes_share_a_search_in_postgres_and_a_kill_loses_nothing(
    cli: Cli, write_suite: WriteSuite, tmp_path: Path, database: str
) -> None:
    suite = write_suite(agents="{nudge: {pause: 0.02}}")
    arguments = ("tune", suite, "--trials", 2, "--env-steps", 120, "--jobs", 1, "--storage", database, "--json")
    killed, other = cli.start(*arguments), cli.start(*arguments)
    folder = tmp_path / "results" / "tiny" / "tuning" / "nudge"
    wait_for(lambda: list(folder.glob("*/status.json")), what="a trial")
    killed.kill()
    answer, errors = other.communicate(timeout=60)
    assert other.returncode == 0, errors
    trials = json.loads(answer)["agents"]["nudge"]["trials"]
    assert [trial["state"] for trial in trials] == ["done"] * 2
    assert any(trial["values"] == {"rate": 0.05} for trial in trials), "the configuration as it stands is not lost"
    assert not (folder / "journal.log").exists(), "the trials are in the database alone"
    written = [path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".json", ".yaml")]
    assert not any("secret" in text for text in written)


def test_a_server_that_is_not_there_is_named_without_the_password(cli: Cli, write_suite: WriteSuite) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'm3po-bench[postgres]')")
    url = f"postgresql+psycopg://tuner:secret@127.0.0.1:{free_port()}/trials"
    done = cli("tune", write_suite(), "--trials", 1, "--storage", url)
    assert done.returncode == 2
    assert "the storage postgresql+psycopg://127.0.0.1/trials cannot be opened" in done.stderr
    assert "secret" not in done.stderr


def test_the_dashboard_opens_a_search(cli: Cli, write_suite: WriteSuite, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    done = cli("tune", write_suite(), "--agent", "nudge", "--trials", 1, "--env-steps", 40)
    assert done.returncode == 0, done.stderr
    journal, port = tmp_path / "results" / "tiny" / "tuning" / "nudge" / "journal.log", free_port()
    command = [
        sys.executable,
        "-c",
        "from optuna_dashboard._cli import main; main()",
        str(journal),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), what="the dashboard's start")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=60) as response:
            studies = json.load(response)["study_summaries"]
    finally:
        process.kill()
        process.wait()
    assert [study["study_name"] for study in studies] == ["tiny-nudge"]

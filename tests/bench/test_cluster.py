"""The scripts of docs/cluster.md, with a cluster that only pretends."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.bench.conftest import ROOT


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_slurm_job_ends_as_its_run_does_and_is_queued_again_only_where_it_was_stopped(
    tmp_path: Path, code: int
) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    found = re.search(r"```bash\n(.*?)```", page, re.DOTALL)
    assert found is not None
    asked = tmp_path / "asked"
    commands = {"srun": 'shift; exec "$@"', "m3po-bench": f"exit {code}", "scontrol": f'echo "$*" > {asked}'}
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    told = {
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": "2",
        "SCRATCH": str(tmp_path),
    }
    env = {**os.environ, **told, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert subprocess.run(["bash", "-c", found[1]], env=env, check=False).returncode == code
    assert (asked.read_text() if asked.exists() else "") == ("requeue 77_2\n" if code == 3 else "")

"""A small table, a config whose cells take no torch and start at once, and sweeps in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CONFIG: dict[str, Any] = {
    "name": "small",
    "stream": {"name": "collections", "data": "csv", "file": "jobs.csv", "rounds": 3},
    "protocol": {"name": "l_osue", "eps_inf": 2.0},
    "seed": 0,
    "grid": {"protocol.name": ["l_grr", "l_osue"], "seed": [0, 1]},
}
LONG = 400  # rounds, each written to the disk: a run that is still there when it is looked for
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    Path("jobs.csv").write_text("\n".join(["job", *("abcde"[i % 5] for i in range(300))]) + "\n")
    Path("small.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return tmp_path


@pytest.fixture
def spawn(here: Path) -> Iterator[Spawn]:
    """Start a command in a process; what is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "clearn.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until something is true, and give it."""
    limit = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return found

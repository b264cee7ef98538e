"""A fresh process for each task: what `clearn.checks` uses to catch state that hides in globals, caches or files.

One process imports the heavy libraries but no method, and forks for each task of each job that it is sent. A fork has
an empty working, home and temporary folder, learns one task from the run folder, and ends; its folder is gone before
the next begins.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from clearn.runner import run_until

SUITES = ("clearn.checks", "clearn.reading.checks")  # imported once, before anything is forked


def main() -> None:
    """Answer every job on standard input, a line of JSON each, with a line: null, or what went wrong."""
    for name in SUITES:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        problem = None
        for step in range(1, job["steps"] + 1):
            problem = problem or _in_a_fork(job, step)
        sys.stdout.write(json.dumps(problem) + "\n")
        sys.stdout.flush()


def _in_a_fork(job: dict[str, Any], step: int) -> str | None:
    """Learn one task in a process of its own; give the last line that it said, if it failed."""
    with tempfile.TemporaryDirectory(prefix="clearn-audit-") as empty, tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # jobs are the parent's to read
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            os._exit(_one_task(job, step, empty))
        _, status = os.waitpid(child, 0)
        if not status:
            return None
        said.seek(0)
        lines = said.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"it ended with status {status}")


def _one_task(job: dict[str, Any], step: int, empty: str) -> int:
    os.chdir(empty)
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        os.environ[name] = empty
    tempfile.tempdir = None  # forget what this process found before it was forked
    sys.path[:] = job["import"]
    try:
        suite = importlib.import_module(job["suite"])
        run_until(suite.experiment(suite.Subject(**job["subject"])), Path(job["path"]), step)
    except BaseException:  # noqa: BLE001 - the last line is shown where the check fails
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0

"""A fresh process for each task: what `clearn.checks` uses to catch state that hides in globals, caches or files.

One process imports the heavy libraries but no method, and forks for each task. A fork has an empty working, home and
temporary folder, learns one task from the run folder, and ends; its folder is gone before the next begins.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

from clearn.checks import N_TASKS, Subject, experiment
from clearn.runner import run_until


def main() -> None:
    """Read a job from standard input and run its tasks."""
    job = json.load(sys.stdin)
    subject = Subject(job["name"], job["reference"], job["options"])
    for step in range(1, N_TASKS + 1):
        with tempfile.TemporaryDirectory(prefix="clearn-audit-") as empty:
            child = os.fork()
            if child == 0:
                os._exit(_one_task(subject, Path(job["path"]), step, empty))
            _, status = os.waitpid(child, 0)
        if status:
            sys.exit(1)


def _one_task(subject: Subject, path: Path, step: int, empty: str) -> int:
    os.chdir(empty)
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        os.environ[name] = empty
    tempfile.tempdir = None  # forget what this process found before it was forked
    try:
        run_until(experiment(subject), path, step)
    except BaseException:  # noqa: BLE001 - the parent shows the last line and fails
        traceback.print_exc()
        return 1
    return 0

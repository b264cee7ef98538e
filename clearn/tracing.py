"""Runs under test: what each left behind, compared bit for bit, also with a fresh process for each step."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.runner import Experiment, run_until
from clearn.runner import run as run_experiment


@dataclass(frozen=True)
class Trace:
    """What a run left: all that the promises are about."""

    hashes: tuple[str, ...]
    scores: tuple[str, ...]
    path: Path = field(compare=False)


def trace(what: Experiment, until: int | None = None) -> Trace:
    """Run into a temporary folder that lives as long as this process."""
    path = Path(_scratch(), f"{len(os.listdir(_scratch())):04d}")
    run_experiment(what, path) if until is None else run_until(what, path, until)
    return read_trace(path)


def read_trace(path: Path) -> Trace:
    """State hashes and score rows of a run folder."""
    folder = RunFolder(path)
    figures = [row for row in folder.rows(LEDGER) if row["kind"] == "figures"]
    scores = tuple(json.dumps(row, sort_keys=True) for row in folder.rows(SCORES))
    return Trace(tuple(row["sha256"] for row in figures), scores, path)


@cache
def _scratch() -> str:
    holder = tempfile.TemporaryDirectory(prefix="clearn-checks-")
    atexit.register(holder.cleanup)
    return holder.name


def assert_same(one: Trace, other: Trace, first: str, second: str, so: str) -> None:
    """Compare two runs; name the first step that differs."""
    assert len(one.hashes) == len(other.hashes), f"{first} {len(one.hashes)} steps, {second} {len(other.hashes)}"
    for step, (a, b) in enumerate(zip(one.hashes, other.hashes, strict=True), 1):
        assert a == b, f"the state after task {step} differs: {a[:12]}… {first}, {b[:12]}… {second}: {so}"
    assert one.scores == other.scores, f"scores differ {first} and {second}: {so}"


def in_fresh_processes(suite: str, steps: int, subject: dict[str, str]) -> Trace:
    """Run a subject with a fresh process for each step, in an empty working folder that is gone before the next.

    Args:
        suite: the module that has `Subject` and `experiment(subject)`.
        steps: of that experiment.
        subject: arguments of `Subject`.

    Raises:
        AssertionError: a process failed; with the end of what it said.
    """
    path = Path(_scratch(), f"audit-{len(os.listdir(_scratch())):04d}")
    job = {"suite": suite, "steps": steps, "subject": subject, "path": str(path), "import": sys.path}
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(json.dumps(job) + "\n")
    forker.stdin.flush()
    answer = forker.stdout.readline()
    if not answer:
        _forker.cache_clear()
    problem = json.loads(answer) if answer else "it ended without an answer"
    assert problem is None, f"a fresh process failed: {problem}"
    return read_trace(path)


@cache
def _forker() -> subprocess.Popen[str]:
    """The process that forks the fresh ones (see `clearn.audit`): started once, since importing torch takes seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from clearn.audit import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    atexit.register(process.communicate)  # closes its input, by which it ends
    return process

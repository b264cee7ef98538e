"""The copy task that ships as a config is really learned: a memory beats an empty and a foreign one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from clearn import cli
from clearn.folder import SCORES, RunFolder


@pytest.mark.slow
def test_the_shipped_copy_task_is_learned_in_half_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARN_CACHE", str(tmp_path / "cache"))
    assert cli.main(["run", "documents/copying", f"out={tmp_path / 'run'}"]) == 0
    last = [row for row in RunFolder(tmp_path / "run").rows(SCORES) if row["step"] == 3]
    right = {
        name: sum(row["correct"] for row in last if row["readout"] == name) for name in ("memory", "empty", "shuffled")
    }
    n = 48
    error = math.sqrt(sum(right[name] * (n - right[name]) for name in ("memory", "shuffled")) / n**3)
    assert right["memory"] > 0.8 * n, right
    assert (right["memory"] - max(right["shuffled"], right["empty"])) / n > 3 * error, right

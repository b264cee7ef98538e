"""Processes told apart by more than their number, which is given again to another once one has ended."""

from __future__ import annotations

import subprocess
from pathlib import Path


def started(pid: int) -> str | None:
    """Say when a process started, in words to compare only with each other; None where it has ended."""
    if not Path("/proc/self/stat").exists():
        return _started_by_ps(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # state; field 22 counted from 1: clock ticks since boot


def _started_by_ps(pid: int) -> str | None:
    """As `started`, where there is no /proc."""
    asked = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split(maxsplit=1)
    return None if len(said) < 2 or said[0].startswith("Z") else said[1].strip()


def killed_for_memory() -> int | None:
    """Count the processes that this machine's kernel has killed for memory since it started; None if it won't say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)

"""The lock on a sweep's folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clearn.errors import UserError
from clearn.locks import opened, taken
from clearn.sweeping.processes import started


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder, so that no second sweep goes into it.

    Where the file system knows no locks, the process named in the file counts, while it lives on this machine.

    Raises:
        UserError: another sweep holds it.
    """
    path = folder / "sweep.lock"
    with opened(path) as file:
        held = taken(file)
        if held is False or (held is None and _living(path)):
            owner = path.read_text().partition(" started ")[0] or "another process"
            raise UserError(
                f"another sweep runs into {folder} ({owner}): wait for it or stop it, or choose another folder with "
                "out=FOLDER"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"process {os.getpid()} on {socket.gethostname()} since {now} started {started(os.getpid())}\n"
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
        yield


def _living(path: Path) -> bool:
    """Whether the process that a lock's text names lives on this machine."""
    words = path.read_text().split()
    if len(words) < 8 or words[3] != socket.gethostname():
        return False
    return words[1] != str(os.getpid()) and started(int(words[1])) == words[-1]

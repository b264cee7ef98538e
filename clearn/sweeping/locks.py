"""Locks on files, held by a process and released by the kernel when it ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clearn.errors import UserError
from clearn.sweeping.processes import started

BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder, so that no second sweep goes into it.

    Where the file system knows no locks, the process named in the file counts, while it lives on this machine.

    Raises:
        UserError: another sweep holds it.
    """
    path = folder / "sweep.lock"
    with _opened(path) as file:
        held = _taken(file)
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


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold a file, after whoever holds it now; where the file system knows no locks, at once."""
    with _opened(path) as file:
        while _taken(file) is False:
            time.sleep(0.2)
        yield


def is_held(path: Path) -> bool:
    """Whether some process, on this machine or another, holds a file; False where the file system knows no locks."""
    if not path.exists():
        return False
    with _opened(path) as file:
        return _taken(file) is False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another folder with out=FOLDER") from error
    try:
        yield file
    finally:
        os.close(file)


def _taken(file: int) -> bool | None:
    """Take a lock if it is free; False where it is not, None where the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in BUSY else None
    return True


def _living(path: Path) -> bool:
    """Whether the process that a lock's text names lives on this machine."""
    words = path.read_text().split()
    if len(words) < 8 or words[3] != socket.gethostname():
        return False
    return words[1] != str(os.getpid()) and started(int(words[1])) == words[-1]

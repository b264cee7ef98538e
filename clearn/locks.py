"""Locks on files, held by a process and released by the kernel when it ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearn.errors import UserError

BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold a file, after whoever holds it now; where the file system knows no locks, at once."""
    with opened(path) as file:
        while taken(file) is False:
            time.sleep(0.2)
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that nobody else writes into it; where the file system knows no locks, at once.

    Raises:
        UserError: another process holds it.
    """
    file = os.open(folder, os.O_RDONLY)
    try:
        if taken(file) is False:
            raise UserError(
                f"another process is writing into {folder}: wait until that run has ended, or choose another folder "
                "with out=FOLDER"
            )
        yield
    finally:
        os.close(file)


def is_held(path: Path) -> bool:
    """Whether some process, on this machine or another, holds a file; False where the file system knows no locks."""
    if not path.exists():
        return False
    with opened(path) as file:
        return taken(file) is False


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file to be locked, made where there is none.

    Raises:
        UserError: it cannot be written.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another folder with out=FOLDER") from error
    try:
        yield file
    finally:
        os.close(file)


def taken(file: int) -> bool | None:
    """Take a lock if it is free; False where it is not, None where the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in BUSY else None
    return True

"""Processes of one machine take turns at writing, by a lock on a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    import fcntl


@contextmanager
def file_lock(path: str) -> Iterator[None]:
    """
    Wait until no other process is inside this block with the same file.

    The system lets go of the lock of a process that dies. On Windows nothing is locked.

    Args:
        path: A file of our own, created where it is missing; nothing is ever written to it.

    Raises:
        OSError: When the file cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

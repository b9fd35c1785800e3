"""A lock on a file, for which the processes of one machine take turns at writing."""

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
    Lock a file; wait until no other process holds its lock.

    The system releases the lock of a process that dies. On Windows nothing is locked.

    Args:
        path: A file of the store, created if it is missing; nothing is ever written to it.

    Raises:
        OSError: If the file cannot be opened.
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

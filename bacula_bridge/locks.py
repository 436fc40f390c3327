"""A lock file between processes, with a bounded wait.

Covers: an exclusive flock that ends with the process that holds it.
Does not cover: locks across machines; network filesystems may not honour flock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bacula_bridge.errors import LockTimeout

POLL_S = 0.05


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file for the block; raise LockTimeout when it cannot be had in time.

    The file stays: removing it would let two processes lock two different inodes.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockTimeout(str(path), timeout_s) from None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)

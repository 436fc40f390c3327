"""What a lease is made of: directories that are still to be listed, and how fast.

Covers: the values that walkers, adapters and the ledger exchange.
Does not cover: who holds which lease (ledger), reading directories (filesystems).
"""

from __future__ import annotations

from dataclasses import dataclass

THREADS_AUTOMATIC = 0  # as many as help, at most 128
TARGETS_MAX = 64  # metadata targets; each has a walker, which is a process


@dataclass(frozen=True, slots=True)
class Pacing:
    """How hard a dataset's walkers may press their metadata target."""

    threads: int = THREADS_AUTOMATIC  # of a walker
    # Automatic: their number is halved when calls take longer than this; 0: only when fewer would
    # do as much. Below what the filesystem takes at rest, one thread is left.
    latency_target_us: int = 0


@dataclass(frozen=True, slots=True)
class PendingDirectory:
    """A directory to list, from its beginning or from where an earlier lease stopped."""

    path: bytes  # relative to the dataset's root; the root is b""
    cookie: int = 0  # d_off of the last name already listed (getdents64); 0: from the beginning
    target: int = 0  # index of the metadata target that serves it
    # Which directory the cookie belongs to (st_dev as makedev encodes it, inode number): when
    # another one stands at the path by now, that one is listed from its beginning. 0: any.
    device: int = 0
    inode: int = 0

"""What a lease is made of: directories that are still to be listed.

Covers: the value that walkers, adapters and the ledger exchange.
Does not cover: who holds which lease (ledger), reading directories (filesystems).
"""

from __future__ import annotations

from dataclasses import dataclass


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

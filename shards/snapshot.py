"""A snapshot that a run reads, and the interface to whoever takes one.

Does not cover: which there are (snapshots), taking and releasing (filesystems).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shards.errors import ForebayError


class SnapshotGone(ForebayError):
    """What a run reads was removed by somebody else."""

    template = "the snapshot {0} is gone, which this run read; make the backup again"


class SnapshotRefused(ForebayError):
    """There is no snapshot to be had; the sentence goes to the job log, and the run reads live."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset's root as it was at one moment."""

    path: bytes  # to be released
    root: bytes = b""  # the dataset's root in it; empty: it is perhaps not there
    inode_mask: int = 0  # bits of an inode number there that are the live one's; 0: all
    time_ns: int = 0  # CLOCK_REALTIME before it was taken: later changes are not in it


class Snapshotter(Protocol):
    """Takes snapshots of a dataset's root and releases them."""

    def path(self, root: bytes, name: str) -> bytes:
        """Return what a snapshot of this name would be; SnapshotRefused if there can be none."""

    def take(self, root: bytes, path: bytes) -> Snapshot:
        """Take it; SnapshotRefused if that fails: release the path then too, there may be one."""

    def release(self, path: bytes) -> None:
        """Remove it; nothing, if there is none. SnapshotRefused if that fails."""

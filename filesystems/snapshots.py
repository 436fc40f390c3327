"""Snapshots as what a run reads: taken before anything is looked at, released when it has ended.

Covers: which filesystems have them, and the check that a snapshot shows the live inode numbers.
Does not cover: when they are taken, and that none is left behind (bacula_bridge.run_snapshots).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from filesystems.cephfs.attributes import MOUNT_TYPES as CEPHFS_TYPES
from filesystems.mountinfo import mount_type_of
from shards.snapshot import Snapshot, SnapshotRefused

# docs.ceph.com/en/latest/cephfs/snapshots. A client that is told of a snapshot still sends what it
# had in its buffers to it; measured with Ceph 18.2.7, that was there after 10 s.
SETTLE_S = 10.0
_FOLDER = b".snap"
# ceph-fuse shows the number of the snapshot in the bits above (client/Client.cc, make_fino).
_CEPH_FUSE_MASK = (1 << 48) - 1


class Snapshots:
    """Takes and releases them; implements shards.snapshot.Snapshotter."""

    def __init__(self, settle: Callable[[float], None] = time.sleep) -> None:
        self._settle = settle

    def path(self, root: bytes, name: str) -> bytes:
        kind = mount_type_of(root)
        if kind not in CEPHFS_TYPES:
            raise SnapshotRefused(f"{os.fsdecode(root)} is on {kind}, whose snapshots are not used")
        return os.path.join(root, _FOLDER, os.fsencode(name))

    def take(self, root: bytes, path: bytes) -> Snapshot:
        time_ns = time.time_ns()
        try:
            os.mkdir(path)
            live, shown = os.stat(root).st_ino, os.stat(path).st_ino
        except OSError as error:
            raise SnapshotRefused(f"{os.fsdecode(path)}: {_why(error)}") from error
        if shown == live:
            mask = 0
        elif shown & _CEPH_FUSE_MASK == live:
            mask = _CEPH_FUSE_MASK
        else:
            raise SnapshotRefused(
                f"{os.fsdecode(path)} has inode number {shown} and not the live {live}: files would"
                " move to other shards"
            )
        self._settle(SETTLE_S)
        return Snapshot(path, path, mask, time_ns)

    def release(self, path: bytes) -> None:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SnapshotRefused(
                f"{os.fsdecode(path)} could not be removed: {_why(error)}"
            ) from error


def _why(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.errno in (errno.EPERM, errno.EACCES):
        why += " (the client's capability for the metadata servers needs the flag s, and snapshots"
        why += " have to be allowed: `ceph fs set FS allow_new_snaps true`)"
    return why

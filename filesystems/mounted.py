"""The parallel filesystems that are mounted on this machine.

Covers: finding them among the mounts, what the adapters make of each, mounts that do not answer.
Does not cover: choosing an adapter (detect), other filesystems: any directory can be backed up.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from filesystems.cephfs.attributes import MOUNT_TYPES as CEPHFS_TYPES
from filesystems.detect import LUSTRE_TYPE, detect
from filesystems.mountinfo import MountInfo, all_mounts
from shards.errors import ForebayError

PARALLEL_TYPES = frozenset(
    {LUSTRE_TYPE, *CEPHFS_TYPES, "gpfs", "beegfs", "beegfs_nodev", "wekafs", "fuse.wekafs"}
)
FOUND_MAX = 64
LOOK_TIMEOUT_S = 5.0  # for one mount: its servers may be gone, and then looking blocks


@dataclass(frozen=True, slots=True)
class MountedTree:
    """A parallel filesystem; targets is 0, and trouble says why, where it does not answer."""

    root: bytes
    type_name: str
    source: bytes
    targets: int
    trouble: str = ""


def parallel_trees(mounts: list[MountInfo] | None = None) -> list[MountedTree]:
    """Return the parallel filesystems, each by the first of its mounts."""
    found: dict[tuple[str, bytes, bytes], MountInfo] = {}
    for mount in all_mounts() if mounts is None else mounts:
        if mount.type_name in PARALLEL_TYPES:
            found.setdefault((mount.type_name, mount.source, mount.root), mount)
    return [_looked_at(mount) for mount in list(found.values())[:FOUND_MAX]]


def _looked_at(mount: MountInfo) -> MountedTree:
    """Ask the adapter, in a thread that is left behind if the mount does not answer."""
    said: list[MountedTree] = []

    def look() -> None:
        try:
            targets, trouble = len(detect(mount.point).filesystem.targets()), ""
        except (ForebayError, OSError) as error:
            targets, trouble = 0, str(error)
        said.append(MountedTree(mount.point, mount.type_name, mount.source, targets, trouble))

    thread = threading.Thread(target=look, name="look", daemon=True)
    thread.start()
    thread.join(LOOK_TIMEOUT_S)
    if said:
        return said[0]
    trouble = f"{os.fsdecode(mount.point)} has not answered for {LOOK_TIMEOUT_S:.0f} s"
    return MountedTree(mount.point, mount.type_name, mount.source, 0, trouble)

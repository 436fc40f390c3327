"""What Forebay makes of a tree: its filesystem, its metadata targets, where incrementals come from.

Covers: asking the filesystem and the dataset's change source; what would be better, and how.
Does not cover: printing (cluster.commands.doctor), the machine (bacula_bridge.doctor).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from filesystems.cephfs.attributes import MOUNT_TYPES
from filesystems.change_sources import change_source
from filesystems.detect import detect
from shards.changes import Gap

SCAN = "scan"


@dataclass(frozen=True, slots=True)
class TreeReport:
    """One tree, as it is now."""

    root: str
    adapter: str  # of Forebay
    mount_type: str  # as Linux calls it
    walk: str  # how walks reach it, and why not in a better way
    targets: tuple[str, ...]
    change_source: str  # that the next incremental asks; "scan": it looks everywhere
    reason: str  # why it scans; empty if it does not
    better: str  # what to do for a change source; empty if there is one, or none is to be had
    layouts: str  # what is kept of how files are striped


def examine_tree(root: Path, log: Path, dataset: str) -> TreeReport:
    """Look at a tree; log is where a change reader of the dataset keeps what it has seen.

    Raises what detect raises if it cannot be backed up at all.
    """
    detected = detect(root)
    path = detected.filesystem.root
    name, reason = SCAN, "no change reader is set up"
    if (source := change_source(log, dataset, path)) is not None:
        try:
            source.position()
            name, reason = source.name, ""
        except Gap as gap:
            reason = str(gap)
    return TreeReport(
        os.fsdecode(path),
        detected.filesystem.name,
        detected.type_name,
        detected.filesystem.access,
        tuple(target.name for target in detected.filesystem.targets()),
        name,
        reason,
        _better(detected.type_name, root) if name == SCAN else "",
        _LAYOUTS.get(detected.type_name, ""),
    )


_LAYOUTS = {
    **dict.fromkeys(MOUNT_TYPES, "stripe unit and count, object size, pool; quotas, pins"),
    "lustre": "plain, PFL, Data-on-MDT, mirrors, pools",
}


def _better(mount_type: str, root: Path) -> str:
    if mount_type == "lustre":
        return f"`forebay watch {root} --changelog MDT=CONSUMER ...` (docs/filesystems/lustre.md)"
    if mount_type in MOUNT_TYPES:
        return "mount it with a client that shows ceph.dir.rctime and ceph.cluster_fsid"
    if mount_type.startswith(("fuse", "nfs", "gpfs", "beegfs", "cifs", "smb3", "9p")):
        return ""
    return f"`forebay watch {root}` as root: from the backup after the next on, changes are enough"

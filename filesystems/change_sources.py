"""Which change source a dataset has.

Covers: finding it by the filesystem that the root is on, or by what a reader has left.
Does not cover: the sources themselves.
"""

from __future__ import annotations

from pathlib import Path

from filesystems.cephfs.attributes import MOUNT_TYPES
from filesystems.cephfs.rctime import RctimeSource
from filesystems.detect import mount_type_of
from filesystems.fanotify.source import FanotifySource
from shards.changes import ChangeSource
from shards.ledger import Dataset


def change_source(log: Path, runtime: Path, dataset: Dataset) -> ChangeSource | None:
    """Return the dataset's change source; None if its filesystem has none and no reader was set up.

    log is where a reader keeps what it has seen, runtime where its socket is while it lives.
    """
    if mount_type_of(dataset.root) in MOUNT_TYPES:
        return RctimeSource(dataset.root)
    if not log.is_dir():
        return None
    return FanotifySource(dataset.name, dataset.root, log)

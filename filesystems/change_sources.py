"""Which change source a dataset has.

Covers: finding it by the filesystem that the root is on, or by what was set up.
Does not cover: the sources themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

from filesystems.cephfs.attributes import MOUNT_TYPES
from filesystems.cephfs.rctime import RctimeSource, margin_s
from filesystems.fanotify.source import FanotifySource
from filesystems.lustre.errors import SettingsWrong
from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import LustreSource
from filesystems.mountinfo import mount_type_of
from shards.changes import ChangeSource


def change_source(log: Path, dataset: str, root: bytes) -> ChangeSource | None:
    """Return a dataset's change source; None if its filesystem has none and none was set up.

    log is the folder where sources keep what they have seen, and their settings. Raises
    SettingsWrong if those cannot be understood.
    """
    if mount_type_of(root) in MOUNT_TYPES:
        return RctimeSource(root, margin_s=margin_s())
    if not log.is_dir():
        return None
    if (changelogs := LustreChangelogs.load(log)) is not None:
        if changelogs.root != root:
            raise SettingsWrong(str(log), f"they are for {os.fsdecode(changelogs.root)}")
        return LustreSource(dataset, changelogs, log)
    return FanotifySource(dataset, root, log)

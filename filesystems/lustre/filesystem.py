"""Lustre: a tree whose directories are on several MDTs (DNE; lfs-mkdir(1)).

Covers: which MDTs there are, and which one serves a directory.
Does not cover: changelogs (source), layouts (bacula_bridge/plugin).
"""

from __future__ import annotations

import os

from filesystems.lustre.api import Library
from filesystems.lustre.errors import LustreFailed
from filesystems.mountinfo import mount_point_of
from filesystems.targets import TargetsFilesystem


class LustreFilesystem(TargetsFilesystem):
    """A tree on a mounted Lustre; its walkers list through the mount, each one MDT's directories.

    A striped directory has its names on several MDTs; it is listed by the walker of the first.
    """

    name = "lustre"

    def __init__(self, root: str | bytes | os.PathLike[str], library: Library) -> None:
        super().__init__(root)
        self._library = library

    def names_of_targets(self, highest: int) -> list[str]:
        mount = mount_point_of(self.root) or self.root
        count = max(self._library.target_count(mount), highest + 1)
        return [f"MDT{index:04x}" for index in range(count)]

    def target_of_open(self, descriptor: int, above: int) -> int:
        try:
            return self._library.target_of(descriptor)
        except LustreFailed:
            return above

    def check(self) -> None:
        """Raise LibraryTooOld or LustreFailed if the library cannot tell who serves the root."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._library.target_of(descriptor)
        finally:
            os.close(descriptor)
        self.names_of_targets(0)

"""Any POSIX tree: one metadata target, walked by the kernel as it is mounted here.

Covers: local and network filesystems without an adapter of their own.
Does not cover: file identifiers, layouts and changelogs of parallel filesystems.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from filesystems.interface import Filesystem, MetadataTarget, Walk, WalkOptions
from filesystems.kernel.native import NativeWalk
from shards.lease import PendingDirectory


class PosixFilesystem(Filesystem):
    """A tree that is walked through the system's own calls."""

    name = "posix"

    def __init__(
        self, root: str | bytes | os.PathLike[str], access: str = "through the mount"
    ) -> None:
        """access: what is to be said of how walks reach the tree."""
        self._root = os.path.abspath(os.fsencode(root))
        self._access = access

    @property
    def root(self) -> bytes:
        return self._root

    @property
    def access(self) -> str:
        return self._access

    def targets(self) -> list[MetadataTarget]:
        return [MetadataTarget(0, "posix")]

    def target_of(self, directory: bytes) -> int:
        return 0

    def walk(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool = False,
    ) -> Walk:
        assert all(directory.target == 0 for directory in directories), "there is one target"
        return NativeWalk(self._root, directories, options, include_root=include_root)

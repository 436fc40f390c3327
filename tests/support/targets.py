"""A stand-in for filesystems with several metadata targets: directories pinned to targets.

Covers: walks of one target that hand directories of others over, as a real adapter has to.
Does not cover: speed; what a target is, the filesystem below it decides (or nothing does).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from filesystems.detect import detect
from filesystems.interface import (
    Filesystem,
    MetadataTarget,
    Walk,
    WalkBatch,
    WalkOptions,
    WalkStats,
)
from filesystems.kernel.native import NativeWalk
from shards.lease import PendingDirectory

TOP_LEVEL = re.compile(rb"t(\d+)")


class _PinnedWalk(Walk):
    """A walk whose frontier says which target serves what."""

    def __init__(self, walk: NativeWalk, pinned: Mapping[tuple[int, int], int]) -> None:
        self._walk = walk
        self._pinned = pinned

    def __next__(self) -> WalkBatch:
        return next(self._walk)

    @property
    def frontier(self) -> list[PendingDirectory]:
        return [
            PendingDirectory(
                item.path,
                item.cookie,
                self._pinned.get((item.device, item.inode), item.target),
                item.device,
                item.inode,
            )
            for item in self._walk.frontier
        ]

    @property
    def stats(self) -> WalkStats:
        return self._walk.stats

    def cancel(self) -> None:
        self._walk.cancel()

    def close(self) -> None:
        self._walk.close()


class PinnedFilesystem(Filesystem):
    """A tree in which a directory, with all below it, may be pinned to a target; else it is 0."""

    name = "pinned"

    def __init__(self, root: bytes, targets: Mapping[bytes, int]) -> None:
        """Pin paths below the root to targets."""
        self._root = os.path.abspath(root)
        self._count = max(targets.values(), default=0) + 1
        self._pinned: dict[tuple[int, int], int] = {}
        for path, target in targets.items():
            status = os.lstat(os.path.join(self._root, path))
            self._pinned[status.st_dev, status.st_ino] = target

    @property
    def root(self) -> bytes:
        return self._root

    def targets(self) -> list[MetadataTarget]:
        return [MetadataTarget(index, f"target {index}") for index in range(self._count)]

    def walk(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool = False,
    ) -> Walk:
        target = directories[0].target if directories else 0
        assert all(directory.target == target for directory in directories)
        elsewhere = tuple(each for each, other in self._pinned.items() if other != target)
        options = replace(options, elsewhere=elsewhere)
        walk = NativeWalk(self._root, directories, options, target, include_root)
        return _PinnedWalk(walk, self._pinned)


def top_level(root: bytes) -> PinnedFilesystem:
    """Open a tree in which the top-level directory tK belongs to target K."""
    names = os.listdir(detect(root).filesystem.root)
    return PinnedFilesystem(
        root, {name: int(found[1]) for name in names if (found := TOP_LEVEL.fullmatch(name))}
    )

"""A stand-in for filesystems with several metadata targets: directories pinned to targets.

Covers: who serves a directory, as a real filesystem tells it.
Does not cover: speed; what a target is, the filesystem below it decides (or nothing does).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from filesystems.detect import detect
from filesystems.targets import TargetsFilesystem

TOP_LEVEL = re.compile(rb"t(\d+)")


class PinnedFilesystem(TargetsFilesystem):
    """A tree in which a directory, with all below it, may be pinned to a target; else it is 0."""

    name = "pinned"

    def __init__(self, root: bytes, targets: Mapping[bytes, int]) -> None:
        """Pin paths below the root to targets."""
        super().__init__(root)
        self._count = max(targets.values(), default=0) + 1
        self._pinned: dict[tuple[int, int], int] = {}
        for path, target in targets.items():
            status = os.lstat(os.path.join(self.root, path))
            self._pinned[status.st_dev, status.st_ino] = target

    def names_of_targets(self, highest: int) -> list[str]:
        return [f"target {index}" for index in range(self._count)]

    def target_of_open(self, descriptor: int, above: int) -> int:
        status = os.fstat(descriptor)
        return self._pinned.get((status.st_dev, status.st_ino), above)


def top_level(root: bytes) -> PinnedFilesystem:
    """Open a tree in which the top-level directory tK belongs to target K."""
    names = os.listdir(detect(root).filesystem.root)
    return PinnedFilesystem(
        root, {name: int(found[1]) for name in names if (found := TOP_LEVEL.fullmatch(name))}
    )

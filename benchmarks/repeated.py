"""A source of any number of inodes: one real tree, listed again and again within one run.

Covers: many names through the kernel, the walker and the ledger without making them.
Does not cover: a run that anything could be restored from: names come more than once.
"""

from collections.abc import Sequence

from filesystems.interface import Walk, WalkOptions
from filesystems.kernel.native import NativeWalk
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory


class _RootWalk(NativeWalk):
    """The walk of a run's first lease, which leaves the root to be listed again."""

    again: Sequence[PendingDirectory] = ()

    @property
    def frontier(self) -> list[PendingDirectory]:
        return [*self.again, *super().frontier]


class RepeatedFilesystem(PosixFilesystem):
    """A tree whose root is listed so many times, with all below it."""

    name = "repeated"

    def __init__(self, root: bytes, times: int) -> None:
        super().__init__(root)
        self._times = times

    def walk(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool = False,
    ) -> Walk:
        if not include_root:
            return super().walk(directories, options)
        walk = _RootWalk(self.root, directories, options, include_root=True)
        walk.again = [PendingDirectory(b"")] * (self._times - 1)
        return walk

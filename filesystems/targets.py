"""Trees with several metadata targets: which directories near the root another one serves.

Covers: finding them, walking what is one target's and handing the rest over.
Does not cover: asking a filesystem who serves a directory (cephfs, lustre).

Whose walker lists a directory is a matter of speed alone. So what is not found, because it lies
deeper or came later, is listed by the walker of the directory above it.
"""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from filesystems.errors import for_root
from filesystems.interface import MetadataTarget, Walk, WalkBatch, WalkOptions, WalkStats
from filesystems.kernel.native import NativeWalk
from filesystems.posix import PosixFilesystem
from shards.lease import TARGETS_MAX, PendingDirectory

# Sites place directories by hand or by round-robin near the root: projects, users.
DEPTH_MAX = 3
DIRECTORIES_MAX = 4_096
NAMES_MAX = 100_000  # of one directory
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ESTALE})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Identity = tuple[int, int]  # st_dev, inode


class TargetsFilesystem(PosixFilesystem):
    """A tree whose directories are placed on metadata targets."""

    def __init__(self, root: str | bytes | os.PathLike[str]) -> None:
        super().__init__(root)
        self._found: dict[Identity, int] | None = None

    @abstractmethod
    def names_of_targets(self, highest: int) -> list[str]:
        """Return the names of the targets; highest is the largest index that was met."""

    @abstractmethod
    def target_of_open(self, descriptor: int, above: int) -> int:
        """Return the index of the target that serves an open directory; above is its parent's.

        What cannot be told is the parent's.
        """

    def targets(self) -> list[MetadataTarget]:
        highest = max(self._placed().values(), default=0)
        names = self.names_of_targets(highest)[:TARGETS_MAX]
        return [MetadataTarget(index, name) for index, name in enumerate(names)]

    def target_of(self, directory: bytes) -> int:
        target = 0
        at = b""
        for component in [b"", *filter(None, directory.split(b"/"))]:
            at = os.path.join(at, component)
            with _opened(os.path.join(self.root, at)) as descriptor:
                target = self._target_of(descriptor, target)
        return target

    def walk(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool = False,
    ) -> Walk:
        target = directories[0].target if directories else 0
        assert all(directory.target == target for directory in directories)
        placed = self._placed() if options.hands_over else {}
        elsewhere = tuple(each for each, other in placed.items() if other != target)
        options = replace(options, elsewhere=(*options.elsewhere, *elsewhere))
        return _PlacedWalk(self.walk_one(directories, options, target, include_root), placed)

    def walk_one(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        target: int,
        include_root: bool,
    ) -> Walk:
        """Walk one target's directories; what is elsewhere comes back with its device and inode."""
        return NativeWalk(self.root, directories, options, target, include_root)

    def _placed(self) -> dict[Identity, int]:
        if self._found is None:
            self._found = self._survey()
        return self._found

    def _survey(self) -> dict[Identity, int]:
        """Return the directories near the root that are not listed by their parent's walker."""
        placed: dict[Identity, int] = {}
        left = DIRECTORIES_MAX
        try:
            with _opened(self.root, follow=True) as descriptor:
                device = os.fstat(descriptor).st_dev
                level = [(self.root, self._target_of(descriptor, 0))]
        except OSError as error:
            raise for_root(self.root, error.errno or 0) from error
        for depth in range(DEPTH_MAX):
            below: list[tuple[bytes, int]] = []
            for path, above in level:
                walker = above if depth else 0  # whoever serves the root, a run begins with 0
                for name in islice(_directories_in(path), left):
                    left -= 1
                    child = os.path.join(path, name)
                    look = self._look(child, above, device)
                    if look is not None:
                        identity, target = look
                        below.append((child, target))
                        if target != walker:
                            placed[identity] = target
            level = below
        return placed

    def _look(self, path: bytes, above: int, device: int) -> tuple[Identity, int] | None:
        """Return which directory this is, and its target; None: there is none to look at."""
        try:
            with _opened(path) as descriptor:
                status = os.fstat(descriptor)
                if status.st_dev != device:
                    return None
                return (status.st_dev, status.st_ino), self._target_of(descriptor, above)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def _target_of(self, descriptor: int, above: int) -> int:
        return self.target_of_open(descriptor, above) % TARGETS_MAX


@contextmanager
def _opened(path: bytes, follow: bool = False) -> Iterator[int]:
    """A directory's descriptor, made without a trace in it where permitted (open(2), O_NOATIME)."""
    flags = _DIRECTORY if follow else _DIRECTORY | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _directories_in(path: bytes) -> list[bytes]:
    try:
        with _opened(path) as descriptor, os.scandir(descriptor) as entries:
            return [
                os.fsencode(entry.name)
                for entry in islice(entries, NAMES_MAX)
                if entry.is_dir(follow_symlinks=False)
            ]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


class _PlacedWalk(Walk):
    """A walk whose frontier says which target serves what."""

    def __init__(self, walk: Walk, placed: Mapping[Identity, int]) -> None:
        self._walk = walk
        self._placed = placed

    def __next__(self) -> WalkBatch:
        return next(self._walk)

    @property
    def frontier(self) -> list[PendingDirectory]:
        return [
            replace(item, target=self._placed.get((item.device, item.inode), item.target))
            for item in self._walk.frontier
        ]

    @property
    def stats(self) -> WalkStats:
        return self._walk.stats

    def cancel(self) -> None:
        self._walk.cancel()

    def close(self) -> None:
        self._walk.close()

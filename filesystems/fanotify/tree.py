"""An opened root, and what file handles lead to as seen from it.

Covers: the identity of a root, resolving handles of directories to paths below it.
Does not cover: which handles (log), what changed there (source).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from filesystems.errors import for_root
from filesystems.fanotify.libc import HANDLE_TYPE, handle_at, open_handle
from shards.changes import Gap

# Levels of a path that is too long for /proc to tell, taken one by one; and how often that is
# begun again because something on the way was moved.
DEPTH_MAX = 1 << 16
CLIMBS_MAX = 16
# Listing a directory must not move its access time; a reader is privileged enough to ask for that.
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOATIME
_GONE = frozenset({errno.ESTALE, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """What must not change between two questions."""

    device: int
    inode: int
    handle: bytes

    def to_json(self) -> list[int | str]:
        return [self.device, self.inode, self.handle.hex()]


@dataclass(frozen=True, slots=True)
class OpenDirectory:
    """A directory that a handle led to."""

    descriptor: int
    path: bytes | None  # relative to the root; None: outside


class Tree:
    """A root directory, open. Leave it soon: an open directory keeps a filesystem mounted."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        try:
            self.descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise for_root(root, error.errno or 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def identity(self) -> RootIdentity:
        status = os.fstat(self.descriptor)
        return RootIdentity(status.st_dev, status.st_ino, handle_at(self.descriptor, b"."))

    def path(self) -> bytes:
        """Return where the root is now."""
        path = _path(self.descriptor)
        if path is None:
            raise Gap(f"{os.fsdecode(self.root)} was removed")
        return path

    @contextmanager
    def directory(self, handle: bytes, root_path: bytes) -> Iterator[OpenDirectory | None]:
        """Open the directory that a handle leads to; None if it is gone.

        A removed directory that somebody holds open has " (deleted)" behind its path. That is
        harmless: nothing is at that path, and its removal was an event in its parent.
        """
        try:
            descriptor = open_handle(self.descriptor, handle)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            yield None
            return
        try:
            path = _path(descriptor)
            yield None if path is None else OpenDirectory(descriptor, relative(path, root_path))
        finally:
            os.close(descriptor)

    def inode(self, handle: bytes) -> tuple[int, int] | None:
        """Return inode number and number of links of what a handle leads to; None if gone."""
        try:
            descriptor = open_handle(self.descriptor, handle)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return None
        try:
            status = os.fstat(descriptor)
            return status.st_ino, status.st_nlink
        finally:
            os.close(descriptor)


# Where a handle's inode number is, by the handle's type and length (linux/exportfs.h,
# fs/xfs/xfs_export.c, fs/btrfs/export.c, mm/shmem.c).
_INODE_IN_HANDLE = {
    (0x01, 8): struct.Struct("<I4x"),
    (0x01, 12): struct.Struct("<4xQ"),
    (0x81, 12): struct.Struct("<Q4x"),
    (0x4D, 20): struct.Struct("<Q12x"),
}


def inode_of(handle: bytes) -> int | None:
    """Return the inode number that a handle is of; None if its layout is not known."""
    (kind,), value = HANDLE_TYPE.unpack_from(handle), handle[HANDLE_TYPE.size :]
    layout = _INODE_IN_HANDLE.get((kind, len(value)))
    return layout.unpack(value)[0] if layout else None


def relative(path: bytes, root_path: bytes) -> bytes | None:
    """Return a path as seen from the root; None if it is not below it."""
    if path == root_path:
        return b""
    prefix = root_path if root_path.endswith(b"/") else root_path + b"/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def leads_to(directory: int, name: bytes) -> bytes | None:
    """Return the handle of what is at a name now; None if nothing is, or nothing with a handle."""
    try:
        return handle_at(directory, name)
    except OSError:  # gone, or covered by a mount that has no handles: not the inode in question
        return None


class _Moved(Exception):
    """A directory is not where it was a moment ago."""


def _path(descriptor: int) -> bytes | None:
    """Return the path of an open directory, as the kernel has it at this moment.

    /proc has room for one page. What is deeper is climbed; None if it was removed meanwhile.
    """
    if (path := _told(descriptor)) is not None:
        return path
    for _ in range(CLIMBS_MAX):
        try:
            return _climb(descriptor)
        except _Moved:
            if os.fstat(descriptor).st_nlink == 0:
                return None
    raise Gap("a directory with a path of more than 4,096 bytes moves all the time")


def _told(descriptor: int) -> bytes | None:
    """Return what /proc tells; None if that is too long for it."""
    try:
        return os.readlink(b"/proc/self/fd/%d" % descriptor)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


def _climb(descriptor: int) -> bytes:
    """Go up by "..", and the name that has this inode there, until the rest fits."""
    names: list[bytes] = []
    current = os.dup(descriptor)
    try:
        while len(names) < DEPTH_MAX:
            if (above := _told(current)) is not None:
                return b"/".join([above.removesuffix(b"/"), *reversed(names)]) or b"/"
            parent = os.open("..", _LISTED, dir_fd=current)
            inode = os.fstat(current).st_ino
            os.close(current)
            current = parent
            names.append(_name_of(parent, inode))
        raise Gap("a directory is too deep to be found again")
    finally:
        os.close(current)


def _name_of(parent: int, inode: int) -> bytes:
    with os.scandir(parent) as entries:
        for entry in entries:
            if entry.inode() == inode:
                return os.fsencode(entry.name)
    raise _Moved

"""Which adapter fits a tree.

Covers: checking the root before any work starts, naming the filesystem it is on.
Does not cover: options of the dataset (cluster).
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from filesystems.errors import for_root
from filesystems.interface import Filesystem
from filesystems.posix import PosixFilesystem

UNKNOWN_TYPE = "unknown"

# Filesystems of this machine's own kernel: they stamp with its clock, whose coarse ticks are at
# most 10 ms apart (CONFIG_HZ=100; Linux ktime_get_coarse_real_ts64).
_LOCAL_TYPES = frozenset({"ext4", "xfs", "btrfs", "tmpfs", "overlay", "f2fs", "zfs", "bcachefs"})
_LOCAL_MARGIN_NS = 20_000_000
# Others may stamp whole seconds, with another machine's clock.
_OTHER_MARGIN_NS = 3_000_000_000


def timestamp_margin_ns(type_name: str) -> int:
    """Return how long before it was read a file's ctime must lie to be trusted, in ns.

    It covers the granularity of time stamps, and the skew between the clock that stamps and the
    one of whoever reads.
    """
    return _LOCAL_MARGIN_NS if type_name in _LOCAL_TYPES else _OTHER_MARGIN_NS


@dataclass(frozen=True, slots=True)
class Detected:
    """The adapter for a tree, and what Linux calls its filesystem."""

    filesystem: Filesystem
    type_name: str  # as in /proc/self/mountinfo: ext4, lustre, nfs4, fuse.sshfs ...


def detect(root: str | bytes | os.PathLike[str]) -> Detected:
    """Check that the root is a readable directory and choose its adapter."""
    filesystem = PosixFilesystem(root)
    if b"\0" in filesystem.root:
        raise for_root(filesystem.root, errno.ENOENT)
    try:
        descriptor = os.open(filesystem.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise for_root(filesystem.root, error.errno or 0) from error
    try:
        return Detected(filesystem, mount_type(descriptor))
    finally:
        os.close(descriptor)


def open_filesystem(root: bytes) -> Filesystem:
    """Return the adapter for a tree."""
    return detect(root).filesystem


def mount_type_of(root: bytes) -> str:
    """Return the type of the filesystem that a directory is on; "unknown" if there is none."""
    try:
        descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return UNKNOWN_TYPE
    try:
        return mount_type(descriptor)
    finally:
        os.close(descriptor)


def mount_type(descriptor: int) -> str:
    """Return the type of the filesystem that an open file is on.

    By the mount, not by statfs: its magic number is the same for every FUSE filesystem.
    """
    fields = _mount_fields(descriptor)
    return os.fsdecode(fields[fields.index(b"-", 6) + 1]) if fields else UNKNOWN_TYPE


def mount_point_of(root: bytes) -> bytes | None:
    """Return the mount point that a directory is at or below; None if that is not known."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fields = _mount_fields(descriptor)
    finally:
        os.close(descriptor)
    # Blanks and the like are in octal (proc_pid_mountinfo(5)).
    unescaped = re.compile(rb"\\([0-7]{3})")
    return unescaped.sub(lambda found: bytes([int(found[1], 8)]), fields[4]) if fields else None


def _mount_fields(descriptor: int) -> list[bytes]:
    """Return the fields of the line of mountinfo for an open file's mount; none without /proc."""
    try:
        information = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes()
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return []
    mount = _field_after(information, b"mnt_id:")
    for line in mounts.splitlines():
        fields = line.split()
        # ID parent major:minor root point options [optional ...] - type source options
        if fields and fields[0] == mount and b"-" in fields:
            return fields
    return []


def _field_after(text: bytes, key: bytes) -> bytes:
    for line in text.splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return b""

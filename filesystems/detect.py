"""Which adapter fits a tree.

Covers: checking the root before any work starts, naming the filesystem it is on.
Does not cover: options of the dataset (cluster).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from filesystems.cephfs.attributes import MOUNT_TYPES as CEPHFS_TYPES
from filesystems.cephfs.filesystem import CephfsFilesystem
from filesystems.errors import for_root
from filesystems.interface import Filesystem
from filesystems.lustre.api import Library
from filesystems.lustre.errors import LibraryMissing, LibraryTooOld, LustreFailed
from filesystems.lustre.filesystem import LustreFilesystem
from filesystems.mountinfo import mount_type
from filesystems.posix import PosixFilesystem

LUSTRE_TYPE = "lustre"

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
    filesystem: Filesystem = PosixFilesystem(root)
    if b"\0" in filesystem.root:
        raise for_root(filesystem.root, errno.ENOENT)
    try:
        descriptor = os.open(filesystem.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise for_root(filesystem.root, error.errno or 0) from error
    try:
        type_name = mount_type(descriptor)
    finally:
        os.close(descriptor)
    if type_name in CEPHFS_TYPES:
        return Detected(CephfsFilesystem(root), type_name)
    if type_name == LUSTRE_TYPE:
        try:
            lustre = LustreFilesystem(root, Library())
            lustre.check()
            return Detected(lustre, type_name)
        except (LibraryMissing, LibraryTooOld, LustreFailed) as error:
            access = f"through the mount by one walker for all MDTs: {error}"
            return Detected(PosixFilesystem(root, access), type_name)
    return Detected(filesystem, type_name)


def open_filesystem(root: bytes) -> Filesystem:
    """Return the adapter for a tree."""
    return detect(root).filesystem

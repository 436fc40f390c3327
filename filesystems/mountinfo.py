"""What /proc/self/mountinfo says of the mount that an open file is on (proc_pid_mountinfo(5)).

Covers: finding its line, reading its fields; all mounts there are.
Does not cover: what is mounted below a directory (fanotify.mounts).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Blanks and the like are in octal.
_OCTAL = re.compile(rb"\\([0-7]{3})")


UNKNOWN_TYPE = "unknown"


@dataclass(frozen=True, slots=True)
class MountInfo:
    """One mount."""

    root: bytes  # what of its filesystem is mounted: "/" but for bind mounts
    point: bytes
    type_name: str  # ext4, lustre, ceph, fuse.ceph-fuse ...
    source: bytes
    options: tuple[bytes, ...]  # of the filesystem, not of this mount


def mount_of(descriptor: int) -> MountInfo | None:
    """Return the mount that an open file is on; None without /proc."""
    try:
        information = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes()
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    mount = _field_after(information, b"mnt_id:")
    for line in mounts.splitlines():
        if line.split(b" ", 1)[0] == mount:
            return _parsed(line)
    return None


def all_mounts() -> list[MountInfo]:
    """Return what this process sees mounted; empty without /proc."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return []
    return [found for line in mounts.splitlines() if (found := _parsed(line)) is not None]


def _parsed(line: bytes) -> MountInfo | None:
    """ID parent major:minor root point options [optional ...] - type source options"""
    fields = line.split(b" ")
    if b"-" not in fields[6:]:
        return None
    type_name, source, options = fields[fields.index(b"-", 6) + 1 :][:3]
    return MountInfo(
        _unescaped(fields[3]),
        _unescaped(fields[4]),
        type_name.decode(errors="surrogateescape"),
        _unescaped(source),
        tuple(options.split(b",")),
    )


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
    mount = mount_of(descriptor)
    return UNKNOWN_TYPE if mount is None else mount.type_name


def mount_point_of(root: bytes) -> bytes | None:
    """Return the mount point that a directory is at or below; None if that is not known."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount = mount_of(descriptor)
    finally:
        os.close(descriptor)
    return None if mount is None else mount.point


def _field_after(text: bytes, key: bytes) -> bytes:
    for line in text.splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return b""


def _unescaped(text: bytes) -> bytes:
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), text)

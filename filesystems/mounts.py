"""What Linux says about the mount that a file is on.

Covers: its filesystem's type, its mount point.
Does not cover: what is mounted below a tree (the walker kernel, fanotify).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

UNKNOWN_TYPE = "unknown"


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

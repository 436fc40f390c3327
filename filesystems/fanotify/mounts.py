"""What /proc tells of mounts.

Covers: the device of the filesystem that a file is on, what is mounted below a directory.
Does not cover: events of mounts; a mount changes no inode, but it hides what is below it.
"""

from __future__ import annotations

import os
import re

from filesystems.fanotify.tree import relative

_READ_BYTES = 64 << 10
_OCTAL = re.compile(rb"\\([0-7]{3})")


def mount_devices(process: str = "self") -> dict[int, bytes]:
    """Return "major:minor" of the filesystem of each mount that a process sees, by number."""
    return {int(fields[0]): fields[2] for fields in _mounts(process)}


def device_of(descriptor: int) -> bytes:
    """Return "major:minor" of the filesystem an open file is on.

    Not st_dev, which differs between the subvolumes of one btrfs.
    """
    information = read_proc(f"/proc/self/fdinfo/{descriptor}")
    return mount_devices().get(int(proc_field(information, b"mnt_id:")), b"")


def is_whole_filesystem(descriptor: int, path: bytes) -> bool:
    """Tell whether a directory is the root of its filesystem, so that nothing is outside."""
    information = read_proc(f"/proc/self/fdinfo/{descriptor}")
    mount = proc_field(information, b"mnt_id:")
    return any(
        fields[0] == mount and fields[3] == b"/" and _unescape(fields[4]) == path
        for fields in _mounts()
    )


def mounts_below(root_path: bytes) -> frozenset[bytes]:
    """Return the mount points below a directory, relative to it."""
    paths = (relative(_unescape(fields[4]), root_path) for fields in _mounts())
    return frozenset(path for path in paths if path)


def proc_field(text: bytes, key: bytes) -> bytes:
    """Return a field of a /proc file of "key: value" lines; b"" if it is not there."""
    for line in text.splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return b""


def read_proc(path: str) -> bytes:
    """Return a whole file of /proc, in as few calls as can be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _mounts(process: str = "self") -> list[list[bytes]]:
    # ID parent major:minor root point options [optional ...] - type source options
    return [line.split() for line in read_proc(f"/proc/{process}/mountinfo").splitlines()]


def _unescape(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), text)

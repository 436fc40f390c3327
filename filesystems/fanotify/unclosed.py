"""Files that may be written to without events, until they are closed.

Covers: finding the inodes that some process has mapped for sharing, or holds open for writing.
Does not cover: kernel users of files (loop devices).

Linux reports no writes through shared mappings and none of native AIO (io_submit); the close that
ends them is reported (run: ext4, xfs, btrfs, tmpfs on 6.18). A database may not close its files for
a year. So, whenever changes are asked for, the files that are open for writing count as changed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from filesystems.fanotify.mounts import field, mount_devices

_WRITABLE = 0o200  # of the link in /proc/PID/fd: its mode is that of the open file
_MAPPING_FIELDS = 6  # range, permissions, offset, device, inode, path
_VANISHED = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Unclosed:
    """What was found, and the processes that could not be looked into."""

    inodes: frozenset[int]
    unseen: tuple[int, ...]


def unclosed_inodes(device: bytes) -> Unclosed:
    """Find the inodes on a filesystem ("major:minor") that are open for writing."""
    devices = mount_devices()
    inodes: set[int] = set()
    unseen: list[int] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                inodes |= _mapped(process, device)
                inodes |= _open(process, device, devices)
            except _VANISHED:
                continue  # its files were closed, with an event each
            except PermissionError:  # a security module, or no CAP_SYS_PTRACE
                unseen.append(int(process.name))
    return Unclosed(frozenset(inodes), tuple(sorted(unseen)))


def _mapped(process: Path, device: bytes) -> set[int]:
    # maps has the device as hexadecimal, mountinfo as decimal.
    major, _, minor = device.partition(b":")
    number = b"%02x:%02x" % (int(major), int(minor))
    inodes = set()
    for line in (process / "maps").read_bytes().splitlines():
        fields = line.split(maxsplit=_MAPPING_FIELDS - 1)
        # Also those that are read-only by now: mprotect() leaves what was written before.
        if len(fields) == _MAPPING_FIELDS and fields[1][3:] == b"s" and fields[3] == number:
            inodes.add(int(fields[4]))
    return inodes


def _open(process: Path, device: bytes, devices: dict[int, bytes]) -> set[int]:
    inodes = set()
    with os.scandir(process / "fd") as entries:
        for entry in entries:
            try:
                # The link only: what it leads to may be on a server that does not answer.
                if not entry.stat(follow_symlinks=False).st_mode & _WRITABLE:
                    continue
                if not os.readlink(entry.path).startswith("/"):
                    continue  # a socket, a pipe
                information = (process / "fdinfo" / entry.name).read_bytes()
            except _VANISHED:
                continue
            # A mount of another namespace is not in our table: it may be our filesystem.
            mount = int(field(information, b"mnt_id:"))
            if devices.get(mount, device) == device:
                inodes.add(int(field(information, b"ino:")))
    return inodes

"""Files that may be written to without events, until they are closed.

Covers: finding the inodes that some process has mapped for sharing, or holds open for writing.
Does not cover: kernel users of files (loop devices).

Linux reports no writes through shared mappings and none of native AIO (io_submit); the close that
ends them is reported (run: ext4, xfs, btrfs, tmpfs on 6.18). A database may not close its files for
a year. So, whenever changes are asked for, the files that are open for writing count as changed.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from filesystems.fanotify.mounts import mount_devices, proc_field, read_proc

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
    found = _Found(device)
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                found.look_into(process)
            except _VANISHED:
                continue  # its files were closed, with an event each
            except PermissionError:  # a security module, or no CAP_SYS_PTRACE
                found.unseen.append(int(process))
    return Unclosed(frozenset(found.inodes), tuple(sorted(found.unseen)))


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    device: bytes
    inodes: set[int] = field(default_factory=set)
    unseen: list[int] = field(default_factory=list)
    mounts: dict[str, dict[int, bytes]] = field(default_factory=dict)  # of each mount namespace

    def look_into(self, process: str) -> None:
        self._take_mapped(process)
        namespace = os.readlink(f"/proc/{process}/ns/mnt")
        if namespace not in self.mounts:
            self.mounts[namespace] = mount_devices(process)
        with os.scandir(f"/proc/{process}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(*_VANISHED):
                    self._take_open(process, entry, self.mounts[namespace])

    def _take_mapped(self, process: str) -> None:
        # maps has the device as hexadecimal, mountinfo as decimal.
        major, _, minor = self.device.partition(b":")
        number = b"%02x:%02x" % (int(major), int(minor))
        for line in read_proc(f"/proc/{process}/maps").splitlines():
            fields = line.split(maxsplit=_MAPPING_FIELDS - 1)
            # Also those that are read-only by now: mprotect() leaves what was written before.
            if len(fields) == _MAPPING_FIELDS and fields[1][3:] == b"s" and fields[3] == number:
                self.inodes.add(int(fields[4]))

    def _take_open(self, process: str, entry: os.DirEntry[str], devices: dict[int, bytes]) -> None:
        # The link only: what it leads to may be on a server that does not answer.
        if not entry.stat(follow_symlinks=False).st_mode & _WRITABLE:
            return
        if not os.readlink(entry.path).startswith("/"):
            return  # a socket, a pipe
        information = read_proc(f"/proc/{process}/fdinfo/{entry.name}")
        # A mount that is not in the process's namespace any more may be of our filesystem.
        mount = int(proc_field(information, b"mnt_id:"))
        if devices.get(mount, self.device) == self.device:
            self.inodes.add(int(proc_field(information, b"ino:")))

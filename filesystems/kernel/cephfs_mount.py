"""A CephFS directory mounted by libcephfs in this process, for walks of the kernel.

Covers: loading the library, mounting, what the directory is, unmounting; errno to exceptions.
Does not cover: whether it is the directory that a mount shows, and for how long it is kept
(filesystems.cephfs.client).
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from filesystems.kernel._walk import ffi, lib
from shards.errors import ForebayError

LIBRARY = "libcephfs.so.2"
_SAID_BYTES = 512
_XATTR_BYTES_MAX = 1024


class CephfsUnusable(ForebayError):
    """libcephfs is not there, or does not reach the cluster."""

    template = "libcephfs cannot be used: {0}"

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason, code)  # an errno; 0: none


@dataclass(frozen=True, slots=True)
class CephfsAttributes:
    """What is the same of a directory through every client."""

    inode: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int


class CephfsMount:
    """A mounted directory. It and its walks may be used from any thread, but not after a fork."""

    def __init__(
        self, path: bytes, user: str | None, timeout_s: int, library: str = LIBRARY
    ) -> None:
        """Mount; user is one of Ceph without "client.". Raises CephfsUnusable."""
        handle = ffi.new("struct fw_cephfs **")
        said = ffi.new("char[]", _SAID_BYTES)
        name = ffi.NULL if user is None else user.encode()
        code = lib.fw_cephfs_mount(
            os.fsencode(library), name, path, timeout_s, handle, said, _SAID_BYTES
        )
        if code != 0:
            raise CephfsUnusable(os.fsdecode(ffi.string(said)), -code)
        self.handle = handle[0]
        version = ffi.new("int[3]")
        lib.fw_cephfs_version(self.handle, version)
        self.version = ".".join(map(str, version))

    def attributes(self) -> CephfsAttributes:
        """Return what the directory is. Raises OSError."""
        root = ffi.new("struct fw_cephfs_root *")
        _check(lib.fw_cephfs_look(self.handle, root))
        return CephfsAttributes(
            root.inode,
            root.mode,
            root.uid,
            root.gid,
            root.mtime_s * 10**9 + root.mtime_ns,
            root.ctime_s * 10**9 + root.ctime_ns,
        )

    def attribute(self, name: bytes) -> bytes:
        """Return a virtual attribute of the directory. Raises OSError as getxattr does."""
        value = ffi.new("char[]", _XATTR_BYTES_MAX)
        size = _check(lib.fw_cephfs_xattr(self.handle, name, value, _XATTR_BYTES_MAX))
        return bytes(ffi.buffer(value, min(size, _XATTR_BYTES_MAX)))

    def close(self) -> None:
        """Unmount; the cluster takes back what it had granted to this client."""
        lib.fw_cephfs_unmount(self.handle)
        self.handle = ffi.NULL


@dataclass(frozen=True, slots=True)
class CephfsView:
    """A mounted directory, and how the system's mount of it shows what is in it."""

    mount: CephfsMount
    device: int  # st_dev
    has_birth_times: bool


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result) or errno.errorcode.get(-result, "?"))
    return int(result)

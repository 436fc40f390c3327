"""The Lustre client library: the one place where its cffi objects are touched.

Covers: loading liblustreapi at run time, the calls that are needed, return codes to exceptions.
Does not cover: when to call them (changelog, resolve).

The declarations are our own, for what versions 2.15 to 2.17 have in common. Symbols are looked up
when they are first used, so that a missing one is a sentence about that one. The library allocates
952 bytes for each record it hands out (CR_MAXSIZE); copied is what the record's header says, and
never more than those. That loop is in C (kernel), which is given the functions by their addresses.
cffi releases the GIL in every call.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cffi import FFI

from filesystems.lustre.errors import LibraryMissing, LibraryTooOld, RecordMalformed, failed
from filesystems.lustre.fid import FID_BYTES, Fid
from filesystems.lustre.kernel.native import (
    FAILED,
    FULL,
    NO_MEMORY,
    RECORD_BYTES_MAX,
    UNREADABLE,
    Records,
)

LIBRARY = "liblustreapi.so.1"
PATH_BYTES = 4096  # PATH_MAX; for more the client of 2.15 returns EINVAL
LINKS_MAX = 65_536  # of one inode; an inode has no more room for their names

_JOBID, _EXTRA_FLAGS = 0x4, 0x8
_ALL_EXTRA = 0xF  # without all of them the library warns on stderr

_ffi = FFI()
_ffi.cdef(
    """
    int llapi_changelog_start(void **priv, int flags, const char *mdtname, long long startrec);
    int llapi_changelog_set_xflags(void *priv, int extra_flags);
    int llapi_changelog_recv(void *priv, void **record);
    int llapi_changelog_free(void **record);
    int llapi_changelog_fini(void **priv);
    int llapi_changelog_clear(const char *mdtname, const char *idstr, long long endrec);
    int llapi_fid2path_at(int mnt_fd, const void *fid, char *path, int pathlen,
                          long long *recno, int *linkno);
    int llapi_path2fid(const char *path, void *fid);
    int llapi_get_obd_count(char *mnt, int *count, int is_mdt);
    int llapi_file_fget_mdtidx(int fd, int *mdtidx);
    """
)


class Library:
    """An opened liblustreapi."""

    def __init__(self, path: str = LIBRARY) -> None:
        self._path = path
        try:
            self._lib: Any = _ffi.dlopen(path)
        except OSError as error:
            raise LibraryMissing(path, str(error)) from error

    def _call(self, name: str) -> Any:
        try:
            return getattr(self._lib, name)
        except AttributeError as error:
            raise LibraryTooOld(self._path, name) from error

    @contextmanager
    def changelog(self, target: str, first: int) -> Iterator[OpenChangelog]:
        """Open a target's changelog at a record; 0 is the oldest there is."""
        start, extra, receive, free, end = (
            self._call(f"llapi_changelog_{name}")
            for name in ("start", "set_xflags", "recv", "free", "fini")
        )
        private = _ffi.new("void **")
        code = start(private, _JOBID | _EXTRA_FLAGS, target.encode(), first)
        if code != 0:
            raise failed(target, "llapi_changelog_start", -code)
        try:
            code = extra(private[0], _ALL_EXTRA)
            if code != 0:
                raise failed(target, "llapi_changelog_set_xflags", -code)
            yield OpenChangelog(target, private[0], receive, free)
        finally:
            end(private)

    def clear(self, target: str, consumer: str, last: int) -> None:
        """Say that a consumer needs no record up to this one any more; 0: none of all so far."""
        assert last >= 0
        clear = self._call("llapi_changelog_clear")
        code = clear(target.encode(), consumer.encode(), last)
        if code != 0:
            raise failed(target, "llapi_changelog_clear", -code)

    def path_to_fid(self, path: bytes) -> Fid:
        """Return the FID of what is at a path."""
        fid = _ffi.new("char[]", FID_BYTES)
        code = self._call("llapi_path2fid")(path, fid)
        if code != 0:
            raise failed(os.fsdecode(path), "llapi_path2fid", -code)
        return Fid.from_bytes(_ffi.buffer(fid)[:])

    def target_count(self, mount: bytes) -> int:
        """Return how many MDTs a mounted filesystem has."""
        count = _ffi.new("int *")
        code = self._call("llapi_get_obd_count")(mount, count, 1)
        if code != 0:
            raise failed(os.fsdecode(mount), "llapi_get_obd_count", -code)
        return int(count[0])

    def target_of(self, directory: int) -> int:
        """Return the index of the MDT that an open directory is on; of a striped one, the first."""
        index = _ffi.new("int *")
        code = self._call("llapi_file_fget_mdtidx")(directory, index)
        if code != 0:
            raise failed(f"descriptor {directory}", "llapi_file_fget_mdtidx", -code)
        return int(index[0])

    def paths(self, mount: int, fid: bytes, links_max: int = LINKS_MAX) -> list[bytes]:
        """Return the paths of a FID, relative to the mount point; none if there is no such FID.

        The library moves the link number on where there is a further link, and leaves it where
        there is none; older ones end with ENOENT or EINVAL.
        """
        resolve = self._call("llapi_fid2path_at")
        path = _ffi.new("char[]", PATH_BYTES)
        record, link = _ffi.new("long long *"), _ffi.new("int *")
        found: list[bytes] = []
        for number in range(links_max):
            record[0], link[0] = -1, number
            code = resolve(mount, fid, path, PATH_BYTES, record, link)
            if code in (-errno.ENOENT, -errno.ESTALE) or (found and code == -errno.EINVAL):
                break
            if code != 0:
                raise failed(str(Fid.from_bytes(fid)), "llapi_fid2path_at", -code)
            found.append(_ffi.string(path, PATH_BYTES).strip(b"/"))
            if link[0] <= number:
                break
        return found


class OpenChangelog:
    """A changelog that is being read."""

    def __init__(self, target: str, private: Any, receive: Any, free: Any) -> None:
        self._target = target
        self._addresses = tuple(_address(pointer) for pointer in (receive, free, private))

    def read(self, into: Records) -> bool:
        """Append records until there is no room; False at the end. Those before an error stay."""
        ended, detail = into.receive(*self._addresses)
        if ended == FAILED:
            raise failed(self._target, "llapi_changelog_recv", -detail)
        if ended == NO_MEMORY:
            raise failed(self._target, "llapi_changelog_recv", errno.ENOMEM)
        if ended == UNREADABLE:
            raise RecordMalformed(detail, f"{RECORD_BYTES_MAX} is the most")
        return ended == FULL


def _address(pointer: Any) -> int:
    return int(_ffi.cast("uintptr_t", pointer))

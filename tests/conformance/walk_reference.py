"""An independent walk to compare adapters with: os.scandir, os.lstat, and statx through ctypes.

Covers: the rows that a tree must give, column by column.
Does not cover: errors, mounts and exclusions; tests state those themselves.
"""

from __future__ import annotations

import ctypes
import os
import stat

from shards.shard_function import shard_of

COLUMNS = (
    "path",
    "ino",
    "fid",
    "parent",
    "mode",
    "uid",
    "gid",
    "nlink",
    "rdev",
    "size",
    "blocks",
    "atime",
    "mtime",
    "ctime",
    "btime",
    "target",
    "layout",
    "flags",
    "error",
    "depth",
    "shard",
)
INT64_MAX = (1 << 63) - 1
INT64_MIN = -(1 << 63)

AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
STATX_BTIME = 0x800
_libc = ctypes.CDLL(None, use_errno=True)


def birth_time(name: bytes, dir_fd: int) -> int | None:
    """Return the birth time in ns, or None where the filesystem has none."""
    buffer = ctypes.create_string_buffer(256)
    flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    if _libc.statx(dir_fd, name, flags, STATX_BTIME, buffer) != 0:
        raise OSError(ctypes.get_errno(), "statx")
    if not int.from_bytes(buffer.raw[0:4], "little") & STATX_BTIME:
        return None
    # struct statx: stx_btime is at 0x50, 64 bits of seconds, 32 of nanoseconds.
    seconds = int.from_bytes(buffer.raw[0x50:0x58], "little", signed=True)
    return saturate(seconds * 10**9 + int.from_bytes(buffer.raw[0x58:0x5C], "little"))


def saturate(nanoseconds: int) -> int:
    return max(INT64_MIN, min(INT64_MAX, nanoseconds))


def row(path: bytes, name: bytes, dir_fd: int, parent: int | None, shards: int, seed: int) -> tuple:
    """Return the row of one name, as a tuple in the order of COLUMNS."""
    # An empty name would mean something else to lstat; fstat the descriptor instead.
    st = os.lstat(name, dir_fd=dir_fd) if name else os.fstat(dir_fd)
    device = stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode)
    return (
        path,
        st.st_ino,
        None,
        st.st_ino if parent is None else parent,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_nlink,
        st.st_rdev if device else 0,
        st.st_size,
        st.st_blocks,
        saturate(st.st_atime_ns),
        saturate(st.st_mtime_ns),
        saturate(st.st_ctime_ns),
        birth_time(name, dir_fd),
        0,
        None,
        0,
        0,
        path.count(b"/") + 1 if path else 0,
        shard_of(st.st_ino, seed, shards),
    )


def rows(root: os.PathLike | bytes, shards: int, seed: int) -> list[tuple]:
    """Return the rows of a tree, the root's included, sorted; descends by descriptors."""
    found = []
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    found.append(row(b"", b"", descriptor, None, shards, seed))
    todo = [(b"", descriptor)]
    while todo:
        prefix, directory = todo.pop()
        parent = os.fstat(directory).st_ino
        for name in sorted(map(os.fsencode, os.listdir(directory))):
            path = prefix + b"/" + name if prefix else name
            found.append(row(path, name, directory, parent, shards, seed))
            if stat.S_ISDIR(found[-1][4]):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                todo.append((path, os.open(name, flags, dir_fd=directory)))
        os.close(directory)
    return sorted(found, key=lambda item: item[0])

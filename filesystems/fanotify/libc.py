"""The system calls of fanotify and of file handles: the one place where cffi objects are touched.

Covers: fanotify_init, fanotify_mark, name_to_handle_at, open_by_handle_at; errno to OSError.
Does not cover: what events mean (events, looks).

A handle is kept as bytes: its type (int, little-endian), then the bytes of f_handle. Linux gives
the same bytes in an event and for a name, so handles can be compared; what is in them is the
filesystem's own business.
"""

from __future__ import annotations

import os
import struct

from cffi import FFI

# linux/fanotify.h
FAN_MODIFY = 0x2
FAN_ATTRIB = 0x4
FAN_CLOSE_WRITE = 0x8
FAN_CREATE = 0x100
FAN_DELETE = 0x200
FAN_DELETE_SELF = 0x400
FAN_Q_OVERFLOW = 0x4000
FAN_RENAME = 0x1000_0000
FAN_ONDIR = 0x4000_0000
# A call ends before its event could be missed: the kernel queues it before the call returns.
WATCHED = (
    FAN_MODIFY
    | FAN_ATTRIB
    | FAN_CLOSE_WRITE
    | FAN_CREATE
    | FAN_DELETE
    | FAN_DELETE_SELF
    | FAN_RENAME
    | FAN_ONDIR
)
_FAN_CLOEXEC, _FAN_NONBLOCK, _FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_FAN_REPORT_FID, _FAN_REPORT_DIR_FID, _FAN_REPORT_NAME = 0x200, 0x400, 0x800
_FAN_REPORT_TARGET_FID = 0x1000
_FAN_MARK_ADD, _FAN_MARK_FILESYSTEM = 0x1, 0x100
_AT_FDCWD = -100

HANDLE_BYTES_MAX = 128  # MAX_HANDLE_SZ, linux/exportfs.h
HANDLE_TYPE = struct.Struct("<i")

_ffi = FFI()
_ffi.cdef(
    """
    struct file_handle { unsigned int handle_bytes; int handle_type; unsigned char f_handle[128]; };
    int fanotify_init(unsigned int flags, unsigned int event_f_flags);
    int fanotify_mark(int fd, unsigned int flags, uint64_t mask, int dirfd, const char *path);
    int name_to_handle_at(int dirfd, const char *path, struct file_handle *handle, int *mount_id,
                          int flags);
    int open_by_handle_at(int mount_fd, struct file_handle *handle, int flags);
    """
)
_libc = _ffi.dlopen(None)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(_ffi.errno, os.strerror(_ffi.errno))
    return int(result)


def watch_queue() -> int:
    """Open a queue of events that name files by handle, directories by handle and name."""
    flags = _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_UNLIMITED_QUEUE
    flags |= _FAN_REPORT_FID | _FAN_REPORT_DIR_FID | _FAN_REPORT_NAME | _FAN_REPORT_TARGET_FID
    return _check(_libc.fanotify_init(flags, os.O_RDONLY | os.O_LARGEFILE))


def watch_filesystem(queue: int, path: bytes) -> None:
    """Let the queue have the events of the whole filesystem that a path is on."""
    flags = _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM
    _check(_libc.fanotify_mark(queue, flags, WATCHED, _AT_FDCWD, path))


def handle_at(directory: int, name: bytes) -> bytes:
    """Return the handle of a name in an open directory; a symbolic link is not followed."""
    native = _ffi.new("struct file_handle *")
    native.handle_bytes = HANDLE_BYTES_MAX
    mount = _ffi.new("int *")
    _check(_libc.name_to_handle_at(directory, name, native, mount, 0))
    return HANDLE_TYPE.pack(native.handle_type) + bytes(
        _ffi.buffer(native.f_handle, native.handle_bytes)
    )


def open_handle(mount: int, handle: bytes) -> int:
    """Open what a handle leads to, as a place only (O_PATH); ESTALE if it is gone."""
    native = _ffi.new("struct file_handle *")
    native.handle_type = HANDLE_TYPE.unpack_from(handle)[0]
    value = handle[HANDLE_TYPE.size :]
    native.handle_bytes = len(value)
    _ffi.buffer(native.f_handle)[: len(value)] = value
    return _check(_libc.open_by_handle_at(mount, native, os.O_PATH | os.O_CLOEXEC))

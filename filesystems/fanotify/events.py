"""The kernel's buffers of fanotify events, taken apart.

Covers: struct fanotify_event_metadata and its information records (linux/fanotify.h), every
length checked before it is used.
Does not cover: what an event means (looks).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from filesystems.fanotify.errors import EventsDamaged
from filesystems.fanotify.libc import HANDLE_BYTES_MAX, HANDLE_TYPE

METADATA = struct.Struct("<IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid
METADATA_VERSION = 3
_RECORD = struct.Struct("<BBH")  # info_type, pad, len
_IDENTITY = struct.Struct("<qIi")  # fsid, handle_bytes, handle_type
_NO_FD = -1

INFO_FID, INFO_DFID_NAME, INFO_DFID = 1, 2, 3
INFO_OLD_DFID_NAME, INFO_NEW_DFID_NAME = 10, 12
_NAMED = frozenset({INFO_DFID_NAME, INFO_OLD_DFID_NAME, INFO_NEW_DFID_NAME})
_IDENTIFIED = _NAMED | {INFO_FID, INFO_DFID}


class Place(NamedTuple):
    """A name in a directory; b"." is the directory itself."""

    directory: bytes  # its handle
    name: bytes


class Event(NamedTuple):
    """One event; what the kernel did not tell is None."""

    mask: int
    place: Place | None = None
    old: Place | None = None  # of a rename
    new: Place | None = None
    inode: bytes | None = None  # handle of the object itself


def parse(buffer: bytes) -> Iterator[Event]:
    """Yield the events of one read(), in order."""
    offset = 0
    while offset < len(buffer):
        if len(buffer) - offset < METADATA.size:
            raise EventsDamaged(offset, len(buffer), "it is cut off")
        length, version, _, metadata_length, mask, descriptor, _ = METADATA.unpack_from(
            buffer, offset
        )
        if version != METADATA_VERSION:
            raise EventsDamaged(offset, len(buffer), f"its version is {version}")
        if not METADATA.size <= metadata_length <= length <= len(buffer) - offset:
            raise EventsDamaged(offset, len(buffer), f"its length is {length}")
        if descriptor != _NO_FD:
            raise EventsDamaged(offset, len(buffer), "it has a file descriptor")
        yield _event(buffer, mask, offset + metadata_length, offset + length)
        offset += length


def _event(buffer: bytes, mask: int, offset: int, end: int) -> Event:
    found: dict[int, Place] = {}
    while offset < end:
        if end - offset < _RECORD.size:
            raise EventsDamaged(offset, len(buffer), "a record is cut off")
        kind, _, length = _RECORD.unpack_from(buffer, offset)
        if not _RECORD.size <= length <= end - offset:
            raise EventsDamaged(offset, len(buffer), f"a record's length is {length}")
        # Others may come with newer kernels; looks refuses events without those that it needs.
        if kind in _IDENTIFIED:
            place = _place(buffer, kind in _NAMED, offset + _RECORD.size, offset + length)
            if place is not None:
                found[kind] = place
        offset += length
    itself = found.get(INFO_FID)
    return Event(
        mask,
        found.get(INFO_DFID_NAME) or found.get(INFO_DFID),
        found.get(INFO_OLD_DFID_NAME),
        found.get(INFO_NEW_DFID_NAME),
        itself.directory if itself is not None else None,
    )


def _place(buffer: bytes, is_named: bool, offset: int, end: int) -> Place | None:
    if end - offset < _IDENTITY.size:
        raise EventsDamaged(offset, len(buffer), "a file handle is cut off")
    _, size, kind = _IDENTITY.unpack_from(buffer, offset)
    offset += _IDENTITY.size
    if size > min(HANDLE_BYTES_MAX, end - offset):
        raise EventsDamaged(offset, len(buffer), f"a file handle has {size} bytes")
    if size == 0:  # an overflow, or a handle that could not be made
        return None
    handle = HANDLE_TYPE.pack(kind) + buffer[offset : offset + size]
    if not is_named:
        return Place(handle, b".")
    name, terminator, _ = buffer[offset + size : end].partition(b"\0")
    if not terminator or not name or b"/" in name or name == b"..":
        raise EventsDamaged(offset, len(buffer), f"a name is {name!r}")
    return Place(handle, name)

"""Changelog records: from bytes to what they say.

Covers: struct changelog_rec and its extensions, every length checked; which types there are.
Does not cover: fetching records (api, changelog), what follows from one (looks).

A record is 64 bytes, then the extensions that cr_flags names, in a fixed order, then names. Bytes
behind the names are padding. A type that is not known here is decoded like any other. Extra
extensions have no length of their own, so what is behind one that is not known here cannot be
found: a record that announces one is returned without its names. So is one with a name that cannot
be one (a slash or a NUL in it, or one of the two dots): a record that nobody can read would stay
for good. Lengths that lie are refused: then nothing in the record can be believed.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

from filesystems.lustre.errors import RecordMalformed

HEADER = struct.Struct("<HHIQQQ16s16s")
RECORD_BYTES_MAX = 952  # CR_MAXSIZE

CLF_VERSION = 0x1000
CLF_RENAME = 0x2000
CLF_JOBID = 0x4000
CLF_EXTRA_FLAGS = 0x8000
LAST_LINK = 0x1  # of UNLNK, RMDIR; of RENME: the last one of what was overwritten

CLFE_UIDGID = 0x1
CLFE_NID = 0x2
CLFE_OPEN = 0x4
CLFE_XATTR = 0x8
CLFE_NID_BE = 0x10
_KNOWN_EXTRA = CLFE_UIDGID | CLFE_NID | CLFE_OPEN | CLFE_XATTR | CLFE_NID_BE

CLM_FINI = 0x20000  # in a MARK: nothing is recorded from here on

_RENAME_BYTES, _JOBID_BYTES, _EXTRA_FLAGS_BYTES = 32, 32, 8
_EXTRA_FLAGS = struct.Struct("<Q")
_LENGTH_AND_FLAGS = struct.Struct("<HH")
_MARKER = struct.Struct("<I")
# NID_BE has no bytes of its own: it says how those of NID are to be read.
_EXTRA_BYTES = {CLFE_UIDGID: 16, CLFE_NID: 24, CLFE_OPEN: 4, CLFE_XATTR: 256, CLFE_NID_BE: 0}


class RecordType(IntEnum):
    """What happened; lfs prints these names."""

    MARK = 0
    CREAT = 1
    MKDIR = 2
    HLINK = 3
    SLINK = 4
    MKNOD = 5
    UNLNK = 6
    RMDIR = 7
    RENME = 8
    RNMTO = 9
    OPEN = 10
    CLOSE = 11
    LYOUT = 12
    TRUNC = 13
    SATTR = 14
    XATTR = 15
    HSM = 16
    MTIME = 17
    CTIME = 18
    ATIME = 19
    MIGRT = 20
    FLRW = 21
    RESYNC = 22
    GXATR = 23
    NOPEN = 24


class Record(NamedTuple):
    """A record. FIDs are their 16 bytes; of a MARK, target begins with the marker's flags."""

    kind: int  # a RecordType, or one that is not known here
    flags: int
    number: int  # cr_index
    time: int  # seconds << 30 | nanoseconds
    target: bytes
    parent: bytes
    name: bytes
    source: bytes  # of RENME and MIGRT: what was moved
    source_parent: bytes
    source_name: bytes

    @property
    def marker(self) -> int:
        return int(_MARKER.unpack_from(self.target)[0])


def _fixed_bytes(flags: int) -> int:
    """Return how long header and extensions are, but for extra extensions."""
    return (
        HEADER.size
        + (_RENAME_BYTES if flags & CLF_RENAME else 0)
        + (_JOBID_BYTES if flags & CLF_JOBID else 0)
        + (_EXTRA_FLAGS_BYTES if flags & CLF_EXTRA_FLAGS else 0)
    )


def _extra_bytes(extra: int) -> int:
    return sum(size for flag, size in _EXTRA_BYTES.items() if extra & flag)


_FIXED = tuple(_fixed_bytes(bits << 12) for bits in range(16))
_EXTRA = tuple(_extra_bytes(bits) for bits in range(_KNOWN_EXTRA + 1))
_NO_NAMES = frozenset({b".", b".."})
_new = tuple.__new__  # half the time of calling the class


def announced_bytes(data: Any) -> int:
    """Return how long a record is by its own header; at least 952 bytes must be there to read."""
    length, flags = _LENGTH_AND_FLAGS.unpack_from(data)
    size = int(_FIXED[flags >> 12] + length)
    if flags & CLF_EXTRA_FLAGS:
        (extra,) = _EXTRA_FLAGS.unpack_from(data, _FIXED[flags >> 12] - 8)
        size += _EXTRA[extra & _KNOWN_EXTRA]
    return size


def decode(data: bytes) -> Record:
    """Decode one record; raises nothing but RecordMalformed, whatever the bytes are."""
    size = len(data)
    if size < HEADER.size:
        raise RecordMalformed(size, f"a header has {HEADER.size}")
    if size > RECORD_BYTES_MAX:
        raise RecordMalformed(size, f"{RECORD_BYTES_MAX} is the most")
    length, flags, kind, index, _, time, target, parent = HEADER.unpack_from(data)
    offset, is_lost = _FIXED[flags >> 12], False
    if flags & CLF_EXTRA_FLAGS:
        if size < offset:
            raise RecordMalformed(size, "it ends within its extensions")
        (extra,) = _EXTRA_FLAGS.unpack_from(data, offset - 8)
        offset += _EXTRA[extra & _KNOWN_EXTRA]
        is_lost = extra > _KNOWN_EXTRA
    end = offset + length
    if size < end:
        raise RecordMalformed(size, f"extensions and names end at {end}")
    name = b"" if is_lost else data[offset:end]
    if not flags & CLF_RENAME:
        if name and (b"\0" in name or b"/" in name or name in _NO_NAMES):
            name = b""
        return _new(Record, (kind, flags, index, time, target, parent, name, b"", b"", b""))
    name, _, old = name.partition(b"\0")
    if not old:
        old = name  # it is left out where both are the same
    if b"\0" in old or b"/" in name or b"/" in old or name in _NO_NAMES or old in _NO_NAMES:
        name = old = b""
    moved, moved_from = data[64:80], data[80:96]
    return _new(Record, (kind, flags, index, time, target, parent, name, moved, moved_from, old))

"""Changelog records: what they say.

Covers: the types, the fields, what is done about those that cannot be understood.
Does not cover: fetching records (api, changelog), decoding their bytes (kernel), what follows from
one (looks).

A record is 64 bytes, then the extensions that cr_flags names, in a fixed order, then names. Bytes
behind the names are padding. A type that is not known here is decoded like any other. Extra
extensions have no length of their own, so what is behind one that is not known here cannot be
found: a record that announces one is returned without its names. So is one with a name that cannot
be one (a slash or a NUL in it, or one of the two dots): a record that nobody can read would stay
for good. Lengths that lie are refused: then nothing in the record can be believed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


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

"""The INODE schema and the receipt schema (docs/formats/inode-schema.md, segment.md).

Covers: Arrow schemas, flags, classes of rows, receipt statuses.
Does not cover: filling them (walker kernel, FD plugin) or the files they live in.
"""

from __future__ import annotations

import enum

import pyarrow as pa

SCHEMA_VERSION = 1
PATH_BYTES_MAX = 65_535

INODE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.binary(), nullable=False),
        pa.field("ino", pa.uint64(), nullable=False),
        pa.field("fid", pa.binary(16)),
        pa.field("parent", pa.uint64(), nullable=False),
        pa.field("mode", pa.uint32(), nullable=False),
        pa.field("uid", pa.uint32(), nullable=False),
        pa.field("gid", pa.uint32(), nullable=False),
        pa.field("nlink", pa.uint32(), nullable=False),
        pa.field("rdev", pa.uint64(), nullable=False),
        pa.field("size", pa.uint64(), nullable=False),
        pa.field("blocks", pa.uint64(), nullable=False),
        pa.field("atime", pa.int64(), nullable=False),
        pa.field("mtime", pa.int64(), nullable=False),
        pa.field("ctime", pa.int64(), nullable=False),
        pa.field("btime", pa.int64()),
        pa.field("target", pa.uint16(), nullable=False),
        pa.field("layout", pa.int32()),
        pa.field("flags", pa.uint32(), nullable=False),
        pa.field("error", pa.int32(), nullable=False),
        pa.field("depth", pa.uint16(), nullable=False),
        pa.field("shard", pa.uint16(), nullable=False),
    ]
)


class RowFlag(enum.IntFlag):
    """Bits of the flags column."""

    STAT_FAILED = 0x1
    LIST_FAILED = 0x2
    MOUNT_POINT = 0x4
    PATH_TOO_LONG = 0x8
    EXCLUDED = 0x10
    DELETED = 0x20


class RowClass(enum.IntEnum):
    """Classes of rows; a stream has them in the order plain, linked, deleted, directory."""

    PLAIN = 0
    LINKED = 1
    DIRECTORY = 2
    DELETED = 3


class ReceiptStatus(enum.IntEnum):
    """What became of one entry (docs/formats/stream-protocol.md)."""

    SAVED = 1
    LINK = 2
    CHANGED = 3
    UNREADABLE = 4
    VANISHED = 5
    REPLACED = 6
    SKIPPED = 7
    SCAN_ERROR = 8
    DELETED = 9
    RELEASED = 10
    STUB = 11


# What a person should hear of: these keep an entry due.
WARNING_STATUSES = frozenset(
    {
        ReceiptStatus.CHANGED,
        ReceiptStatus.UNREADABLE,
        ReceiptStatus.VANISHED,
        ReceiptStatus.REPLACED,
        ReceiptStatus.SCAN_ERROR,
        ReceiptStatus.RELEASED,
    }
)

RECEIPT_SCHEMA = pa.schema(
    [
        pa.field("number", pa.uint64(), nullable=False),
        pa.field("ino", pa.uint64(), nullable=False),
        pa.field("size", pa.uint64(), nullable=False),
        pa.field("sent_bytes", pa.uint64(), nullable=False),
        pa.field("atime_s", pa.int64(), nullable=False),
        pa.field("mtime_s", pa.int64(), nullable=False),
        pa.field("ctime_s", pa.int64(), nullable=False),
        pa.field("atime_ns", pa.uint32(), nullable=False),
        pa.field("mtime_ns", pa.uint32(), nullable=False),
        pa.field("ctime_ns", pa.uint32(), nullable=False),
        pa.field("mode", pa.uint32(), nullable=False),
        pa.field("uid", pa.uint32(), nullable=False),
        pa.field("gid", pa.uint32(), nullable=False),
        pa.field("nlink", pa.uint32(), nullable=False),
        pa.field("file_index", pa.int32(), nullable=False),
        pa.field("status", pa.uint32(), nullable=False),
        pa.field("error", pa.int32(), nullable=False),
        pa.field("rdev", pa.uint64(), nullable=False),
        pa.field("read_ns", pa.int64(), nullable=False),
        pa.field("hash", pa.binary(16), nullable=False),
        pa.field("path", pa.binary(), nullable=False),
    ],
    metadata={b"forebay.receipts": b"2"},
)

"""What a layer and a view hold of each name (docs/formats/view.md).

Covers: the Arrow schema, the states of a name, the scanned tree's columns that are compared.
Does not cover: the files (layer, view), the comparison (decision).
"""

from __future__ import annotations

import enum

import pyarrow as pa

VIEW_VERSION = 1


class NameState(enum.IntEnum):
    """What restoring a chain of jobs gives for a name."""

    LIVE = 1  # it comes back from the job and FileIndex of the row
    DELETED = 2  # the newest word on it is FT_DELETED
    ABSENT = 3  # nothing was ever saved of it, though it was to be: it is due


# What views and scanned trees both have of a name.
_COMPARED = (
    pa.field("key", pa.binary(), nullable=False),  # shards/keys.py
    pa.field("ino", pa.uint64(), nullable=False),
    pa.field("size", pa.uint64(), nullable=False),
    pa.field("mtime", pa.int64(), nullable=False),
    pa.field("ctime", pa.int64(), nullable=False),
    pa.field("mode", pa.uint32(), nullable=False),
    pa.field("uid", pa.uint32(), nullable=False),
    pa.field("gid", pa.uint32(), nullable=False),
    pa.field("nlink", pa.uint32(), nullable=False),
    pa.field("rdev", pa.uint64(), nullable=False),
)

# One row per key, ascending by key. Attributes are those that were sent to Bacula; times are ns
# since 1970, saturating as in the INODE schema. What a row that is not LIVE does not know is 0.
LAYER_SCHEMA = pa.schema(
    [
        *_COMPARED,
        pa.field("sent_bytes", pa.uint64(), nullable=False),
        pa.field("jobid", pa.uint32(), nullable=False),  # of the job that the row is from
        pa.field("file_index", pa.int32(), nullable=False),  # in that job; 0 unless LIVE
        # FileIndex of the inode's first name in the same job, for a name saved as a hard link;
        # else 0.
        pa.field("first_index", pa.int32(), nullable=False),
        pa.field("state", pa.uint8(), nullable=False),  # NameState
        pa.field("due", pa.bool_(), nullable=False),  # to be sent again even if it looks the same
        pa.field("hash", pa.binary(16), nullable=False),
    ]
)

# A view's row also says when the job that it is from ended (JobTDate, seconds since 1970).
VIEW_SCHEMA = LAYER_SCHEMA.append(pa.field("tdate", pa.int64(), nullable=False))

# What is compared of the scanned tree: one row per name, ascending by key, names listed twice in
# the order in which they were listed. Columns mean what they mean in the INODE schema.
TREE_SCHEMA = pa.schema(
    [
        *_COMPARED,
        pa.field("flags", pa.uint32(), nullable=False),
        pa.field("error", pa.int32(), nullable=False),
        pa.field("shard", pa.uint16(), nullable=False),
    ]
)


def empty_view() -> pa.RecordBatch:
    """Return a view without names."""
    return pa.RecordBatch.from_pylist([], schema=VIEW_SCHEMA)

"""A selection brings what was asked for, what it hangs from, and nothing else."""

import stat

import pyarrow as pa
import pytest

from shards.schema import RECEIPT_SCHEMA, ReceiptStatus
from shards.selection import select

NAMES = [
    (b"a", ReceiptStatus.SAVED),
    (b"dir/b", ReceiptStatus.CHANGED),
    (b"dir/gone", ReceiptStatus.VANISHED),
    (b"dir2/c", ReceiptStatus.SAVED),
    (b"one", ReceiptStatus.SAVED),  # five names of one inode
    (b"dir/two", ReceiptStatus.LINK),
    (b"three", ReceiptStatus.LINK),
    (b"dir2/four", ReceiptStatus.LINK),
    (b"dir/sub", None),
    (b"dir", None),
    (b"dir2", None),
    (b"", None),
]


def batches(size):
    rows = []
    index = 0
    for path, status in NAMES:
        values = dict.fromkeys(RECEIPT_SCHEMA.names, 0)
        values |= {"path": path, "hash": bytes(16), "sent_bytes": 10, "mode": stat.S_IFREG}
        if status is not ReceiptStatus.VANISHED:
            index += 1
            values["file_index"] = index
        if status is None:
            values["mode"] = stat.S_IFDIR
        values["status"] = status or ReceiptStatus.SAVED
        rows.append(values | {"number": len(rows)})
    for start in range(0, len(rows), size):
        yield pa.RecordBatch.from_pylist(rows[start : start + size], schema=RECEIPT_SCHEMA)


INDEX = {
    path: i + 1
    for i, path in enumerate(path for path, status in NAMES if status is not ReceiptStatus.VANISHED)
}


def expand(ranges):
    flat = [index for low, high in ranges for index in range(low, high + 1)]
    assert flat == sorted(set(flat)), "ranges must ascend: Bacula skips what does not"
    return flat


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_everything_is_two_ranges(size):
    found = select(batches(size), None)
    assert found.contents == [(1, 7)]
    assert found.directories == [(8, 11)]
    assert (found.names, found.size_bytes) == (11, 110)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize(
    ("paths", "contents", "directories"),
    [
        ([b"a"], [b"a"], [b""]),
        ([b"dir"], [b"dir/b", b"one", b"dir/two"], [b"dir/sub", b"dir", b""]),
        ([b"dir2/four"], [b"one", b"dir2/four"], [b"dir2", b""]),
        ([b"three", b"dir2/c"], [b"dir2/c", b"one", b"three"], [b"dir2", b""]),
        ([b"di"], [], [b""]),
        ([b"/dir/sub/"], [], [b"dir/sub", b"dir", b""]),
    ],
)
def test_paths_bring_what_is_below_and_the_directories_above(size, paths, contents, directories):
    found = select(batches(size), paths)
    assert expand(found.contents) == [INDEX[path] for path in contents]
    assert expand(found.directories) == [INDEX[path] for path in directories]


def test_paths_that_match_nothing_can_be_named():
    found = select(batches(5), [b"nowhere", b"dir"])
    assert found.matched == {b"dir"}


def test_the_root_itself_is_everything():
    assert select(batches(3), [b""]).contents == [(1, 7)]

"""Every kind of disagreement is found, and nothing else is called one."""

import itertools
import stat

import pyarrow as pa
import pytest

from shards.agreement import (
    RECORD_SCHEMA,
    Kind,
    TreeComparison,
    compare_records,
    sent_records,
    tree_rows,
)
from shards.keys import name_key
from shards.schema import RECEIPT_SCHEMA, ReceiptStatus, RowFlag
from shards.sorted_file import SortedFile, external_sort, write_sorted
from shards.view_schema import TREE_SCHEMA, VIEW_SCHEMA, NameState
from tests.support.rows import directory, grouped, row

SEED = 7
FILE, FOLDER, SOCKET = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFSOCK | 0o755


def entry(path, ino=1, *, folder=False, **others):
    mode = FOLDER if folder else FILE
    values = {field.name: 0 for field in TREE_SCHEMA}
    values |= {"key": name_key(path, is_directory=folder), "ino": ino, "mode": mode, "nlink": 1}
    return values | others


def saved(path, ino=1, *, folder=False, jobid=5, index=1, state=NameState.LIVE, **others):
    values = {field.name: 0 for field in VIEW_SCHEMA} | {"hash": bytes(16), "due": False}
    shared = entry(path, ino, folder=folder)
    values |= {name: value for name, value in shared.items() if name in values}
    values |= {"jobid": jobid, "file_index": index, "state": state, "tdate": jobid}
    return values | others


class Views:
    """Views by shard, each one file."""

    def __init__(self, folder):
        self.folder = folder
        self.names = (f"view{number}" for number in itertools.count())

    def view(self, *rows):
        path = self.folder / next(self.names)
        ordered = sorted(rows, key=lambda values: values["key"])
        batches = [pa.RecordBatch.from_pylist(ordered, schema=VIEW_SCHEMA)] if rows else []
        write_sorted(path, VIEW_SCHEMA, batches)
        file = SortedFile(path)
        file.files = [file]
        return file

    def compare(self, tree, *views, own_jobs=(5,), **others):
        batches = [pa.RecordBatch.from_pylist([values], schema=TREE_SCHEMA) for values in tree]
        files = external_sort(batches, TREE_SCHEMA, self.folder, "tree", rows_max=3)
        comparison = TreeComparison(
            files,
            {shard: self.view(*rows) for shard, rows in enumerate(views)},
            own_jobs,
            **({"is_full": False} | others),
        )
        return {(found.kind, found.key): found.text for found in comparison.run()}, comparison


@pytest.fixture
def views(tmp_path):
    return Views(tmp_path)


def test_what_agrees_is_said_to(views):
    tree = [entry(b"", 1, folder=True), entry(b"a", 2), entry(b"d", 3, folder=True, shard=1)]
    ours = [saved(b"", 1, folder=True), saved(b"a", 2)]
    found, comparison = views.compare(tree, ours, [saved(b"d", 3, folder=True)], is_full=True)
    assert not found
    assert comparison.counts.names == 3


@pytest.mark.parametrize("column", ["ino", "mtime", "ctime", "mode", "uid", "gid", "rdev", "size"])
def test_an_attribute_that_differs_is_named(views, column):
    found, _ = views.compare([entry(b"a", **{column: 9})], [saved(b"a", **{column: 8})])
    (((kind, _), text),) = found.items()
    assert kind is Kind.DIFFERENT
    assert column in text
    assert "JobId 5" in text


def test_a_name_of_the_manifest_that_no_job_has_is_missing(views):
    tree = [entry(b"a"), entry(b"b"), entry(b"c"), entry(b"d", folder=True)]
    rows = [
        saved(b"a", index=0, state=NameState.DELETED),
        saved(b"b", index=0, state=NameState.ABSENT),
        saved(b"d"),  # a file, and the manifest has a directory
    ]
    found, _ = views.compare(tree, rows)
    assert set(found) == {
        (Kind.MISSING, b"a"),
        (Kind.MISSING, b"b"),
        (Kind.MISSING, b"c"),
        (Kind.MISSING, b"d\0"),
        (Kind.EXTRA, b"d"),
    }


def test_due_names_sockets_and_scan_errors_are_counted_only(views):
    tree = [
        entry(b"due", size=9),
        entry(b"gone"),
        entry(b"socket", mode=SOCKET),
        entry(b"failed", error=13),
    ]
    rows = [
        saved(b"due", due=True),
        saved(b"gone", index=0, state=NameState.ABSENT, due=True),
        saved(b"old", due=True),
    ]
    found, comparison = views.compare(tree, rows)
    assert not found
    counts = comparison.counts
    assert (counts.due, counts.sockets, counts.scan_errors, counts.names) == (3, 1, 1, 2)


def test_a_file_that_has_become_a_socket_is_not_to_come_back(views):
    found, _ = views.compare([entry(b"a", mode=SOCKET)], [saved(b"a")])
    assert set(found) == {(Kind.EXTRA, b"a")}


def test_what_this_run_read_after_it_changed_is_counted_and_what_an_older_one_has_is_not(views):
    tree = [entry(b"a", ctime=10)]
    found, comparison = views.compare(tree, [saved(b"a", ctime=11, size=3)])
    assert not found
    assert comparison.counts.moved == 1
    found, _ = views.compare(tree, [saved(b"a", ctime=11, size=3)], own_jobs=(6,))
    assert set(found) == {(Kind.DIFFERENT, b"a")}
    found, _ = views.compare(tree, [saved(b"a", ctime=9, size=3)])
    assert set(found) == {(Kind.DIFFERENT, b"a")}
    found, _ = views.compare(tree, [saved(b"a", ino=2, ctime=11)])
    assert set(found) == {(Kind.DIFFERENT, b"a")}


def test_a_name_listed_twice_counts_as_it_was_seen_last(views):
    tree = [entry(b"a", 1, shard=1), entry(b"b"), entry(b"c"), entry(b"d"), entry(b"a", 2)]
    rows = [saved(name) for name in (b"b", b"c", b"d")]
    newest, older = saved(b"a", 2), saved(b"a", 1, jobid=4)
    found, _ = views.compare(tree, [*rows, newest], [older], is_full=True)
    assert not found
    found, _ = views.compare(tree, [*rows, saved(b"a", 2, jobid=3)], [older], is_full=True)
    assert set(found) == {(Kind.DIFFERENT, b"a")}


def test_two_jobs_of_a_full_run_have_no_name_in_common(views):
    one, other = [saved(b"a")], [saved(b"a", jobid=4)]
    found, _ = views.compare([entry(b"a")], one, other, is_full=True)
    assert found == {(Kind.TWICE, b"a"): "saved by JobIds 5, 4"}
    assert not views.compare([entry(b"a")], one, other)[0]


def test_what_would_come_back_without_being_in_the_manifest_is_named(views):
    tree = [entry(b"", folder=True)]
    rows = [saved(b"", folder=True), saved(b"x/y"), saved(b"x", folder=True)]
    assert set(views.compare(tree, rows)[0]) == {(Kind.EXTRA, b"x\0"), (Kind.EXTRA, b"x\0y")}
    found, _ = views.compare(tree, rows, is_in_scope=lambda key: key == b"x\0")
    assert set(found) == {(Kind.EXTRA, b"x\0")}
    found, comparison = views.compare(tree, rows, nothing_deleted=True)
    assert not found
    assert comparison.counts.hidden == 2


def test_what_lies_below_a_directory_that_could_not_be_listed_may_come_back(views):
    flags = int(RowFlag.LIST_FAILED)
    tree = [
        entry(b"", folder=True),
        entry(b"x", folder=True, error=13, flags=flags),
        entry(b"z", error=13, flags=int(RowFlag.STAT_FAILED)),
    ]
    rows = [saved(b"", folder=True), saved(b"x/y"), saved(b"x!"), saved(b"z/below")]
    found, comparison = views.compare(tree, rows)
    assert set(found) == {(Kind.EXTRA, b"x!")}
    assert comparison.counts.hidden == 2


def test_a_shard_without_a_good_job_is_left_out(views):
    tree = [entry(b"a"), entry(b"b", 7, shard=1)]
    found, comparison = views.compare(tree, [saved(b"a"), saved(b"b", 6, jobid=4)])
    assert not found, "shard 0 had the name before shard 1's inode took it over"
    assert comparison.counts.not_saved == 1


def test_rows_of_segments_get_their_keys():
    batch, _ = grouped([row(b"d/a", 2, size=5), directory(b"d", 3)], 1, SEED)
    tree = tree_rows(batch)
    assert tree.schema == TREE_SCHEMA
    assert {(r["key"], r["ino"], r["size"]) for r in tree.to_pylist()} == {
        (b"d\0a", 2, 5),
        (b"d\0", 3, 0),
    }


def receipts(*rows):
    nothing = {field.name: 0 for field in RECEIPT_SCHEMA} | {"hash": bytes(16)}
    return pa.RecordBatch.from_pylist(
        [
            nothing | {"path": path, "file_index": index, "status": status, "mode": mode}
            for path, index, status, mode in rows
        ],
        schema=RECEIPT_SCHEMA,
    )


def test_what_the_catalog_is_to_have_of_a_job():
    batch = receipts(
        (b"a", 1, ReceiptStatus.SAVED, FILE),
        (b"b", 0, ReceiptStatus.VANISHED, FILE),
        (b"c", 2, ReceiptStatus.UNREADABLE, FILE),
        (b"d", 3, ReceiptStatus.DELETED, FOLDER),
        (b"", 4, ReceiptStatus.SAVED, FOLDER),
    )
    assert [tuple(r.values()) for r in sent_records(batch).to_pylist()] == [
        (b"a", 1),
        (b"c", 2),
        (b"d\0", -3),
        (b"\0", 4),
    ]


def records(folder, prefix, rows):
    batches = [
        pa.RecordBatch.from_pylist([{"key": key, "file_index": index}], schema=RECORD_SCHEMA)
        for key, index in rows
    ]
    return external_sort(batches, RECORD_SCHEMA, folder, prefix, rows_max=4)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda rows: rows, []),
        (lambda rows: rows[:5] + rows[6:], [Kind.NOT_IN_CATALOG]),
        (lambda rows: [*rows, rows[3]], [Kind.NOT_IN_RECEIPTS]),
        (lambda rows: [*rows, (b"new", 99)], [Kind.NOT_IN_RECEIPTS]),
        (
            lambda rows: [*rows[:-1], (rows[-1][0], -rows[-1][1])],
            [Kind.NOT_IN_CATALOG, Kind.NOT_IN_RECEIPTS],
        ),
        (lambda rows: [], [Kind.NOT_IN_CATALOG] * 11),
    ],
)
def test_records_are_compared_as_multisets(tmp_path, change, kinds):
    rows = [(b"n%d" % number, number + 1) for number in range(10)] + [(b"n3", 50)]
    ours = records(tmp_path, "ours", rows)
    theirs = records(tmp_path, "theirs", change(rows)[::-1])
    assert sorted(found.kind for found in compare_records(ours, theirs)) == sorted(kinds)
    assert all("FileIndex" in found.text for found in compare_records(ours, theirs))

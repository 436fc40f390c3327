"""Layers: the rules of one job and of a chain of jobs, and both against slow dictionaries."""

import tempfile
from itertools import accumulate, pairwise
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import layer as layers
from shards import sorted_file
from shards.layer import (
    fold,
    inode_rows,
    layer_from_catalog,
    layer_from_receipts,
    layer_rows,
    with_tdate,
)
from shards.schema import ReceiptStatus as Status
from shards.view_schema import LAYER_SCHEMA, VIEW_SCHEMA, NameState
from tests.support.receipts import (
    DIRECTORY,
    FILE,
    MARGIN_NS,
    READ_AT,
    layer_batch,
    receipt,
    receipts_batch,
    rows_of,
    slow_fold,
    slow_layer,
)

LIVE, DELETED, ABSENT = NameState.LIVE, NameState.DELETED, NameState.ABSENT


def layer_of(*receipts, jobid=7):
    """Make a layer at once and receipt by receipt; return its rows."""
    whole = layer_rows(receipts_batch(receipts), jobid, MARGIN_NS)
    singly = (receipts_batch([one]) for one in receipts)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(layer_from_receipts(singly, jobid, MARGIN_NS, Path(folder)))
    assert pa.Table.from_batches(rows, LAYER_SCHEMA) == pa.Table.from_batches([whole])
    return rows_of(whole)


def folded(*jobs):
    """Fold (tdate, receipt) pairs, each a job of one name; return the one row."""
    views = [
        with_tdate(layer_rows(receipts_batch([one]), jobid, MARGIN_NS), {jobid: tdate})
        for jobid, (tdate, one) in enumerate(jobs, 1)
    ]
    (row,) = rows_of(fold(views)).values()
    return row


@st.composite
def streams(draw):
    """One job's receipts: few names and inodes, so that they meet in every way."""
    count = draw(st.integers(0, 12))
    sent = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    indexes = list(accumulate(sent))
    return [
        receipt(
            draw(st.sampled_from([b"", b"a", b"a/b", b"b", b"\xff/a"])),
            draw(st.sampled_from([*Status, Status.SAVED, Status.LINK, Status.LINK])),
            index if is_sent else 0,
            ino=draw(st.integers(0, 3)),
            mode=draw(st.sampled_from([FILE, FILE, FILE, DIRECTORY])),
            nlink=draw(st.integers(1, 2)),
            mtime_s=draw(st.sampled_from([0, -1, 2**40, -(2**40), 9223372036, -9223372037])),
            mtime_ns=draw(st.sampled_from([0, 145224191, 145224192, 854775807, 854775808])),
            ctime_s=draw(st.sampled_from([READ_AT - 3, READ_AT - 1, READ_AT - 2])),
            ctime_ns=draw(st.integers(0, 1)),
        )
        for index, is_sent in zip(indexes, sent, strict=True)
    ]


@given(streams())
@settings(max_examples=150, deadline=None)
def test_a_layer_is_what_the_slow_rules_give(receipts):
    rows = layer_rows(receipts_batch(receipts), 7, MARGIN_NS)
    assert rows.schema == LAYER_SCHEMA
    assert rows_of(rows) == slow_layer(receipts, 7, MARGIN_NS)


@given(st.lists(st.tuples(streams(), st.integers(100, 102)), max_size=4), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_a_fold_is_what_the_slow_rules_give_and_may_be_done_in_steps(jobs, cut):
    slow = [
        (slow_layer(receipts, jobid, MARGIN_NS), tdate)
        for jobid, (receipts, tdate) in enumerate(jobs, 1)
    ]
    tdates = {jobid: tdate for jobid, (_, tdate) in enumerate(jobs, 1)}
    views = [with_tdate(layer_batch(one), tdates) for one, _ in slow]
    whole = fold(views)
    assert whole.schema == VIEW_SCHEMA
    assert rows_of(whole) == slow_fold(slow)
    assert fold([fold(views[:cut]), *views[cut:]]) == whole


@given(streams(), st.lists(st.integers(0, 12), max_size=3))
@settings(max_examples=40, deadline=None)
def test_a_layer_made_in_small_pieces_is_the_same(receipts, cuts):
    bounds = [0, *sorted(min(cut, len(receipts)) for cut in cuts), len(receipts)]
    pieces = [receipts_batch(receipts[start:end]) for start, end in pairwise(bounds)]
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(sorted_file, "_RUN_BLOCK_ROWS_MAX", 2),
        mock.patch.object(layers, "SORT_ROWS_MAX", 1),
        mock.patch.object(layers, "merge_sorted", lambda runs: sorted_file.merge_sorted(runs, 3)),
        mock.patch.object(
            layers, "external_sort", lambda *args: sorted_file.external_sort(*args, rows_max=3)
        ),
    ):
        rows = list(layer_from_receipts(iter(pieces), 7, MARGIN_NS, Path(folder)))
    whole = layer_rows(receipts_batch(receipts), 7, MARGIN_NS)
    assert pa.Table.from_batches(rows, LAYER_SCHEMA) == pa.Table.from_batches([whole])


@pytest.mark.parametrize(
    ("status", "file_index", "state", "due"),
    [
        (Status.SAVED, 5, LIVE, False),
        (Status.CHANGED, 5, LIVE, True),
        (Status.STUB, 5, LIVE, True),
        (Status.RELEASED, 0, ABSENT, True),
        (Status.UNREADABLE, 5, LIVE, True),
        (Status.UNREADABLE, 0, ABSENT, True),
        (Status.VANISHED, 0, ABSENT, True),
        (Status.REPLACED, 0, ABSENT, True),
        (Status.SCAN_ERROR, 0, ABSENT, True),
        (Status.DELETED, 5, DELETED, False),
    ],
)
def test_each_status_makes_its_row(status, file_index, state, due):
    row = layer_of(receipt(b"a", status, file_index))[b"a"]
    assert (row["state"], row["due"]) == (state, due)
    assert row["file_index"] == (5 if state == LIVE else 0)


def test_further_names_of_a_stub_are_as_due_as_the_first():
    rows = layer_of(
        *(receipt(b"a", Status.STUB, 1, ino=3), receipt(b"b", Status.LINK, 2, ino=3)),
        *(receipt(b"c", Status.SAVED, 3, ino=4), receipt(b"d", Status.LINK, 4, ino=4)),
    )
    assert [rows[key]["due"] for key in (b"a", b"b", b"c", b"d")] == [True, True, False, False]
    assert rows[b"b"]["first_index"] == 1


def test_sockets_are_in_no_layer():
    assert layer_of(receipt(b"a", Status.SKIPPED), receipt(b"b", Status.SAVED, 1)).keys() == {b"b"}


def test_a_file_and_a_directory_of_one_name_are_two_names():
    rows = layer_of(receipt(b"a", Status.DELETED, 1), receipt(b"a", mode=DIRECTORY, file_index=2))
    assert rows[b"a"]["state"] == DELETED
    assert rows[b"a\0"]["state"] == LIVE


def test_what_changed_within_the_margin_before_it_was_read_is_due():
    at_margin = layer_of(receipt(b"a", file_index=1, ctime_s=READ_AT - 2))
    younger = layer_of(receipt(b"a", file_index=1, ctime_s=READ_AT - 2, ctime_ns=1))
    assert not at_margin[b"a"]["due"]
    assert younger[b"a"]["due"]


def test_of_several_rows_of_one_name_the_last_file_counts_and_not_a_later_link():
    saved = [receipt(b"a", file_index=1), receipt(b"a", file_index=2)]
    assert layer_of(*saved, receipt(b"a", Status.LINK, 3))[b"a"]["file_index"] == 2
    links = [receipt(b"first", file_index=1), *(receipt(b"a", Status.LINK, n) for n in (2, 3))]
    assert layer_of(*links)[b"a"]["file_index"] == 2
    assert layer_of(*links, receipt(b"a", file_index=4))[b"a"]["file_index"] == 4


def test_within_a_job_live_beats_deleted_whatever_the_order():
    saved, deleted = receipt(b"a", file_index=1), receipt(b"a", Status.DELETED, 2)
    assert layer_of(saved, deleted)[b"a"]["state"] == LIVE
    assert layer_of(deleted, saved)[b"a"]["state"] == LIVE


def test_a_name_is_due_if_anything_in_the_job_makes_it_so():
    row = layer_of(receipt(b"a", file_index=1), receipt(b"a", Status.UNREADABLE))[b"a"]
    assert (row["state"], row["due"]) == (LIVE, True)


def test_a_link_knows_the_first_name_of_its_inode_over_names_that_were_not_saved():
    rows = layer_of(
        receipt(b"other", file_index=3, ino=8, nlink=2),
        receipt(b"a", file_index=4, ino=9, nlink=3),
        receipt(b"b", Status.VANISHED, ino=9),
        receipt(b"c", Status.LINK, 5, ino=9, nlink=3),
    )
    assert rows[b"c"]["first_index"] == 4
    assert not rows[b"c"]["due"]
    assert rows[b"a"]["first_index"] == 0


def test_a_link_without_a_first_name_is_due():
    row = layer_of(receipt(b"a", file_index=1, ino=8), receipt(b"b", Status.LINK, 2, ino=9))[b"b"]
    assert (row["first_index"], row["due"]) == (0, True)


def test_the_names_of_an_inode_that_was_saved_as_two_files_are_due():
    rows = layer_of(
        receipt(b"a", file_index=1, ino=9, nlink=2),
        receipt(b"x", file_index=2, ino=5, nlink=2),
        receipt(b"b", file_index=3, ino=9, nlink=2),
        receipt(b"gone", Status.DELETED, 4, ino=9, nlink=2),
    )
    dues = [rows[key]["due"] for key in (b"a", b"b", b"x", b"gone")]
    assert dues == [True, True, False, False]


def test_the_newest_job_wins_a_name():
    assert folded((100, receipt(b"a", file_index=9)), (101, receipt(b"a", file_index=1))) == {
        **layer_of(receipt(b"a", file_index=1), jobid=2)[b"a"],
        "tdate": 101,
    }
    row = folded((100, receipt(b"a", file_index=9)), (101, receipt(b"a", Status.DELETED, 1)))
    assert (row["state"], row["jobid"], row["due"]) == (DELETED, 2, False)


def test_in_the_same_second_live_wins_then_the_larger_index_and_the_name_is_due():
    saved, deleted = receipt(b"a", file_index=1), receipt(b"a", Status.DELETED, 2)
    row = folded((100, saved), (100, deleted))
    assert (row["state"], row["jobid"], row["due"]) == (LIVE, 1, True)
    row = folded((100, deleted), (100, saved))
    assert (row["state"], row["jobid"], row["due"]) == (LIVE, 2, False)
    row = folded((100, receipt(b"a", file_index=9)), (100, saved))
    assert (row["file_index"], row["jobid"], row["due"]) == (9, 1, True)


def test_a_clock_that_was_set_back_leaves_the_name_due():
    row = folded((200, receipt(b"a", file_index=1)), (100, receipt(b"a", file_index=1)))
    assert (row["jobid"], row["due"]) == (1, True)


def test_a_name_that_could_not_be_saved_again_keeps_its_row_and_becomes_due():
    absent = receipt(b"a", Status.UNREADABLE)
    row = folded((100, receipt(b"a", file_index=4)), (101, absent))
    assert (row["state"], row["jobid"], row["file_index"], row["tdate"]) == (LIVE, 1, 4, 100)
    assert row["due"]
    row = folded((100, receipt(b"a", Status.DELETED, 4)), (101, absent))
    assert (row["state"], row["jobid"], row["due"]) == (DELETED, 1, True)
    row = folded((100, absent), (101, absent))
    assert (row["state"], row["jobid"], row["due"]) == (ABSENT, 2, True)
    row = folded((100, absent), (101, receipt(b"a", file_index=4)))
    assert (row["state"], row["jobid"], row["due"]) == (LIVE, 2, False)


def test_nothing_folds_to_nothing():
    assert fold([]).num_rows == 0
    assert fold([]).schema == VIEW_SCHEMA
    empty = layer_rows(receipts_batch([]), 1, 0)
    assert fold([with_tdate(empty, {})] * 2).schema == VIEW_SCHEMA


def test_names_from_the_catalog_are_due_unless_deleted(tmp_path):
    names = [(b"a", False, 3), (b"d", True, 4), (b"gone", False, -5), (b"a", False, -6)]
    (rows,) = layer_from_catalog(iter(names), 7, tmp_path)
    found = rows_of(rows)
    assert {key: (row["state"], row["file_index"], row["due"]) for key, row in found.items()} == {
        b"a": (LIVE, 3, True),
        b"d\0": (LIVE, 4, True),
        b"gone": (DELETED, 0, False),
    }
    assert {row["jobid"] for row in found.values()} == {7}
    assert {row["ino"] for row in found.values()} == {0}


def test_the_index_has_live_names_of_known_inodes():
    rows = layer_rows(
        receipts_batch(
            [
                receipt(b"a", file_index=1, ino=2**40 + 1),
                receipt(b"gone", Status.DELETED, 2, ino=5),
                receipt(b"unknown", file_index=3, ino=0),
            ]
        ),
        1,
        0,
    )
    assert inode_rows(rows).to_pylist() == [{"key": bytes([0, 0, 1, 0, 0, 0, 0, 1]), "name": b"a"}]

"""Views: like slow dictionaries in every question, and whole again after any damage."""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import sorted_file, view
from shards.files import file_checksum
from shards.keys import name_key
from shards.receipts import ReceiptsDamaged, receipts_name
from shards.schema import RECEIPT_SCHEMA
from shards.schema import ReceiptStatus as Status
from shards.shard_jobs import ReceiptsInfo, StreamSummary
from shards.sorted_file import SortedFile, SortedFileDamaged, write_sorted
from shards.state import StateDirectory, StateDirectoryError
from shards.view import ChainLink, NamesUnknown, ViewStore
from shards.view_schema import NameState
from tests.support.receipts import (
    DIRECTORY,
    FILE,
    MARGIN_NS,
    receipt,
    receipts_batch,
    rows_of,
    slow_fold,
    slow_layer,
)

PATHS = [b"", b"a", b"a/b", b"a/b/c", b"ab", b"b"]


def saved_link(state, jobid, receipts, *, tdate=None, shard=0):
    """Write a job's receipts; each job has a run of its own."""
    state.make_run(jobid)
    path = state.receipts(jobid) / receipts_name(shard, jobid)
    with pa.ipc.new_stream(str(path), RECEIPT_SCHEMA) as writer:
        writer.write_batch(receipts_batch(receipts))
    info = ReceiptsInfo(path.name, *file_checksum(path), StreamSummary())
    return ChainLink(jobid, shard, jobid, tdate or 1000 + jobid, info, MARGIN_NS)


def chain(state, count, *, names=6):
    """Make a chain: a Full of so many names, then jobs of one name each."""
    full = [receipt(b"name%d" % n, file_index=n + 1, ino=n + 10) for n in range(names)]
    jobs = [full, *([receipt(b"name1", file_index=1, ino=11)] for _ in range(count - 1))]
    return [saved_link(state, jobid, receipts) for jobid, receipts in enumerate(jobs, 1)]


def all_rows(opened):
    return rows_of(pa.Table.from_batches(opened.batches()))


def files_below(state):
    return {path for path in state.base.rglob("*") if path.is_file()}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def state(tmp_path):
    return StateDirectory(tmp_path)


@st.composite
def jobs(draw):
    """A job's receipts: each name at most once, inodes shared."""
    receipts = []
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=5, unique=True)):
        receipts.append(
            receipt(
                path,
                draw(st.sampled_from([Status.SAVED, Status.DELETED, Status.UNREADABLE])),
                len(receipts) + 1 if draw(st.booleans()) else 0,
                ino=draw(st.integers(1, 3)),
                mode=draw(st.sampled_from([FILE, DIRECTORY])),
            )
        )
    return receipts, draw(st.integers(0, 1))


@given(
    st.lists(jobs(), min_size=1, max_size=7),
    st.sampled_from(PATHS),
    st.lists(st.sampled_from(PATHS), max_size=3),
    st.lists(st.integers(1, 4), max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_a_view_answers_as_a_slow_dictionary(history, below, asked, inos):
    tdates = [100 + sum(later for _, later in history[: n + 1]) for n in range(len(history))]
    slow = slow_fold(
        [
            (slow_layer(receipts, jobid, MARGIN_NS), tdate)
            for jobid, ((receipts, _), tdate) in enumerate(zip(history, tdates, strict=True), 1)
        ]
    )
    slow = dict(sorted(slow.items()))
    keys = [name_key(path, is_directory=kind) for path in asked for kind in (False, True)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        patches.enter_context(mock.patch.object(view, "FOLD_LINKS", 2))
        patches.enter_context(mock.patch.object(sorted_file, "BLOCK_ROWS_MAX", 2))
        patches.enter_context(mock.patch.object(os, "fsync"))
        state = StateDirectory(Path(folder))
        links = [
            saved_link(state, jobid, receipts, tdate=tdate)
            for jobid, ((receipts, _), tdate) in enumerate(zip(history, tdates, strict=True), 1)
        ]
        opened = ViewStore(state).view(links)
        assert opened.links == tuple(links)
        assert len(opened.files) <= 4
        assert rows_of(opened.range(b"", None)) == slow
        assert all_rows(opened) == slow
        assert rows_of(opened.lookup(keys)) == {k: v for k, v in slow.items() if k in keys}
        inside = {
            key: row
            for key, row in slow.items()
            if not below or key.startswith(below.replace(b"/", b"\0") + b"\0")
        }
        assert rows_of(pa.Table.from_batches(opened.subtree(below), view.VIEW_SCHEMA)) == inside
        assert list(opened.due_keys()) == [key for key, row in slow.items() if row["due"]]
        assert opened.names_of_inodes(inos) == [
            key
            for key, row in slow.items()
            if row["state"] == NameState.LIVE and row["ino"] in inos
        ]
        assert not list(state.base.rglob("*.partial*"))


def test_long_chains_are_folded_and_a_longer_one_uses_the_same_folds(state):
    links = chain(state, 20)
    store = ViewStore(state)
    assert len(store.view(links[:8]).files) == 8
    assert not state.views.exists()
    assert [len(store.view(links[:n]).files) for n in (9, 16, 17)] == [2, 9, 3]
    folds = {path: path.stat().st_mtime_ns for path in state.views.iterdir()}
    opened = store.view(links)
    assert len(opened.files) == 6
    assert {path: path.stat().st_mtime_ns for path in state.views.iterdir()} == folds
    assert all_rows(opened)[b"name1"]["tdate"] == 1020
    assert len(all_rows(opened)) == 6


def test_a_fold_keeps_what_is_deleted_and_what_is_absent(state):
    links = [
        saved_link(state, 1, [receipt(b"a", file_index=1), receipt(b"b", file_index=2)]),
        saved_link(state, 2, [receipt(b"a", Status.DELETED, 1), receipt(b"b", Status.UNREADABLE)]),
        saved_link(state, 3, []),
    ]
    with mock.patch.object(view, "FOLD_LINKS", 2):
        opened = ViewStore(state).view(links)
        rows = all_rows(opened)
    assert len(opened.files) == 2
    assert (rows[b"a"]["state"], rows[b"a"]["tdate"]) == (NameState.DELETED, 1002)
    assert (rows[b"b"]["state"], rows[b"b"]["jobid"], rows[b"b"]["due"]) == (
        NameState.LIVE,
        1,
        True,
    )


def test_files_of_a_view_are_used_again(state):
    links = chain(state, 2)
    ViewStore(state).view(links)
    for link in links:
        (state.receipts(link.run) / link.receipts.name).unlink()
    assert len(all_rows(ViewStore(state).view(links))) == 6


def test_any_damage_is_mended_from_the_receipts(state):
    links = chain(state, 9)
    opened = ViewStore(state).view(links)
    expected = all_rows(opened)
    in_use = [file.path for file in opened.files]
    for path in [*in_use, *(path.with_suffix(".inodes") for path in in_use)]:
        sound = path.read_bytes()
        # The header, the first block, the footer, the trailer; cut short, empty, away.
        spots = (3, 70, 264, len(sound) - 60, len(sound) - 2)
        spoilings = [lambda path=path, spot=spot: flip(path, spot) for spot in spots]
        spoilings += [lambda path=path, n=n: os.truncate(path, n) for n in (0, 64, len(sound) - 1)]
        for spoil in [*spoilings, path.unlink]:
            spoil()
            opened = ViewStore(state).view(links)
            assert all_rows(opened) == expected
            assert opened.names_of_inodes([11, 12]) == [b"name1", b"name2"]
            assert path.read_bytes() == sound


def test_a_fold_is_made_again_though_a_layer_of_it_is_damaged_too(state):
    links = chain(state, 9)
    store = ViewStore(state)
    expected = all_rows(store.view(links))
    for path in state.views.iterdir():
        flip(path, 70)
    flip(store.layer_path(links[4]), 70)
    store.layer_path(links[6]).unlink()
    assert all_rows(ViewStore(state).view(links)) == expected


def test_damage_that_is_met_while_reading_is_mended(state):
    opened = ViewStore(state).view(chain(state, 2))
    expected = all_rows(opened)
    opened = ViewStore(state).view(opened.links)
    layer = ViewStore(state).layer_path(opened.links[0])
    flip(layer, 100)
    assert rows_of(opened.lookup([b"name3"])) == {b"name3": expected[b"name3"]}
    assert all_rows(opened) == expected
    SortedFile(layer).range(b"", None)


def test_damaged_receipts_are_named_when_a_layer_needs_them(state):
    (link,) = chain(state, 1)
    flip(state.receipts(1) / link.receipts.name, 100)
    with pytest.raises(ReceiptsDamaged, match=link.receipts.name):
        ViewStore(state).view([link])
    assert files_below(state) == {state.receipts(1) / link.receipts.name}


def test_a_file_that_is_damaged_again_is_not_made_for_ever(state):
    (link,) = chain(state, 1)
    ViewStore(state).view([link])
    made = []

    def write_damaged(path, *args):
        write_sorted(path, *args)
        made.append(path.suffix)
        if path.suffix == ".layer":
            flip(path, 100)

    flip(ViewStore(state).layer_path(link), 100)
    opened = ViewStore(state).view([link])
    with mock.patch.object(view, "write_sorted", write_damaged):
        with pytest.raises(SortedFileDamaged):
            opened.range(b"", None)
        with pytest.raises(SortedFileDamaged):
            opened.lookup([b"name1"])
    assert made == [".layer"] * 2


def test_a_layer_of_other_receipts_is_not_taken(state):
    chain(state, 1)
    ViewStore(state).view(chain(state, 1))
    (link,) = chain(state, 1, names=3)
    assert len(all_rows(ViewStore(state).view([link]))) == 3


def test_names_come_from_the_catalog_where_there_are_no_receipts(state):
    asked = []

    def names(jobid):
        asked.append(jobid)
        yield from [(b"d", True, 2), (b"d/a", False, 1), (b"gone", False, -3)]

    links = [
        ChainLink(0, 0, 1, 100, None, 0),
        saved_link(state, 2, [receipt(b"d/a", file_index=1, ino=9)]),
    ]
    store = ViewStore(state, names)
    opened = store.view(links)
    assert list(opened.due_keys()) == [b"d\0"]
    rows = all_rows(opened)
    assert rows[b"gone"]["state"] == NameState.DELETED
    assert (rows[b"d\0"]["file_index"], rows[b"d\0"]["tdate"]) == (2, 100)
    store.view(links)
    assert asked == [1]
    store.view([ChainLink(0, 0, 1, 101, None, 0)])  # another job of the same JobId
    assert asked == [1, 1]


def test_a_name_that_another_inode_has_taken_is_not_found_by_the_old_one(state):
    links = [
        saved_link(state, 1, [receipt(b"a", file_index=1, ino=1), receipt(b"b", file_index=2)]),
        saved_link(state, 2, [receipt(b"a", file_index=1, ino=2)]),
    ]
    opened = ViewStore(state).view(links)
    assert opened.names_of_inodes([1]) == [b"b"]
    assert opened.names_of_inodes([2, 1]) == [b"a", b"b"]


def test_without_receipts_and_catalog_nothing_is_guessed(state):
    with pytest.raises(NamesUnknown, match="JobId 5"):
        ViewStore(state).view([ChainLink(0, 0, 5, 100, None, 0)])


def test_a_state_directory_that_takes_no_files_is_named(state):
    (link,) = chain(state, 1)
    error = OSError(28, "No space left on device")
    with (
        mock.patch.object(os, "fsync", side_effect=error),
        pytest.raises(StateDirectoryError, match=f"{state.base}.*No space left"),
    ):
        ViewStore(state).view([link])
    assert files_below(state) == {state.receipts(1) / link.receipts.name}


def test_a_view_of_no_jobs_is_empty(state):
    opened = ViewStore(state).view([])
    assert opened.range(b"", None).num_rows == 0
    assert opened.lookup([b"a"]).num_rows == 0
    assert list(opened.due_keys()) == []
    assert opened.names_of_inodes([1]) == []


def test_memory_does_not_grow_with_the_number_of_names(tmp_path):
    def peak(rows):
        folder = tmp_path / str(rows)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.support.view_memory", str(rows), str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return int(done.stdout)

    assert peak(1_000_000) < 1.1 * peak(300_000)

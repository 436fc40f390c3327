"""Sorted files: ranges and keys like a list's, and no damage that is not noticed."""

import itertools
import os
import tempfile
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import sorted_file
from shards.sorted_file import (
    SortedFile,
    SortedFileDamaged,
    external_sort,
    key_ranges,
    merge_sorted,
    write_sorted,
)

SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(), nullable=False),
        pa.field("value", pa.int64(), nullable=False),
        pa.field("due", pa.bool_(), nullable=False),
    ]
)
KEYS = st.binary(max_size=3)
CUT = st.integers(1, 9)


def batch(keys, values=None, due=()):
    values = range(len(keys)) if values is None else values
    return pa.RecordBatch.from_pydict(
        {"key": list(keys), "value": list(values), "due": [key in due for key in keys]},
        schema=SCHEMA,
    )


def written(folder, keys, block_rows_max=None, due=(), **options):
    path = Path(folder) / "sorted"
    write_sorted(path, SCHEMA, [batch(keys, due=due)], block_rows_max=block_rows_max, **options)
    return SortedFile(path)


def pairs(rows):
    return list(zip(rows.column("key").to_pylist(), rows.column("value").to_pylist(), strict=True))


def read_everything(path):
    file = SortedFile(path)
    return [file.range(low, high) for low, high in key_ranges([file], rows_target=1)]


@given(st.lists(KEYS), CUT, KEYS, st.none() | KEYS, st.lists(KEYS, max_size=6))
@settings(max_examples=100, deadline=None)
def test_ranges_and_lookups_give_what_a_list_gives(keys, rows_max, low, high, wanted):
    keys.sort()
    listed = list(zip(keys, range(len(keys)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        file = written(folder, keys, rows_max, is_temporary=True)
        assert file.num_rows == len(keys)
        assert file.schema == SCHEMA
        if high is None or low <= high:
            inside = [row for row in listed if low <= row[0] and (high is None or row[0] < high)]
            assert pairs(file.range(low, high)) == inside
        assert pairs(file.range(b"", None)) == listed
        assert pairs(file.lookup(wanted)) == [row for row in listed if row[0] in wanted]


@given(st.lists(st.lists(KEYS, max_size=30), max_size=4), CUT, st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_key_ranges_are_consecutive_and_bounded(files, rows_max, rows_target):
    with tempfile.TemporaryDirectory() as folder:
        opened = []
        for number, keys in enumerate(files):
            path = Path(folder) / str(number)
            rows = [batch(sorted(keys))]
            write_sorted(path, SCHEMA, rows, block_rows_max=rows_max, is_temporary=True)
            opened.append(SortedFile(path))
        ranges = list(key_ranges(opened, rows_target))
        assert ranges[0][0] == b""
        assert ranges[-1][1] is None
        assert all(one[1] == other[0] for one, other in itertools.pairwise(ranges))
        most_of_one_key = sum(max(map(keys.count, keys), default=0) for keys in files)
        for low, high in ranges:
            assert high is None or low < high
            rows = sum(file.range(low, high).num_rows for file in opened)
            assert rows < rows_target + (rows_max + most_of_one_key) * (len(files) + 1)


@given(st.lists(st.lists(KEYS, max_size=20), max_size=8), CUT, st.integers(2, 3))
@settings(max_examples=50, deadline=None)
def test_sorting_in_runs_is_a_stable_sort(batches, rows_max, runs_max):
    keys = [key for part in batches for key in part]
    numbers = iter(range(len(keys)))
    parts = [batch(part, [next(numbers) for _ in part]) for part in batches]
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(sorted_file, "_RUNS_MAX", runs_max),
        mock.patch.object(sorted_file, "_RUN_BLOCK_ROWS_MAX", 2),
    ):
        runs = external_sort(parts, SCHEMA, Path(folder), "run-", rows_max)
        merged = list(merge_sorted(runs, rows_target=4))
        expected = sorted(zip(keys, range(len(keys)), strict=True), key=lambda row: row[0])
        assert [row for rows in merged for row in pairs(rows)] == expected
        last_keys = [rows.column("key")[-1].as_py() for rows in merged]
        assert len(set(last_keys)) == len(merged), "a key is in two batches"
        assert sorted(os.listdir(folder)) == sorted(run.path.name for run in runs)
        assert len(runs) <= (runs_max - 1) * 8


def test_any_flipped_byte_is_noticed(tmp_path):
    path = written(tmp_path, [b"a", b"b", b"c", b"d"], 2, due=[b"c"]).path
    sound = path.read_bytes()
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(SortedFileDamaged, match=str(path)):
            read_everything(path)


def test_any_truncation_is_noticed(tmp_path):
    path = written(tmp_path, [b"a", b"b", b"c", b"d"], 2).path
    sound = path.read_bytes()
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(SortedFileDamaged, match=str(path)):
            read_everything(path)


def test_a_missing_file_is_a_damaged_one(tmp_path):
    with pytest.raises(SortedFileDamaged, match="No such file"):
        SortedFile(tmp_path / "missing")


def test_a_file_of_another_version_is_refused(tmp_path):
    with mock.patch.object(sorted_file, "_VERSION", 2):
        path = written(tmp_path, [b"a"]).path
    with pytest.raises(SortedFileDamaged, match="not a sorted file of version 1"):
        SortedFile(path)


def test_damage_in_one_block_leaves_the_others_readable(tmp_path):
    file = written(tmp_path, [b"a", b"b", b"c", b"d"], 2)
    content = bytearray(file.path.read_bytes())
    content[64 + 200] ^= 1
    file.path.write_bytes(content)
    file = SortedFile(file.path)
    assert pairs(file.range(b"c", None)) == [(b"c", 2), (b"d", 3)]
    assert pairs(file.lookup([b"d"])) == [(b"d", 3)]
    with pytest.raises(SortedFileDamaged, match="block 0"):
        file.lookup([b"a"])


def test_only_blocks_with_due_rows_are_named(tmp_path):
    file = written(tmp_path, [b"a", b"b", b"c", b"d", b"e"], 2, due=[b"b", b"e"])
    assert list(file.due_ranges()) == [(b"a", b"c"), (b"e", None)]


def test_what_was_read_stays_valid_when_the_file_is_replaced(tmp_path):
    file = written(tmp_path, [b"a", b"b", b"c"], 1)
    first = file.range(b"a", b"b")
    written(tmp_path, [b"x"] * 1000)
    file.range(b"c", None)  # the first block's pages are let go
    assert pairs(first) == [(b"a", 0)]
    assert pairs(file.range(b"", None)) == [(b"a", 0), (b"b", 1), (b"c", 2)]


def test_long_names_make_smaller_blocks(tmp_path):
    keys = [b"%05d" % number + bytes(60_000) for number in range(200)]
    file = written(tmp_path, keys)
    assert len(file.first_keys) > 1
    assert all(weight <= sorted_file.BLOCK_ROWS_MAX for _, weight in file.block_weights())
    assert len(list(key_ranges([file], 10_000))) > 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = written(tmp_path, [b"a"]).path

    def broken():
        yield batch([b"b"] * 20_000)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_sorted(path, SCHEMA, broken())
    assert pairs(SortedFile(path).range(b"", None)) == [(b"a", 0)]
    assert os.listdir(tmp_path) == ["sorted"]


def test_keys_that_descend_are_a_bug(tmp_path):
    with pytest.raises(AssertionError, match="within a block"):
        written(tmp_path, [b"b", b"a"])
    with pytest.raises(AssertionError, match="from block to block"):
        written(tmp_path, [b"b", b"a"], 1)


def test_a_file_gets_its_name_only_when_it_is_on_disk(tmp_path):
    calls = []

    def recording(name):
        call = getattr(os, name)
        return mock.patch.object(os, name, lambda *args: (calls.append(name), call(*args))[1])

    with recording("fsync"), recording("rename"):
        written(tmp_path, [b"a"])
    assert calls == ["fsync", "rename", "fsync"]

"""Spans of keys, cut into parts."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.keys import name_key
from shards.sorted_file import SortedFile, write_sorted
from shards.spans import covers, outermost, overlap, parts

SCHEMA = pa.schema([pa.field("key", pa.binary(), nullable=False)])
NAME = st.sampled_from([b"a", b"a!", b"b", b"a0", b"c"])
PATH = st.lists(NAME, max_size=3).map(b"/".join)


def is_below(path, others):
    return any(not other or path == other or path.startswith(other + b"/") for other in others)


@given(st.lists(PATH, max_size=5), PATH)
def test_a_directory_is_covered_when_it_or_one_above_is_asked_for(subtrees, path):
    spans = outermost(subtrees)
    assert covers(spans, name_key(path, is_directory=True)) == is_below(path, subtrees)
    for one, other in itertools.pairwise(spans):
        assert one[1] is not None
        assert one[1] <= other[0]


def test_what_two_spans_share():
    assert overlap((b"a", b"c"), (b"b", None)) == (b"b", b"c")
    assert overlap((b"a", None), (b"b", None)) == (b"b", None)
    assert overlap((b"a", b"b"), (b"b", b"c")) is None


@pytest.fixture
def file(tmp_path):
    keys = sorted(b"%03d\0%03d" % (folder, name) for folder in range(40) for name in range(700))
    batches = [
        pa.RecordBatch.from_pydict({"key": keys[start : start + 1000]}, schema=SCHEMA)
        for start in range(0, len(keys), 1000)
    ]
    write_sorted(tmp_path / "sorted", SCHEMA, batches)
    return SortedFile(tmp_path / "sorted")


@pytest.mark.parametrize("subtrees", [[b""], [b"003", b"004", b"017"], [b"039"], [b"nowhere"], []])
def test_parts_cover_the_spans_once_and_nothing_else(file, subtrees):
    found = [
        key
        for low, high in parts(outermost(subtrees), [file], 1000)
        for key in file.range(low, high).column("key").to_pylist()
    ]
    everything = file.range(b"", None).column("key").to_pylist()
    wanted = [key for key in everything if is_below(key.replace(b"\0", b"/"), subtrees)]
    assert found == wanted


def test_parts_of_several_spans_within_one_part_of_the_file(file):
    spans = outermost([b"001", b"002", b"005"])
    assert list(parts(spans, [file], 10**9)) == spans

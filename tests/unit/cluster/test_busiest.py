"""Counting by directory: exact while there is room, within a stated bound when there is not."""

import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.busiest import Busiest, DirectoryCounts, parents

names = st.binary(max_size=4).map(lambda name: name.replace(b"\0", b"x"))
paths = st.lists(names, max_size=4).map(b"/".join)


def slow_parent(path):
    return path.rpartition(b"/")[0]


@given(st.lists(paths, min_size=1, max_size=30), st.integers(0, 5))
def test_a_parent_is_what_is_before_the_last_slash(several, cut):
    array = pa.array(several, type=pa.binary()).slice(cut)
    assert parents(array).to_pylist() == [slow_parent(path) for path in several[cut:]]


@given(st.lists(st.tuples(paths, st.integers(0, 2**40)), min_size=1, max_size=60))
def test_with_room_enough_the_counts_are_exact(rows):
    counts = DirectoryCounts()
    for start in range(0, len(rows), 7):
        part = rows[start : start + 7]
        counts.add(
            pa.array([path for path, _ in part], type=pa.binary()),
            np.array([size for _, size in part], dtype=np.uint64),
        )
    expected, sizes = Counter(), Counter()
    for path, size in rows:
        if path:  # the root is in no directory
            expected[slow_parent(path)] += 1
            sizes[slow_parent(path)] += size
    found = {one.path: one.amount for one in counts.names.largest(100)}
    assert found == dict(expected)
    assert {one.path: one.amount for one in counts.bytes.largest(100)} == dict(+sizes)
    assert counts.names.missing == counts.bytes.missing == 0


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 1000)), max_size=300),
    st.integers(2, 20),
)
def test_without_room_a_count_is_never_too_high_and_too_low_by_a_stated_bound(rows, keys_max):
    busiest, exact = Busiest(keys_max), Counter()
    for number, amount in rows:
        busiest.add(b"%d" % number, amount)
        exact[b"%d" % number] += amount
        assert len(busiest._amounts) <= keys_max
    found = {one.path: one.amount for one in busiest.largest(keys_max)}
    for key, amount in exact.items():
        assert found.get(key, 0) <= amount <= found.get(key, 0) + busiest.missing
    assert busiest.total == exact.total()


def test_the_bound_is_small_against_all_of_it():
    busiest = Busiest(keys_max=1000)
    for number in range(100_000):
        busiest.add(b"%d" % number, 1)
        busiest.add(b"the large one", 1)
    assert busiest.missing <= 2 * busiest.total // 1000
    assert busiest.largest(1)[0].path == b"the large one"


def test_long_names_do_not_take_all_the_memory():
    busiest = Busiest(key_bytes_max=1 << 20)
    tracemalloc.start()
    for number in range(2_000):
        busiest.add(b"%06d" % number + b"x" * 60_000, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert busiest.missing > 0


def test_equal_ones_come_by_name():
    busiest = Busiest()
    for key in (b"b", b"a", b"c"):
        busiest.add(key, 5)
    assert [one.path for one in busiest.largest(2)] == [b"a", b"b"]


@pytest.mark.parametrize("several", [[b""], [b"", b""]])
def test_a_root_alone_is_nothing(several):
    counts = DirectoryCounts()
    counts.add(pa.array(several, type=pa.binary()), np.zeros(len(several), dtype=np.uint64))
    assert counts.names.largest(5) == []

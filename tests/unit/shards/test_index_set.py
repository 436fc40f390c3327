"""A bitmap of FileIndexes behaves as a set of numbers does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards import index_set
from shards.index_set import IndexSet

INDEXES = st.lists(st.integers(1, 40_000) | st.integers(1, 40), max_size=60)


def column(numbers):
    return np.array(sorted(numbers), dtype=np.int32)


def expand(ranges):
    return [index for low, high in ranges for index in range(low, high + 1)]


@given(INDEXES, INDEXES, INDEXES)
def test_it_is_a_set(first, second, asked):
    one, other = IndexSet(), IndexSet()
    one.add(np.array(first, dtype=np.int32))
    other.add(np.array(second, dtype=np.int32))
    assert expand(one.ranges()) == sorted(set(first))
    assert len(one) == len(set(first))
    assert bool(one) == bool(first)
    assert one.has(column(asked)).tolist() == [index in first for index in sorted(asked)]
    assert expand(one.without(other).ranges()) == sorted(set(first) - set(second))
    both = sorted(set(first) & set(second))
    one.remove(column(both))
    assert expand(one.ranges()) == sorted(set(first) - set(second))
    one.update(other)
    assert expand(one.ranges()) == sorted(set(first) | set(second))


def test_ranges_go_on_over_the_ends_of_blocks(monkeypatch):
    monkeypatch.setattr(index_set, "_BLOCK_BYTES", 2)
    chosen = IndexSet()
    chosen.add(np.arange(3, 100, dtype=np.int32))
    chosen.add(np.array([128, 5_000], dtype=np.int32))
    assert chosen.ranges() == [(3, 99), (128, 128), (5_000, 5_000)]


def test_what_is_no_fileindex_is_in_no_set():
    chosen = IndexSet()
    chosen.add(np.arange(1, 1 << 13, dtype=np.int32))
    asked = np.array([-1, 0, 1, 1 << 13, 1 << 30], dtype=np.int32)
    assert chosen.has(asked).tolist() == [False, False, True, False, False]

"""Spans of keys: subtrees, and the parts into which they are read.

Covers: subtrees without those inside others, what two spans share, what lies outside.
Does not cover: keys themselves (keys), files that are sorted by them (sorted_file).

A span has the keys from its first bound up to its second one, exclusive; None is past every key.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence

from shards.keys import subtree_bounds
from shards.sorted_file import SortedFile, key_ranges

Span = tuple[bytes, bytes | None]

ROWS_TARGET = 65_536


def outermost(subtrees: Iterable[bytes]) -> list[Span]:
    """Return the spans of subtrees, ascending, without those inside others."""
    spans: list[Span] = []
    for low, high in sorted((subtree_bounds(path) for path in subtrees), key=lambda span: span[0]):
        if not spans or not _ends_after(spans[-1], low):
            spans.append((low, high))
    return spans


def covers(spans: Sequence[Span], key: bytes) -> bool:
    """Tell whether a key is in one of several spans, which ascend and do not overlap."""
    place = bisect.bisect_right(spans, key, key=lambda span: span[0]) - 1
    return place >= 0 and _ends_after(spans[place], key)


def overlap(one: Span, other: Span) -> Span | None:
    """Return what two spans share."""
    low = max(one[0], other[0])
    ends = [end for end in (one[1], other[1]) if end is not None]
    high = min(ends) if ends else None
    return None if high is not None and low >= high else (low, high)


def parts(
    spans: Sequence[Span], files: Sequence[SortedFile], rows: int = ROWS_TARGET
) -> Iterator[Span]:
    """Cut spans into parts of which all files together have about so many rows each."""
    left = list(reversed(spans))
    for part in key_ranges(files, rows):
        while left and (shared := overlap(left[-1], part)) is not None:
            yield shared
            if not _ends_within(left[-1], part):
                break
            left.pop()


def _ends_after(span: Span, key: bytes) -> bool:
    return span[1] is None or key < span[1]


def _ends_within(span: Span, part: Span) -> bool:
    return part[1] is None or (span[1] is not None and span[1] <= part[1])

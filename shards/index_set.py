"""A set of FileIndexes of one job, as a bitmap.

Covers: adding, removing and testing columns of them; ascending ranges.
Does not cover: which are chosen (selection).

FileIndexes of a job are dense, from 1: a bit for each is 12 MB for 10^8 names.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indexes = npt.NDArray[np.int32]
Ranges = list[tuple[int, int]]

_FIRST_BYTES = 1 << 10
_BLOCK_BYTES = 1 << 17  # so many bytes of the bitmap are looked at at once


class IndexSet:
    """A set of FileIndexes."""

    def __init__(self) -> None:
        self._bits = np.zeros(_FIRST_BYTES, dtype=np.uint8)

    def add(self, indexes: Indexes) -> None:
        """Add a column of them, in any order."""
        if not len(indexes):
            return
        assert int(indexes.min()) > 0, "a FileIndex is above 0"
        need = (int(indexes.max()) >> 3) + 1
        if need > len(self._bits):
            grown = np.zeros(max(need, 2 * len(self._bits)), dtype=np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        np.bitwise_or.at(self._bits, indexes >> 3, _masks(indexes))

    def update(self, other: IndexSet) -> None:
        """Add all of another set."""
        if len(other._bits) > len(self._bits):
            grown = other._bits.copy()
            grown[: len(self._bits)] |= self._bits
            self._bits = grown
        else:
            self._bits[: len(other._bits)] |= other._bits

    def remove(self, indexes: Indexes) -> None:
        """Remove a column of them, all of which are in the set."""
        np.bitwise_and.at(self._bits, indexes >> 3, ~_masks(indexes))

    def has(self, indexes: Indexes) -> npt.NDArray[np.bool_]:
        """Tell for each of a column whether it is in the set."""
        inside = (indexes > 0) & ((indexes >> 3) < len(self._bits))
        place = np.where(inside, indexes >> 3, 0)
        result: npt.NDArray[np.bool_] = inside & ((self._bits[place] & _masks(indexes)) != 0)
        return result

    def without(self, *others: IndexSet) -> IndexSet:
        """Return those that are in none of the others."""
        result = IndexSet()
        result._bits = self._bits.copy()
        for other in others:
            shared = min(len(result._bits), len(other._bits))
            result._bits[:shared] &= ~other._bits[:shared]
        return result

    def __bool__(self) -> bool:
        return bool(self._bits.any())

    def __len__(self) -> int:
        return sum(int(np.unpackbits(block).sum(dtype=np.int64)) for _, block in self._blocks())

    def ranges(self) -> Ranges:
        """Return its inclusive ranges, ascending, apart by more than one."""
        ranges: Ranges = []
        for start, block in self._blocks():
            flat = np.unpackbits(block, bitorder="little").astype(np.int8)
            edges = np.flatnonzero(np.diff(flat, prepend=0, append=0)) + start * 8
            for low, end in edges.reshape(-1, 2).tolist():
                if ranges and ranges[-1][1] == low - 1:
                    ranges[-1] = (ranges[-1][0], end - 1)
                else:
                    ranges.append((low, end - 1))
        return ranges

    def _blocks(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for start in range(0, len(self._bits), _BLOCK_BYTES):
            block = self._bits[start : start + _BLOCK_BYTES]
            if block.any():
                yield start, block


def _masks(indexes: Indexes) -> npt.NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (indexes & 7).astype(np.uint8), dtype=np.uint8)

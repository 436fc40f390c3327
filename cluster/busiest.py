"""The directories with the most in them, in one pass and bounded memory.

Covers: counting by parent directory, as many as fit; what was forgotten, as a bound.
Does not cover: where the names come from (report_figures).

Exact as long as no more than KEYS_MAX directories come. After that the smallest are forgotten and
the others lose as much as the largest of those had (Misra and Gries, 1982, with weights): a count
is never too high, and too low by at most `missing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

KEYS_MAX = 100_000
KEY_BYTES_MAX = 64 << 20
SLASH = ord("/")


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, and what it has at least."""

    path: bytes
    amount: int


class Busiest:
    """Adds amounts up by key and keeps the largest."""

    def __init__(self, keys_max: int = KEYS_MAX, key_bytes_max: int = KEY_BYTES_MAX) -> None:
        self._keys_max = keys_max
        self._key_bytes_max = key_bytes_max
        self._amounts: dict[bytes, int] = {}
        self._key_bytes = 0
        self.missing = 0  # so much may lack in each count
        self.total = 0

    def add(self, key: bytes, amount: int) -> None:
        """Add to a key."""
        if amount <= 0:
            return
        self.total += amount
        known = self._amounts.get(key)
        if known is not None:
            self._amounts[key] = known + amount
            return
        self._amounts[key] = amount
        self._key_bytes += len(key)
        if len(self._amounts) > self._keys_max or self._key_bytes > self._key_bytes_max:
            self._forget()

    def _forget(self) -> None:
        """Keep the larger half."""
        ranked = sorted(self._amounts.items(), key=lambda item: item[1], reverse=True)
        kept, size = 0, 0
        for key, _ in ranked[: self._keys_max // 2]:
            if size + len(key) > self._key_bytes_max // 2:
                break
            kept, size = kept + 1, size + len(key)
        lost = ranked[kept][1]
        self.missing += lost
        self._amounts = {key: amount - lost for key, amount in ranked[:kept] if amount > lost}
        self._key_bytes = sum(map(len, self._amounts))

    def largest(self, count: int) -> list[Directory]:
        """Return the largest, the very largest first; equal ones by name."""
        ranked = sorted(self._amounts.items(), key=lambda item: (-item[1], item[0]))
        return [Directory(path, amount) for path, amount in ranked[:count]]


class DirectoryCounts:
    """Bytes and names by parent directory."""

    def __init__(self) -> None:
        self.bytes = Busiest()
        self.names = Busiest()

    def add(self, paths: pa.BinaryArray, sizes: npt.NDArray[np.uint64]) -> None:
        """Add names; the root's own, the empty one, is in no directory."""
        named = np.flatnonzero(np.diff(_offsets(paths)) > 0)
        if not len(named):
            return
        encoded = parents(paths).take(pa.array(named)).dictionary_encode()
        groups = encoded.indices.to_numpy()
        counts = np.bincount(groups)
        # Not bincount's weights: those are floats.
        amounts = np.zeros(len(counts), dtype=np.uint64)
        np.add.at(amounts, groups, sizes[named])
        keys = encoded.dictionary.to_pylist()
        for key, count, amount in zip(keys, counts.tolist(), amounts.tolist(), strict=True):
            self.names.add(key, count)
            self.bytes.add(key, amount)


def parents(paths: pa.BinaryArray) -> pa.BinaryArray:
    """Return what is before the last slash of each path; nothing where there is none."""
    offsets = _offsets(paths)
    data = np.frombuffer(paths.buffers()[2] or b"", dtype=np.uint8)[: offsets[-1]]
    starts, ends = offsets[:-1], offsets[1:]
    slashes = np.flatnonzero(data == SLASH)
    if not len(slashes):
        return pa.array([b""] * len(paths), type=pa.binary())
    before = np.searchsorted(slashes, ends) - 1  # the last one in front of each path's end
    last = np.where(before >= 0, slashes[before], -1)
    lengths = np.where(last >= starts, last - starts, 0)
    made = np.zeros(len(paths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=made[1:])
    places = np.arange(made[-1]) + np.repeat(starts - made[:-1], lengths)
    buffers = [None, pa.py_buffer(made.tobytes()), pa.py_buffer(data[places].tobytes())]
    return pa.Array.from_buffers(pa.binary(), len(paths), buffers)


def _offsets(paths: pa.BinaryArray) -> npt.NDArray[np.int64]:
    raw = np.frombuffer(paths.buffers()[1], dtype=np.int32)
    return raw[paths.offset : paths.offset + len(paths) + 1].astype(np.int64)

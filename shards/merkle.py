"""Merkle roots over receipts (docs/formats/merkle.md).

Covers: the root of one job's receipts, however they are cut into batches; the root of a run.
Does not cover: where roots are kept (ledger), reading receipts.

The trees have RFC 6962's shape. Every kind of node has its own BLAKE2b personalization, so that
none can be passed off as another, and a root covers how much is below it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from shards.schema import RECEIPT_SCHEMA

LEAF_ROWS = 4_096
ROOT_BYTES = 32
_ROWS, _NODE, _JOB, _RUN = b"forebay.rows", b"forebay.node", b"forebay.job", b"forebay.run"


def receipts_root(batches: Iterable[pa.RecordBatch]) -> bytes:
    """Return the root over one job's receipts, in the order of the stream."""
    tree = _Tree()
    rows = 0
    for leaf in _leaves(batches):
        tree.add(_digest(_ROWS, *_encoded(leaf)))
        rows += leaf.num_rows
    return _digest(_JOB, struct.pack("<Q", rows), tree.root())


def run_root(roots: Sequence[bytes]) -> bytes:
    """Return the root over the roots of a run's good jobs, in the order of their shards."""
    tree = _Tree()
    for root in roots:
        assert len(root) == ROOT_BYTES, "not a root"
        tree.add(root)
    return _digest(_RUN, struct.pack("<Q", len(roots)), tree.root())


class _Tree:
    """The roots of the full trees so far, by size: no more than one of each power of two."""

    def __init__(self) -> None:
        self._peaks: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        size, node = 1, leaf
        while self._peaks and self._peaks[-1][0] == size:
            node = _digest(_NODE, self._peaks.pop()[1], node)
            size *= 2
        self._peaks.append((size, node))

    def root(self) -> bytes:
        """Return the root, empty for no leaves."""
        peaks = [node for _, node in reversed(self._peaks)]
        root = peaks[0] if peaks else b""
        for left in peaks[1:]:
            root = _digest(_NODE, left, root)
        return root


def _leaves(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut into LEAF_ROWS rows; the last may have fewer."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        start = 0
        while rows + batch.num_rows - start >= LEAF_ROWS:
            part = batch.slice(start, LEAF_ROWS - rows)
            yield pa.concat_batches([*waiting, part]) if waiting else part
            start += part.num_rows
            waiting, rows = [], 0
        if start < batch.num_rows:
            waiting.append(batch.slice(start))
            rows += batch.num_rows - start
    if waiting:
        yield pa.concat_batches(waiting)


def _encoded(leaf: pa.RecordBatch) -> Iterator[bytes]:
    """Yield the rows column by column, in the order of the schema."""
    yield struct.pack("<I", leaf.num_rows)
    for field in RECEIPT_SCHEMA:
        column = leaf.column(field.name)
        if pa.types.is_binary(field.type):
            values = column.to_pylist()
            yield np.fromiter(map(len, values), dtype="<u4", count=len(values)).tobytes()
            yield b"".join(values)
        elif pa.types.is_fixed_size_binary(field.type):
            yield b"".join(column.to_pylist())
        else:
            values = column.to_numpy()
            yield values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _digest(kind: bytes, *parts: bytes) -> bytes:
    hasher = hashlib.blake2b(digest_size=ROOT_BYTES, person=kind)
    for part in parts:
        hasher.update(part)
    return hasher.digest()

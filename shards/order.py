"""The order of a stream: plain entries, hard links inode by inode, deleted names, directories.

Covers: reading one shard's rows of many segments in that order, with bounded memory.
Does not cover: encoding for the socket (bacula_bridge), waiting for segments (the caller's pages).

Plain rows can go as soon as their segment is committed; links and directories wait for the end
of the scan. Neither needs a merge or a sort of the whole: links are sorted inside each segment by
a hash of the inode number, so a range of hashes is one slice per segment and holds all names of
its inodes; directories are sorted by depth, so a depth is one slice per segment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.schema import RowClass
from shards.segment import SegmentInfo, SegmentStore
from shards.shard_function import mix64_column

# Links are read in ranges of hashes that hold about this many rows.
LINKED_ROWS_TARGET = 65_536
# Slices smaller than this are joined before they are handed on.
BATCH_ROWS_MIN = 4_096


def stream_rows(
    store: SegmentStore, pages: Iterable[list[SegmentInfo]], shard: int, seed: int
) -> Iterator[pa.RecordBatch]:
    """Yield a shard's rows in the order of a stream.

    pages yields the committed segments as they come and ends when the scan has ended.
    """
    infos: list[SegmentInfo] = []
    for page in pages:
        for info in page:
            if info.count(shard, RowClass.PLAIN):
                yield store.rows(info, shard, RowClass.PLAIN)
        infos.extend(info for info in page if any(info.counts[shard][RowClass.LINKED :]))
    yield from _linked(store, infos, shard, seed)
    for info in infos:
        if info.count(shard, RowClass.DELETED):
            yield store.rows(info, shard, RowClass.DELETED)
    yield from _joined(_directories(store, infos, shard))


def _linked(
    store: SegmentStore, infos: list[SegmentInfo], shard: int, seed: int
) -> Iterator[pa.RecordBatch]:
    having = [info for info in infos if info.count(shard, RowClass.LINKED)]
    total = sum(info.count(shard, RowClass.LINKED) for info in having)
    ranges = max(1, -(-total // LINKED_ROWS_TARGET))
    bounds = [(i << 64) // ranges for i in range(ranges + 1)]
    for low, high in itertools.pairwise(bounds):
        parts = []
        for info in having:
            batch = store.rows(info, shard, RowClass.LINKED)
            hashes = _hashes(batch, seed)
            start = int(np.searchsorted(hashes, np.uint64(low)))
            end = len(hashes) if high >> 64 else int(np.searchsorted(hashes, np.uint64(high)))
            if end > start:
                parts.append(batch.slice(start, end - start))
        if parts:
            whole = pa.concat_batches(parts)
            order = np.lexsort((_inodes(whole), _hashes(whole, seed)))
            yield whole.take(pa.array(order))


def _directories(
    store: SegmentStore, infos: list[SegmentInfo], shard: int
) -> Iterator[pa.RecordBatch]:
    having = [info for info in infos if info.count(shard, RowClass.DIRECTORY)]
    spans = []  # deepest and shallowest depth of each segment, so that most are not opened again
    for info in having:
        depths = store.rows(info, shard, RowClass.DIRECTORY).column("depth").to_numpy()
        spans.append((int(depths[0]), int(depths[-1])))
    deepest = max((span[0] for span in spans), default=-1)
    for depth in range(deepest, -1, -1):
        for info, (high, low) in zip(having, spans, strict=True):
            if not low <= depth <= high:
                continue
            batch = store.rows(info, shard, RowClass.DIRECTORY)
            rising = -batch.column("depth").to_numpy().astype(np.int32)
            start = int(np.searchsorted(rising, -depth, side="left"))
            end = int(np.searchsorted(rising, -depth, side="right"))
            if end > start:
                yield batch.slice(start, end - start)


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BATCH_ROWS_MIN:
            yield pa.concat_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def _inodes(batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    inodes: npt.NDArray[np.uint64] = batch.column("ino").to_numpy()
    return inodes


def _hashes(batch: pa.RecordBatch, seed: int) -> npt.NDArray[np.uint64]:
    return mix64_column(_inodes(batch), seed)

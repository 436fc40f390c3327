"""Segments: immutable Arrow IPC files, one record batch per shard (docs/formats/segment.md).

Covers: writing one, checking and opening one, the slices of a shard by class of row.
Does not cover: when a segment exists (ledger), the order of a stream over many (order).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from shards.errors import ForebayError
from shards.files import ChecksumWriter, file_checksum, flush_directory, open_private
from shards.measures import Durations
from shards.schema import INODE_SCHEMA, SCHEMA_VERSION, RowClass

# For each shard its rows by class (RowClass); walkers make no DELETED ones.
Counts = tuple[tuple[int, ...], ...]


class SegmentDamaged(ForebayError):
    """A segment is not what the ledger says."""

    template = "segment {0} is damaged: {1}; the run cannot be completed from it, start a new one"


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What the ledger knows of a segment."""

    name: str
    epoch: int
    size_bytes: int
    checksum: int
    rows: int
    counts: Counts
    number: int = 0  # the ledger's, in the order of commits; 0 while uncommitted

    def count(self, shard: int, row_class: RowClass) -> int:
        """Return the number of a shard's rows of a class."""
        counts = self.counts[shard]
        return counts[row_class] if row_class < len(counts) else 0

    def counts_json(self) -> str:
        return json.dumps(self.counts)

    @staticmethod
    def counts_from_json(text: str) -> Counts:
        return tuple(tuple(row) for row in json.loads(text))


def write_segment(
    folder: Path,
    name: str,
    batch: pa.RecordBatch,
    counts: Sequence[Sequence[int]],
    *,
    run: int,
    lease: int,
    epoch: int,
) -> SegmentInfo:
    """Write a batch that is grouped by shard; return what the ledger is to be told.

    counts gives for each shard its rows by class. The file is durable when this returns; it does
    not exist for anybody before the ledger names it.
    """
    frozen = tuple(tuple(map(int, row)) for row in counts)
    assert sum(map(sum, frozen)) == batch.num_rows, "the counts do not cover the batch"
    schema = INODE_SCHEMA.with_metadata(
        {
            "forebay.schema": str(SCHEMA_VERSION),
            "forebay.segment": "1",
            "forebay.run": str(run),
            "forebay.lease": str(lease),
            "forebay.epoch": str(epoch),
            "forebay.counts": json.dumps(frozen),
        }
    )
    batch = batch.replace_schema_metadata(schema.metadata)
    with open(folder / name, "xb", opener=open_private) as stream:
        writer = ChecksumWriter(stream)
        with pa.ipc.new_file(writer, schema) as file:
            start = 0
            for row in frozen:
                rows = sum(row)
                file.write_batch(batch.slice(start, rows))
                start += rows
        writer.sync()
        return SegmentInfo(name, epoch, writer.size_bytes, writer.checksum, batch.num_rows, frozen)


def flush_segments(folder: Path) -> None:
    """Make the names of written segments durable; call before the ledger's transaction."""
    flush_directory(folder)


class SegmentStore:
    """Reads the segments of one run; each is checked against the ledger once."""

    def __init__(self, folder: Path, reads: Durations | None = None) -> None:
        """reads: told how long each read takes."""
        self._folder = folder
        self._reads = reads or Durations("")
        self._checked: set[str] = set()

    def rows(self, info: SegmentInfo, shard: int, row_class: RowClass) -> pa.RecordBatch:
        """Return the rows of one shard and class, mapped from the file, not copied."""
        with self._reads.measure():
            return self._rows(info, shard, row_class)

    def _rows(self, info: SegmentInfo, shard: int, row_class: RowClass) -> pa.RecordBatch:
        path = self._folder / info.name
        if info.name not in self._checked:
            self._check(path, info)
            self._checked.add(info.name)
        with pa.memory_map(str(path)) as source:
            batch = pa.ipc.open_file(source).get_batch(shard)
        start = sum(info.counts[shard][:row_class])
        return batch.slice(start, info.count(shard, row_class))

    def _check(self, path: Path, info: SegmentInfo) -> None:
        try:
            size_bytes, checksum = file_checksum(path)
        except OSError as error:
            raise SegmentDamaged(info.name, error.strerror) from error
        if size_bytes != info.size_bytes:
            raise SegmentDamaged(
                info.name, f"it has {size_bytes} bytes, the ledger says {info.size_bytes}"
            )
        if checksum != info.checksum:
            raise SegmentDamaged(info.name, "its CRC-32 is not the one in the ledger")
        try:
            with pa.memory_map(str(path)) as source:
                batches = pa.ipc.open_file(source).num_record_batches
        except pa.ArrowInvalid as error:
            raise SegmentDamaged(info.name, str(error)) from error
        if batches != len(info.counts):
            raise SegmentDamaged(
                info.name, f"it has {batches} batches, the ledger says {len(info.counts)} shards"
            )

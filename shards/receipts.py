"""Receipts: what one Bacula job really saved of each name (docs/formats/segment.md).

Covers: the file of a job, written while it streams and durable before the job may end well;
reading it back; what it adds up to.
Does not cover: the record on the wire (bacula_bridge), views over chains of jobs.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.errors import ForebayError
from shards.files import ChecksumWriter, create_private, file_checksum, flush_directory
from shards.schema import RECEIPT_SCHEMA, WARNING_STATUSES, ReceiptStatus
from shards.shard_jobs import ReceiptsInfo, StreamSummary
from shards.throughput import Series

_SENT = np.array(
    [ReceiptStatus.SAVED, ReceiptStatus.LINK, ReceiptStatus.CHANGED, ReceiptStatus.STUB],
    dtype=np.uint32,
)


class ReceiptsDamaged(ForebayError):
    """A receipts file is not what the ledger says."""

    template = "receipts {0} are damaged: {1}; restore with bconsole, which does not need them"


def receipts_name(shard: int, jobid: int) -> str:
    """Name the receipts file of a job."""
    return f"{shard}-{jobid}.arrow"


class ReceiptsWriter:
    """Collects the receipts of one job; nothing counts before commit()."""

    def __init__(self, folder: Path, shard: int, jobid: int) -> None:
        self._folder = folder
        self._name = receipts_name(shard, jobid)
        self._partial = folder / f"{self._name}.partial"
        self._stream = ChecksumWriter(create_private(self._partial))
        self._writer = pa.ipc.new_stream(self._stream, RECEIPT_SCHEMA)
        self._counts = np.zeros(len(ReceiptStatus) + 1, dtype=np.int64)
        self._directories = 0
        self._size_bytes = 0
        self._series = Series()
        self._written = time.time()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append receipts in the order of the stream."""
        status = batch.column("status").to_numpy()
        self._counts += np.bincount(status, minlength=len(self._counts))
        modes = batch.column("mode").to_numpy()
        sent = np.isin(status, _SENT)
        self._directories += int(np.count_nonzero(sent & ((modes & 0o170000) == stat.S_IFDIR)))
        size_bytes = int(batch.column("sent_bytes").to_numpy().sum())
        self._size_bytes += size_bytes
        before, self._written = self._written, time.time()
        self._series.add(before, self._written, int(np.count_nonzero(sent)), size_bytes)
        self._writer.write_batch(batch)

    @property
    def summary(self) -> StreamSummary:
        counts = self._counts
        sent = int(counts[_SENT].sum())
        return StreamSummary(
            files=sent - self._directories,
            directories=self._directories,
            links=int(counts[ReceiptStatus.LINK]),
            deleted=int(counts[ReceiptStatus.DELETED]),
            skipped=int(counts[ReceiptStatus.SKIPPED]),
            stubs=int(counts[ReceiptStatus.STUB]),
            warnings=int(sum(counts[status] for status in WARNING_STATUSES)),
            size_bytes=self._size_bytes,
        )

    def commit(self) -> ReceiptsInfo:
        """Make the receipts durable under their name."""
        self._writer.close()
        self._stream.sync()
        info = ReceiptsInfo(
            self._name,
            self._stream.size_bytes,
            self._stream.checksum,
            self.summary,
            self._series,
        )
        self._stream.close()
        os.rename(self._partial, self._folder / self._name)
        flush_directory(self._folder)
        return info

    def abandon(self) -> None:
        """Drop what was collected; harmless after commit()."""
        with contextlib.suppress(OSError):  # what a full disk did not take is dropped as well
            self._stream.close()
        self._partial.unlink(missing_ok=True)


def read_receipts(folder: Path, info: ReceiptsInfo) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a receipts file, after comparing it with the ledger's word."""
    path = folder / info.name
    try:
        if file_checksum(path) != (info.size_bytes, info.checksum):
            raise ReceiptsDamaged(path.name, "length or CRC-32 differ from the ledger's")
        # Not mapped: pages of a map that were read once count as this process's memory.
        with path.open("rb") as source, pa.ipc.open_stream(source) as reader:
            yield from reader
    except OSError as error:
        raise ReceiptsDamaged(path.name, error.strerror or str(error)) from error
    except pa.ArrowInvalid as error:
        raise ReceiptsDamaged(path.name, str(error)) from error

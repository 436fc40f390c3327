"""Sorted files: record batches ascending by their column `key` (docs/formats/view.md).

Covers: writing one, durable under its name; ranges and single keys of it, mapped, not copied;
sorting more rows than memory holds; cutting several files into ranges of like size.
Does not cover: what the columns mean (view_schema), making and mending layers (view).
"""

from __future__ import annotations

import bisect
import heapq
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import ForebayError
from shards.files import flush_directory

BLOCK_ROWS_MAX = 16_384
RANGE_ROWS = 65_536
SORT_ROWS_MAX = 262_144
# In files that are only sorted runs: a merge holds a block of each of them.
_RUN_BLOCK_ROWS_MAX = 2_048
_RUNS_MAX = 64  # so many runs of one size are merged into one
# Wherever memory is bounded by a number of rows, each such number of bytes counts as a row.
_ROW_BYTES = 512

_VERSION = 1
_MAGIC = b"FBSORTED"
_ALIGNMENT_BYTES = 64
_HEADER = struct.pack("<8sI52x", _MAGIC, _VERSION)
_TRAILER = struct.Struct("<QII8s")  # the footer's length and CRC-32, version, magic
_FOOTER = struct.Struct("<QQ")  # lengths of the schema and of the table of blocks behind it
_BLOCKS_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.uint64(), nullable=False),
        pa.field("length", pa.uint64(), nullable=False),
        pa.field("checksum", pa.uint32(), nullable=False),
        pa.field("rows", pa.uint32(), nullable=False),
        pa.field("due", pa.uint32(), nullable=False),
        pa.field("first_key", pa.binary(), nullable=False),
        pa.field("last_key", pa.binary(), nullable=False),
    ]
)


class SortedFileDamaged(ForebayError):
    """A sorted file is missing, cut short, or not what was written."""

    template = "sorted file {0} is damaged: {1}; remove it, it is made again from the receipts"


class SortedFile:
    """A sorted file, mapped. Each block is checked when it is first used.

    What it returns may lie in the map; it stays valid when the file is replaced or removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                size_bytes = os.fstat(stream.fileno()).st_size
                if size_bytes < len(_HEADER) + _TRAILER.size:
                    raise self._damaged(f"it has {size_bytes} bytes")
                self._map = mmap.mmap(stream.fileno(), size_bytes, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        self._data = pa.py_buffer(self._map)
        schema, blocks = self._read_footer()
        self.metadata: dict[bytes, bytes] = schema.metadata or {}
        self.schema = schema.remove_metadata()
        self._offsets = blocks.column("offset").to_pylist()
        self._lengths = blocks.column("length").to_pylist()
        self._checksums = blocks.column("checksum").to_pylist()
        self._rows = blocks.column("rows").to_pylist()
        self._due = blocks.column("due").to_pylist()
        self.first_keys: list[bytes] = blocks.column("first_key").to_pylist()
        self._last_keys: list[bytes] = blocks.column("last_key").to_pylist()
        self.num_rows: int = sum(self._rows)
        self._is_checked = bytearray(len(self._rows))
        self._held: tuple[int, pa.RecordBatch] | None = None

    def range(self, low: bytes, high: bytes | None) -> pa.RecordBatch:
        """Return the rows from low to high, exclusive; None is past every key."""
        first = bisect.bisect_left(self._last_keys, low)
        stop = len(self._rows) if high is None else bisect.bisect_left(self.first_keys, high)
        pieces = []
        for number in range(first, stop):
            block = self._block(number)
            begin = _position(block, low) if number == first else 0
            end = block.num_rows
            if high is not None and number == stop - 1:
                end = max(_position(block, high), begin)
            if begin < end:
                pieces.append(block.slice(begin, end - begin))
        if len(pieces) == 1:
            return pieces[0]
        rows = _concatenated(pieces, self.schema)
        for number in range(first, stop - 1):
            self._leave(number)
        return rows

    def lookup(self, keys: Sequence[bytes]) -> pa.RecordBatch:
        """Return the rows that have one of these keys, ascending."""
        wanted: dict[int, list[bytes]] = {}
        for key in sorted(set(keys)):
            first = bisect.bisect_left(self._last_keys, key)
            stop = bisect.bisect_right(self.first_keys, key)
            for number in range(first, stop):
                wanted.setdefault(number, []).append(key)
        pieces = []
        for number, in_block in wanted.items():
            block = self._block(number)
            column = block.column("key")
            found = pc.is_in(column, value_set=pa.array(in_block, type=column.type))
            pieces.append(block.filter(found))
        return _concatenated(pieces, self.schema)

    def due_ranges(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield ranges that hold all rows that are due, without reading any block.

        Only for files with one row per key.
        """
        for number, count in enumerate(self._due):
            if count:
                is_last = number + 1 == len(self._due)
                yield self.first_keys[number], None if is_last else self.first_keys[number + 1]

    def block_weights(self, low: bytes = b"") -> Iterator[tuple[bytes, int]]:
        """Yield each block's first key, and the rows that it counts as where memory is bounded.

        Blocks that end before low are left out.
        """
        for number in range(bisect.bisect_left(self._last_keys, low), len(self._rows)):
            weight = max(self._rows[number], self._lengths[number] // _ROW_BYTES)
            yield self.first_keys[number], weight

    def _read_footer(self) -> tuple[pa.Schema, pa.RecordBatch]:
        end = len(self._data) - _TRAILER.size
        length, checksum, version, magic = _TRAILER.unpack(self._data.slice(end))
        if magic != _MAGIC:
            raise self._damaged("it does not end as a sorted file does")
        if self._data.slice(0, len(_HEADER)) != pa.py_buffer(_HEADER) or version != _VERSION:
            raise self._damaged(f"it is not a sorted file of version {_VERSION}")
        if not _FOOTER.size <= length <= end - len(_HEADER):
            raise self._damaged("its footer cannot be as long as it says")
        footer = self._data.slice(end - length, length)
        if zlib.crc32(footer) != checksum:
            raise self._damaged("its footer does not match its CRC-32")
        schema_bytes, blocks_bytes = _FOOTER.unpack(footer.slice(0, _FOOTER.size))
        schema = pa.ipc.read_schema(footer.slice(_FOOTER.size, schema_bytes))
        blocks = footer.slice(_FOOTER.size + schema_bytes, blocks_bytes)
        return schema, pa.ipc.read_record_batch(blocks, _BLOCKS_SCHEMA)

    def _block(self, number: int) -> pa.RecordBatch:
        if self._held is not None:
            held, block = self._held
            if held == number:
                return block
            self._leave(held)
        data = self._data.slice(self._offsets[number], self._lengths[number])
        if not self._is_checked[number]:
            if zlib.crc32(data) != self._checksums[number]:
                raise self._damaged(f"block {number} does not match its CRC-32")
            self._is_checked[number] = True
        block = pa.ipc.read_record_batch(data, self.schema)
        self._held = number, block
        return block

    def _leave(self, number: int) -> None:
        """Let go of a block's pages: what is streamed through must not stay in our memory."""
        start = self._offsets[number] // mmap.PAGESIZE * mmap.PAGESIZE
        end = self._offsets[number] + self._lengths[number]
        self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def _damaged(self, what: str) -> SortedFileDamaged:
        return SortedFileDamaged(str(self.path), what)


def write_sorted(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    block_rows_max: int | None = None,
    is_temporary: bool = False,
) -> None:
    """Write batches that are ascending by key; the file is durable, and whole or not there.

    A temporary file is not flushed to disk: after a crash nobody asks for it.
    """
    blocks = _rechunked(batches, block_rows_max or BLOCK_ROWS_MAX)
    descriptor, partial = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
    try:
        with open(descriptor, "wb") as stream:
            _write_content(stream, schema, blocks)
            if not is_temporary:
                stream.flush()
                os.fsync(stream.fileno())
        os.rename(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
    if not is_temporary:
        flush_directory(path.parent)


def external_sort(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    folder: Path,
    prefix: str,
    rows_max: int = SORT_ROWS_MAX,
) -> list[SortedFile]:
    """Sort by key into runs, files in folder that the caller removes.

    Rows with one key stay in their order: within a run, and from one run to the next.
    """
    levels: list[list[SortedFile]] = [[]]  # runs; runs merged once; ...: later ones are older
    count = 0

    def write_run(rows: Iterable[pa.RecordBatch]) -> SortedFile:
        nonlocal count
        path = folder / f"{prefix}{count}"
        count += 1
        write_sorted(path, schema, rows, block_rows_max=_RUN_BLOCK_ROWS_MAX, is_temporary=True)
        return SortedFile(path)

    for rows in _rechunked(batches, rows_max):
        levels[0].append(write_run([sorted_by_key(rows)]))
        for level, runs in enumerate(levels):
            if len(runs) < _RUNS_MAX:
                break
            if level + 1 == len(levels):
                levels.append([])
            levels[level + 1].append(write_run(merge_sorted(runs)))
            for run in runs:
                run.path.unlink()
            levels[level] = []
    return [run for runs in reversed(levels) for run in runs]


def merge_sorted(
    files: Sequence[SortedFile], rows_target: int = RANGE_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield all rows of the files ascending; rows with one key in the order of the files.

    All rows with one key are in one batch.
    """
    for low, high in key_ranges(files, rows_target):
        pieces = [piece for file in files if (piece := file.range(low, high)).num_rows]
        if len(pieces) == 1:
            yield pieces[0]
        elif pieces:
            yield sorted_by_key(pa.concat_batches(pieces))


def key_ranges(
    files: Sequence[SortedFile], rows_target: int = RANGE_ROWS, low: bytes = b""
) -> Iterator[tuple[bytes, bytes | None]]:
    """Cut all from low on into consecutive ranges of about rows_target rows of all files."""
    weight = 0
    for key, rows in heapq.merge(*(file.block_weights(low) for file in files)):
        if weight >= rows_target and key > low:
            yield low, key
            low, weight = key, 0
        weight += rows
    yield low, None


def sorted_by_key(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows ascending by key, those with one key in the order that they have."""
    return rows.take(pc.sort_indices(rows.column("key")))


def _write_content(stream: BinaryIO, schema: pa.Schema, blocks: Iterable[pa.RecordBatch]) -> None:
    has_due = "due" in schema.names
    table = []
    last_key = b""
    stream.write(_HEADER)
    for block in blocks:
        assert block.schema.equals(schema), "a block of another schema"
        keys = block.column("key")
        first_key = keys[0].as_py()
        assert last_key <= first_key, "keys are not ascending from block to block"
        assert _is_ascending(keys), "keys are not ascending within a block"
        last_key = keys[-1].as_py()
        data = bytes(block.serialize())
        data += bytes(-len(data) % _ALIGNMENT_BYTES)
        due = block.column("due").to_numpy(zero_copy_only=False) if has_due else ()
        table.append(
            {
                "offset": stream.tell(),
                "length": len(data),
                "checksum": zlib.crc32(data),
                "rows": block.num_rows,
                "due": int(np.count_nonzero(due)),
                "first_key": first_key,
                "last_key": last_key,
            }
        )
        stream.write(data)
    schema_data = bytes(schema.serialize())
    blocks_data = bytes(pa.RecordBatch.from_pylist(table, schema=_BLOCKS_SCHEMA).serialize())
    footer = _FOOTER.pack(len(schema_data), len(blocks_data)) + schema_data + blocks_data
    stream.write(footer)
    stream.write(_TRAILER.pack(len(footer), zlib.crc32(footer), _VERSION, _MAGIC))


def _rechunked(batches: Iterable[pa.RecordBatch], rows_max: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches that count as at most rows_max rows; none is empty."""
    held: list[pa.RecordBatch] = []
    held_weight = 0
    for batch in batches:
        weight = max(batch.num_rows, batch.nbytes // _ROW_BYTES)
        step = max(batch.num_rows * rows_max // max(weight, 1), 1)
        for start in range(0, batch.num_rows, step):
            piece = batch.slice(start, step)
            piece_weight = -(-weight * piece.num_rows // batch.num_rows)
            if held and held_weight + piece_weight > rows_max:
                yield pa.concat_batches(held)
                held, held_weight = [], 0
            held.append(piece)
            held_weight += piece_weight
    if held:
        yield pa.concat_batches(held)


def _concatenated(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if not pieces:
        return pa.RecordBatch.from_arrays(
            [pa.array([], type=field.type) for field in schema], schema=schema
        )
    return pa.concat_batches(pieces)


def _position(block: pa.RecordBatch, key: bytes) -> int:
    """Return the place of the first row whose key is not below this one."""
    column = block.column("key")
    return bisect.bisect_left(range(len(column)), key, key=lambda row: column[row].as_py())


def _is_ascending(keys: pa.Array) -> bool:
    ordered = pc.less_equal(keys.slice(0, len(keys) - 1), keys.slice(1))
    return bool(ordered.to_numpy(zero_copy_only=False).all())

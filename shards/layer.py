"""Layers: what one job made of its names, and what a chain of them adds up to.

Covers: the row of each name from a job's receipts, or from the catalog's names; the fold of
layers; the index by inode number. How rows come about is told in docs/formats/view.md.
Does not cover: where the files are, and mending them (view).
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.files import open_private
from shards.keys import is_directory_column, key_column, name_key
from shards.schema import ReceiptStatus
from shards.sorted_file import (
    SORT_ROWS_MAX,
    SortedFile,
    external_sort,
    key_ranges,
    merge_sorted,
    sorted_by_key,
    write_sorted,
)
from shards.view_schema import LAYER_SCHEMA, VIEW_SCHEMA, NameState, empty_view

Inodes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# The names of each inode: `key` is the inode number, big-endian, `name` the key of the name.
_INODE_KEYS_SCHEMA = pa.schema([pa.field("key", pa.binary(8), nullable=False)])
INODES_SCHEMA = _INODE_KEYS_SCHEMA.append(pa.field("name", pa.binary(), nullable=False))

_NS_PER_S = 1_000_000_000
_INT64 = np.iinfo(np.int64)
_S_IFDIR = 0o040000
_CATALOG_ROWS = 16_384


class _Rank(enum.IntEnum):
    """Which of one job's rows of a name counts: the highest, then the last (of links the first).

    That is what Bacula keeps of a job: by ascending FileIndex a later row, unless it is a link.
    """

    ABSENT = 0
    DELETED = 1
    LINK = 2
    SAVED = 3


_STATE_OF_RANK = np.array(
    [NameState.ABSENT, NameState.DELETED, NameState.LIVE, NameState.LIVE], dtype=np.uint8
)
# A row for each receipt; a name may have several.
_RANKED_SCHEMA = LAYER_SCHEMA.append(pa.field("rank", pa.uint8(), nullable=False))
_EMPTY_VIEW = empty_view()


def layer_rows(receipts: pa.RecordBatch, jobid: int, margin_ns: int) -> pa.RecordBatch:
    """Return the layer of one job, given all its receipts in the order of its stream.

    What changed less than margin_ns before it was read stays due.
    """
    ranked = _Ranker(jobid, margin_ns).rows(receipts)
    saved = _saved_inodes(ranked)
    if len(saved) > 1:
        inos, counts = np.unique(saved, return_counts=True)
        ranked = _due_if_among(ranked, [inos[counts > 1]])
    return _one_per_name(sorted_by_key(ranked))


def layer_from_receipts(
    receipts: Iterable[pa.RecordBatch], jobid: int, margin_ns: int, folder: Path
) -> Iterator[pa.RecordBatch]:
    """Yield the layer of one job, of any number of receipts; folder is for temporary files."""
    ranker = _Ranker(jobid, margin_ns)
    return _layer((ranker.rows(batch) for batch in receipts), folder)


def layer_from_catalog(
    names: Iterable[tuple[bytes, bool, int]], jobid: int, folder: Path
) -> Iterator[pa.RecordBatch]:
    """Yield a layer of which only the names are known: path, is it a directory, FileIndex.

    All that was saved is due. A FileIndex that is not positive says that the name was deleted.
    """
    rest = iter(names)
    chunks = iter(lambda: list(itertools.islice(rest, _CATALOG_ROWS)), [])
    return _layer((_ranked_names(chunk, jobid) for chunk in chunks), folder)


def fold(layers: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Fold layers (VIEW_SCHEMA, each with one row per key, ascending), oldest job first.

    The newest JobTDate wins a name; in the same second what is live, then the larger FileIndex:
    Bacula's own choice. A row that is not from the last layer that knows the name is due: the name
    could not be saved there, or Bacula will not take what was saved there.
    """
    layers = [layer for layer in layers if layer.num_rows]
    if not layers:
        return _EMPTY_VIEW
    if len(layers) == 1:
        return layers[0]
    rows = pa.concat_batches(layers)
    keys = rows.column("key")
    order_array = pc.sort_indices(keys)  # stable: within a key the oldest layer comes first
    order = order_array.to_numpy()
    starts, lengths = _groups(keys.take(order_array))
    if len(starts) == len(order):
        return rows.take(order_array)
    state = rows.column("state").to_numpy()[order]
    tdate = rows.column("tdate").to_numpy()[order]
    file_index = rows.column("file_index").to_numpy()[order].astype(np.int64)
    winners = _winners(
        starts,
        lengths,
        np.where(state == NameState.ABSENT, _INT64.min, tdate),
        np.where(state == NameState.LIVE, file_index + 1, 0),
    )
    due = rows.column("due").to_numpy(zero_copy_only=False)[order[winners]]
    due |= winners != starts + lengths - 1
    return _with_due(rows.take(pa.array(order[winners])), due)


def with_tdate(layer: pa.RecordBatch, tdates: Mapping[int, int]) -> pa.RecordBatch:
    """Say when each row's job ended, given that by JobId."""
    jobids, places = np.unique(layer.column("jobid").to_numpy(), return_inverse=True)
    times = np.array([tdates[int(jobid)] for jobid in jobids], dtype=np.int64)
    return layer.append_column(VIEW_SCHEMA.field("tdate"), pa.array(times[places]))


def inode_rows(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return INODES_SCHEMA rows, in no order, of the live names whose inode is known."""
    inos = rows.column("ino").to_numpy()
    has_inode = (rows.column("state").to_numpy() == NameState.LIVE) & (inos != 0)
    keys = _inode_keys(inos[has_inode]).column("key")
    names = rows.column("key").filter(pa.array(has_inode))
    return pa.RecordBatch.from_arrays([keys, names], schema=INODES_SCHEMA)


class _Ranker:
    """Turns receipts into ranked rows; remembers the first name of an inode across batches."""

    def __init__(self, jobid: int, margin_ns: int) -> None:
        self._jobid = jobid
        self._margin_ns = margin_ns
        self._first_ino = 0
        self._first_index = 0
        self._first_is_stub = False

    def rows(self, receipts: pa.RecordBatch) -> pa.RecordBatch:
        """Return the ranked rows of the next receipts of the stream."""
        status = receipts.column("status").to_numpy()
        file_index = receipts.column("file_index").to_numpy()
        mode = receipts.column("mode")
        is_deleted = status == ReceiptStatus.DELETED
        is_live = (file_index > 0) & ~is_deleted
        is_link = is_live & (status == ReceiptStatus.LINK)
        is_saved = is_live & (status == ReceiptStatus.SAVED)
        is_stub = is_live & (status == ReceiptStatus.STUB)
        is_first = is_saved | is_stub | (is_live & (status == ReceiptStatus.CHANGED))
        first_index, is_of_stub = self._firsts(receipts, is_first, is_stub, is_link, file_index)
        ctime = _nanoseconds(receipts, "ctime")
        since_read = np.maximum(receipts.column("read_ns").to_numpy(), 0) - self._margin_ns
        is_sound = is_saved | (is_link & (first_index > 0) & ~is_of_stub)
        is_sound &= ctime <= since_read
        rank = np.full(len(status), _Rank.ABSENT, dtype=np.uint8)
        rank[is_deleted] = _Rank.DELETED
        rank[is_live] = _Rank.SAVED
        rank[is_link] = _Rank.LINK
        made = {
            "key": key_column(receipts.column("path"), mode.to_numpy()),
            "mtime": _nanoseconds(receipts, "mtime"),
            "ctime": ctime,
            "jobid": np.full(len(status), self._jobid, dtype=np.uint32),
            "file_index": np.where(is_live, file_index, 0).astype(np.int32),
            "first_index": first_index.astype(np.int32),
            "state": _STATE_OF_RANK[rank],
            "due": ~is_deleted & ~is_sound,
            "rank": rank,
        }
        rows = pa.RecordBatch.from_arrays(
            [
                pa.array(made[name]) if name in made else receipts.column(name)
                for name in _RANKED_SCHEMA.names
            ],
            schema=_RANKED_SCHEMA,
        )
        is_skipped = status == ReceiptStatus.SKIPPED
        return rows.filter(pa.array(~is_skipped)) if is_skipped.any() else rows

    def _firsts(
        self,
        receipts: pa.RecordBatch,
        is_first: Mask,
        is_stub: Mask,
        is_link: Mask,
        file_index: Integers,
    ) -> tuple[Integers, Mask]:
        """Return for each link the FileIndex of the name just before it that was saved, else 0.

        And which links are of a name without data.
        """
        inos = receipts.column("ino").to_numpy()
        result = np.zeros(len(inos), dtype=np.int64)
        is_of_stub = np.zeros(len(inos), dtype=bool)
        if is_link.any():
            before = np.maximum.accumulate(np.where(is_first, np.arange(len(inos)), -1))
            ino = np.where(before < 0, np.uint64(self._first_ino), inos[before])
            index = np.where(before < 0, self._first_index, file_index[before])
            result = np.where(is_link & (ino == inos), index, 0)
            is_of_stub = np.where(before < 0, self._first_is_stub, is_stub[before])
        firsts = np.flatnonzero(is_first)
        if len(firsts):
            self._first_ino = int(inos[firsts[-1]])
            self._first_index = int(file_index[firsts[-1]])
            self._first_is_stub = bool(is_stub[firsts[-1]])
        return result, is_of_stub


def _ranked_names(names: Sequence[tuple[bytes, bool, int]], jobid: int) -> pa.RecordBatch:
    nothing = {
        field.name: bytes(16) if field.name == "hash" else 0
        for field in _RANKED_SCHEMA
        if field.name != "due"
    }
    return pa.RecordBatch.from_pylist(
        [
            nothing
            | {
                "key": name_key(path, is_directory=is_directory),
                "mode": _S_IFDIR if is_directory else 0,
                "jobid": jobid,
                "file_index": max(file_index, 0),
                "state": NameState.LIVE if file_index > 0 else NameState.DELETED,
                "due": file_index > 0,
                "rank": _Rank.SAVED if file_index > 0 else _Rank.DELETED,
            }
            for path, is_directory, file_index in names
        ],
        schema=_RANKED_SCHEMA,
    )


def _layer(ranked: Iterable[pa.RecordBatch], folder: Path) -> Iterator[pa.RecordBatch]:
    spool = folder / "saved"
    with open(spool, "wb", opener=open_private) as stream:
        runs = external_sort(_noting_saved(ranked, stream), _RANKED_SCHEMA, folder, "names-")
    twice = _saved_twice(spool, folder)
    for rows in merge_sorted(runs):
        yield _one_per_name(_due_if_among(rows, _inode_numbers(twice)))


def _noting_saved(ranked: Iterable[pa.RecordBatch], stream: BinaryIO) -> Iterator[pa.RecordBatch]:
    for rows in ranked:
        stream.write(_saved_inodes(rows).tobytes())
        yield rows


def _saved_inodes(ranked: pa.RecordBatch) -> Inodes:
    """Return the inodes with several names of which a name was saved as a file of its own."""
    is_saved = ranked.column("rank").to_numpy() == _Rank.SAVED
    is_saved &= ranked.column("nlink").to_numpy() > 1
    is_saved &= ~is_directory_column(ranked.column("mode").to_numpy())
    inos: Inodes = ranked.column("ino").to_numpy()[is_saved]
    return inos


def _saved_twice(spool: Path, folder: Path) -> SortedFile:
    """Sort the spooled inodes, and keep those that come more than once."""

    def spooled() -> Iterator[pa.RecordBatch]:
        with spool.open("rb") as stream:
            while data := stream.read(8 * SORT_ROWS_MAX):
                yield _inode_keys(np.frombuffer(data, dtype=np.uint64))

    def repeated(runs: Sequence[SortedFile]) -> Iterator[pa.RecordBatch]:
        for rows in merge_sorted(runs):
            starts, lengths = _groups(rows.column("key"))
            yield rows.take(pa.array(starts[lengths > 1]))

    runs = external_sort(spooled(), _INODE_KEYS_SCHEMA, folder, "saved-")
    write_sorted(folder / "twice", _INODE_KEYS_SCHEMA, repeated(runs), is_temporary=True)
    return SortedFile(folder / "twice")


def _inode_keys(inos: Inodes) -> pa.RecordBatch:
    data = pa.py_buffer(inos.astype(">u8").tobytes())
    keys = pa.Array.from_buffers(pa.binary(8), len(inos), [None, data])
    return pa.RecordBatch.from_arrays([keys], schema=_INODE_KEYS_SCHEMA)


def _inode_numbers(file: SortedFile) -> Iterator[Inodes]:
    for low, high in key_ranges([file]):
        keys = file.range(low, high).column("key")
        data = keys.buffers()[1] or b""
        yield np.frombuffer(data, dtype=">u8")[keys.offset : keys.offset + len(keys)]


def _due_if_among(ranked: pa.RecordBatch, inodes: Iterable[Inodes]) -> pa.RecordBatch:
    """Make names due whose inode was saved as two files: it got a name while it was scanned."""
    has_several = ranked.column("nlink").to_numpy() > 1
    has_several &= ranked.column("state").to_numpy() == NameState.LIVE
    if not has_several.any():
        return ranked
    inos = ranked.column("ino").to_numpy()
    due = ranked.column("due").to_numpy(zero_copy_only=False)
    for chunk in inodes:
        due = due | (has_several & np.isin(inos, chunk))
    return _with_due(ranked, due)


def _one_per_name(ranked: pa.RecordBatch) -> pa.RecordBatch:
    """Choose one row of each name; all rows of a name are here, in the order of the stream."""
    rows = pa.RecordBatch.from_arrays(ranked.columns[:-1], schema=LAYER_SCHEMA)
    starts, lengths = _groups(rows.column("key"))
    if len(starts) == rows.num_rows:
        return rows
    rank = ranked.column("rank").to_numpy()
    file_index = rows.column("file_index").to_numpy()
    winners = _winners(starts, lengths, rank, np.where(rank == _Rank.LINK, -file_index, file_index))
    due = np.logical_or.reduceat(rows.column("due").to_numpy(zero_copy_only=False), starts)
    return _with_due(rows.take(pa.array(winners)), due)


def _groups(keys: pa.BinaryArray) -> tuple[Integers, Integers]:
    """Return where each key begins in an ascending column, and how many rows it has."""
    is_start = np.ones(len(keys), dtype=bool)
    if len(keys) > 1:
        differs = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))
        is_start[1:] = differs.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(is_start)
    return starts, np.diff(starts, append=len(keys))


def _winners(
    starts: Integers,
    lengths: Integers,
    major: npt.NDArray[np.integer],
    minor: npt.NDArray[np.integer],
) -> Integers:
    """Return of each group the row that is greatest by (major, minor), of equal ones the last."""
    winners = starts.copy()
    groups = np.flatnonzero(lengths > 1)
    offset = 1
    while len(groups):
        rivals = starts[groups] + offset
        holders = winners[groups]
        is_same = major[rivals] == major[holders]
        is_greater = major[rivals] > major[holders]
        wins = is_greater | (is_same & (minor[rivals] >= minor[holders]))
        winners[groups[wins]] = rivals[wins]
        offset += 1
        groups = groups[lengths[groups] > offset]
    return winners


def _with_due(rows: pa.RecordBatch, due: Mask) -> pa.RecordBatch:
    place = rows.schema.get_field_index("due")
    return rows.set_column(place, rows.schema.field(place), pa.array(due))


def _nanoseconds(receipts: pa.RecordBatch, name: str) -> Integers:
    """Return a time of the receipts in ns since 1970, saturating at the limits of int64."""
    seconds = receipts.column(f"{name}_s").to_numpy()
    rest = receipts.column(f"{name}_ns").to_numpy().astype(np.int64)
    top, top_rest = divmod(_INT64.max, _NS_PER_S)
    bottom, bottom_rest = divmod(_INT64.min, _NS_PER_S)
    result: Integers = seconds * _NS_PER_S + rest
    if len(seconds) and (seconds.max() >= top or seconds.min() <= bottom):
        is_above = (seconds > top) | ((seconds == top) & (rest > top_rest))
        is_below = (seconds < bottom) | ((seconds == bottom) & (rest < bottom_rest))
        result = np.where(is_above, _INT64.max, np.where(is_below, _INT64.min, result))
    return result

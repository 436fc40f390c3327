"""Whether manifest, receipts and Bacula's catalog say the same.

Covers: one job's receipts beside the catalog's names; a manifest beside the views of all shards;
both name by name, in ranges of names that are compared at once.
Does not cover: reading the catalog, and what a person is told (cluster.verify).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.keys import is_directory_column, key_column, key_path, name_key
from shards.schema import ReceiptStatus, RowFlag
from shards.selection import Readable, winners
from shards.sorted_file import SortedFile, key_ranges, sorted_by_key
from shards.view_schema import TREE_SCHEMA, NameState

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

# A name as the catalog has it of one job; a FileIndex below 0 says deleted.
RECORD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(), nullable=False),
        pa.field("file_index", pa.int32(), nullable=False),
    ]
)
# A row of the tree and one of a view with these the same are the same entry (decision).
_COMPARED = ("ino", "mtime", "ctime", "mode", "uid", "gid", "rdev")
_IFMT, _IFSOCK = 0o170000, 0o140000
_HIDING = RowFlag.LIST_FAILED | RowFlag.STAT_FAILED | RowFlag.PATH_TOO_LONG
_NO_ROWS = pa.RecordBatch.from_pylist([], schema=TREE_SCHEMA)


class Kind(enum.StrEnum):
    """What can be wrong with a name."""

    MISSING = "missing"  # in the manifest, but no job of the chains has it
    DIFFERENT = "different"  # what would be restored is not the entry of the manifest
    TWICE = "twice"  # more than one job of a full run has it
    EXTRA = "extra"  # would be restored, but the manifest does not have it
    NOT_IN_CATALOG = "not in the catalog"  # a receipt without its File row
    NOT_IN_RECEIPTS = "not in the receipts"  # a File row without its receipt


@dataclass(frozen=True, slots=True)
class NameDifference:
    """A name that is not as it should be."""

    kind: Kind
    key: bytes
    text: str


@dataclass(slots=True)
class NameCounts:
    """What a comparison of names came across; none of it is a difference."""

    names: int = 0
    sockets: int = 0
    scan_errors: int = 0
    due: int = 0  # not as in the manifest, and known to be so: the next run sends it
    moved: int = 0  # changed between being listed and being read
    hidden: int = 0  # kept from an older job, below what could not be listed
    not_saved: int = 0  # of shards that have no good job in this run


def tree_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of a segment (INODE schema) with their keys (TREE_SCHEMA)."""
    keys = key_column(batch.column("path"), batch.column("mode").to_numpy())
    columns = [keys if name == "key" else batch.column(name) for name in TREE_SCHEMA.names]
    return pa.RecordBatch.from_arrays(columns, schema=TREE_SCHEMA)


def hides(tree: pa.RecordBatch) -> Mask:
    """Tell which rows of a tree are of names, or of directories, that could not be looked at."""
    is_error = tree.column("error").to_numpy() != 0
    result: Mask = is_error & ((tree.column("flags").to_numpy() & _HIDING) != 0)
    return result


def sent_records(receipts: pa.RecordBatch) -> pa.RecordBatch:
    """Return what the catalog is to have of a job (RECORD_SCHEMA)."""
    sent = receipts.filter(pa.array(receipts.column("file_index").to_numpy() > 0))
    index = sent.column("file_index").to_numpy()
    is_deleted = sent.column("status").to_numpy() == ReceiptStatus.DELETED
    return pa.RecordBatch.from_arrays(
        [
            key_column(sent.column("path"), sent.column("mode").to_numpy()),
            pa.array(np.where(is_deleted, -index, index).astype(np.int32)),
        ],
        schema=RECORD_SCHEMA,
    )


def compare_records(
    receipts: Sequence[SortedFile], catalog: Sequence[SortedFile]
) -> Iterator[NameDifference]:
    """Yield what of RECORD_SCHEMA is in one of two sorted collections only."""
    for low, high in key_ranges([*receipts, *catalog]):
        ours = [file.range(low, high) for file in receipts]
        theirs = [file.range(low, high) for file in catalog]
        rows = pa.concat_batches([*ours, *theirs]) if ours or theirs else None
        if rows is None or not rows.num_rows:
            continue
        names = rows.column("key").dictionary_encode()
        index = rows.column("file_index").to_numpy().astype(np.int64)
        records = (names.indices.to_numpy().astype(np.int64) << 32) + (index + (1 << 31))
        distinct, first, place = np.unique(records, return_index=True, return_inverse=True)
        sign = np.ones(rows.num_rows, dtype=np.int64)
        sign[sum(part.num_rows for part in ours) :] = -1
        excess = np.bincount(place, weights=sign, minlength=len(distinct)).astype(np.int64)
        for number in np.flatnonzero(excess).tolist():
            row = int(first[number])
            file_index = int(index[row])
            what = f"FileIndex {abs(file_index)}{', deleted' if file_index < 0 else ''}"
            kind = Kind.NOT_IN_CATALOG if excess[number] > 0 else Kind.NOT_IN_RECEIPTS
            yield NameDifference(kind, rows.column("key")[row].as_py(), what)


class TreeComparison:
    """A manifest beside the views of the shards that have a good job in its run."""

    def __init__(
        self,
        tree: Sequence[SortedFile],
        views: Mapping[int, Readable],
        own_jobs: Sequence[int],
        *,
        is_full: bool,
        is_in_scope: Callable[[bytes], bool] = lambda key: True,
        nothing_deleted: bool = False,
    ) -> None:
        """Take the manifest (TREE_SCHEMA, in the order of listing) and the views by shard.

        own_jobs are the run's own JobIds; is_full says that all of them are Fulls. Only keys in
        scope must not be there without being in the manifest, and none if nothing was deleted,
        since too much could not be looked at.
        """
        assert views, "a run without a good job is not compared"
        self.counts = NameCounts()
        self._tree = tree
        self._views = views
        self._own_jobs = np.array(own_jobs, dtype=np.uint32)
        self._is_full = is_full
        self._is_in_scope = is_in_scope
        self._nothing_deleted = nothing_deleted

    def run(self) -> Iterator[NameDifference]:
        """Yield all differences, ascending by name in each kind and range."""
        files = [*self._tree, *(file for view in self._views.values() for file in view.files)]
        for low, high in key_ranges(files):
            rows = [file.range(low, high) for file in self._tree]
            tree = sorted_by_key(pa.concat_batches([_NO_ROWS, *rows]))
            views = [view.range(low, high) for view in self._views.values()]
            yield from self._compare(tree, views)

    def _compare(
        self, tree: pa.RecordBatch, views: Sequence[pa.RecordBatch]
    ) -> Iterator[NameDifference]:
        saved = pa.concat_batches(views)
        chosen = np.concatenate(winners(views))
        in_tree, in_saved, count = _coded(tree, saved)
        is_due = np.zeros(count, dtype=bool)
        is_due[in_saved[saved.column("due").to_numpy(zero_copy_only=False)]] = True
        rows = self._expected(tree, in_tree, count)
        place = np.full(count, -1, dtype=np.int64)
        place[in_saved[chosen]] = np.flatnonzero(chosen)
        theirs = place[in_tree[rows]]
        is_other = self._differs(tree, rows, saved, theirs)
        excused = is_due[in_tree[rows]] & is_other
        self.counts.due += int(np.count_nonzero(excused))
        is_other &= ~excused
        for row, other in zip(rows[is_other].tolist(), theirs[is_other].tolist(), strict=True):
            key = tree.column("key")[row].as_py()
            if other < 0:
                yield NameDifference(Kind.MISSING, key, "no job has it")
            else:
                yield NameDifference(Kind.DIFFERENT, key, _told(tree, row, saved, other))
        if self._is_full:
            yield from self._twice(saved, in_saved, np.bincount(in_tree, minlength=count), is_due)
        is_listed = np.zeros(count, dtype=bool)
        is_listed[in_tree[~_is_socket(tree)]] = True
        extra = chosen & ~is_listed[in_saved]
        for row in np.flatnonzero(extra).tolist():
            yield from self._extra(saved, row, due=bool(is_due[in_saved[row]]))

    def _expected(self, tree: pa.RecordBatch, in_tree: Codes, count: int) -> Codes:
        """Return the rows of the tree that are to be restored, and count the others."""
        is_error = tree.column("error").to_numpy() != 0
        is_socket = _is_socket(tree)
        listed = np.flatnonzero(~is_error & ~is_socket)
        last = np.full(count, -1, dtype=np.int64)
        last[in_tree[listed]] = listed  # a name listed twice counts as it was seen last
        rows = np.unique(last[last >= 0])
        is_ours = np.isin(tree.column("shard").to_numpy()[rows], list(self._views))
        self.counts.scan_errors += int(np.count_nonzero(is_error))
        self.counts.sockets += int(np.count_nonzero(is_socket & ~is_error))
        self.counts.names += len(rows)
        self.counts.not_saved += int(np.count_nonzero(~is_ours))
        return rows[is_ours]

    def _differs(
        self, tree: pa.RecordBatch, rows: Codes, saved: pa.RecordBatch, theirs: Codes
    ) -> Mask:
        """Tell which rows of the tree are not what would be restored."""
        result: Mask = theirs < 0
        if not saved.num_rows:
            return result
        theirs = np.maximum(theirs, 0)
        is_other = np.zeros(len(rows), dtype=bool)
        for name in _COMPARED:
            is_other |= tree.column(name).to_numpy()[rows] != saved.column(name).to_numpy()[theirs]
        sizes = tree.column("size").to_numpy()[rows] != saved.column("size").to_numpy()[theirs]
        is_other |= sizes & ~is_directory_column(tree.column("mode").to_numpy()[rows])
        is_other &= ~result
        # It was read, by this run, after it had changed: as it was then it is saved.
        moved = is_other & np.isin(saved.column("jobid").to_numpy()[theirs], self._own_jobs)
        moved &= tree.column("ino").to_numpy()[rows] == saved.column("ino").to_numpy()[theirs]
        moved &= tree.column("ctime").to_numpy()[rows] < saved.column("ctime").to_numpy()[theirs]
        self.counts.moved += int(np.count_nonzero(moved))
        result |= is_other & ~moved
        return result

    def _twice(
        self, saved: pa.RecordBatch, in_saved: Codes, listed: Codes, is_due: Mask
    ) -> Iterator[NameDifference]:
        """A name that was listed twice, while it moved, may have been saved twice."""
        live = saved.column("state").to_numpy() == NameState.LIVE
        times = np.bincount(in_saved[live], minlength=len(listed))
        for code in np.flatnonzero((times > 1) & (listed < 2) & ~is_due).tolist():
            rows = np.flatnonzero(live & (in_saved == code)).tolist()
            jobs = ", ".join(str(saved.column("jobid")[row]) for row in rows)
            key = saved.column("key")[rows[0]].as_py()
            yield NameDifference(Kind.TWICE, key, f"saved by JobIds {jobs}")

    def _extra(self, saved: pa.RecordBatch, row: int, *, due: bool) -> Iterator[NameDifference]:
        key = saved.column("key")[row].as_py()
        if not self._is_in_scope(key):
            return
        if due:
            self.counts.due += 1
        elif self._nothing_deleted or self._is_hidden(key):
            self.counts.hidden += 1
        else:
            jobid = saved.column("jobid")[row].as_py()
            yield NameDifference(Kind.EXTRA, key, f"JobId {jobid} would bring it")

    def _is_hidden(self, key: bytes) -> bool:
        """Tell whether a name, or a directory above it, could not be looked at."""
        names = key_path(key).split(b"/")
        paths = [b"/".join(names[:count]) for count in range(len(names) + 1)]
        keys = [name_key(path, is_directory=kind) for path in paths for kind in (False, True)]
        return any(bool(hides(file.lookup(keys)).any()) for file in self._tree)


def _is_socket(tree: pa.RecordBatch) -> Mask:
    result: Mask = (tree.column("mode").to_numpy() & np.uint32(_IFMT)) == _IFSOCK
    return result


def _coded(tree: pa.RecordBatch, saved: pa.RecordBatch) -> tuple[Codes, Codes, int]:
    """Return numbers for the keys of both, and how many there are."""
    keys = pa.chunked_array([tree.column("key"), saved.column("key")], type=pa.binary())
    encoded = keys.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    return codes[: tree.num_rows], codes[tree.num_rows :], len(encoded.dictionary)


def _told(tree: pa.RecordBatch, row: int, saved: pa.RecordBatch, other: int) -> str:
    told = [
        f"{name} {theirs:#o}, not {ours:#o}" if name == "mode" else f"{name} {theirs}, not {ours}"
        for name in ("size", *_COMPARED)
        if (ours := tree.column(name)[row].as_py()) != (theirs := saved.column(name)[other].as_py())
    ]
    return f"JobId {saved.column('jobid')[other]} has {'; '.join(told)}"

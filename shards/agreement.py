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

from shards.keys import is_directory_column, key_column
from shards.schema import ReceiptStatus, RowFlag
from shards.selection import winners
from shards.sorted_file import SortedFile, key_ranges, sorted_by_key
from shards.view_schema import TREE_SCHEMA, NameState

Mask = npt.NDArray[np.bool_]

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
    ) -> None:
        """Take the manifest (TREE_SCHEMA, in the order of listing) and the views by shard.

        own_jobs are the run's own JobIds; is_full says that all of them are Fulls. Only keys in
        scope must not be there without being in the manifest.
        """
        self.counts = NameCounts()
        self._tree = tree
        self._views = views
        self._own_jobs = np.array(own_jobs, dtype=np.uint32)
        self._is_full = is_full
        self._is_in_scope = is_in_scope

    def run(self) -> Iterator[NameDifference]:
        """Yield all differences, ascending by name."""
        files = [*self._tree, *(file for view in self._views.values() for file in view.files)]
        for low, high in key_ranges(files):
            tree = sorted_by_key(
                pa.concat_batches([_NO_ROWS, *(file.range(low, high) for file in self._tree)])
            )
            views = [view.range(low, high) for view in self._views.values()]
            yield from self._compare(tree, views)

    def _compare(
        self, tree: pa.RecordBatch, views: Sequence[pa.RecordBatch]
    ) -> Iterator[NameDifference]:
        saved = pa.concat_batches([empty_view(), *views])
        chosen = np.concatenate([np.zeros(0, dtype=bool), *winners(views)]) if views else ...
        names = _Names(tree, saved)

"""What to ask Bacula for: FileIndexes of a run's jobs, from their receipts.

Covers: whole runs or paths and what lies below them; the first name of a hard link that is needed
for another one; directories apart from the rest, since they are restored last.
Does not cover: bootstrap files (bacula_bridge), chains of incremental jobs.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.schema import ReceiptStatus

# A receipt with one of these has its data on a volume; CHANGED is what could be had.
RESTORABLE = np.array(
    sorted({ReceiptStatus.SAVED, ReceiptStatus.LINK, ReceiptStatus.CHANGED}), dtype=np.uint32
)

Ranges = list[tuple[int, int]]


@dataclass(slots=True)
class JobSelection:
    """FileIndexes of one job, ascending, as inclusive ranges."""

    contents: Ranges = field(default_factory=list)
    directories: Ranges = field(default_factory=list)
    names: int = 0
    size_bytes: int = 0
    matched: set[bytes] = field(default_factory=set)  # which of the asked paths were found


def select(batches: Iterable[pa.RecordBatch], paths: Sequence[bytes] | None) -> JobSelection:
    """Select from one job's receipts; paths are relative to the root, None is everything.

    The directories above a selected path are selected too, so that they come back as they were.
    Memory grows with the number of ranges, not of names: a whole job is two ranges.
    """
    selection = JobSelection()
    wanted = None if paths is None else [path.strip(b"/") for path in paths]
    above = {parent for path in wanted or () for parent in _parents(path)}
    first_index = 0  # of the inode whose names are passing; selected if one of its links is
    for batch in batches:
        status = batch.column("status").to_numpy()
        index = batch.column("file_index").to_numpy()
        sent = batch.column("sent_bytes").to_numpy()
        there = np.isin(status, RESTORABLE) & (index > 0)
        is_directory = (batch.column("mode").to_numpy() & 0o170000) == stat.S_IFDIR
        if wanted is None:
            chosen = there
        else:
            chosen = there & _matches(batch.column("path"), wanted, above, selection.matched)
            first_index = _add_first_names(chosen, status, index, first_index, selection)
        _extend(selection.contents, index[chosen & ~is_directory])
        _extend(selection.directories, index[chosen & is_directory])
        selection.names += int(np.count_nonzero(chosen))
        selection.size_bytes += int(sent[chosen].sum())
    return selection


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(len(parts)) if path]


def _matches(
    column: pa.Array, wanted: Sequence[bytes], above: set[bytes], matched: set[bytes]
) -> npt.NDArray[np.bool_]:
    result = np.zeros(len(column), dtype=bool)
    for row, path in enumerate(column.to_pylist()):
        for prefix in wanted:
            if not prefix or path == prefix or path.startswith(prefix + b"/"):
                result[row] = True
                matched.add(prefix)
                break
        else:
            result[row] = path in above
    return result


def _add_first_names(
    chosen: npt.NDArray[np.bool_],
    status: npt.NDArray[np.uint32],
    index: npt.NDArray[np.int32],
    first_index: int,
    selection: JobSelection,
) -> int:
    """Select the first name of each inode one of whose later names is selected.

    The names of an inode are adjacent in a stream, the first one is SAVED or CHANGED and the
    others are LINK; they may straddle two batches.
    """
    is_link = status == ReceiptStatus.LINK
    first_row = -1
    for row in np.flatnonzero(is_link | np.append(is_link[1:], True)).tolist():
        if not is_link[row]:
            first_row, first_index = row, int(index[row])
        elif chosen[row]:
            if first_row >= 0:
                chosen[first_row] = True
            elif first_index:
                _insert(selection.contents, first_index)
    return first_index


def _insert(ranges: Ranges, value: int) -> None:
    """Add an index of the batch before; it lies among the last ranges."""
    position = len(ranges)
    while position and ranges[position - 1][0] > value:
        position -= 1
    if position and ranges[position - 1][1] >= value:
        return
    ranges.insert(position, (value, value))


def _extend(ranges: Ranges, index: npt.NDArray[np.int32]) -> None:
    if not len(index):
        return
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    for part in np.split(index, breaks):
        low, high = int(part[0]), int(part[-1])
        if ranges and ranges[-1][1] == low - 1:
            ranges[-1] = (ranges[-1][0], high)
        else:
            ranges.append((low, high))

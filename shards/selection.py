"""What to ask Bacula for: FileIndexes of the jobs of all shards' chains, from their views.

Covers: per name the entry of the job that ended last, as Bacula itself takes it; whole trees, or
paths with what lies below them and the directories above; the first name of a hard link that is
needed for another one; directories apart from the rest, since they are restored last.
Does not cover: what a chain is and the fold of each (view), bootstrap files (bacula_bridge).

Views are read in ranges of names; what grows with the tree is a bit or two for each name.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.index_set import IndexSet
from shards.keys import is_directory_column, name_key, subtree_bounds
from shards.sorted_file import SortedFile, key_ranges
from shards.spans import covers, outermost, parts
from shards.view_schema import NameState

Mask = npt.NDArray[np.bool_]


class Readable(Protocol):
    """What is asked of a view."""

    files: list[SortedFile]

    def range(self, low: bytes, high: bytes | None) -> pa.RecordBatch:
        """Return the rows with low <= key < high."""

    def lookup(self, keys: Sequence[bytes]) -> pa.RecordBatch:
        """Return the rows with these keys."""


@dataclass(slots=True)
class JobSelection:
    """FileIndexes of one job."""

    contents: IndexSet = field(default_factory=IndexSet)
    directories: IndexSet = field(default_factory=IndexSet)
    first_names: IndexSet = field(default_factory=IndexSet)  # of inodes one of whose links is in
    names: int = 0
    size_bytes: int = 0

    def missing_first_names(self) -> IndexSet:
        """Return the records that chosen hard links need and that were not chosen themselves."""
        return self.first_names.without(self.contents)


@dataclass(slots=True)
class Selection:
    """What a restore takes."""

    jobs: dict[int, JobSelection] = field(default_factory=dict)  # by JobId
    matched: set[bytes] = field(default_factory=set)  # which of the asked paths were found

    @property
    def names(self) -> int:
        return sum(job.names for job in self.jobs.values())

    @property
    def size_bytes(self) -> int:
        return sum(job.size_bytes for job in self.jobs.values())

    def add(self, rows: pa.RecordBatch) -> None:
        """Take these rows of views (VIEW_SCHEMA)."""
        if not rows.num_rows:
            return
        jobids = rows.column("jobid").to_numpy()
        index = rows.column("file_index").to_numpy()
        first = rows.column("first_index").to_numpy()
        sent = rows.column("sent_bytes").to_numpy()
        is_directory = is_directory_column(rows.column("mode").to_numpy())
        for jobid in np.unique(jobids).tolist():
            own = jobids == jobid
            job = self.jobs.setdefault(jobid, JobSelection())
            job.contents.add(index[own & ~is_directory])
            job.directories.add(index[own & is_directory])
            job.first_names.add(first[own & (first > 0)])
            job.names += int(np.count_nonzero(own))
            job.size_bytes += int(sent[own].sum())


def winners(views: Sequence[pa.RecordBatch]) -> list[Mask]:
    """Tell for each row of views of the same names whether a restore takes it.

    Of a name Bacula takes the entry of the job that ended last; in the same second a live one
    before a deleted one, whose FileIndex is 0 here, and of live ones the larger FileIndex.
    """
    whole = pa.concat_batches(views)
    ends = np.cumsum([view.num_rows for view in views])
    heard = np.flatnonzero(whole.column("state").to_numpy() != NameState.ABSENT)
    is_live = whole.column("state").to_numpy() == NameState.LIVE
    names = whole.column("key").dictionary_encode().indices.to_numpy()[heard]
    order = np.lexsort(
        (
            whole.column("jobid").to_numpy()[heard],
            whole.column("file_index").to_numpy()[heard],
            whole.column("tdate").to_numpy()[heard],
            names,
        )
    )
    is_last = np.append(names[order][1:] != names[order][:-1], True)[: len(order)]
    newest = np.zeros(whole.num_rows, dtype=bool)
    newest[heard[order[is_last]]] = True
    masks: list[Mask] = np.split(newest & is_live, ends[:-1])
    return masks


def chosen_rows(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return of each batch of a view, all of the same names, the rows that a restore takes."""
    masks = winners(batches)
    return [batch.filter(pa.array(mask)) for batch, mask in zip(batches, masks, strict=True)]


def select(views: Sequence[Readable], paths: Sequence[bytes] | None) -> Selection:
    """Select from the views of all shards; paths are relative to the root, None is everything.

    The directories above a selected path are selected too, so that they come back as they were.
    """
    selection = Selection()
    wanted = {b""} if paths is None else {path.strip(b"/") for path in paths}
    spans = outermost(wanted)
    for low, high in parts(spans, [file for view in views for file in view.files]):
        for rows in chosen_rows([view.range(low, high) for view in views]):
            selection.add(rows)
            selection.matched |= _found(wanted - selection.matched, rows)
    keys = {name_key(path, is_directory=False) for path in wanted if path}
    above = {parent for path in wanted for parent in _parents(path)}
    keys |= {name_key(path, is_directory=True) for path in above}
    outside = sorted(key for key in keys if not covers(spans, key))
    for rows in chosen_rows([view.lookup(outside) for view in views]):
        selection.add(rows)
        selection.matched |= _found(wanted - selection.matched, rows)
    return selection


def link_rows(
    views: Sequence[Readable], records: Mapping[int, IndexSet]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that a restore of everything takes and that are hard links to the records."""
    files = [file for view in views for file in view.files]
    for low, high in key_ranges(files):
        for rows in chosen_rows([view.range(low, high) for view in views]):
            jobids = rows.column("jobid").to_numpy()
            first = rows.column("first_index").to_numpy()
            is_wanted = np.zeros(rows.num_rows, dtype=bool)
            for jobid, indexes in records.items():
                is_wanted |= (jobids == jobid) & (first > 0) & indexes.has(first)
            if is_wanted.any():
                yield rows.filter(pa.array(is_wanted))


def _found(wanted: set[bytes], rows: pa.RecordBatch) -> set[bytes]:
    """Return which paths are among these rows, or have some of them below."""
    if not wanted or not rows.num_rows:
        return set()
    keys = rows.column("key").to_pylist()
    return {path for path in wanted if _has(keys, path)}


def _has(keys: list[bytes], path: bytes) -> bool:
    key = name_key(path, is_directory=False)
    place = bisect.bisect_left(keys, key)
    if place < len(keys) and keys[place] == key:
        return True
    low, high = subtree_bounds(path)
    place = bisect.bisect_left(keys, low)
    return place < len(keys) and (high is None or keys[place] < high)


def _parents(path: bytes) -> list[bytes]:
    names = path.split(b"/")
    return [b"/".join(names[:count]) for count in range(len(names)) if path]

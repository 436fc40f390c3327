"""What a job sends: the one rule, whatever the job's level (docs/formats/view.md).

Covers: comparing a scanned tree, or a range of it, with the views of all shards.
Does not cover: reading trees and views in ranges (plan), how a view comes about (layer, view),
which chain of jobs is a shard's base (chain).

For each shard the base is the view of the chain that its job builds on, and the current view is
that of everything good that its jobs have saved so far; for an incremental both are the same. With
them shard k sends

 a. FT_DELETED for every live name of its base that the tree has no more, in any shard;
 b. every name of its inodes, unless its base holds the identical entry and no other shard's
    current view has a newer word on that name;
 c. what its base calls due;

and if one name of an inode goes, all go (`linked`): Bacula links only within a job. So do they if
the name that they were saved as links of is gone or has become another inode, for Bacula makes a
link by that name. (The names of an inode that is moved within the tree come back as new ones; one
that is moved out of it, or to where nothing can be looked at, does not.)

Bacula merges the chains of the shards by name and takes the job that ended last. So a name that
another shard's inode has taken over must not be deleted, and one that came back from another
shard must be sent again though its own view has never lost it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.keys import is_directory_column
from shards.view_schema import NameState

Mask = npt.NDArray[np.bool_]
_IFMT, _IFSOCK = 0o170000, 0o140000
# What makes an entry another one. The size of a directory says nothing; nlink moves ctime.
_COMPARED = ("ino", "mtime", "ctime", "mode", "uid", "gid", "rdev")


@dataclass(frozen=True, slots=True)
class Decision:
    """What goes, of one range of names."""

    send: Mask  # over the rows of the tree
    linked: npt.NDArray[np.uint64]  # inodes all of whose names go
    deleted: dict[int, npt.NDArray[np.int64]]  # by shard: rows of its base to send as FT_DELETED


def decide(
    tree: pa.RecordBatch,
    bases: Mapping[int, pa.RecordBatch],
    currents: Mapping[int, pa.RecordBatch],
    unlisted: Sequence[bytes] = (),
) -> Decision:
    """Compare a tree (TREE_SCHEMA, all shards) with the shards' views (VIEW_SCHEMA).

    Only shards in bases are decided for; currents has the views of all shards that have saved
    anything. A shard whose job has no base gives an empty view. Everything is of the same range of
    keys, or of the same set of names. unlisted are keys of what could not be looked at: what a view
    has there, or below, is not deleted. A key without a last NUL is of a name whose type is not
    known, so it stands for a directory too.
    """
    names = _Names([tree, *bases.values(), *currents.values()])
    in_tree = names.codes[0]
    shard_of_row = tree.column("shard").to_numpy()
    is_error = tree.column("error").to_numpy() != 0
    is_socket = (tree.column("mode").to_numpy() & np.uint32(_IFMT)) == _IFSOCK
    counted = ~is_error & ~is_socket  # Bacula saves no sockets: to it they are not there
    present = np.zeros(names.count, dtype=bool)
    present[in_tree[~is_socket]] = True
    send = is_error & np.isin(shard_of_row, list(bases))
    last = np.full(names.count, -1, dtype=np.int64)
    rows = np.flatnonzero(counted)
    last[in_tree[rows]] = rows  # a name listed twice counts as it was seen last
    counted &= last[in_tree] == np.arange(len(in_tree))
    newest = _Newest(names.count, currents, names.codes[1 + len(bases) :])
    deleted = {}
    linked = []
    for (shard, base), codes in zip(bases.items(), names.codes[1:], strict=False):
        rows = np.flatnonzero(counted & (shard_of_row == shard))
        send[rows[~_is_unchanged(tree, rows, in_tree, base, codes, newest, shard)]] = True
        gone = (base.column("state").to_numpy() == NameState.LIVE) & ~present[codes]
        deleted[shard] = _without_unlisted(np.flatnonzero(gone), base.column("key"), unlisted)
        linked.append(_inodes_without_first(tree, last[codes], base, deleted[shard]))
    several = (tree.column("nlink").to_numpy() > 1) & counted
    several &= ~is_directory_column(tree.column("mode").to_numpy())
    linked.append(tree.column("ino").to_numpy()[send & several])
    return Decision(send, np.unique(np.concatenate(linked)), deleted)


class _Names:
    """Numbers for the keys of several tables, so that they are compared as integers."""

    def __init__(self, tables: Sequence[pa.RecordBatch]) -> None:
        chunks = pa.chunked_array([table.column("key") for table in tables], type=pa.binary())
        encoded = chunks.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        whole = encoded.indices.to_numpy().astype(np.int64)
        ends = np.cumsum([table.num_rows for table in tables])
        self.codes: list[npt.NDArray[np.int64]] = np.split(whole, ends[:-1])
        self.count = len(encoded.dictionary)


class _Newest:
    """When a name was last heard of in any shard, and in which one."""

    def __init__(
        self,
        count: int,
        currents: Mapping[int, pa.RecordBatch],
        codes: Sequence[npt.NDArray[np.int64]],
    ) -> None:
        # The two newest shards: a shard is compared with the others only.
        self._first_time = np.full(count, -1, dtype=np.int64)
        self._first_shard = np.full(count, -1, dtype=np.int64)
        self._second_time = np.full(count, -1, dtype=np.int64)
        for (shard, view), names in zip(currents.items(), codes, strict=True):
            heard = view.column("state").to_numpy() != NameState.ABSENT
            names = names[heard]
            times = view.column("tdate").to_numpy()[heard]
            is_newer = times > self._first_time[names]
            self._second_time[names] = np.maximum(
                self._second_time[names], np.where(is_newer, self._first_time[names], times)
            )
            self._first_time[names[is_newer]] = times[is_newer]
            self._first_shard[names[is_newer]] = shard

    def elsewhere(self, names: npt.NDArray[np.int64], shard: int) -> npt.NDArray[np.int64]:
        """Return when shards other than this one last had a word on each name; -1: never."""
        is_own = self._first_shard[names] == shard
        times: npt.NDArray[np.int64] = np.where(
            is_own, self._second_time[names], self._first_time[names]
        )
        return times


def _is_unchanged(
    tree: pa.RecordBatch,
    rows: npt.NDArray[np.int64],
    in_tree: npt.NDArray[np.int64],
    base: pa.RecordBatch,
    codes: npt.NDArray[np.int64],
    newest: _Newest,
    shard: int,
) -> Mask:
    """Tell which rows of the tree the base has as they are, undisputed."""
    if not len(rows) or not base.num_rows:
        return np.zeros(len(rows), dtype=bool)
    place = np.full(int(max(in_tree.max(), codes.max())) + 1, -1, dtype=np.int64)
    place[codes] = np.arange(len(codes))
    theirs = place[in_tree[rows]]
    result: Mask = theirs >= 0
    theirs = np.where(result, theirs, 0)
    result &= base.column("state").to_numpy()[theirs] == NameState.LIVE
    result &= ~base.column("due").to_numpy(zero_copy_only=False)[theirs]
    for name in _COMPARED:
        result &= tree.column(name).to_numpy()[rows] == base.column(name).to_numpy()[theirs]
    is_directory = is_directory_column(tree.column("mode").to_numpy()[rows])
    sizes = tree.column("size").to_numpy()[rows] == base.column("size").to_numpy()[theirs]
    result &= is_directory | sizes
    # In the same second it is not known which one Bacula takes: then it is sent again.
    result &= newest.elsewhere(in_tree[rows], shard) < base.column("tdate").to_numpy()[theirs]
    return result


def _inodes_without_first(
    tree: pa.RecordBatch,
    theirs: npt.NDArray[np.int64],
    base: pa.RecordBatch,
    deleted: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint64]:
    """Return inodes whose first name is no longer theirs; theirs are rows of the tree, or -1."""
    inodes: npt.NDArray[np.uint64] = base.column("ino").to_numpy()
    lost = np.zeros(base.num_rows, dtype=bool)
    lost[deleted] = True
    rows = np.flatnonzero(theirs >= 0)
    lost[rows] = tree.column("ino").to_numpy()[theirs[rows]] != inodes[rows]
    lost &= base.column("state").to_numpy() == NameState.LIVE
    lost &= (base.column("nlink").to_numpy() > 1) & (base.column("first_index").to_numpy() == 0)
    lost &= ~is_directory_column(base.column("mode").to_numpy())
    return inodes[lost]


def _without_unlisted(
    rows: npt.NDArray[np.int64], keys: pa.BinaryArray, unlisted: Sequence[bytes]
) -> npt.NDArray[np.int64]:
    """Drop rows that lie at or below what could not be looked at."""
    if not unlisted or not len(rows):
        return rows
    candidates = keys.take(pa.array(rows))
    hidden = np.zeros(len(rows), dtype=bool)
    for key in unlisted:
        name = key.removesuffix(b"\0")
        below = pc.starts_with(candidates, pattern=name + b"\0" if name else b"")
        same = pc.equal(candidates, pa.scalar(key, type=pa.binary()))
        hidden |= pc.or_(below, same).to_numpy(zero_copy_only=False)
    return rows[~hidden]

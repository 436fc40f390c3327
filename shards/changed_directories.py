"""What follows from listed directories: names that are gone, subtrees that are new where they are.

Covers: comparing listings of directories with views, without reading what is below known
subdirectories.
Does not cover: listing them (filesystems.cephfs), what is done with the result (bacula_bridge).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from shards.changes import CHANGES_MAX, ChangedDirectory, Gap
from shards.keys import name_key, subtree_bounds
from shards.spans import Span
from shards.view import View
from shards.view_schema import NameState

KEYS_AT_ONCE = 16_384


def compare(
    directories: Sequence[ChangedDirectory],
    view_sets: Iterable[Sequence[View]],
    *,
    distrust_changed: bool,
) -> tuple[set[bytes], set[bytes]]:
    """Return names and subtrees to look at beyond the present names of the directories.

    view_sets are sets of views, one view for each shard, that jobs of the run are compared with.
    distrust_changed: a subdirectory that changed itself is looked at with all below it, even if
    every set has it: shards whose jobs ended at different times do not know the same of it.
    """
    names: set[bytes] = set()
    subtrees: set[bytes] = set()
    for views in view_sets:
        for subdirectories in _chunks(_subdirectories(directories)):
            known = known_directories([key for key, _, _ in subdirectories], views)
            subtrees.update(
                path for key, path, inode in subdirectories if (key, inode) not in known
            )
        for directory in directories:
            for view in views:
                _gone(directory, view, names, subtrees)
    if distrust_changed:
        for directory in directories:
            subtrees.update(
                _join(directory.path, name)
                for name, found in directory.subdirectories.items()
                if found.is_changed
            )
    return names, subtrees


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _subdirectories(
    directories: Sequence[ChangedDirectory],
) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield key, path and inode number of all subdirectories."""
    for directory in directories:
        for name, found in directory.subdirectories.items():
            path = _join(directory.path, name)
            yield name_key(path, is_directory=True), path, found.inode


def _chunks(
    rows: Iterator[tuple[bytes, bytes, int]],
) -> Iterator[list[tuple[bytes, bytes, int]]]:
    chunk: list[tuple[bytes, bytes, int]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == KEYS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def known_directories(keys: Sequence[bytes], views: Sequence[View]) -> set[tuple[bytes, int]]:
    """Return which directories, by key and inode number, the views of all shards have.

    The newest word on a name counts. A name that another shard's inode took over is never deleted
    in the first shard's view (DESIGN, contract 8): what that has is not there any more.
    """
    newest: dict[bytes, tuple[int, int | None]] = {}  # key: when, and the inode number if it lives
    for view in views:
        rows = view.lookup(sorted(keys)).select(["key", "ino", "state", "tdate"])
        for key, inode, state, when in zip(*(c.to_pylist() for c in rows.columns), strict=True):
            if state == NameState.ABSENT:
                continue
            living = inode if state == NameState.LIVE else None
            if key not in newest or when > newest[key][0]:
                newest[key] = when, living
            elif when == newest[key][0] and living != newest[key][1]:
                newest[key] = when, None  # nobody can tell
    return {(key, inode) for key, (_, inode) in newest.items() if inode is not None}


def _gone(directory: ChangedDirectory, view: View, names: set[bytes], subtrees: set[bytes]) -> None:
    """Add what a view has directly in a directory, and all below subdirectories that it lost.

    A view has one shard's names: a directory and what is below it are mostly in different ones.
    """
    prefix = subtree_bounds(directory.path)[0]
    skipped = b""  # the key prefix of a lost subdirectory
    for low, high in _between(directory):
        for batch in view.batches(low, high):
            for key in batch.column("key").to_pylist():
                if skipped and key.startswith(skipped):
                    continue
                first, is_below, _ = key[len(prefix) :].partition(b"\0")
                path = _join(directory.path, first)
                if is_below and first:
                    subtrees.add(path)
                    skipped = prefix + first + b"\0"
                elif first:
                    names.add(path)
            if len(names) + len(subtrees) > CHANGES_MAX:
                raise Gap(f"more than {CHANGES_MAX:,} names are gone: a scan costs less")


def _between(directory: ChangedDirectory) -> Iterator[Span]:
    """Yield the spans of a directory's keys that are below none of its subdirectories."""
    low, end = subtree_bounds(directory.path)
    bounds = sorted(
        subtree_bounds(_join(directory.path, name)) for name in directory.subdirectories
    )
    for start, after in bounds:
        assert after is not None, "only the root's subtree has no end"
        if low < start:
            yield low, start
        low = after
    yield low, end


def partly_named(view: View) -> list[bytes]:
    """Return the keys of all names of inodes that have more names than the view has.

    The others are outside the root, where a change may only show.
    """
    inodes: list[npt.NDArray[np.uint64]] = []
    counts: list[npt.NDArray[np.uint32]] = []
    for rows in view.batches():
        is_one = (rows.column("nlink").to_numpy() > 1) & (
            rows.column("state").to_numpy() == NameState.LIVE
        )
        is_one &= ~pc.ends_with(rows.column("key"), pattern=b"\0").to_numpy(zero_copy_only=False)
        if is_one.any():
            inodes.append(rows.column("ino").to_numpy()[is_one])
            counts.append(rows.column("nlink").to_numpy()[is_one])
    if not inodes:
        return []
    found, first, had = np.unique(np.concatenate(inodes), return_index=True, return_counts=True)
    lacking = found[np.concatenate(counts)[first] > had]
    if len(lacking) > CHANGES_MAX:
        raise Gap(f"more than {CHANGES_MAX:,} files have names elsewhere: a scan costs less")
    return view.names_of_inodes(lacking.tolist())

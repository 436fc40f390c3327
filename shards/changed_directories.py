"""What follows from listed directories: names that are gone, subtrees that are new where they are.

Covers: comparing listings of directories with views, without reading what is below known
subdirectories.
Does not cover: listing them (filesystems.cephfs), what is done with the result (bacula_bridge).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from shards.changes import ChangedDirectory, Gap
from shards.keys import name_key, subtree_bounds
from shards.spans import Span
from shards.view import View
from shards.view_schema import NameState

KEYS_AT_ONCE = 16_384
NAMES_MAX = 1_000_000  # a scan costs less than looking at more


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
            known = _known([key for key, _, _ in subdirectories], views)
            subtrees.update(
                path for key, path, inode in subdirectories if (key, inode) not in known
            )
        for directory in directories:
            for view in views:
                _gone(directory, view, names, subtrees)
                if len(names) + len(subtrees) > NAMES_MAX:
                    raise Gap(f"more than {NAMES_MAX:,} names are gone: a scan costs less")
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


def _known(keys: Sequence[bytes], views: Sequence[View]) -> set[tuple[bytes, int]]:
    """Return which directories, by key and inode number, some view of a set has."""
    known: set[tuple[bytes, int]] = set()
    for view in views:
        rows = view.lookup(sorted(keys))
        live = rows.filter(pa.array(rows.column("state").to_numpy() == NameState.LIVE))
        known.update(
            zip(live.column("key").to_pylist(), live.column("ino").to_pylist(), strict=True)
        )
    return known


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

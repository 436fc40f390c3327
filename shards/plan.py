"""The plan of a run's incremental jobs: what each shard sends, as segments (docs/formats/view.md).

Covers: the scanned tree sorted by name, compared in ranges with the views of all shards, and what
goes written down in the order in which a stream needs it.
Does not cover: the rule itself (decision), views (view), sending (bacula_bridge).

Memory is that of a range of names, plus eight bytes for each inode with several names that goes.
A plan says nothing that could not be found again from the manifest and the views: it is not in
the ledger, and is made anew when it is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.decision import Decision, decide
from shards.keys import is_directory_column, key_column, name_key, path_column
from shards.schema import INODE_SCHEMA, RowClass, RowFlag
from shards.segment import SegmentInfo, SegmentStore, write_segment
from shards.shard_function import mix64_column
from shards.sorted_file import SortedFile, external_sort
from shards.spans import Span, covers, outermost, parts
from shards.view import View

ROWS_TARGET = 65_536
NAMES_AT_ONCE = 16_384
# Beyond so many names that could not be looked at, nothing at all is taken for deleted.
UNLISTED_MAX = 1_024

_KEYED_SCHEMA = pa.schema([pa.field("key", pa.binary(), nullable=False), *INODE_SCHEMA])
_CLASSES = (RowClass.PLAIN, RowClass.LINKED, RowClass.DIRECTORY, RowClass.DELETED)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a scan found: a run's segments."""

    store: SegmentStore
    infos: tuple[SegmentInfo, ...]
    shards: int
    seed: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a run looks: names, each on its own, and subtrees with all that is below them."""

    names: tuple[bytes, ...] = ()
    subtrees: tuple[bytes, ...] = (b"",)


EVERYWHERE = Scope()


def make_plan(
    manifest: Manifest,
    scope: Scope,
    bases: Mapping[int, View],
    currents: Mapping[int, View],
    folder: Path,
    tick: Callable[[], None] = lambda: None,
) -> list[SegmentInfo]:
    """Write the segments of what the shards in bases send into an empty folder; return them.

    currents are the views of all shards. tick is called now and then, and may raise.
    """
    unlisted = _Unlisted()
    scratch = folder / "scratch"
    scratch.mkdir(mode=0o700)
    tree = external_sort(_keyed(manifest, unlisted, tick), _KEYED_SCHEMA, scratch, "tree")
    comparison = _Comparison(tree, bases, currents, unlisted.keys)
    writer = _PlanWriter(manifest, folder)
    linked: dict[int, list[npt.NDArray[np.uint64]]] = {shard: [] for shard in bases}
    for part, views, decision in comparison.run(scope):
        tick()
        shard_of_row = part.column("shard").to_numpy()
        for shard in bases:
            rows = decision.send & (shard_of_row == shard)
            writer.add(shard, part.filter(pa.array(rows)))
            linked[shard].append(decision.linked[_shards_of(decision.linked, manifest) == shard])
            writer.add_deleted(shard, views[shard].take(pa.array(decision.deleted[shard])))
    for shard, inodes in linked.items():
        if inodes:
            writer.add_linked(shard, np.unique(np.concatenate(inodes)), tick)
    for file in tree:
        file.path.unlink()
    scratch.rmdir()
    return writer.close()


def _shards_of(inodes: npt.NDArray[np.uint64], manifest: Manifest) -> npt.NDArray[np.uint64]:
    hashes: npt.NDArray[np.uint64] = mix64_column(inodes, manifest.seed)
    return hashes % np.uint64(manifest.shards)


@dataclass(slots=True)
class _Unlisted:
    """Keys of names and directories that could not be looked at."""

    keys: list[bytes] = field(default_factory=list)

    def note(self, batch: pa.RecordBatch) -> None:
        flags = batch.column("flags").to_numpy()
        hidden = (flags & (RowFlag.LIST_FAILED | RowFlag.STAT_FAILED | RowFlag.PATH_TOO_LONG)) != 0
        for row in np.flatnonzero(hidden & (batch.column("error").to_numpy() != 0)).tolist():
            if len(self.keys) > UNLISTED_MAX:
                self.keys[:] = [b""]  # everything
                return
            if self.keys != [b""]:
                path = batch.column("path")[row].as_py()
                is_directory = bool(flags[row] & RowFlag.LIST_FAILED)
                self.keys.append(name_key(path, is_directory=is_directory))


def _keyed(
    manifest: Manifest, unlisted: _Unlisted, tick: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    """Yield all rows of a manifest with their keys, in the order in which they were listed."""
    for info in manifest.infos:
        tick()
        for shard in range(manifest.shards):
            for row_class in (RowClass.PLAIN, RowClass.LINKED, RowClass.DIRECTORY):
                if not info.count(shard, row_class):
                    continue
                batch = manifest.store.rows(info, shard, row_class)
                unlisted.note(batch)
                keys = key_column(batch.column("path"), batch.column("mode").to_numpy())
                yield pa.RecordBatch.from_arrays([keys, *batch.columns], schema=_KEYED_SCHEMA)


class _Comparison:
    """The tree beside the views, range by range."""

    def __init__(
        self,
        tree: Sequence[SortedFile],
        bases: Mapping[int, View],
        currents: Mapping[int, View],
        unlisted: Sequence[bytes],
    ) -> None:
        self._tree = tree
        self._bases = bases
        self._currents = currents
        self._unlisted = unlisted

    def run(
        self, scope: Scope
    ) -> Iterator[tuple[pa.RecordBatch, dict[int, pa.RecordBatch], Decision]]:
        """Yield rows of the tree, the bases' rows of the same names, and what goes."""
        spans = outermost(scope.subtrees)
        views = (*self._bases.values(), *self._currents.values())
        files = [*self._tree, *dict.fromkeys(file for view in views for file in view.files)]
        for low, high in parts(spans, files):
            yield self._compare(
                [file.range(low, high) for file in self._tree],
                lambda view, low=low, high=high: view.range(low, high),  # type: ignore[misc]
            )
        for keys in _chunks(_keys_outside(scope.names, spans), NAMES_AT_ONCE):
            yield self._compare(
                [file.lookup(keys) for file in self._tree],
                lambda view, keys=keys: view.lookup(keys),  # type: ignore[misc]
            )

    def _compare(
        self, found: Sequence[pa.RecordBatch], rows_of: Callable[[View], pa.RecordBatch]
    ) -> tuple[pa.RecordBatch, dict[int, pa.RecordBatch], Decision]:
        # Stable: of a name that was listed twice the later row stays behind the earlier one.
        tree = pa.concat_batches(found) if found else _no_rows()
        tree = tree.take(pc.sort_indices(tree, sort_keys=[("key", "ascending")]))
        read: dict[int, pa.RecordBatch] = {}
        for view in (*self._bases.values(), *self._currents.values()):
            if id(view) not in read:  # base and current view are one object, as a rule
                read[id(view)] = rows_of(view)
        bases = {shard: read[id(view)] for shard, view in self._bases.items()}
        currents = {shard: read[id(view)] for shard, view in self._currents.items()}
        return tree, bases, decide(tree, bases, currents, self._unlisted)


def _no_rows() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=_KEYED_SCHEMA)


def _keys_outside(names: Sequence[bytes], spans: Sequence[Span]) -> list[bytes]:
    """Return both keys of each name, as a file and as a directory, that no span covers."""
    forms = itertools.product(names, (False, True))
    keys = (name_key(name, is_directory=is_directory) for name, is_directory in forms)
    return sorted(key for key in keys if not covers(spans, key))


def _chunks(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


class _PlanWriter:
    """Collects what goes and writes it as segments, each with a batch for every shard."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self._manifest = manifest
        self._folder = folder
        self._infos: list[SegmentInfo] = []
        self._rows = 0
        self._waiting: dict[tuple[int, RowClass], list[pa.RecordBatch]] = {}

    def add(self, shard: int, rows: pa.RecordBatch) -> None:
        """Add rows of the tree; those with several names come by add_linked."""
        batch = rows.select(INODE_SCHEMA.names)
        is_directory = is_directory_column(batch.column("mode").to_numpy())
        is_error = batch.column("error").to_numpy() != 0
        is_plain = is_error | (~is_directory & (batch.column("nlink").to_numpy() < 2))
        self._put(shard, RowClass.PLAIN, batch.filter(pa.array(is_plain)))
        self._put(shard, RowClass.DIRECTORY, batch.filter(pa.array(is_directory & ~is_error)))

    def add_deleted(self, shard: int, gone: pa.RecordBatch) -> None:
        """Add rows of a view whose names the tree has no more."""
        if not gone.num_rows:
            return
        columns = []
        for column in INODE_SCHEMA:
            if column.name == "path":
                columns.append(path_column(gone.column("key")))
            elif column.name in ("ino", "mode", "nlink"):
                columns.append(gone.column(column.name))
            elif column.name == "flags":
                columns.append(pa.array([int(RowFlag.DELETED)] * gone.num_rows, type=column.type))
            elif column.name == "shard":
                columns.append(pa.array([shard] * gone.num_rows, type=column.type))
            elif column.nullable:
                columns.append(pa.nulls(gone.num_rows, column.type))
            else:
                columns.append(pa.array([0] * gone.num_rows, type=column.type))
        batch = pa.RecordBatch.from_arrays(columns, schema=INODE_SCHEMA)
        self._put(shard, RowClass.DELETED, batch)

    def add_linked(
        self, shard: int, inodes: npt.NDArray[np.uint64], tick: Callable[[], None]
    ) -> None:
        """Add all names of these inodes, in the manifest's own order by hash."""
        for info in self._manifest.infos:
            if not info.count(shard, RowClass.LINKED):
                continue
            tick()
            batch = self._manifest.store.rows(info, shard, RowClass.LINKED)
            wanted = np.isin(batch.column("ino").to_numpy(), inodes)
            self._put(shard, RowClass.LINKED, batch.filter(pa.array(wanted)))
            self._flush()  # a segment's links are sorted by hash; those of two are not

    def _put(self, shard: int, row_class: RowClass, rows: pa.RecordBatch) -> None:
        if rows.num_rows:
            self._waiting.setdefault((shard, row_class), []).append(rows)
            self._rows += rows.num_rows
        if self._rows >= ROWS_TARGET:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        counts, batches = [], []
        for shard in range(self._manifest.shards):
            parts = [self._taken(shard, row_class) for row_class in _CLASSES]
            counts.append(tuple(part.num_rows for part in parts))
            batches += parts
        name = f"{len(self._infos)}.arrow"
        info = write_segment(
            self._folder, name, pa.concat_batches(batches), counts, run=0, lease=0, epoch=0
        )
        self._infos.append(info)
        self._waiting.clear()
        self._rows = 0

    def _taken(self, shard: int, row_class: RowClass) -> pa.RecordBatch:
        parts = self._waiting.get((shard, row_class))
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=INODE_SCHEMA)
        batch = pa.concat_batches(parts)
        if row_class is RowClass.DIRECTORY:
            batch = batch.take(pc.sort_indices(batch, sort_keys=[("depth", "descending")]))
        return batch

    def close(self) -> list[SegmentInfo]:
        self._flush()
        return self._infos

"""Views: what restoring one shard's chain of jobs gives, as files (docs/formats/view.md).

Covers: ranges, names, subtrees and inodes of a view; making its files from the receipts, mending
damaged ones, folding long chains into fewer files.
Does not cover: the fold itself (layer), which jobs are a chain, removing files (prune).
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import ForebayError
from shards.files import make_private_folder
from shards.keys import subtree_bounds
from shards.layer import (
    INODES_SCHEMA,
    fold,
    inode_rows,
    layer_from_catalog,
    layer_from_receipts,
    with_tdate,
)
from shards.receipts import read_receipts
from shards.shard_jobs import ReceiptsInfo
from shards.sorted_file import (
    SortedFile,
    SortedFileDamaged,
    external_sort,
    key_ranges,
    merge_sorted,
    write_sorted,
)
from shards.state import StateDirectory, StateDirectoryError
from shards.view_schema import LAYER_SCHEMA, VIEW_SCHEMA, VIEW_VERSION, NameState

# So many links of a chain, and so many folds of as many links, are folded into one file.
FOLD_LINKS = 8
_LOOKUP_KEYS = 16_384
_ORIGIN = b"forebay.origin"
JOBIDS = b"forebay.jobids"  # which jobs a file follows from, as JSON: prune asks

# What a job's catalog knows: path relative to the root, is it a directory, FileIndex (negative:
# deleted).
CatalogNames = Callable[[int], Iterator[tuple[bytes, bool, int]]]


class NamesUnknown(ForebayError):
    """Neither receipts nor the catalog tell what a job saved."""

    template = "JobId {0}: its receipts are gone, and there is no catalog to ask; run a Full"


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One job of a chain."""

    run: int
    shard: int
    jobid: int
    tdate: int  # when it ended: the catalog's JobTDate
    receipts: ReceiptsInfo | None  # None: its names come from the catalog
    margin_ns: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive links that are one file: a layer, or what some parts fold to."""

    links: tuple[ChainLink, ...]
    parts: tuple[_Part, ...]  # none: it is a layer

    def origin(self) -> bytes:
        """Return a hash of all that the file follows from."""
        facts = [
            [
                link.run,
                link.shard,
                link.jobid,
                link.margin_ns,
                link.receipts and [link.receipts.size_bytes, link.receipts.checksum],
                # Nothing else tells a job from another catalog's of the same JobId. A layer of
                # receipts does not depend on it.
                None if link.receipts and not self.parts else link.tdate,
            ]
            for link in self.links
        ]
        return hashlib.sha256(json.dumps([VIEW_VERSION, facts]).encode()).hexdigest().encode()


class View:
    """The fold of a chain of jobs, oldest first. A file that proves damaged is mended once."""

    def __init__(
        self, store: ViewStore, links: Sequence[ChainLink], parts: Sequence[_Part]
    ) -> None:
        self.links = tuple(links)
        self._store = store
        self._parts = tuple(parts)
        self._tdates = {link.jobid: link.tdate for link in links}
        self.files = [store.rows(part) for part in parts]
        self._indexes: dict[int, SortedFile] = {}

    def range(self, low: bytes, high: bytes | None) -> pa.RecordBatch:
        """Return the rows from low to high, exclusive; None is past every key."""
        return self._folded(methodcaller("range", low, high))

    def lookup(self, keys: Sequence[bytes]) -> pa.RecordBatch:
        """Return the rows that have one of these keys."""
        return self._folded(methodcaller("lookup", keys))

    def batches(self, low: bytes = b"", high: bytes | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows from low to high, ascending, in batches of a bounded size."""
        for start, end in key_ranges(self.files, low=low):
            if high is not None and high <= start:
                return
            if end is None or low < end:
                is_last = end is None or (high is not None and high < end)
                yield self.range(max(low, start), high if is_last else end)

    def subtree(self, path: bytes) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a directory and of all below it, ascending."""
        return self.batches(*subtree_bounds(path))

    def due_keys(self) -> Iterator[bytes]:
        """Yield the keys of rows that are due, whatever their state, ascending."""
        batches = self.batches()
        if all(older.tdate < newer.tdate for older, newer in itertools.pairwise(self.links)):
            # Else a row can be due by the fold alone.
            merged = heapq.merge(*map(self._due_keys_of, range(len(self.files))))
            keys = (key for key, _ in itertools.groupby(merged))
            chunks = iter(lambda: list(itertools.islice(keys, _LOOKUP_KEYS)), [])
            batches = (self.lookup(chunk) for chunk in chunks)
        for rows in batches:
            yield from rows.column("key").filter(rows.column("due")).to_pylist()

    def names_of_inodes(self, inos: Sequence[int]) -> list[bytes]:
        """Return the keys of the live names of these inodes, ascending."""
        keys = [ino.to_bytes(8, "big") for ino in inos]
        names: set[bytes] = set()
        for number, part in enumerate(self._parts):
            try:
                index = self._indexes.get(number) or self._store.inodes(part)
                found = index.lookup(keys)
            except SortedFileDamaged:
                index = self._store.make_inodes(part)
                found = index.lookup(keys)
            self._indexes[number] = index
            names.update(found.column("name").to_pylist())
        rows = self.lookup(list(names))
        is_live = pc.equal(rows.column("state"), pa.scalar(int(NameState.LIVE), pa.uint8()))
        is_theirs = pc.is_in(rows.column("ino"), value_set=pa.array(inos, type=pa.uint64()))
        result: list[bytes] = rows.filter(pc.and_(is_live, is_theirs)).column("key").to_pylist()
        return result

    def _folded(self, rows_of: Callable[[SortedFile], pa.RecordBatch]) -> pa.RecordBatch:
        return fold([self._rows(number, rows_of) for number in range(len(self.files))])

    def _rows(self, number: int, rows_of: Callable[[SortedFile], pa.RecordBatch]) -> pa.RecordBatch:
        part = self._parts[number]
        try:
            rows = rows_of(self.files[number])
        except SortedFileDamaged:
            self.files[number] = self._store.make_rows(part)
            rows = rows_of(self.files[number])
        return rows if part.parts else with_tdate(rows, self._tdates)

    def _due_keys_of(self, number: int) -> Iterator[bytes]:
        for low, high in self.files[number].due_ranges():
            rows = self._rows(number, methodcaller("range", low, high))
            yield from rows.column("key").filter(rows.column("due")).to_pylist()


class ViewStore:
    """The files that views are made of: layers beside their receipts, and folds of layers."""

    def __init__(self, state: StateDirectory, catalog_names: CatalogNames | None = None) -> None:
        self._state = state
        self._catalog_names = catalog_names

    def view(self, links: Sequence[ChainLink]) -> View:
        """Return the view of a chain, oldest job first; make what is missing or damaged.

        ReceiptsDamaged if it cannot be made.
        """
        layers = [_Part((link,), ()) for link in links]
        # The first is a Full, large and seldom followed by as much: folding it in gains nothing.
        return View(self, links, [*layers[:1], *_folded_parts(layers[1:])])

    def layer_path(self, link: ChainLink) -> Path:
        """Say where a job's layer is; the index of its inodes is beside it, as `.inodes`."""
        return self._state.receipts(link.run) / f"{link.shard}-{link.jobid}.layer"

    def rows(self, part: _Part) -> SortedFile:
        """Open a part's rows; make them, and the index of their inodes, if they are no good."""
        return _open_sound(self._path(part), part.origin()) or self.make_rows(part)

    def inodes(self, part: _Part) -> SortedFile:
        """Open a part's index of inodes; make it if it is no good."""
        return _open_sound(self._inodes_path(part), part.origin()) or self.make_inodes(part)

    def make_rows(self, part: _Part) -> SortedFile:
        """Make a part's rows, and the index of their inodes, whatever is there."""
        path = self._path(part)
        with self._scratch(path) as scratch:
            if part.parts:
                self._write(path, part, VIEW_SCHEMA, View(self, part.links, part.parts).batches())
            else:
                self._write(path, part, LAYER_SCHEMA, self._layer(part.links[0], scratch))
        rows = SortedFile(path)
        self._index(part, rows)
        return rows

    def make_inodes(self, part: _Part) -> SortedFile:
        """Make a part's index of inodes from its rows, whatever is there."""
        try:
            self._index(part, self.rows(part))
        except SortedFileDamaged:
            self.make_rows(part)
        return SortedFile(self._inodes_path(part))

    def _index(self, part: _Part, rows: SortedFile) -> None:
        path = self._inodes_path(part)
        with self._scratch(path) as scratch:
            live = (inode_rows(rows.range(low, high)) for low, high in key_ranges([rows]))
            runs = external_sort(live, INODES_SCHEMA, scratch, "inodes-")
            self._write(path, part, INODES_SCHEMA, merge_sorted(runs))

    def _layer(self, link: ChainLink, scratch: Path) -> Iterator[pa.RecordBatch]:
        if link.receipts is not None:
            receipts = read_receipts(self._state.receipts(link.run), link.receipts)
            return layer_from_receipts(receipts, link.jobid, link.margin_ns, scratch)
        if self._catalog_names is None:
            raise NamesUnknown(link.jobid)
        return layer_from_catalog(self._catalog_names(link.jobid), link.jobid, scratch)

    def _write(
        self, path: Path, part: _Part, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
    ) -> None:
        jobids = json.dumps([link.jobid for link in part.links]).encode()
        metadata = {_ORIGIN: part.origin(), JOBIDS: jobids}
        write_sorted(path, schema.with_metadata(metadata), batches)

    def _path(self, part: _Part) -> Path:
        if not part.parts:
            return self.layer_path(part.links[0])
        return self._state.views / f"{part.origin()[:32].decode()}.view"

    def _inodes_path(self, part: _Part) -> Path:
        return self._path(part).with_suffix(".inodes")

    @contextlib.contextmanager
    def _scratch(self, path: Path) -> Iterator[Path]:
        """Give a folder for temporary files beside a file that is to be made."""
        try:
            make_private_folder(path.parent)
            with tempfile.TemporaryDirectory(".partial", f"{path.name}.", path.parent) as folder:
                yield Path(folder)
        except OSError as error:
            raise StateDirectoryError(
                str(self._state.base), error.strerror or str(error)
            ) from error


def _folded_parts(parts: Sequence[_Part]) -> list[_Part]:
    """Fold each FOLD_LINKS parts into one, and those again.

    The groups are counted from the chain's beginning, so that a longer chain has the same ones.
    """
    whole = len(parts) // FOLD_LINKS * FOLD_LINKS
    if not whole:
        return list(parts)
    groups = [tuple(parts[start : start + FOLD_LINKS]) for start in range(0, whole, FOLD_LINKS)]
    folded = [
        _Part(tuple(link for part in group for link in part.links), group) for group in groups
    ]
    return [*_folded_parts(folded), *parts[whole:]]


def _open_sound(path: Path, origin: bytes) -> SortedFile | None:
    """Open a file if it is there, sound as far as one can see, and of the origin wanted."""
    try:
        file = SortedFile(path)
    except SortedFileDamaged:
        return None
    return file if file.metadata.get(_ORIGIN) == origin else None

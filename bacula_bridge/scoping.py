"""Where a run looks: everywhere, or at what a change source names.

Covers: the position of a run, the names and subtrees it has to look at, every reason to look
everywhere after all.
Does not cover: change sources themselves (shards.changes, filesystems), the looking (walkers).

Names come from the change source (what changed since the oldest base of the run's jobs), from the
views (what is due) and from both (all names of an inode one of whose names is among them: a
removed name moves the ctime of the others, and no event names those).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pyarrow as pa

from bacula_bridge.bases import BaseFinder, Bases
from bacula_bridge.catalog import JobRow
from bacula_bridge.chain import FULL
from bacula_bridge.protocol import Hello
from shards.changed_directories import compare, known_directories, partly_named
from shards.changes import RCTIME, ChangeSet, ChangeSource, Gap, Position, without_covered
from shards.errors import ForebayError
from shards.keys import key_path, name_key
from shards.ledger import Beginning, Dataset, Ledger, Run
from shards.receipts import ReceiptsDamaged
from shards.schema import RowClass, RowFlag
from shards.segment import SegmentStore
from shards.snapshot import Snapshot
from shards.sorted_file import SortedFileDamaged
from shards.spans import covers, outermost
from shards.state import StateDirectory
from shards.view import NamesUnknown, View, ViewStore
from shards.view_schema import NameState

FULL_LEVEL, DIFFERENTIAL_LEVEL = "full", "differential"
_NOT_ENTERED = int(RowFlag.MOUNT_POINT | RowFlag.EXCLUDED)
KEYS_AT_ONCE = 16_384
ROUNDS_MAX = 16  # of names of linked inodes that bring further ones


class Scoping:
    """Decides it once when a run begins, and again when a job comes that needs more."""

    def __init__(
        self,
        ledger: Ledger,
        state: StateDirectory,
        finder: BaseFinder,
        change_source: Callable[[Dataset], ChangeSource | None],
        others_may_go_on: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """others_may_go_on lets go of the caller's lock while a change source takes its time."""
        self._ledger = ledger
        self._state = state
        self._finder = finder
        self._change_source = change_source
        self._others_may_go_on = others_may_go_on
        self._rounds: dict[int, int] = {}

    def begin(
        self,
        dataset: Dataset,
        level: str,
        margin_ns: int,
        take_snapshot: Callable[[], Snapshot | None] = lambda: None,
    ) -> Beginning:
        """Take the position, before anything is read, and say where the run looks.

        A snapshot is taken between the two: what is listed is to be what will be read.
        """
        source = self._change_source(dataset)
        position, why = None, "no change reader is set up (`forebay watch`)"
        if source is not None:
            try:
                with self._others_may_go_on():
                    position = source.position()
            except Gap as gap:
                why = str(gap)
        snapshot = take_snapshot()
        if source is None or position is None:
            return Beginning(note=None if level == FULL_LEVEL else why, margin_ns=margin_ns)
        if level == FULL_LEVEL:
            return Beginning(position, margin_ns=margin_ns)
        try:
            found = self._changes(dataset, level, source, position, snapshot)
        except (Gap, NamesUnknown, ReceiptsDamaged, SortedFileDamaged) as error:
            return Beginning(position, note=str(error), margin_ns=margin_ns)
        return replace(found, margin_ns=margin_ns)

    def _changes(
        self,
        dataset: Dataset,
        level: str,
        source: ChangeSource,
        position: Position,
        snapshot: Snapshot | None,
    ) -> Beginning:
        bases, chains = self._bases(dataset, level)
        since = self._oldest(dataset, bases, position)
        with self._others_may_go_on():
            changes = source.changes(since, snapshot)
        if changes.directories:
            changes = self._with_listed(dataset, changes, bases, chains)
        names = set(changes.names)
        for view in self._views(dataset, [*bases, *chains]):
            names.update(key_path(key) for key in view.due_keys())
            names.update(_links(view, changes))
            if changes.has_links_elsewhere:
                names.update(key_path(key) for key in partly_named(view))
        return Beginning(position, since, tuple(sorted(names)), tuple(changes.subtrees))

    def _bases(
        self, dataset: Dataset, level: str
    ) -> tuple[list[Sequence[JobRow]], list[Sequence[JobRow]]]:
        """Return for each shard what a job of this level builds on, and its whole chain."""
        chains = self._finder.chains(dataset.name, dataset.shards)
        return [chain[:1] if level == DIFFERENTIAL_LEVEL else chain for chain in chains], [*chains]

    def _with_listed(
        self,
        dataset: Dataset,
        changes: ChangeSet,
        bases: Sequence[Sequence[JobRow]],
        chains: Sequence[Sequence[JobRow]],
    ) -> ChangeSet:
        """Add what follows from listed directories, by what the jobs of this run build on."""
        sets = [bases] if bases == chains else [bases, chains]
        ends = [{self._finder.run_of(chain[-1]) for chain in each if chain} for each in sets]
        names, subtrees = compare(
            changes.directories,
            [self._views(dataset, each) for each in sets],
            # A Differential undoes what Incrementals said of a directory that came and went.
            distrust_changed=len(sets) > 1 or any(len(runs) > 1 for runs in ends),
        )
        names.update(changes.names)
        subtrees.update(changes.subtrees)
        kept, trees = without_covered(names, subtrees)
        return replace(changes, names=kept, subtrees=trees)

    def _views(self, dataset: Dataset, chains: Iterable[Sequence[JobRow]]) -> list[View]:
        store = ViewStore(self._state)
        links = {
            tuple(self._finder.link(dataset, row) for row in chain) for chain in chains if chain
        }
        return [store.view(chain) for chain in links]

    def _oldest(
        self, dataset: Dataset, bases: Sequence[Sequence[JobRow]], position: Position
    ) -> Position:
        """Return the oldest position that a job of this run builds on; Gap if one has none."""
        oldest = position
        for shard, chain in enumerate(bases):
            if not chain:
                raise Gap(f"shard {shard} has no good Full yet")
            run = self._finder.run_of(chain[-1])
            if run is None:
                raise Gap(f"JobId {chain[-1].job_id} is not in the run ledger")
            if run.shards != dataset.shards or run.seed != dataset.seed:
                raise Gap(f"run {run.number} had {run.shards} shards")
            if run.position is None or not _is_same_reader(run.position, position):
                raise Gap(f"the change source was not there, or another one, at run {run.number}")
            if self._ledger.scan_totals(run.number).errors:
                raise Gap(f"run {run.number} could not look at everything")
            if (broken := self._finder.broken_chain(chain)) is not None:
                raise Gap(broken)
            if run.position.sequence < oldest.sequence:
                oldest = run.position
        return oldest

    def forget(self, ended: Run) -> None:
        """Let the change source drop what is older than all that later runs may build on."""
        dataset = self._ledger.dataset(ended.dataset)
        assert dataset is not None
        source = self._change_source(dataset)
        if source is None or ended.position is None:
            return
        needed = [
            run.position
            for chain in self._finder.chains(dataset.name, dataset.shards)
            for row in chain
            if (run := self._finder.run_of(row)) is not None
            and run.position is not None
            and _is_same_reader(run.position, ended.position)
        ]
        if needed:
            with contextlib.suppress(ForebayError):  # the next run says what is wrong with it
                source.forget(min(needed, key=lambda position: position.sequence))

    def check(self, run: Run, hello: Hello, found: Bases) -> Run:
        """Let the run look everywhere if this job needs more than was foreseen."""
        if run.since is None:
            return run
        note = None
        if hello.level == FULL:
            note = f"the Director runs JobId {hello.jobid} as a Full"
        else:
            base = self._finder.run_of(found.chain[-1])
            if (
                base is None
                or base.position is None
                or not _is_same_reader(base.position, run.since)
                or base.position.sequence < run.since.sequence
            ):
                note = f"JobId {hello.jobid} builds on an older job than was foreseen"
            else:
                note = self._finder.broken_chain(found.chain)
        if note is None:
            return run
        self._ledger.widen(run.number, note)
        widened = self._ledger.run(run.number)
        assert widened is not None
        return widened

    def complete(self, number: int) -> None:
        """Add the other names of inodes with several names that have been found by now."""
        run = self._ledger.run(number)
        assert run is not None
        if run.since is None:
            return
        dataset = self._ledger.dataset(run.dataset)
        assert dataset is not None
        self._rounds[number] = self._rounds.get(number, 0) + 1
        if self._rounds[number] > ROUNDS_MAX:
            self._ledger.widen(number, "the names of its hard links lead on and on")
            return
        try:
            if run.since.source == RCTIME and self._has_strange_directory(run, dataset):
                self._ledger.widen(number, "a directory was replaced while the run looked at it")
                return
            names = self._linked_names(run, dataset)
        except (Gap, NamesUnknown, ReceiptsDamaged, SortedFileDamaged) as error:
            self._ledger.widen(number, str(error))
            return
        self._ledger.look_also(number, names)

    def _linked_names(self, run: Run, dataset: Dataset) -> set[bytes]:
        inodes: set[int] = set()
        for rows in self._found(run, RowClass.LINKED):
            inodes.update(np.unique(rows.column("ino").to_numpy()).tolist())
        names: set[bytes] = set()
        if inodes:
            for view in self._views(dataset, self._finder.chains(run.dataset, run.shards)):
                names.update(key_path(key) for key in view.names_of_inodes(sorted(inodes)))
        return names

    def _has_strange_directory(self, run: Run, dataset: Dataset) -> bool:
        """Tell whether a directory was looked at by its name alone that the views do not have.

        Of directories that were listed only unknown ones are looked at with all below them. One
        that took the place of a known one after the listing would from now on pass for known.
        """
        spans = outermost(self._ledger.scope(run.number, "subtrees"))
        sets = [self._views(dataset, each) for each in self._bases(dataset, run.level)]
        for rows in self._found(run, RowClass.DIRECTORY):
            is_ours = (rows.column("flags").to_numpy() & _NOT_ENTERED) == 0
            paths = rows.column("path").filter(pa.array(is_ours)).to_pylist()
            inodes = rows.column("ino").filter(pa.array(is_ours)).to_pylist()
            found = {
                (key, inode)
                for path, inode in zip(paths, inodes, strict=True)
                if not covers(spans, key := name_key(path, is_directory=True))
            }
            for views in sets:
                if found and found - known_directories([key for key, _ in found], views):
                    return True
        return False

    def _found(self, run: Run, row_class: RowClass) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a class that the run has found by now."""
        store = SegmentStore(self._state.segments(run.number))
        after = 0
        while page := self._ledger.segments(run.number, after):
            after = page[-1].number
            for info in page:
                for shard in range(run.shards):
                    if info.count(shard, row_class):
                        yield store.rows(info, shard, row_class)


def _is_same_reader(one: Position, other: Position) -> bool:
    return (one.source, one.session) == (other.source, other.session)


def _links(view: View, changes: ChangeSet) -> set[bytes]:
    """Return all names that the view has of inodes with several names among what changed."""
    keys = sorted(
        name_key(name, is_directory=False) for name in {*changes.names, *changes.subtrees}
    )
    inodes = set(changes.inodes)
    for start in range(0, len(keys), KEYS_AT_ONCE):
        inodes |= _several(view.lookup(keys[start : start + KEYS_AT_ONCE]))
    for subtree in changes.subtrees:
        for rows in view.subtree(subtree):
            inodes |= _several(rows)
    return {key_path(key) for key in view.names_of_inodes(sorted(inodes))}


def _several(rows: pa.RecordBatch) -> set[int]:
    is_linked = rows.column("nlink").to_numpy() > 1
    is_linked &= rows.column("state").to_numpy() == NameState.LIVE
    inodes: list[int] = np.unique(rows.column("ino").to_numpy()[is_linked]).tolist()
    return set(inodes)

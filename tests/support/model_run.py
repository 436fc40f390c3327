"""Random histories of backups of a model tree, checked after every complete run.

Covers: scanning a model tree, asking the rule what each shard's job sends, reading it while the
tree may change, jobs that fail, are resumed or are deleted from the catalog, and what a restore
then has to give.
Does not cover: the tree (model_tree), Bacula (model), the rule itself (shards).

One seed gives one history. A Rule is what is under test: a broken one must be found.
"""

import itertools
import random
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from shards.decision import Decision, decide
from shards.keys import is_directory_key, key_path
from shards.layer import fold, layer_rows, with_tdate
from shards.schema import RECEIPT_SCHEMA, ReceiptStatus, RowFlag
from shards.shard_function import mix64, shard_of
from shards.view_schema import TREE_SCHEMA, VIEW_SCHEMA, NameState
from tests.support.model import (
    FileRow,
    Layer,
    ModelJob,
    Payload,
    Receipt,
    ViewRow,
    base,
    chain,
    fold_layers,
    key_of,
    layer_of,
    restore,
    select,
)
from tests.support.model_tree import SECOND, Inode, ModelTree

RUNS = (3, 7)
CHANGES = (0, 7)
EIO = 5
_NUMPY = {
    pa.uint64(): np.uint64,
    pa.int64(): np.int64,
    pa.uint32(): np.uint32,
    pa.int32(): np.int32,
    pa.uint16(): np.uint16,
    pa.uint8(): np.uint8,
    pa.bool_(): np.bool_,
}
_RECEIPT_TIMES = ("mtime_s", "mtime_ns", "ctime_s", "ctime_ns")
_RECEIPTS_SCHEMA = (
    RECEIPT_SCHEMA
    if "read_ns" in RECEIPT_SCHEMA.names
    else RECEIPT_SCHEMA.append(pa.field("read_ns", pa.int64(), nullable=False))
)
_BROKEN = frozenset(
    {
        ReceiptStatus.CHANGED,
        ReceiptStatus.UNREADABLE,
        ReceiptStatus.VANISHED,
        ReceiptStatus.REPLACED,
    }
)


class WrongTree(AssertionError):
    """A restore would not give the tree."""


class ScanRow(NamedTuple):
    """A row of the manifest: TREE_SCHEMA, and the path."""

    key: bytes
    ino: int
    size: int
    mtime: int
    ctime: int
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    flags: int
    error: int
    shard: int
    path: bytes

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_linked(self) -> bool:
        return not self.error and not self.is_directory and self.nlink > 1


class Rule:
    """What is under test; a subclass breaks it."""

    checks_views = True  # with the slow fold; a broken rule must be found without

    def bases(self, jobs: list[ModelJob], shard: int, level: str) -> tuple[str, list[ModelJob]]:
        return base(jobs, shard, level)

    def counts(self, job: ModelJob) -> bool:
        return job.good

    def layer(self, job: ModelJob, margin_ns: int) -> pa.RecordBatch:
        """Make a job's layer: slowly, which is faster for so few rows, but now and then not."""
        if job.receipts_lost or job.jobid % 4:
            return view_batch(layer_of(job, margin_ns))
        rows = layer_rows(receipts_batch(job.receipts), job.jobid, margin_ns)
        return with_tdate(rows, {job.jobid: job.tdate})

    def fold(self, layers: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        return fold(layers)

    def decide(
        self,
        tree: pa.RecordBatch,
        bases: Mapping[int, pa.RecordBatch],
        currents: Mapping[int, pa.RecordBatch],
        unlisted: Sequence[bytes],
    ) -> Decision:
        return decide(tree, bases, currents, unlisted)

    def sends_link(self, row: "ScanRow", goes: bool, linked: set[int]) -> bool:
        """Say whether a name of an inode with several goes, as shards/plan.py does."""
        return row.ino in linked

    def is_whole(self, jobs: Sequence[ModelJob]) -> bool:
        """Say whether all is known of a chain, and its last job was built on the rest of it."""
        if any(job.receipts_lost for job in jobs):
            return False
        return jobs[-1].built_on == tuple(job.jobid for job in jobs[:-1])


def view_batch(view: Layer) -> pa.RecordBatch:
    """Return a view as Arrow, ascending by key; hashes are zeros."""
    keys = sorted(view)
    return _batch(VIEW_SCHEMA, [(key, *view[key]) for key in keys], ("key", *ViewRow._fields))


def view_rows(view: pa.RecordBatch) -> Layer:
    """Return a view as a dictionary."""
    columns = [view.column(name).to_pylist() for name in ViewRow._fields]
    rows = [ViewRow(*values) for values in zip(*columns, strict=True)]
    return dict(zip(view.column("key").to_pylist(), rows, strict=True))


def tree_batch(rows: Sequence["ScanRow"]) -> pa.RecordBatch:
    """Return the rows of a scan as Arrow."""
    return _batch(TREE_SCHEMA, rows, ScanRow._fields)


def receipts_batch(receipts: Sequence[Receipt]) -> pa.RecordBatch:
    """Return receipts as the product has them."""
    rows = [
        (*receipt, *divmod(receipt.mtime, SECOND), *divmod(receipt.ctime, SECOND))
        for receipt in receipts
    ]
    return _batch(_RECEIPTS_SCHEMA, rows, (*Receipt._fields, *_RECEIPT_TIMES))


def _batch(
    schema: pa.Schema, rows: Sequence[Sequence[Any]], names: Sequence[str]
) -> pa.RecordBatch:
    """Make a batch of rows; what they do not have is 0."""
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    arrays = []
    for field_ in schema:
        values = columns.get(field_.name)
        if field_.type in _NUMPY:
            dtype = _NUMPY[field_.type]
            array = np.array(values, dtype) if values else np.zeros(len(rows), dtype)
            arrays.append(pa.array(array))
        elif field_.name == "hash":
            zeros = pa.py_buffer(bytes(16 * len(rows)))
            arrays.append(pa.Array.from_buffers(field_.type, len(rows), [None, zeros]))
        else:
            arrays.append(pa.array(values or (), type=field_.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@dataclass(slots=True)
class Scan:
    """What a walker found."""

    rows: list[ScanRow] = field(default_factory=list)
    unlisted: list[bytes] = field(default_factory=list)
    names: set[bytes] | None = None  # it has looked at these only


class History:
    """A tree, a catalog and the runs between them, all from one seed."""

    def __init__(self, seed: int, rule: Rule | None = None, kinds: Collection[str] = ()) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.rule = rule or Rule()
        self.tree = ModelTree(self.random, kinds)
        self.shards = self.random.choice((1, 3, 4))
        self.shard_seed = self.random.getrandbits(64)
        self.margin_ns = self.tree.clock.granularity_ns
        self.jobs: list[ModelJob] = []
        self.trace: list[str] = []
        self.checked = 0
        self.names_checked = 0
        self._run = 0
        self._jobid = 0
        self._second = 1000
        self._layers: dict[int, pa.RecordBatch] = {}
        self._views: dict[tuple[int, ...], pa.RecordBatch] = {}
        # Some histories have none of these, so that a failure has a simple history if it can.
        self._noisy = self.random.random() < 0.4
        self._failing = self.random.random() < 0.5
        self._deleting = self.random.random() < 0.5
        self._unreadable = self.random.random() < 0.4
        self._watching = self.random.random() < 0.4
        self._changed: list[_Seen] = []  # by change, if somebody watches
        self._positions: dict[int, int | None] = {}  # of runs that could look at everything

    def play(self) -> None:
        """Play the history; WrongTree says what a restore would get wrong."""
        try:
            for _ in range(self.random.randint(12, 20)):
                self._change()
            for _ in range(self.random.randint(*RUNS)):
                for _ in range(self.random.randint(*CHANGES)):
                    self._change()
                self._disturb_catalog()
                self._back_up(noisy=self._noisy and self.random.random() < 0.4)
            self._change(ModelTree.show_all)
            self._unreadable = self._failing = False
            self._back_up(noisy=False)
        except WrongTree as error:
            story = "\n  ".join(self.trace)
            raise WrongTree(f"seed {self.seed}, {self.shards} shards: {error}\n  {story}") from None

    def _change(self, change: Callable[[ModelTree], str] = ModelTree.change) -> None:
        before = _looks(self.tree) if self._watching else {}
        self.trace.append(change(self.tree))
        if self._watching:
            self._changed.append(self._seen(before, _looks(self.tree)))

    def _seen(self, before: Mapping[bytes, "_Look"], after: Mapping[bytes, "_Look"]) -> "_Seen":
        """Return what a change reader reports: names that come, go or are another inode now.

        Of an inode that has changed only the name by which it was changed is known, and nobody
        reports that a link made or removed elsewhere has moved its ctime.
        """
        names = {
            path
            for path in before.keys() | after.keys()
            if path not in before
            or path not in after
            or before[path].inode is not after[path].inode
        }
        inodes = {
            look[path].inode.ino for path in names for look in (before, after) if path in look
        }
        known = {id(look.inode): look.state for look in before.values()}
        changed: dict[int, list[bytes]] = {}
        for path, look in after.items():
            if known.get(id(look.inode), look.state) != look.state:
                changed.setdefault(look.inode.ino, []).append(path)
        names.update(self.random.choice(paths) for paths in changed.values())
        return _Seen(names, inodes | set(changed))

    # The catalog

    def _disturb_catalog(self) -> None:
        if self._deleting and self.jobs and self.random.random() < 0.3:
            job = self.jobs.pop(self.random.randrange(len(self.jobs)))
            self.trace.append(f"JobId {job.jobid} is deleted from the catalog")
        if self._deleting and self.jobs and self.random.random() < 0.05:
            job = self.random.choice(self.jobs)
            job.receipts_lost = True
            self._layers.pop(job.jobid, None)
            self._views.clear()
            self.trace.append(f"the receipts of JobId {job.jobid} are lost")

    def _view(self, jobs: Sequence[ModelJob]) -> pa.RecordBatch:
        ids = tuple(job.jobid for job in jobs)
        if ids not in self._views:
            for job in jobs:
                if job.jobid not in self._layers:
                    self._layers[job.jobid] = self.rule.layer(job, self.margin_ns)
            layers = [self._layers[jobid] for jobid in ids]
            if ids[:-1] in self._views and self.random.random() < 0.5:  # as after a compaction
                layers = [self._views[ids[:-1]], layers[-1]]
            self._views[ids] = self.rule.fold(layers)
        return self._views[ids]

    # A run

    def _back_up(self, *, noisy: bool) -> None:
        self._run += 1
        self._second += 1
        clock = self.tree.clock
        clock.advance(self.random.choice((0, self.margin_ns, 10 * SECOND, 10 * SECOND)))
        level = self.random.choice("FDIIII")
        mixed = self.random.random() < 0.3
        levels = {
            shard: self.random.choice("FDII") if mixed else level for shard in range(self.shards)
        }
        position = len(self._changed)
        scope = self._scope(levels) if self._watching else None
        scan = self._scan(noisy=noisy) if scope is None else self._look(*scope, noisy=noisy)
        self._positions[self._run] = None if scan.unlisted else position
        self.trace.append(f"run {self._run}{' (the tree changes)' if noisy else ''}")
        if scan.names is not None:
            self.trace.append(f"looks at {sorted(scan.names)}")
        failed = self._run_jobs(scan, levels, noisy=noisy)
        while failed and self.random.random() < 0.5:  # resumed from the same manifest
            if noisy:
                self._change()
            self.trace.append(f"resumed: shards {sorted(failed)}")
            failed = self._run_jobs(scan, failed, noisy=noisy)
        clock.advance(self.random.choice((0, 1000, SECOND)))
        if not failed and not noisy:
            self._check(scan)

    def _run_jobs(self, scan: Scan, levels: dict[int, str], *, noisy: bool) -> dict[int, str]:
        """Run a job for each of these shards; return those that failed."""
        failed = {}
        order = list(levels)
        self.random.shuffle(order)
        at_once = self.random.random() < 0.7
        for group in [order] if at_once else [[shard] for shard in order]:
            jobs, chains = [], {}
            for shard in group:
                level, chains[shard] = self.rule.bases(self.jobs, shard, levels[shard])
                self._jobid += 1
                built_on = tuple(job.jobid for job in chains[shard])
                jobs.append(ModelJob(self._jobid, shard, level, self._run, built_on))
            plan = self._plan(scan, chains)
            for job in jobs:
                rows, deleted = plan[job.shard]
                if job.level == "F":  # streamed while it is scanned: all there is
                    rows = [row for row in scan.rows if row.shard == job.shard]
                self._read(job, rows, deleted, noisy=noisy)
                self._second += self.random.choice((0, 0, 1))
                job.tdate = self._second
                job.good = not (self._failing and self.random.random() < 0.2)
                self.jobs.append(job)
                self.trace.append(_told(job, chains[job.shard]))
                if not job.good:
                    failed[job.shard] = levels[job.shard]
        return failed

    # The scan

    def _scope(self, levels: Mapping[int, str]) -> tuple[set[bytes], list[Layer]] | None:
        """Return the names that have changed, and the views; None if that is not enough."""
        since = len(self._changed)
        bases = [self.rule.bases(self.jobs, shard, levels[shard])[1] for shard in levels]
        for jobs in bases:
            if not jobs or not self.rule.is_whole(jobs):
                return None
            position = self._positions[jobs[-1].run]
            if position is None:
                return None
            since = min(since, position)
        chains = [*bases, *(chain(self.jobs, shard) for shard in levels)]
        views = [view_rows(self._view(jobs)) for jobs in chains]
        names = set().union(*(seen.names for seen in self._changed[since:]))
        inodes = set().union(*(seen.inodes for seen in self._changed[since:]))
        # Where a reported name leads to an inode, whoever looks sees that it has others.
        inodes -= {inode.ino for inode in map(self.tree.find, names) if inode is not None}
        for view in views:
            names.update(key_path(key) for key, row in view.items() if row.ino in inodes)
        return names, views

    def _look(self, names: set[bytes], views: Sequence[Layer], *, noisy: bool) -> Scan:
        """Look at names, at what is due, and at all names of the inodes that have several."""
        scan = Scan(names=set())
        assert scan.names is not None
        due = {key_path(key) for view in views for key, row in view.items() if row.due}
        pending = sorted(names | due)
        while pending:
            path = pending.pop(self.random.randrange(len(pending)))
            if path in scan.names:
                continue
            scan.names.add(path)
            if noisy and self.random.random() < 0.1:
                self._change()
            inode = self.tree.find(path)
            several = set()
            if inode is not None:
                scan.rows.append(self._row(path, inode))
                if inode.nlink > 1 and not inode.is_directory:
                    several.add(inode.ino)
            key = key_of(path, stat.S_IFREG)
            several |= {view[key].ino for view in views if key in view and view[key].nlink > 1}
            for view in views:
                pending += sorted(key_path(k) for k, row in view.items() if row.ino in several)
        return scan

    def _scan(self, *, noisy: bool) -> Scan:
        scan = Scan()
        tree = self.tree
        scan.rows.append(self._row(b"", tree.root))
        pending = [b""]
        while pending:
            path = pending.pop(self.random.randrange(len(pending)))
            directory = tree.find(path)
            if directory is None or directory.entries is None or not directory.readable:
                known = directory if directory and directory.is_directory else None
                scan.rows.append(self._unlisted(scan, path, known))
                continue
            prefix = path + b"/" if path else b""
            for name, inode in list(directory.entries.items()):
                if noisy and self.random.random() < 0.1:
                    self._change()
                if noisy and self.random.random() < 0.03:
                    # A name that is replaced while the directory is read may come twice.
                    scan.rows.append(self._row(prefix + name, inode))
                    current = directory.entries.get(name)
                    inode = current if current is not None else inode
                scan.rows.append(self._row(prefix + name, inode))
                if inode.is_directory and prefix + name not in pending:
                    pending.append(prefix + name)
        return scan

    def _unlisted(self, scan: Scan, path: bytes, directory: Inode | None) -> ScanRow:
        ino = directory.ino if directory else 0
        key = key_of(path, stat.S_IFDIR)
        scan.unlisted.append(key)
        shard = shard_of(ino, self.shard_seed, self.shards)
        flags = int(RowFlag.LIST_FAILED)
        return ScanRow(key, ino, 0, 0, 0, stat.S_IFDIR, 0, 0, 0, 0, flags, EIO, shard, path)

    def _row(self, path: bytes, inode: Inode) -> ScanRow:
        return ScanRow(
            key_of(path, inode.mode),
            inode.ino,
            inode.size,
            inode.mtime,
            inode.ctime,
            inode.mode,
            inode.uid,
            inode.gid,
            inode.nlink,
            inode.rdev,
            0,
            0,
            shard_of(inode.ino, self.shard_seed, self.shards),
            path,
        )

    # What goes

    def _plan(
        self, scan: Scan, chains: Mapping[int, list[ModelJob]]
    ) -> dict[int, tuple[list[ScanRow], list[bytes]]]:
        """Return by shard the rows of the tree and the keys to delete."""
        rows = sorted(scan.rows, key=lambda row: row.key)  # stable: the order of listing stays
        bases = {shard: self._view(jobs) for shard, jobs in chains.items()}
        counted = [job for job in self.jobs if self.rule.counts(job)]
        currents = {shard: self._view(chain(counted, shard)) for shard in range(self.shards)}
        tree = tree_batch(rows)
        if scan.names is not None:
            keys = {key_of(name, kind) for name in scan.names for kind in (0, stat.S_IFDIR)}
            bases = {shard: _only(view, keys) for shard, view in bases.items()}
            currents = {shard: _only(view, keys) for shard, view in currents.items()}
        send: list[bool] = []
        linked: set[int] = set()
        deleted: dict[int, list[bytes]] = {shard: [] for shard in bases}
        for low, high in self._ranges(rows):
            part = _range(tree, low, high)
            theirs = {shard: _range(view, low, high) for shard, view in bases.items()}
            others = {shard: _range(view, low, high) for shard, view in currents.items()}
            decision = self.rule.decide(part, theirs, others, scan.unlisted)
            send += decision.send.tolist()
            linked.update(decision.linked.tolist())
            for shard, places in decision.deleted.items():
                deleted[shard] += theirs[shard].column("key").take(pa.array(places)).to_pylist()
        plan: dict[int, tuple[list[ScanRow], list[bytes]]] = {
            shard: ([], deleted[shard]) for shard in bases
        }
        for row, goes in zip(rows, send, strict=True):
            if row.is_linked:
                goes = self.rule.sends_link(row, goes, linked)
            if goes and row.shard in plan:
                plan[row.shard][0].append(row)
        return plan

    def _ranges(self, rows: Sequence[ScanRow]) -> Iterator[tuple[bytes, bytes | None]]:
        """Cut the keys into one to three ranges: the rule must not need them all at once."""
        count = self.random.choice((0, 0, 0, 1, 2)) if rows else 0
        cuts = sorted({self.random.choice(rows).key for _ in range(count)})
        bounds = [b"", *(cut for cut in cuts if cut), None]
        yield from itertools.pairwise(bounds)  # type: ignore[misc]

    # Reading and sending

    def _read(
        self, job: ModelJob, rows: Sequence[ScanRow], deleted: Sequence[bytes], *, noisy: bool
    ) -> None:
        plain = [row for row in rows if row.error or (not row.is_directory and row.nlink < 2)]
        linked = [row for row in rows if not row.error and not row.is_directory and row.nlink > 1]
        linked.sort(key=lambda row: (mix64(row.ino, self.shard_seed), row.ino))
        directories = [row for row in rows if row.is_directory and not row.error]
        directories.sort(key=lambda row: -(row.path.count(b"/") + (row.path != b"")))
        sender = _Sender(job)
        for row in plain:
            self._read_one(sender, row, noisy=noisy)
        first: Receipt | None = None
        for row in linked:
            if first is not None and first.ino != row.ino:
                first = None
            first = self._read_one(sender, row, noisy=noisy, first=first)
        for key in deleted:
            sender.delete(key)
        for row in directories:
            self._read_one(sender, row, noisy=noisy)

    def _read_one(
        self, sender: "_Sender", row: ScanRow, *, noisy: bool, first: Receipt | None = None
    ) -> Receipt | None:
        """Read one entry; return the receipt that a next name of the inode is a link of."""
        if noisy and self.random.random() < 0.1:
            self._change()
        self.tree.clock.advance(self.random.choice((0, 1000, 1000, 5_000_000)))
        inode = self.tree.find(row.path)
        if row.error:
            sender.fail(row, ReceiptStatus.SCAN_ERROR)
        elif inode is None:
            sender.fail(row, ReceiptStatus.VANISHED)
        elif inode.ino != row.ino or stat.S_IFMT(inode.mode) != stat.S_IFMT(row.mode):
            sender.fail(row, ReceiptStatus.REPLACED)
        elif stat.S_ISSOCK(inode.mode):
            sender.fail(row, ReceiptStatus.SKIPPED)
        elif first is not None:
            sender.link(row, first)
            return first
        elif stat.S_ISREG(inode.mode) and (
            not inode.readable or (self._unreadable and self.random.random() < 0.05)
        ):
            if self.random.random() < 0.3:  # its header and a part of it have gone out
                sender.save(row, inode, self.tree.clock.now_ns, ReceiptStatus.UNREADABLE)
            else:
                sender.fail(row, ReceiptStatus.UNREADABLE)
        else:
            began = self.tree.clock.now_ns
            before = self._row(row.path, inode)
            payload = _payload(inode)
            if noisy and self.random.random() < 0.1:
                self._change()
            changed = (before.ctime, before.mtime) != (inode.ctime, inode.mtime)
            status = ReceiptStatus.CHANGED if changed else ReceiptStatus.SAVED
            return sender.save(before, inode, began, status, payload)
        return first

    # What a restore gives

    def _check(self, scan: Scan) -> None:
        """Compare what a restore of all chains gives with the tree, which has not changed."""
        chains = [chain(self.jobs, shard) for shard in range(self.shards)]
        newest = [jobs[-1] for jobs in chains]
        excused = self._check_due(newest, chains)
        restored = restore([job for jobs in chains for job in jobs])
        hidden = tuple(key.replace(b"\0", b"/") for key in scan.unlisted)
        truth = {b"/": self.tree.root}
        for place in self.tree.places():
            if not stat.S_ISSOCK(place.inode.mode):
                truth[place.path + (b"/" if place.inode.is_directory else b"")] = place.inode
        inodes: dict[int, tuple[int, int]] = {}
        groups: dict[tuple[int, int], int] = {}
        for name in truth.keys() | restored.keys():
            if name in excused or _is_below(name, hidden):
                continue
            inode, back = truth.get(name), restored.get(name)
            if inode is None:
                raise WrongTree(f"{name!r} comes back though it is gone")
            if back is None:
                raise WrongTree(f"{name!r} does not come back")
            if back.payload is None:
                raise WrongTree(f"{name!r} is a link to a name that does not come back with it")
            if back.payload != _payload(inode):
                raise WrongTree(f"{name!r} comes back as {back.payload}, not {_payload(inode)}")
            self.names_checked += 1
            if not inode.is_directory:
                if inodes.setdefault(inode.ino, back.group) != back.group:
                    raise WrongTree(f"{name!r} does not come back as a link of its inode")
                if groups.setdefault(back.group, inode.ino) != inode.ino:
                    raise WrongTree(f"{name!r} comes back as a link of another inode")
        for job in newest:
            for name, _, deleted, _ in job.files:
                if deleted and _is_below(name, hidden):
                    raise WrongTree(f"{name!r} is deleted, though nobody could look there")
        if self.rule.checks_views:
            for jobs in chains:
                self._check_view(jobs)
        self.checked += 1

    def _check_due(
        self, newest: Sequence[ModelJob], chains: Sequence[Sequence[ModelJob]]
    ) -> set[bytes]:
        """Return the names that the newest jobs could not get right; all of them must be due."""
        excused = set()
        for job, jobs in zip(newest, chains, strict=True):
            if job.run != self._run:
                raise WrongTree(f"the chain of shard {job.shard} ends with JobId {job.jobid}")
            view = view_rows(self._view(jobs))
            for receipt in job.receipts:
                if receipt.status not in _BROKEN:
                    continue
                row = view.get(key_of(receipt.path, receipt.mode))
                if row is None or not row.due:
                    raise WrongTree(f"{receipt.path!r} is {receipt.status.name} and yet not due")
                excused.add(_catalog_name(key_of(receipt.path, receipt.mode)))
        return excused

    def _check_view(self, jobs: Sequence[ModelJob]) -> None:
        """Compare a view with the slow fold, and with the selection over the same jobs."""
        view = view_rows(self._view(jobs))
        slow = fold_layers(layer_of(job, self.margin_ns) for job in jobs)
        if view != slow:
            names = sorted(
                key for key in view.keys() | slow.keys() if view.get(key) != slow.get(key)
            )
            raise WrongTree(
                f"the view of shard {jobs[0].shard} is not the fold of its jobs: {names[0]!r} is"
                f" {view.get(names[0])}, not {slow.get(names[0])}"
            )
        ours = {
            _catalog_name(key): (row.jobid, row.file_index)
            for key, row in view.items()
            if row.state == NameState.LIVE
        }
        rows: list[FileRow] = [row for job in jobs for row in job.rows()]
        theirs = {name: (row.jobid, row.file_index) for name, row in select(rows).items()}
        if ours != theirs:
            names = sorted({name for name, _ in ours.items() ^ theirs.items()})
            raise WrongTree(f"view and selection of shard {jobs[0].shard} differ in {names}")


class _Sender:
    """Sends records into a job and keeps the receipts."""

    def __init__(self, job: ModelJob) -> None:
        self._job = job
        self._index = 0

    def fail(self, row: ScanRow, status: ReceiptStatus) -> None:
        self._job.receipts.append(Receipt(row.path, row.ino, row.mode, status))

    def delete(self, key: bytes) -> None:
        self._index += 1
        mode = stat.S_IFDIR if is_directory_key(key) else stat.S_IFREG
        self._job.files.append((_catalog_name(key), self._index, True, 0))
        self._job.receipts.append(
            Receipt(key_path(key), 0, mode, ReceiptStatus.DELETED, self._index)
        )

    def link(self, row: ScanRow, first: Receipt) -> None:
        self._index += 1
        self._job.files.append((row.path, self._index, False, first.file_index))
        receipt = first._replace(path=row.path, status=ReceiptStatus.LINK, file_index=self._index)
        self._job.receipts.append(receipt)

    def save(
        self,
        row: ScanRow,
        inode: Inode,
        read_ns: int,
        status: ReceiptStatus,
        payload: Payload | None = None,
    ) -> Receipt | None:
        """Send a record; return its receipt if later names may be links of it."""
        self._index += 1
        name = row.path + (b"/" if row.is_directory else b"")
        self._job.files.append((name, self._index, False, 0))
        self._job.payloads[self._index] = payload or Payload((), -1)
        receipt = Receipt(
            row.path,
            row.ino,
            row.mode,
            status,
            self._index,
            row.uid,
            row.gid,
            row.nlink,
            row.size,
            row.mtime,
            row.ctime,
            row.rdev,
            read_ns,
        )
        self._job.receipts.append(receipt)
        return None if status is ReceiptStatus.UNREADABLE else receipt


def _payload(inode: Inode) -> Payload:
    size = 0 if inode.is_directory else inode.size
    attributes = (inode.mode, inode.uid, inode.gid, size, inode.mtime, inode.rdev)
    return Payload(attributes, inode.content)


def _catalog_name(key: bytes) -> bytes:
    return key.replace(b"\0", b"/")


def _is_below(name: bytes, hidden: Sequence[bytes]) -> bool:
    return any(path == b"/" or (name.startswith(path) and name != path) for path in hidden)


class _Seen(NamedTuple):
    names: set[bytes]
    inodes: set[int]


class _Look(NamedTuple):
    inode: Inode
    state: tuple[int, ...]


def _looks(tree: ModelTree) -> dict[bytes, _Look]:
    """Return what each name is, the root among them."""
    found = {place.path: place.inode for place in tree.places()}
    return {
        path: _Look(inode, (inode.content, inode.mode, inode.uid, inode.gid, inode.mtime))
        for path, inode in {b"": tree.root, **found}.items()
    }


def _only(view: pa.RecordBatch, keys: set[bytes]) -> pa.RecordBatch:
    return view.filter(
        pa.array([key in keys for key in view.column("key").to_pylist()], pa.bool_())
    )


def _range(batch: pa.RecordBatch, low: bytes, high: bytes | None) -> pa.RecordBatch:
    if not low and high is None:
        return batch
    keys = batch.column("key").to_pylist()
    start = next((i for i, key in enumerate(keys) if key >= low), len(keys))
    end = next((i for i, key in enumerate(keys) if high is not None and key >= high), len(keys))
    return batch.slice(start, end - start)


def _told(job: ModelJob, built_on: Sequence[ModelJob]) -> str:
    sent = [
        f"{'-' if deleted else '='.ljust(1)}{name.decode()}@{index}{f'->{link}' if link else ''}"
        for name, index, deleted, link in job.files
    ]
    bad = [
        f"{receipt.path.decode()}:{receipt.status.name}"
        for receipt in job.receipts
        if receipt.status in _BROKEN
    ]
    return (
        f"JobId {job.jobid} shard {job.shard} {job.level} on"
        f" {[other.jobid for other in built_on]} ends at {job.tdate}"
        f" {'well' if job.good else 'BADLY'}: {' '.join(sent + bad)}"
    )

"""Whether a run's manifest, its receipts and Bacula's catalog agree, name by name.

Covers: checksums, the Merkle root, totals; every job's names in the catalog; the manifest beside
what a restore would bring.
Does not cover: the comparisons themselves (shards.agreement), reading volumes (verify_data).

Everything is read as streams and sorted on disk below FOREBAY_HOME; nothing that is kept in memory
grows with the number of names.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bacula_bridge import restore_object
from bacula_bridge.catalog import JobRow
from bacula_bridge.chain import FULL
from cluster.bacula import the_catalog
from cluster.chains import OpenChain, ShardChain, VolumesGone, open_chains
from cluster.progress import BackupDisplay
from cluster.records import RunRecord
from cluster.settings import Settings
from shards.agreement import (
    RECORD_SCHEMA,
    Kind,
    NameCounts,
    TreeComparison,
    compare_records,
    hides,
    sent_records,
    tree_rows,
)
from shards.errors import UsageError
from shards.keys import key_path
from shards.ledger import Ledger, Run
from shards.ledger_schema import RunState
from shards.merkle import receipts_root, run_root
from shards.plan import UNLISTED_MAX
from shards.receipts import ReceiptsDamaged, read_receipts
from shards.schema import RowClass
from shards.segment import SegmentDamaged, SegmentInfo, SegmentStore
from shards.shard_jobs import ShardJob
from shards.sorted_file import SortedFile, external_sort
from shards.spans import covers, outermost
from shards.view import ChainLink
from shards.view_schema import TREE_SCHEMA

CATALOG_ROWS = 16_384
_SCANNED = (RowClass.PLAIN, RowClass.LINKED, RowClass.DIRECTORY)


class NothingToVerify(UsageError):
    """A run that was never saved, or of which nothing is kept."""

    template = "run {0} cannot be verified: {1}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is wrong; the path is relative to the root, None if no name is meant."""

    kind: str
    path: bytes | None
    text: str


@dataclass(slots=True)
class Findings:
    """What is wrong: all of it counted, each told as it is found."""

    tell: Callable[[Difference], None]
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str, path: bytes | None = None) -> None:
        self.counts[kind] += 1
        self.tell(Difference(kind, path, text))

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(slots=True)
class Verified:
    """What was looked at."""

    segments: int = 0
    receipts: int = 0  # files
    jobs: int = 0  # whose names in the catalog were compared
    names: NameCounts = field(default_factory=NameCounts)
    notes: list[str] = field(default_factory=list)  # what could not be looked at

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Verification:
    """One verification. What it finds goes to findings."""

    def __init__(
        self, settings: Settings, record: RunRecord, findings: Findings, display: BackupDisplay
    ) -> None:
        run = record.run
        if run.state is RunState.OPEN:
            raise NothingToVerify(run.number, "it has not ended")
        if not record.saved_jobs:
            raise NothingToVerify(run.number, "it has no good job")
        if not settings.state.run(run.number).exists():
            raise NothingToVerify(run.number, "its manifest and receipts were pruned")
        self._settings = settings
        self._record = record
        self._findings = findings
        self._display = display
        self._catalog = the_catalog(settings, display.say)
        self.done = Verified()
        self.chains: list[OpenChain] = []  # once they could be opened

    def run(self) -> None:
        """Verify all but the data."""
        self._check_shards()
        self._check_merkle()
        if not self._open_chains():
            return
        self._settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = tempfile.TemporaryDirectory(prefix="verify-", dir=self._settings.home)
        with folder as scratch:
            for chain in self.chains:
                for link, row in zip(chain.view.links, chain.jobs, strict=True):
                    self._check_job(link, row, Path(scratch))
            self._check_manifest(Path(scratch))

    def _check_shards(self) -> None:
        run = self._record.run
        good = {job.shard for job in self._record.saved_jobs}
        for shard in sorted(set(range(run.shards)) - good):
            self._findings.add("no job", f"shard {shard} has no good job in run {run.number}")

    def _check_merkle(self) -> None:
        self._display.say("reading receipts")
        roots = []
        for job in self._record.saved_jobs:
            try:
                roots.append(receipts_root(self._receipts(job)))
                self.done.receipts += 1
            except ReceiptsDamaged as error:
                self._findings.add("receipts", str(error))
        stored = self._record.run.merkle
        if len(roots) < len(self._record.saved_jobs):
            return
        if stored is None:
            self._findings.add("root", "the ledger has no Merkle root of this run")
        elif run_root(roots) != stored:
            self._findings.add("root", "the receipts do not have the Merkle root of the ledger")

    def _receipts(self, job: ShardJob) -> Iterator[pa.RecordBatch]:
        assert job.receipts is not None, "a good job has receipts"
        return read_receipts(self._settings.state.receipts(job.run), job.receipts)

    def _open_chains(self) -> bool:
        own = [ShardChain(job.shard, job) for job in self._record.saved_jobs]
        try:
            self.chains = open_chains(self._settings, self._catalog, self._record, own)
        except VolumesGone as error:
            self._findings.add("job gone", str(error))
        except ReceiptsDamaged as error:
            if not self._findings.counts["receipts"]:  # of an older run
                self._findings.add("receipts", str(error))
        return bool(self.chains)

    def _check_job(self, link: ChainLink, row: JobRow, scratch: Path) -> None:
        """Compare a job's receipts with the catalog, in sum and name by name."""
        if link.receipts is None:
            self.done.notes.append(
                f"JobId {row.job_id} is from before the ledger was lost: only its names are known"
            )
            return
        self._display.say(f"comparing the receipts of JobId {row.job_id} with the catalog")
        totals = _Totals()
        try:
            batches = read_receipts(self._settings.state.receipts(link.run), link.receipts)
            ours = external_sort(totals.passing(batches), RECORD_SCHEMA, scratch, "receipts")
        except ReceiptsDamaged as error:
            if not self._findings.counts["receipts"]:  # of an older run, and not told yet
                self._findings.add("receipts", str(error))
            return
        theirs = external_sort(self._catalog_records(row.job_id), RECORD_SCHEMA, scratch, "files")
        for what, left, right in (
            (
                "receipts have {0} records, but the catalog's JobFiles are {1}",
                totals.rows,
                row.files - self._restore_objects(row.job_id),
            ),
            (
                "receipts have {0} bytes of data, but the ledger says {1}",
                totals.size_bytes,
                link.receipts.summary.size_bytes,
            ),
        ):
            if left != right:
                self._findings.add("totals", f"JobId {row.job_id}: {what.format(left, right)}")
        for found in compare_records(ours, theirs):
            text = f"JobId {row.job_id}, {found.text}"
            self._findings.add(found.kind.value, text, key_path(found.key))
        _remove([*ours, *theirs])
        self.done.jobs += 1

    def _restore_objects(self, jobid: int) -> int:
        """Return how many of a job's files are restore objects, which have no receipts."""
        return len(self._catalog.restore_objects(jobid, restore_object.NAME))

    def _catalog_records(self, jobid: int) -> Iterator[pa.RecordBatch]:
        """Yield what the catalog has of a job; names outside of the root are differences."""
        prefix = self._record.run.root.rstrip(b"/") + b"/"
        rows = self._catalog.files(jobid)
        while chunk := list(itertools.islice(rows, CATALOG_ROWS)):
            keys, indexes = [], []
            for row in chunk:
                if row.path.startswith(prefix):
                    keys.append(row.path[len(prefix) :].replace(b"/", b"\0") or b"\0")
                    indexes.append(row.file_index)
                else:
                    text = f"JobId {jobid}, FileIndex {row.file_index}, outside of the root"
                    self._findings.add(Kind.NOT_IN_RECEIPTS.value, text, row.path)
            yield pa.RecordBatch.from_pydict(
                {"key": keys, "file_index": indexes}, schema=RECORD_SCHEMA
            )

    def _check_manifest(self, scratch: Path) -> None:
        """Compare the manifest with what a restore would bring."""
        run = self._record.run
        self._display.say("comparing the manifest with what would be restored")
        feed = _ManifestFeed(SegmentStore(self._settings.state.segments(run.number)), run.shards)
        with closing(Ledger(self._settings.state.readable_ledger, read_only=True)) as ledger:
            scope = _scope(ledger, run)
            try:
                pages = _segment_pages(ledger, run)
                tree = external_sort(feed.rows(pages), TREE_SCHEMA, scratch, "tree")
            except SegmentDamaged as error:
                self._findings.add("segment", str(error))
                self.done.notes.append("the manifest was not compared: a segment is damaged")
                return
        self.done.segments = feed.segments
        if scope is None:
            self.done.notes.append(
                "the run looked at changes only, and a newer run has begun: names that it should"
                " have found deleted were not looked for"
            )
        comparison = TreeComparison(
            tree,
            {chain.chain.shard: chain.view for chain in self.chains},
            [job.jobid for job in self._record.saved_jobs],
            is_full=all(job.level == FULL for job in self._record.saved_jobs),
            is_in_scope=scope or (lambda key: False),
            nothing_deleted=feed.hiding > UNLISTED_MAX,
        )
        for found in comparison.run():
            self._findings.add(found.kind.value, found.text, key_path(found.key))
        self.done.names = comparison.counts
        _remove(tree)


@dataclass(slots=True)
class _Totals:
    """What passing receipts add up to."""

    rows: int = 0
    size_bytes: int = 0

    def passing(self, receipts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield what the catalog is to have of each batch."""
        for batch in receipts:
            self.size_bytes += int(batch.column("sent_bytes").to_numpy().sum())
            records = sent_records(batch)
            self.rows += records.num_rows
            yield records


@dataclass(slots=True)
class _ManifestFeed:
    """Reads the rows of segments, and counts what could not be looked at."""

    store: SegmentStore
    shards: int
    segments: int = 0
    hiding: int = 0

    def rows(self, infos: Iterable[SegmentInfo]) -> Iterator[pa.RecordBatch]:
        for info in infos:
            self.segments += 1
            for shard, row_class in itertools.product(range(self.shards), _SCANNED):
                rows = tree_rows(self.store.rows(info, shard, row_class))
                self.hiding += int(np.count_nonzero(hides(rows)))
                yield rows


def _segment_pages(ledger: Ledger, run: Run) -> Iterator[SegmentInfo]:
    after = 0
    while page := ledger.segments(run.number, after, whole=run.since is None):
        after = page[-1].number
        yield from page


def _scope(ledger: Ledger, run: Run) -> Callable[[bytes], bool] | None:
    """Return what tells whether the run looked at a key; None if that is no longer known."""
    if run.since is None:
        return lambda key: True
    names = set(ledger.scope(run.number, "names"))
    spans = outermost(ledger.scope(run.number, "subtrees"))
    if not names and ledger.runs(run.dataset)[0].number != run.number:
        return None
    return lambda key: key_path(key) in names or covers(spans, key)


def _remove(files: Iterable[SortedFile]) -> None:
    for file in files:
        file.path.unlink()

"""Copying ended runs to an archive.

Covers: which runs go, their files in bounded parallel copies, each read back before the index is
written; what an interrupted copy left is used again.
Does not cover: getting them back (importing), which of them stay (retention).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field

from bacula_bridge.coordinator import UnknownRun
from cluster.archive.errors import (
    ArchiveConflict,
    ArchiveUnavailable,
    LocalFileDamaged,
    NothingToArchive,
    ObjectDamaged,
)
from cluster.archive.index import (
    HEAD_TABLES,
    ArchivedFile,
    RunContents,
    RunHead,
    RunIndex,
    contents_name,
    encode_index,
    head_of,
    index_name,
    read_contents,
    read_index,
    run_folder,
    sums_of,
)
from cluster.archive.retention import kept_runs
from cluster.archive.store import ArchiveStore, sums
from shards.errors import ForebayError, UsageError
from shards.ledger import Ledger
from shards.ledger_schema import JobState, RunState
from shards.run_rows import NamedFile, RunRows, read_run_rows
from shards.state import StateDirectory

COPIES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Saved:
    """A run that is in the archive."""

    run: int
    dataset: str
    files: int
    size_bytes: int
    copied: int  # files that were not there yet
    was_there: bool


@dataclass(slots=True)
class SavingReport:
    """What came of several runs."""

    saved: list[Saved] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)


def archive_run(
    state: StateDirectory, store: ArchiveStore, number: int, *, verify: bool = False
) -> Saved:
    """Copy one ended run; what is there already is left, and read back if verify says so."""
    with closing(_ledger(state)) as ledger:
        rows = read_run_rows(ledger, number)
        identity = ledger.identity
    if rows is None:
        raise UnknownRun(number)
    if not identity:
        raise NothingToArchive(number, "the run ledger has no identity yet; make a backup first")
    return _Saving(state, store, identity, rows).save(verify=verify)


def archive_runs(
    state: StateDirectory,
    store: ArchiveStore,
    numbers: Sequence[int] | None = None,
    *,
    keep_days: int | None = None,
    verify: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> SavingReport:
    """Copy runs, oldest first; None: all that retention would keep and that are still here.

    One run's trouble does not keep the others; an archive that cannot be used ends it.
    """
    wanted = worth_archiving(state, keep_days) if numbers is None else sorted(set(numbers))
    report = SavingReport()
    for number in wanted:
        try:
            saved = archive_run(state, store, number, verify=verify)
        except (ArchiveUnavailable, UsageError):
            raise
        except ForebayError as error:
            report.failed.append((number, str(error)))
            say(str(error))
            continue
        report.saved.append(saved)
        if not saved.was_there:
            say(f"run {number}: {saved.files} files, {saved.copied} of them copied now")
    return report


def local_heads(state: StateDirectory) -> list[RunHead]:
    """Return the ended runs of the ledger, pruned ones among them, oldest first."""
    if not state.readable_ledger.exists():
        return []
    heads = []
    with closing(_ledger(state)) as ledger:
        for run in reversed(ledger.runs()):
            rows = read_run_rows(ledger, run.number, HEAD_TABLES)
            if rows is not None and run.state is not RunState.OPEN:
                heads.append(head_of(rows))
    return heads


def ended_runs(state: StateDirectory) -> dict[int, float]:
    """Return when the runs ended that have: one question to the ledger, cheap to ask often."""
    if not state.readable_ledger.exists():
        return {}
    with closing(_ledger(state)) as ledger:
        return {run.number: run.ended for run in ledger.runs() if run.ended is not None}


def worth_archiving(state: StateDirectory, keep_days: int | None) -> list[int]:
    """Return the ended runs, oldest first, that saved something and that retention would keep."""
    heads = local_heads(state)
    kept = kept_runs(heads, keep_days, time.time())
    return [
        head.run
        for head in heads
        if head.run in kept
        and any(job.is_good for job in head.jobs)
        and state.segments(head.run).is_dir()
    ]


def _ledger(state: StateDirectory) -> Ledger:
    if not state.readable_ledger.exists():
        raise UsageError(
            f"there is no run ledger in {state.base}: nothing to archive; `forebay state import`"
            " brings runs from an archive"
        )
    return Ledger(state.readable_ledger, read_only=True)


class _Saving:
    """One run on its way into the archive."""

    def __init__(
        self, state: StateDirectory, store: ArchiveStore, identity: str, rows: RunRows
    ) -> None:
        self._state, self._store, self._identity, self._rows = state, store, identity, rows
        self._run: int = rows.run["number"]
        self._folder = run_folder(identity, self._run)

    def save(self, *, verify: bool) -> Saved:
        self._check_worth()
        before = read_index(self._store, self._identity, self._run)
        if before is not None:
            if head_of(self._rows).started != before.head.started:
                raise ArchiveConflict(self._run, self._store.url, self._folder)
            if not verify and self._is_the_same(before):
                return self._saved(before, 0, was_there=True)
        files, copied = self._copy_all()
        contents = RunContents(files, self._rows).encode()
        name = contents_name(contents)
        self._put(f"{self._folder}/{name}", contents)
        index = RunIndex(
            self._identity,
            head_of(self._rows),
            time.time(),
            len(files),
            sum(file.size_bytes for file in files),
            name,
            len(contents),
            sums_of(contents).xxh3,
        )
        self._put(index_name(self._identity, self._run), encode_index(index))
        if before is not None and before.contents != name:
            self._store.remove(f"{self._folder}/{before.contents}")
        return self._saved(index, copied, was_there=False)

    def _check_worth(self) -> None:
        run = self._rows.run
        if run["state"] == RunState.OPEN.value:
            raise NothingToArchive(self._run, "it has not ended")
        if not any(row["state"] == JobState.GOOD.value for row in self._rows.tables["jobs"]):
            raise NothingToArchive(self._run, "no job of it ended well")
        if not self._state.segments(self._run).is_dir():
            raise NothingToArchive(self._run, "its manifest is not here any more")

    def _is_the_same(self, before: RunIndex) -> bool:
        """Tell whether the ledger still says what it said when the run was archived."""
        return self._rows.says_the_same(read_contents(self._store, before).rows)

    def _saved(self, index: RunIndex, copied: int, *, was_there: bool) -> Saved:
        return Saved(
            *(self._run, index.head.dataset, index.files, index.size_bytes, copied, was_there)
        )

    def _copy_all(self) -> tuple[tuple[ArchivedFile, ...], int]:
        with ThreadPoolExecutor(COPIES_AT_ONCE, "archive") as pool:
            futures = [pool.submit(self._copy, file) for file in self._rows.files()]
            wait(futures, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        for future in futures:  # the first trouble, not the cancellations that followed it
            if not future.cancelled():
                future.result()
        results = [future.result() for future in futures]
        return tuple(file for file, _ in results), sum(copied for _, copied in results)

    def _copy(self, file: NamedFile) -> tuple[ArchivedFile, bool]:
        path = self._state.run(self._run) / file.folder / file.name
        try:
            with path.open("rb") as stream:
                local = sums(stream)
        except OSError as error:
            raise LocalFileDamaged(str(path), f"cannot be read: {error.strerror}") from error
        if (local.size_bytes, local.crc32) != (file.size_bytes, file.checksum):
            raise LocalFileDamaged(str(path), "is not what the run ledger says")
        name = f"{file.folder}/{file.name}"
        at = f"{self._folder}/{name}"
        copied = False
        if self._store.size(at) != local.size_bytes or self._store.sums(at) != local:
            self._store.upload(path, at)
            copied = True
            if self._store.sums(at) != local:
                raise ObjectDamaged(at, self._store.url, "it came back different")
        return ArchivedFile(name, local.size_bytes, local.xxh3), copied

    def _put(self, name: str, data: bytes) -> None:
        self._store.write(name, data)
        if self._store.sums(name) != sums_of(data):
            raise ObjectDamaged(name, self._store.url, "it came back different")

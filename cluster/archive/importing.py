"""Bringing archived runs back into a state directory that is empty or lost some.

Covers: every object checked before it has its name; rows into the ledger when all files of a run
are there; nothing that is there and different is touched; an interrupted import goes on.
Does not cover: resuming what was incomplete: what was pending is not archived.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bacula_bridge.coordinator import UnknownRun
from cluster.archive.errors import (
    ArchiveUnavailable,
    ImportConflict,
    LedgersSeveral,
    ObjectDamaged,
)
from cluster.archive.index import (
    ArchivedFile,
    RunIndex,
    ledgers,
    read_contents,
    read_index,
    run_folder,
    run_numbers,
)
from cluster.archive.store import ArchiveStore, sums
from shards.errors import ForebayError, UsageError
from shards.files import flush_directory
from shards.ledger import Ledger
from shards.ledger_home import open_ledger, save_copy
from shards.ledger_schema import JobState
from shards.merkle import receipts_root, run_root
from shards.receipts import ReceiptsDamaged, read_receipts
from shards.run_rows import RowsForeign, RunRows, insert_run_rows, read_run_rows
from shards.shard_jobs import ReceiptsInfo, StreamSummary
from shards.state import StateDirectory, StateDirectoryError

COPIES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Imported:
    """A run that is in the state directory again."""

    run: int
    dataset: str
    files: int
    size_bytes: int
    copied: int  # files that were not there
    was_known: bool  # to the ledger


@dataclass(slots=True)
class ImportReport:
    """What came of several runs."""

    ledger: str
    imported: list[Imported] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)


def import_runs(
    state: StateDirectory,
    store: ArchiveStore,
    numbers: Sequence[int] | None = None,
    *,
    source: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ImportReport:
    """Bring runs back, oldest first; None: all. The ledger is locked meanwhile.

    A ledger that has to be made becomes the one whose runs they are: it goes on with its archive.
    """
    origin = source_ledger(state, store, source)
    there = run_numbers(store, origin)
    with closing(open_ledger(state, origin, say)) as ledger:
        if ledger.identity == origin:
            ledger.skip_runs(max(there, default=0))
        report = ImportReport(origin)
        for number in there if numbers is None else sorted(set(numbers)):
            try:
                index = read_index(store, origin, number)
                if index is None and numbers is not None:
                    raise UnknownRun(number)
                if index is None:
                    continue
                imported = _Importing(state, store, index).bring(ledger)
            except (ArchiveUnavailable, UsageError, StateDirectoryError):
                raise
            except ForebayError as error:
                report.failed.append((number, str(error)))
                say(str(error))
                continue
            report.imported.append(imported)
            say(f"run {number}: {imported.files} files, {imported.copied} of them copied now")
        save_copy(state, ledger.identity)
    return report


def source_ledger(state: StateDirectory, store: ArchiveStore, source: str | None) -> str:
    """Return whose runs are meant: those of the ledger that is here, or the archive's only one."""
    there = ledgers(store)
    if source is not None:
        if source not in there:
            known = ", ".join(there) or "none"
            raise UsageError(f"the archive has no runs of run ledger {source}; it has: {known}")
        return source
    own = local_identity(state)
    if own in there:
        return own
    if not there:
        raise UsageError(f"the archive {store.url} has no runs")
    if len(there) > 1:
        raise LedgersSeveral(store.url, ", ".join(there))
    return there[0]


def local_identity(state: StateDirectory) -> str:
    """Return the identity of the ledger here, or of its copy; empty if there is neither."""
    if not state.readable_ledger.exists():
        return ""
    with closing(Ledger(state.readable_ledger, read_only=True)) as ledger:
        return ledger.identity


class _Importing:
    """One run on its way back."""

    def __init__(self, state: StateDirectory, store: ArchiveStore, index: RunIndex) -> None:
        self._state, self._store, self._index = state, store, index
        self._run = index.head.run

    def bring(self, ledger: Ledger) -> Imported:
        contents = read_contents(self._store, self._index)
        known = read_run_rows(ledger, self._run)
        if known is not None and not known.is_same_run(contents.rows):
            raise RowsForeign(self._run, "the ledger has another run of that number")
        copied = self._copy_all(contents.files)
        self._check_receipts(contents.rows)
        is_new = insert_run_rows(ledger, contents.rows)
        return Imported(
            *(self._run, self._index.head.dataset, self._index.files, self._index.size_bytes),
            *(copied, not is_new),
        )

    def _copy_all(self, files: Sequence[ArchivedFile]) -> int:
        try:
            self._state.make_run(self._run)
        except OSError as error:
            raise self._unusable(error) from error
        with ThreadPoolExecutor(COPIES_AT_ONCE, "import") as pool:
            futures = [pool.submit(self._copy, file) for file in files]
            wait(futures, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                future.result()
        for folder in (self._state.segments(self._run), self._state.receipts(self._run)):
            flush_directory(folder)
        flush_directory(self._state.runs)
        return sum(future.result() for future in futures)

    def _copy(self, file: ArchivedFile) -> bool:
        path = self._state.run(self._run) / file.name
        try:
            if path.exists():
                with path.open("rb") as stream:
                    local = sums(stream)
                if (local.size_bytes, local.xxh3) != (file.size_bytes, file.xxh3):
                    raise ImportConflict(str(path))
                return False
            self._download(file, path)
        except OSError as error:
            raise self._unusable(error) from error
        return True

    def _download(self, file: ArchivedFile, path: Path) -> None:
        name = f"{run_folder(self._index.ledger, self._run)}/{file.name}"
        descriptor, partial = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
        try:
            with open(descriptor, "wb") as target:
                got = self._store.sums(name, target)
                target.flush()
                os.fsync(target.fileno())
            if (got.size_bytes, got.xxh3) != (file.size_bytes, file.xxh3):
                raise ObjectDamaged(
                    name, self._store.url, "size or checksum differ from the index's"
                )
            os.link(partial, path)  # not renamed: what has come there meanwhile stays
        except FileExistsError as error:
            raise ImportConflict(str(path)) from error
        finally:
            Path(partial).unlink(missing_ok=True)

    def _check_receipts(self, rows: RunRows) -> None:
        """Compare what came with the ledger's sums, and the receipts with the run's own root."""
        for file in rows.files():
            path = self._state.run(self._run) / file.folder / file.name
            with path.open("rb") as stream:
                if sums(stream).crc32 != file.checksum:
                    raise RowsForeign(self._run, f"{file.name} is not what its rows say")
        if rows.run["merkle"] is None:
            return
        good = {
            row["shard"]: row for row in rows.tables["jobs"] if row["state"] == JobState.GOOD.value
        }
        folder = self._state.receipts(self._run)
        with contextlib.suppress(ReceiptsDamaged):
            roots = [
                receipts_root(read_receipts(folder, _info(row))) for _, row in sorted(good.items())
            ]
            if run_root(roots) == rows.run["merkle"]:
                return
        raise RowsForeign(self._run, "its receipts do not have the root that the run ended with")

    def _unusable(self, error: OSError) -> StateDirectoryError:
        return StateDirectoryError(str(self._state.base), error.strerror or str(error))


def _info(row: dict[str, object]) -> ReceiptsInfo:
    name, size_bytes, checksum = row["receipts"], row["receipts_bytes"], row["receipts_checksum"]
    assert isinstance(name, str), "a good job has receipts"
    assert isinstance(size_bytes, int), "a good job has receipts"
    assert isinstance(checksum, int), "a good job has receipts"
    return ReceiptsInfo(name, size_bytes, checksum, StreamSummary())

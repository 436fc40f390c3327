"""Read a run's volumes back and compare what comes with the receipts' content hashes.

Covers: real restore jobs into a scratch folder, all shards at once if it has room for that and else
one after the other; comparing each file; removing it all again.
Does not cover: names and attributes (verify), directories, whose attributes restores set last.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from cluster.bacula import borrow_bacula
from cluster.chains import OpenChain
from cluster.output import show_size
from cluster.progress import BackupDisplay
from cluster.records import RunRecord
from cluster.replace import Replace
from cluster.restore import Restorer
from cluster.restore_plan import RestorePlan, plan_chains
from cluster.settings import Settings
from cluster.verify import Findings
from shards.errors import ForebayError, UsageError
from shards.keys import is_directory_column, path_column
from shards.selection import chosen_rows
from shards.sorted_file import key_ranges

READ_BYTES = 1 << 20
NAME_BYTES = 8_192  # what a name may take of a filesystem besides its data
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_HASH = bytes(16)


class ScratchTooSmall(ForebayError):
    """What a shard's chain brings does not fit."""

    template = (
        "{0} has {1} free, and the data of one shard need up to {2}; name a larger folder with"
        " --scratch"
    )


class ScratchUnusable(UsageError):
    """The scratch folder cannot be used."""

    template = "scratch folder {0}: {1}"


@dataclass(slots=True)
class DataCounts:
    """What was read back."""

    files: int = 0  # compared by content, sparse ones included
    bytes: int = 0
    sparse: int = 0  # compared by content, extent by extent
    by_size: int = 0  # sparse files whose extents are not as they were sent: size only
    links: int = 0  # compared by size; the content is that of their first name
    others: int = 0  # symbolic links, devices, FIFOs: compared by type
    due: int = 0  # not as the receipts say, and known to be so

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def read_back(
    settings: Settings,
    record: RunRecord,
    chains: Sequence[OpenChain],
    scratch: Path | None,
    findings: Findings,
    display: BackupDisplay,
) -> DataCounts:
    """Restore the chains and compare; what was restored is removed."""
    plan = plan_chains(settings, record, chains, [])
    base = scratch or settings.home
    if not base.is_dir():
        raise ScratchUnusable(str(base), "it is not a folder")
    counts = DataCounts()
    with borrow_bacula(settings, record.run.shards, display.say) as bacula:
        for portion in _portions(plan, chains, base):
            place = Path(tempfile.mkdtemp(prefix="verify-", dir=base))
            try:
                restorer = Restorer(bacula, plan, place, Replace.ALWAYS, display)
                _restore(restorer, plan, portion, place, findings, display)
                tree = place / os.fsdecode(record.run.root).lstrip("/")
                _compare(tree, chains, portion, counts, findings)
            finally:
                _remove(place)
    return counts


def _portions(plan: RestorePlan, chains: Sequence[OpenChain], base: Path) -> list[list[int]]:
    """Return which chains are restored together: all, if there is room for that."""
    needs = [
        sum(
            source["bytes"] + source["names"] * NAME_BYTES
            for source in plan.sources
            if source["shard"] == chain.chain.shard
        )
        for chain in chains
    ]
    free = shutil.disk_usage(base).free
    if sum(needs) <= free:
        return [list(range(len(chains)))]
    if max(needs) <= free:
        return [[place] for place in range(len(chains))]
    raise ScratchTooSmall(str(base), show_size(free), show_size(max(needs)))


def _restore(
    restorer: Restorer,
    plan: RestorePlan,
    portion: Sequence[int],
    place: Path,
    findings: Findings,
    display: BackupDisplay,
) -> None:
    display.say(f"reading volumes back into {place}")
    jobs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bsr-", dir=place.parent) as folder:
        for parts in (plan.early, plan.contents):
            jobs += restorer.run(Path(folder), [parts[number] for number in portion if parts])
    for job in jobs:
        if job["status"] not in ("T", "W"):
            text = f"restore JobId {job['jobid']} ended with status {job['status']}"
            findings.add("restore", "; ".join([text, *job["log"]]))


def _remove(place: Path) -> None:
    """Remove what was restored, however deep it is; Python's own means recurse."""
    done = subprocess.run(
        ["rm", "-rf", "--one-file-system", "--", str(place)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ScratchUnusable(str(place), os.fsdecode(done.stderr).strip() or "cannot be removed")


@dataclass(frozen=True, slots=True)
class _Row:
    """What a file is to be."""

    path: bytes
    mode: int
    size: int
    sent: int
    digest: bytes
    is_link: bool
    due: bool
    jobid: int


def _compare(
    tree: Path,
    chains: Sequence[OpenChain],
    portion: Sequence[int],
    counts: DataCounts,
    findings: Findings,
) -> None:
    views = [chain.view for chain in chains]
    folders = _Folders(tree)
    try:
        for low, high in key_ranges([file for view in views for file in view.files]):
            chosen = chosen_rows([view.range(low, high) for view in views])
            for number in portion:
                for row in _rows(chosen[number]):
                    _check(row, folders, counts, findings)
    finally:
        folders.close()


def _rows(batch: pa.RecordBatch) -> Iterator[_Row]:
    batch = batch.filter(pa.array(~is_directory_column(batch.column("mode").to_numpy())))
    columns = (
        path_column(batch.column("key")),
        *(batch.column(name) for name in ("mode", "size", "sent_bytes", "hash")),
        pc.greater(batch.column("first_index"), 0),
        *(batch.column(name) for name in ("due", "jobid")),
    )
    for values in zip(*(column.to_pylist() for column in columns), strict=True):
        yield _Row(*values)


def _check(row: _Row, folders: _Folders, counts: DataCounts, findings: Findings) -> None:
    try:
        wrong = _wrong(row, folders, counts)
    except OSError as error:
        wrong = f"cannot be read back: {error.strerror}"
    if wrong and row.due:
        counts.due += 1
    elif wrong:
        findings.add("data", f"JobId {row.jobid}: {wrong}", row.path)


def _wrong(row: _Row, folders: _Folders, counts: DataCounts) -> str | None:
    """Return what is wrong with a file that was read back."""
    folder, name = folders.parent(row.path)
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if row.mode and stat.S_IFMT(status.st_mode) != stat.S_IFMT(row.mode):
        return f"it came back with mode {status.st_mode:#o}, not {row.mode:#o}"
    if not stat.S_ISREG(status.st_mode):
        counts.others += 1
        return None
    if status.st_size != row.size:
        return f"{status.st_size} bytes came back, not {row.size}"
    if row.is_link:
        counts.links += 1
        return None
    if row.digest == _NO_HASH:
        return "the receipts have no content hash of it"
    return _wrong_content(row, folder, name, counts)


def _wrong_content(row: _Row, folder: int, name: bytes, counts: DataCounts) -> str | None:
    descriptor = _open(name, folder)
    try:
        if row.sent == row.size:
            hasher = xxhash.xxh3_128()
            for chunk in _read(descriptor, 0, row.size):
                hasher.update(chunk)
            is_same = hasher.digest() == row.digest
        else:
            told = _sparse_is_same(descriptor, row)
            if told is None:
                counts.by_size += 1
                return None
            is_same = told
            counts.sparse += told
    finally:
        os.close(descriptor)
    counts.files += 1
    counts.bytes += row.sent
    return None if is_same else "its content is not what was sent"


def _sparse_is_same(descriptor: int, row: _Row) -> bool | None:
    """Compare a sparse file by its extents of data; None if they are not those that were sent.

    At a hole's end the file's last byte, a zero, was sent alone; here it has a block of zeros.
    """
    exact, padded = xxhash.xxh3_128(), xxhash.xxh3_128()
    total = 0
    rest_is_zero = True
    for start, end in _extents(descriptor, row.size):
        for chunk in _read(descriptor, start, end):
            cut = max(0, min(len(chunk), row.sent - 1 - total))
            exact.update(chunk)
            padded.update(chunk[:cut])
            rest_is_zero = rest_is_zero and not chunk[cut:].strip(b"\0")
            total += len(chunk)
    if total == row.sent:
        return exact.digest() == row.digest
    padded.update(b"\0")
    return rest_is_zero if padded.digest() == row.digest else None


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _read(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    while start < end and (chunk := os.pread(descriptor, min(READ_BYTES, end - start), start)):
        yield chunk
        start += len(chunk)


def _open(name: bytes, folder: int) -> int:
    try:
        return os.open(name, _FILE, dir_fd=folder)
    except PermissionError:  # its mode lets others read it, but not us, whose it is here
        os.chmod(name, 0o600, dir_fd=folder)
        return os.open(name, _FILE, dir_fd=folder)


class _Folders:
    """The folder of the last file, open; names come in the order of the tree.

    A path may be longer than the kernel takes at once.
    """

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._names: list[bytes] = []
        self._descriptor: int | None = None

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return a descriptor of a path's folder, valid until the next call, and the last name."""
        *folders, name = path.split(b"/")
        if self._descriptor is None or folders[: len(self._names)] != self._names:
            self.close()
            self._descriptor = os.open(self._tree, _DIRECTORY)
        for folder in folders[len(self._names) :]:
            below = os.open(folder, _DIRECTORY, dir_fd=self._descriptor)
            os.close(self._descriptor)
            self._descriptor = below
            self._names.append(folder)
        return self._descriptor, name

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
        self._names = []

"""What an archive says of a run: a small index, and the contents that it names.

Covers: both as JSON, versions, sums, where they are; reading them with every check.
Does not cover: the run's files (saving, importing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from cluster.archive.errors import IndexNewer, ObjectDamaged, ObjectMissing
from cluster.archive.store import ArchiveStore, Sums
from shards.ledger_schema import JobState, RunState
from shards.run_rows import RowsForeign, RunRows

HEAD_TABLES = ("runs", "jobs")  # what head_of() looks at
FORMAT = "forebay-archive"
VERSION = 1
INDEX_BYTES_MAX = 64 << 20
CONTENTS_BYTES_MAX = 1 << 30
_IDENTITY = re.compile(r"[0-9a-f]{16}")
_RUN = re.compile(r"[0-9]{10}")


@dataclass(frozen=True, slots=True)
class JobHead:
    """A job of an archived run: enough to tell what builds on what."""

    shard: int
    jobid: int
    job: str
    is_good: bool
    chain: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunHead:
    """A run as retention and listings see it."""

    run: int
    dataset: str
    scheme: str  # root, shards and seed: of runs that differ in it none goes on from another
    shards: int
    state: RunState
    level: str
    started: float
    ended: float
    jobs: tuple[JobHead, ...]


@dataclass(frozen=True, slots=True)
class RunIndex:
    """The object that makes a run archived; written last."""

    ledger: str
    head: RunHead
    archived: float
    files: int
    size_bytes: int
    contents: str
    contents_bytes: int
    contents_xxh3: str


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file of the run, below its folder."""

    name: str
    size_bytes: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class RunContents:
    """The files of a run, and the ledger's rows of it."""

    files: tuple[ArchivedFile, ...]
    rows: RunRows

    def encode(self) -> bytes:
        value = {"files": [asdict(file) for file in self.files], "rows": self.rows.to_json()}
        return _canonical(value)


def head_of(rows: RunRows) -> RunHead:
    """Return a run as its rows tell it."""
    run = rows.run
    scheme = xxhash.xxh3_128(repr((run["root"], run["shards"], run["seed"])).encode()).hexdigest()
    jobs = (
        JobHead(
            *(row["shard"], row["jobid"], row["job"], row["state"] == JobState.GOOD.value),
            tuple(json.loads(row["chain"])),
        )
        for row in rows.tables["jobs"]
    )
    return RunHead(
        *(run["number"], run["dataset"], scheme, run["shards"], RunState(run["state"])),
        *(run["level"], run["started"], run["ended"] or run["started"], tuple(jobs)),
    )


def run_folder(ledger: str, run: int) -> str:
    return f"{ledger}/{run:010d}"


def index_name(ledger: str, run: int) -> str:
    return f"{run_folder(ledger, run)}/index.json"


def encode_index(index: RunIndex) -> bytes:
    body = asdict(index)
    value = {"format": FORMAT, "version": VERSION, "xxh3": _sum(_canonical(body)), "index": body}
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def read_index(store: ArchiveStore, ledger: str, run: int) -> RunIndex | None:
    """Return the index of a run; None if it is not in the archive."""
    name = index_name(ledger, run)
    data = store.read(name, INDEX_BYTES_MAX)
    if data is None:
        return None
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise ObjectDamaged(name, store.url, "it is no index of an archive")
        if value["version"] != VERSION:
            raise IndexNewer(name, store.url, value["version"])
        if value["xxh3"] != _sum(_canonical(value["index"])):
            raise ObjectDamaged(name, store.url, "its checksum is another one")
        index = _index(value["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectDamaged(name, store.url, f"it cannot be read ({error!r})") from error
    if (index.ledger, index.head.run) != (ledger, run):
        raise ObjectDamaged(name, store.url, "it is the index of another run")
    return index


def read_contents(store: ArchiveStore, index: RunIndex) -> RunContents:
    """Return the contents that an index names, checked against it and in themselves."""
    run = index.head.run
    name = f"{run_folder(index.ledger, run)}/{index.contents}"
    data = store.read(name, CONTENTS_BYTES_MAX)
    if data is None:
        raise ObjectMissing(name, store.url)
    if (len(data), _sum(data)) != (index.contents_bytes, index.contents_xxh3):
        raise ObjectDamaged(name, store.url, "size or checksum differ from the index's")
    try:
        value = json.loads(data)
        files = tuple(ArchivedFile(**file) for file in value["files"])
        rows = RunRows.from_json(value["rows"], run)
    except (ValueError, KeyError, TypeError, RowsForeign) as error:
        raise ObjectDamaged(name, store.url, f"it cannot be read ({error})") from error
    named = {(f"{file.folder}/{file.name}", file.size_bytes) for file in rows.files()}
    if named != {(file.name, file.size_bytes) for file in files} or len(named) != len(files):
        raise ObjectDamaged(name, store.url, "its files are not those that its rows name")
    return RunContents(files, rows)


def contents_name(data: bytes) -> str:
    """Name contents by what they are: an index never names those of another moment."""
    return f"contents-{_sum(data)[:16]}.json"


def ledgers(store: ArchiveStore) -> list[str]:
    """Return the run ledgers that have runs in an archive."""
    return [name for name in store.folders() if _IDENTITY.fullmatch(name)]


def run_numbers(store: ArchiveStore, ledger: str) -> list[int]:
    """Return the runs of a ledger that have a folder, with or without an index."""
    return [int(name) for name in store.folders(ledger) if _RUN.fullmatch(name)]


def indexes(store: ArchiveStore, ledger: str) -> Iterator[RunIndex]:
    """Yield the indexes of all archived runs of a ledger, oldest first."""
    for run in run_numbers(store, ledger):
        index = read_index(store, ledger, run)
        if index is not None:
            yield index


def sums_of(data: bytes) -> Sums:
    import zlib

    return Sums(len(data), _sum(data), zlib.crc32(data))


def _index(body: dict[str, Any]) -> RunIndex:
    head = dict(body["head"])
    jobs = tuple(
        JobHead(**{**job, "chain": tuple(map(int, job["chain"]))}) for job in head.pop("jobs")
    )
    made = RunHead(**{**head, "state": RunState(head["state"]), "jobs": jobs})
    return RunIndex(**{**body, "head": made})


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sum(data: bytes) -> str:
    return xxhash.xxh3_128(data).hexdigest()

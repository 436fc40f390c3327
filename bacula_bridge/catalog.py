"""Read Bacula's catalog: what jobs ran, what they saved and where it lies.

Covers: the questions, the same for every database that a catalog can be in.
Does not cover: changing anything; the databases (catalog_sources, catalog_postgres).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.catalog_sources import (
    FIRST_FILE,
    VERSION,
    CatalogSource,
    Rows,
    SqliteSource,
    wrong_version,
)
from bacula_bridge.errors import CatalogUnavailable
from shards.measures import Durations

PAGE_ROWS = 5_000
IDS_MAX = 500
"""JobIds in one statement; SQLite takes 999 parameters at least."""

GOOD_STATUSES = frozenset("TW")
ENDED_STATUSES = GOOD_STATUSES | frozenset("EefAID")


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job. Times are the Director's local time as text; status and level Bacula's letters."""

    job_id: int
    unique_name: str
    name: str
    type: str
    level: str
    status: str
    start: str
    end: str
    end_epoch: int
    files: int
    bytes: int
    errors: int
    session_id: int
    session_time: int
    previous_unique_name: str
    fileset_id: int = 0
    client_id: int = 0
    purged: bool = False  # its File rows were removed; the data may still be on volumes

    @property
    def tdate(self) -> int:
        """JobTDate, by which a restore tells which of two jobs is newer: when the job ended."""
        return self.end_epoch

    @property
    def ended(self) -> bool:
        """Tell whether the job is over, well or not."""
        return self.status in ENDED_STATUSES

    @property
    def good(self) -> bool:
        """Tell whether the job ended well, with or without warnings."""
        return self.status in GOOD_STATUSES

    @property
    def outcome(self) -> str:
        """The status, W for a job that the Director calls "OK -- with warnings".

        15.0.3 stores T for such a job and counts its errors beside it.
        """
        return "W" if self.status == "T" and self.errors else self.status


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a volume that holds files first_index to last_index of one job.

    Neighbouring spans share the file that straddles them.
    """

    job_id: int
    volume: str
    media_type: str
    first_index: int
    last_index: int
    start_address: int
    end_address: int


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume, with its size in bytes and the number of jobs on it."""

    name: str
    media_type: str
    status: str
    bytes: int
    jobs: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """One message of a job."""

    time: str
    text: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """One entry of a job. The path is bytes as saved; a FileIndex below 1 says deleted."""

    file_index: int
    path: bytes
    lstat: str
    digest: str


_JOB_COLUMNS = (
    "JobId, Job, Name, Type, Level, JobStatus, StartTime, EndTime, JobTDate, JobFiles, JobBytes,"
    " JobErrors, VolSessionId, VolSessionTime, PriorJob, FileSetId, ClientId, PurgedFiles"
)


class Catalog:
    """A catalog. Picklable; holds no connection: each question opens and closes its own."""

    def __init__(self, source: Path | CatalogSource) -> None:
        """Name the SQLite file or the database; it is looked at only when something is asked."""
        self._source = SqliteSource(source) if isinstance(source, Path) else source
        self._durations = Durations("forebay_catalog_query_seconds")

    def take_durations(self) -> list[float]:
        """Return how long each question took since the last call."""
        return [sample.value for sample in self._durations.samples()]

    def __repr__(self) -> str:
        return f"Catalog({self.name})"

    @property
    def name(self) -> str:
        """What the catalog is called: its file, or its database without the password."""
        return self._source.name

    def check(self) -> None:
        """Raise CatalogUnavailable unless it can be read and is of Bacula 15.0."""
        found = self._source.version()
        if found != VERSION:
            raise CatalogUnavailable(self.name, wrong_version(found))
        self.jobs([0])

    def jobs(self, job_ids: Iterable[int]) -> dict[int, JobRow]:
        """Return the jobs that the catalog knows among these."""
        wanted = sorted(set(job_ids))
        rows: list[Sequence[object]] = []
        for start in range(0, len(wanted), IDS_MAX):
            part = wanted[start : start + IDS_MAX]
            marks = ", ".join("?" * len(part))
            rows += self._query(f"SELECT {_JOB_COLUMNS} FROM Job WHERE JobId IN ({marks})", part)
        return {(job := _job_row(row)).job_id: job for row in rows}

    def job(self, job_id: int) -> JobRow | None:
        """Return one job; None if the catalog does not know it."""
        return self.jobs([job_id]).get(job_id)

    def jobs_named(self, name: str, limit: int = 100) -> list[JobRow]:
        """Return the youngest jobs of a Job resource, youngest first."""
        query = f"SELECT {_JOB_COLUMNS} FROM Job WHERE Name = ? ORDER BY JobId DESC LIMIT ?"
        return [_job_row(row) for row in self._query(query, [name, limit])]

    def spans(self, job_id: int) -> list[Span]:
        """Return where a job's data lies, in the order in which it was written."""
        query = (
            "SELECT JobMedia.JobId, VolumeName, MediaType, FirstIndex, LastIndex,"
            " StartFile, StartBlock, JobMedia.EndFile, JobMedia.EndBlock"
            " FROM JobMedia JOIN Media ON Media.MediaId = JobMedia.MediaId"
            " WHERE JobMedia.JobId = ? ORDER BY VolIndex, JobMediaId"
        )
        return [
            Span(
                job_id=_int(row[0]),
                volume=_text(row[1]),
                media_type=_text(row[2]),
                first_index=_int(row[3]),
                last_index=_int(row[4]),
                start_address=_int(row[5]) << 32 | _int(row[6]),
                end_address=_int(row[7]) << 32 | _int(row[8]),
            )
            for row in self._query(query, [job_id])
        ]

    def volumes(self, job_id: int) -> list[Volume]:
        """Return the volumes that a job wrote to."""
        query = (
            "SELECT VolumeName, MediaType, VolStatus, VolBytes, VolJobs FROM Media"
            " WHERE MediaId IN (SELECT MediaId FROM JobMedia WHERE JobId = ?) ORDER BY MediaId"
        )
        return [
            Volume(_text(row[0]), _text(row[1]), _text(row[2]), _int(row[3]), _int(row[4]))
            for row in self._query(query, [job_id])
        ]

    def log(self, job_id: int) -> list[LogLine]:
        """Return a job's messages, oldest first."""
        query = "SELECT Time, LogText FROM Log WHERE JobId = ? ORDER BY LogId"
        return [
            # The Director's escaping for SQLite leaves a backslash behind the last newline.
            LogLine(_text(row[0]), _text(row[1]).removesuffix("\\").rstrip("\n"))
            for row in self._query(query, [job_id])
        ]

    def files(self, job_id: int) -> Iterator[FileRow]:
        """Yield a job's entries by folder and name, in pages of PAGE_ROWS."""
        key = FIRST_FILE
        while True:
            with self._durations.measure():
                rows = self._source.files_page(job_id, key, PAGE_ROWS)
            for row in rows:
                path = _bytes(row[4]) + _bytes(row[1])
                yield FileRow(_int(row[3]), path, _text(row[5]), _text(row[6]))
            if len(rows) < PAGE_ROWS:
                return
            key = (_int(rows[-1][0]), _bytes(rows[-1][1]), _int(rows[-1][2]))

    def restore_objects(self, job_id: int, name: str) -> list[bytes]:
        """Return a job's restore objects of a name, as they were before the daemon packed them.

        Raises CatalogUnavailable also where one cannot be unpacked.
        """
        query = (
            "SELECT RestoreObject, ObjectCompression FROM RestoreObject"
            " WHERE JobId = ? AND ObjectName = ? ORDER BY RestoreObjectId"
        )
        found: list[bytes] = []
        for packed, compression in self._query(query, [job_id, name]):
            try:
                data = self._source.restore_object(_bytes(packed))
                # 1: zlib, by the File Daemon.
                found.append(zlib.decompress(data) if _int(compression) else data)
            except (ValueError, zlib.error) as error:
                raise CatalogUnavailable(
                    self.name, f"restore object {name} of JobId {job_id}: {error}"
                ) from error
        return found

    def _query(self, statement: str, parameters: Sequence[object]) -> Rows:
        with self._durations.measure():
            return self._source.query(statement, parameters)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _int(value: object) -> int:
    """Return a number; the Director leaves some columns NULL until a job ends."""
    return value if isinstance(value, int) else int(_text(value) or 0)


def _job_row(row: Sequence[object]) -> JobRow:
    return JobRow(
        job_id=_int(row[0]),
        unique_name=_text(row[1]),
        name=_text(row[2]),
        type=_text(row[3]),
        level=_text(row[4]),
        status=_text(row[5]),
        start=_time(row[6]),
        end=_time(row[7]),
        end_epoch=_int(row[8]),
        files=_int(row[9]),
        bytes=_int(row[10]),
        errors=_int(row[11]),
        session_id=_int(row[12]),
        session_time=_int(row[13]),
        previous_unique_name=_text(row[14]),
        fileset_id=_int(row[15]),
        client_id=_int(row[16]),
        purged=bool(_int(row[17])),
    )


def _time(value: object) -> str:
    """Return a time as text; an unset one is 0 or NULL in the catalog and empty here."""
    text = _text(value)
    return "" if text in ("0", "0000-00-00 00:00:00") else text

"""The catalog, from a made-up SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bacula_bridge import catalog as module
from bacula_bridge.catalog import Catalog
from bacula_bridge.errors import CatalogUnavailable

TABLES = """
CREATE TABLE Job (JobId INTEGER PRIMARY KEY, Job TEXT, Name TEXT, Type TEXT, Level TEXT,
  JobStatus TEXT, StartTime DATETIME DEFAULT 0, EndTime DATETIME DEFAULT 0, JobTDate BIGINT,
  JobFiles INTEGER, JobBytes BIGINT, JobErrors INTEGER, VolSessionId INTEGER,
  VolSessionTime INTEGER, PriorJob TEXT DEFAULT '', FileSetId INTEGER DEFAULT 0,
  ClientId INTEGER DEFAULT 0, PurgedFiles INTEGER DEFAULT 0);
CREATE TABLE JobMedia (JobMediaId INTEGER PRIMARY KEY, JobId INTEGER, MediaId INTEGER,
  FirstIndex INTEGER, LastIndex INTEGER, StartFile INTEGER, EndFile INTEGER, StartBlock INTEGER,
  EndBlock INTEGER, VolIndex INTEGER);
CREATE TABLE Media (MediaId INTEGER PRIMARY KEY, VolumeName TEXT, MediaType TEXT, VolStatus TEXT,
  VolBytes BIGINT, VolJobs INTEGER, EndFile INTEGER, EndBlock INTEGER);
CREATE TABLE Log (LogId INTEGER PRIMARY KEY, JobId INTEGER, Time DATETIME, LogText TEXT);
CREATE TABLE Path (PathId INTEGER PRIMARY KEY, Path TEXT);
CREATE TABLE File (FileId INTEGER PRIMARY KEY, FileIndex INTEGER, JobId INTEGER, PathId INTEGER,
  Filename TEXT, LStat TEXT, MD5 TEXT);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a catalog?.db"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(TABLES)
    return file


def execute(path: Path, statement: str, *rows: tuple) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executemany(statement, rows)
        database.commit()


def test_jobs_are_read_with_what_is_unset_as_empty(path: Path):
    execute(
        path,
        "INSERT INTO Job VALUES (?, ?, 'j', 'B', 'F', ?, '2026-01-02 03:04:05', ?, ?, 1, 2, 3,"
        " 4, 5, '', 7, 8, 1)",
        (1, "j.1", "T", "2026-01-02 03:05:05", 99),
        (2, "j.2", "R", 0, None),
    )
    catalog = Catalog(path)
    done, live = catalog.jobs([1, 2, 3]).values()
    assert (done.end, done.end_epoch, done.ended, done.good) == (
        "2026-01-02 03:05:05",
        99,
        True,
        True,
    )
    assert (live.end, live.end_epoch, live.ended) == ("", 0, False)
    assert (done.fileset_id, done.client_id, done.purged, done.tdate) == (7, 8, True, 99)
    assert catalog.job(3) is None
    assert [job.job_id for job in catalog.jobs_named("j")] == [2, 1]


def test_more_jobs_than_a_statement_takes_are_found(path: Path):
    count = module.IDS_MAX + 7
    rows = [(number, f"j.{number}", "T", 0, 0) for number in range(1, count + 1)]
    execute(
        path,
        "INSERT INTO Job VALUES (?, ?, 'j', 'B', 'F', ?, 0, ?, ?, 1, 2, 3, 4, 5, '', 7, 8, 1)",
        *rows,
    )
    assert len(Catalog(path).jobs(range(1, count + 1))) == count


def test_a_span_joins_file_and_block_into_an_address(path: Path):
    execute(
        path,
        "INSERT INTO JobMedia VALUES (?, 1, 5, ?, ?, ?, ?, ?, ?, ?)",
        (1, 4, 9, 2, 2, 10, 20, 2),
        (2, 1, 4, 0, 1, 220, 4_000_000_000, 1),
    )
    execute(path, "INSERT INTO Media VALUES (5, 'v1', 'File1', 'Used', 1000, 1, 8, 9)", ())
    spans = Catalog(path).spans(1)
    assert [(s.first_index, s.last_index) for s in spans] == [(1, 4), (4, 9)]
    assert (spans[0].start_address, spans[0].end_address) == (220, (1 << 32) + 4_000_000_000)
    assert spans[1].start_address == (2 << 32) + 10
    assert [volume.name for volume in Catalog(path).volumes(1)] == ["v1"]


def test_files_come_in_pages_without_a_gap_or_a_double(path: Path, monkeypatch):
    monkeypatch.setattr(module, "PAGE_ROWS", 3)
    execute(path, "INSERT INTO Path VALUES (?, ?)", (1, "/a/"), (2, "/b/"))
    names = [
        (1, "x"),
        (1, "x"),
        (1, ""),
        (2, "y"),
        (2, "a"),
        (2, "b"),
        (2, "c"),
        (2, "c"),
        (2, "c"),
    ]
    execute(
        path,
        "INSERT INTO File VALUES (?, ?, 1, ?, ?, 'l', 'd')",
        *[(10 + index, index + 1, path_id, name) for index, (path_id, name) in enumerate(names)],
    )
    execute(path, "INSERT INTO File VALUES (99, 1, 2, 1, 'other', 'l', 'd')", ())
    found = sorted(Catalog(path).files(1), key=lambda file: file.file_index)
    assert [file.file_index for file in found] == list(range(1, 10))
    assert [file.path for file in found] == [
        ("/a/" if path_id == 1 else "/b/").encode() + name.encode() for path_id, name in names
    ]


def test_names_that_are_not_utf8_come_as_the_bytes_that_they_are(path: Path, monkeypatch):
    monkeypatch.setattr(module, "PAGE_ROWS", 1)
    execute(path, "INSERT INTO Path VALUES (1, '/')", ())
    insert = "INSERT INTO File VALUES (?, ?, 1, 1, CAST(? AS TEXT), '', '')"
    execute(path, insert, (1, 1, b"\xff\xfe"), (2, 2, b"\xff\xff"), (3, 3, b"ok"))
    assert {file.path for file in Catalog(path).files(1)} == {b"/\xff\xfe", b"/\xff\xff", b"/ok"}


def test_log_lines_lose_the_directors_escape(path: Path):
    execute(path, "INSERT INTO Log VALUES (?, 1, 't', ?)", (1, "one\n\\"), (2, "two \\ three\n"))
    assert [line.text for line in Catalog(path).log(1)] == ["one", "two \\ three"]


def test_a_catalog_is_never_made_and_a_locked_one_is_waited_for_within_bounds(
    path: Path, monkeypatch
):
    missing = path.with_name("missing.db")
    with pytest.raises(CatalogUnavailable):
        Catalog(missing).job(1)
    assert not missing.exists()
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CatalogUnavailable, match="locked"):
            Catalog(path).job(1)

"""The same questions to SQLite and to PostgreSQL, with the tables of Bacula's own scripts."""

import base64
import pickle
import shutil
import sqlite3
import zlib
from contextlib import closing

import pytest

from bacula_bridge import catalog as module
from bacula_bridge.catalog import Catalog
from bacula_bridge.catalog_postgres import PostgresSource, RawText
from bacula_bridge.errors import CatalogUnavailable
from tests.support.postgres import secret

JOB = (
    "INSERT INTO Job (JobId, Job, Name, Type, Level, JobStatus, StartTime, EndTime, JobTDate,"
    " JobFiles, JobBytes, JobErrors, VolSessionId, VolSessionTime, PriorJob, FileSetId, ClientId,"
    " SchedTime, PurgedFiles) VALUES (?, ?, 'j', 'B', 'F', ?, '2026-01-02 03:04:05', ?, ?, 1, 2, 3,"
    " 4, 5, '', 7, 8, '2026-01-02 03:04:00', 1)"
)
PATH = "INSERT INTO Path (PathId, Path) VALUES (?, CAST(? AS TEXT))"
FILE = (
    "INSERT INTO File (FileId, FileIndex, JobId, PathId, Filename, LStat, MD5)"
    " VALUES (?, ?, ?, ?, CAST(? AS TEXT), 'l', 'd')"
)
OBJECT = (
    "INSERT INTO RestoreObject (RestoreObjectId, ObjectName, RestoreObject, PluginName, JobId,"
    " ObjectCompression) VALUES (?, ?, ?, 'p', ?, ?)"
)


class Sqlite:
    """A catalog in a file."""

    def __init__(self, path, empty):
        self._path = path
        shutil.copyfile(empty, path)
        self.catalog = Catalog(path)

    def execute(self, statement, *rows):
        with closing(sqlite3.connect(self._path)) as database:
            database.executemany(statement, rows)
            database.commit()

    def stored(self, data):
        return base64.b64encode(data).rstrip(b"=").decode()


class Postgres:
    """A catalog in a database."""

    def __init__(self, server):
        self._server, self.database = server, server.new_catalog()
        self.catalog = Catalog(PostgresSource(server.url(self.database), secret))

    def execute(self, statement, *rows):
        text = statement.replace("?", "%s")
        with self._server.connect(self.database) as connection:
            if "CAST" in statement:
                # As the Director does it: names as text, and nobody looks at what is in them.
                text = text.replace("CAST(%s AS TEXT)", "%s")
                connection.adapters.register_dumper(bytes, RawText)
            with connection.cursor() as cursor:
                cursor.executemany(text, rows)

    def stored(self, data):
        return data


@pytest.fixture(scope="module")
def empty_sqlite(tmp_path_factory, bacula_programs):
    """A catalog file with the tables that Bacula makes, made once: it is a hundred commits."""
    path = tmp_path_factory.mktemp("sqlite") / "empty.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(bacula_programs.catalog_sql())
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request, tmp_path):
    """A catalog that the test fills."""
    if request.param == "postgresql":
        return Postgres(request.getfixturevalue("postgres"))
    return Sqlite(tmp_path / "a catalog?.db", request.getfixturevalue("empty_sqlite"))


def test_jobs_are_read_with_what_is_unset_as_empty(kept):
    kept.execute(JOB, (1, "j.1", "T", "2026-01-02 03:05:05", 99), (2, "j.2 '\\", "R", None, None))
    done, live = kept.catalog.jobs([1, 2, 3]).values()
    assert (done.start, done.end, done.end_epoch, done.ended, done.good) == (
        "2026-01-02 03:04:05",
        "2026-01-02 03:05:05",
        99,
        True,
        True,
    )
    assert (live.unique_name, live.end, live.end_epoch, live.ended) == ("j.2 '\\", "", 0, False)
    assert (done.type, done.level, done.previous_unique_name) == ("B", "F", "")
    assert (done.files, done.bytes, done.errors, done.session_id, done.session_time) == (
        1,
        2,
        3,
        4,
        5,
    )
    assert (done.fileset_id, done.client_id, done.purged, done.tdate) == (7, 8, True, 99)
    assert kept.catalog.job(3) is None
    assert [job.job_id for job in kept.catalog.jobs_named("j")] == [2, 1]
    assert [job.job_id for job in kept.catalog.jobs_named("j", 1)] == [2]
    assert kept.catalog.jobs_named("j' OR 'a' = 'a") == []


def test_more_jobs_than_a_statement_takes_are_found(kept):
    count = module.IDS_MAX + 7
    kept.execute(JOB, *[(number, f"j.{number}", "T", None, 0) for number in range(1, count + 1)])
    assert len(kept.catalog.jobs(range(1, count + 1))) == count


def test_a_span_joins_file_and_block_into_an_address(kept):
    kept.execute(
        "INSERT INTO JobMedia (JobMediaId, JobId, MediaId, FirstIndex, LastIndex, StartFile,"
        " EndFile, StartBlock, EndBlock, VolIndex) VALUES (?, 1, 5, ?, ?, ?, ?, ?, ?, ?)",
        (1, 4, 9, 2, 2, 10, 20, 2),
        (2, 1, 4, 0, 1, 220, 4_000_000_000, 1),
    )
    kept.execute(
        "INSERT INTO Media (MediaId, VolumeName, MediaType, VolStatus, VolBytes, VolJobs)"
        " VALUES (5, 'v1', 'File1', 'Used', 5000000000, 1)",
        (),
    )
    spans = kept.catalog.spans(1)
    assert [(s.first_index, s.last_index) for s in spans] == [(1, 4), (4, 9)]
    assert (spans[0].start_address, spans[0].end_address) == (220, (1 << 32) + 4_000_000_000)
    assert spans[1].start_address == (2 << 32) + 10
    [volume] = kept.catalog.volumes(1)
    assert (volume.name, volume.media_type, volume.status, volume.bytes, volume.jobs) == (
        "v1",
        "File1",
        "Used",
        5_000_000_000,
        1,
    )


@pytest.mark.parametrize("rows_max", [1, 3, 9, 10, 100])
def test_files_come_in_pages_without_a_gap_or_a_double(kept, monkeypatch, rows_max):
    monkeypatch.setattr(module, "PAGE_ROWS", rows_max)
    kept.execute(PATH, (1, b"/a/"), (2, b"/b/"))
    names = [(1, b"x"), (1, b"x"), (1, b""), (2, b"y"), (2, b"a"), (2, b"b"), (2, b"c")]
    names += [(2, b"c"), (2, b"c")]  # deleted and made again: rows of one name
    rows = [(10 + n, n + 1, 1, path_id, name) for n, (path_id, name) in enumerate(names)]
    kept.execute(FILE, *rows, (99, 1, 2, 1, b"of another job"))
    found = sorted(kept.catalog.files(1), key=lambda file: file.file_index)
    assert [file.file_index for file in found] == list(range(1, 10))
    assert [file.path for file in found] == [
        (b"/a/" if path_id == 1 else b"/b/") + name for path_id, name in names
    ]
    assert {(file.lstat, file.digest) for file in found} == {("l", "d")}


def test_names_that_are_not_utf8_come_as_the_bytes_that_they_are(kept, monkeypatch):
    monkeypatch.setattr(module, "PAGE_ROWS", 2)
    names = [b"\xff\xfe", b"\xff\xff", b"ok", "ä".encode(), b"\\x41", b"a'b%s\n\t", b"\xc3"]
    names.append(bytes(range(1, 256)))
    kept.execute(PATH, (1, b"/\xe9/"))
    kept.execute(FILE, *[(n, n, 1, 1, name) for n, name in enumerate(names, 1)])
    assert {file.path for file in kept.catalog.files(1)} == {b"/\xe9/" + name for name in names}


def test_log_lines_lose_the_directors_escape(kept):
    insert = "INSERT INTO Log (LogId, JobId, Time, LogText) VALUES (?, 1, '2026-01-02 03:04:05', ?)"
    kept.execute(insert, (1, "one\n\\"), (2, "two \\ three\n"))
    assert [line.text for line in kept.catalog.log(1)] == ["one", "two \\ three"]
    assert kept.catalog.log(1)[0].time == "2026-01-02 03:04:05"


def test_restore_objects_come_as_they_were_sent(kept):
    data = bytes(range(256)) * 40
    kept.execute(
        OBJECT,
        (1, "o", kept.stored(data), 1, 0),
        (2, "o", kept.stored(zlib.compress(data)), 2, 1),
        (3, "other", kept.stored(b"x"), 2, 0),
        (4, "o", kept.stored(b"not deflated"), 3, 1),
    )
    assert kept.catalog.restore_objects(1, "o") == [data]
    assert kept.catalog.restore_objects(2, "o") == [data]
    assert kept.catalog.restore_objects(4, "o") == []
    with pytest.raises(CatalogUnavailable, match="JobId 3"):
        kept.catalog.restore_objects(3, "o")


def test_a_catalog_survives_a_trip_to_another_process(kept):
    kept.execute(JOB, (1, "j.1", "T", None, 99))
    catalog = pickle.loads(pickle.dumps(kept.catalog))
    catalog.check()
    assert catalog.job(1).unique_name == "j.1"
    assert catalog.name == kept.catalog.name in repr(catalog)


def test_a_catalog_of_another_bacula_is_told_by_its_version(kept):
    kept.catalog.check()
    kept.execute("UPDATE Version SET VersionId = ?", (1024,))
    with pytest.raises(CatalogUnavailable, match=r"version 1024.*1026.*update_bacula_tables"):
        kept.catalog.check()

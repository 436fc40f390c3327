"""A catalog in PostgreSQL: what is particular to it, against a real server."""

import os
import pickle
import re
import signal
from functools import partial
from pathlib import Path

import psycopg
import pytest

from bacula_bridge import catalog_postgres as module
from bacula_bridge.catalog import Catalog
from bacula_bridge.catalog_postgres import PostgresSource
from bacula_bridge.errors import BadValue, CatalogUnavailable
from cluster.catalogs import catalog_of
from cluster.site_config import BaculaTable, SecretUnsafe
from tests.support.postgres import PASSWORD, secret

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "bacula.md"


@pytest.fixture
def database(postgres):
    return postgres.new_catalog()


@pytest.fixture
def source(postgres, database):
    return PostgresSource(postgres.url(database), secret)


def refused(source):
    with pytest.raises(CatalogUnavailable) as caught:
        Catalog(source).job(1)
    error = pickle.loads(pickle.dumps(caught.value))
    assert PASSWORD not in str(error) + repr(error)
    assert "\n" not in str(error)
    return str(error)


def test_the_password_shows_nowhere(source, postgres, database):
    for text in (repr(source), str(source), source.name, repr(Catalog(source))):
        assert PASSWORD not in text
        assert "secret" not in text
    with pytest.raises(BadValue) as caught:
        PostgresSource(postgres.url(database) + "&password=sesame")
    assert "sesame" not in str(caught.value)
    with pytest.raises(BadValue) as caught:
        PostgresSource("postgresql://bacula:sesame@db/bacula")
    assert "sesame" not in str(caught.value)


def test_what_is_wrong_is_said_in_a_sentence(postgres, database, source):
    url = postgres.url(database)
    assert "refuses the user or the password" in refused(PostgresSource(url, partial(str, "wrong")))
    assert "refuses the user or the password" in refused(PostgresSource(url))
    assert "no such database" in refused(PostgresSource(postgres.url("none"), secret))
    nowhere = "postgresql://bacula@127.0.0.1:1/bacula"
    assert "cannot be reached" in refused(PostgresSource(nowhere, secret))
    assert "postgresql://bacula@127.0.0.1:1/bacula" in refused(PostgresSource(nowhere, secret))
    assert "no catalog of Bacula 15" in refused(
        PostgresSource(postgres.url("postgres", "postgres"), secret)
    )
    with postgres.connect(database) as connection:
        connection.execute("UPDATE Version SET VersionId = 1025")
    assert "version 1025" in refused(source)


def test_what_the_documents_grant_is_enough_and_without_it_that_is_told(postgres, database):
    [grant] = re.findall(r"^GRANT .* TO forebay;$", PAGE.read_text(), re.MULTILINE)
    postgres.create("CREATE ROLE forebay LOGIN PASSWORD 'r'")
    reader = PostgresSource(postgres.url(database, "forebay"), partial(str, "r"))
    assert "may not read it" in refused(reader)
    with postgres.connect(database) as connection:
        connection.execute(grant)
    catalog = Catalog(reader)
    catalog.check()
    assert catalog.jobs_named("j") == catalog.spans(1) == catalog.volumes(1) == catalog.log(1) == []
    assert list(catalog.files(1)) == catalog.restore_objects(1, "o") == []


def test_nothing_can_be_written(source):
    with pytest.raises(CatalogUnavailable, match="read-only transaction"):
        source.query("DELETE FROM Job RETURNING JobId", [])


def test_no_connection_is_left_open(source, monkeypatch):
    opened = []
    connect = psycopg.connect

    def remembered(*arguments, **options):
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(psycopg, "connect", remembered)
    catalog = Catalog(source)
    catalog.jobs([1, 2])
    files = catalog.files(1)
    assert next(files, None) is None
    with pytest.raises(CatalogUnavailable):
        source.query("SELECT nothing", [])
    assert len(opened) == 3
    assert all(connection.closed for connection in opened)


def test_a_table_that_stays_locked_is_waited_for_within_bounds(
    postgres, database, source, monkeypatch
):
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.05)
    with postgres.connect(database) as writer, writer.transaction():
        writer.execute("LOCK TABLE Job IN ACCESS EXCLUSIVE MODE")
        assert re.search("too busy to answer.*lock timeout", refused(source))
    assert Catalog(source).job(1) is None


def test_a_long_statement_ends_within_bounds(source, monkeypatch):
    monkeypatch.setattr(module, "STATEMENT_TIMEOUT_S", 0.05)
    with pytest.raises(CatalogUnavailable, match="too busy to answer"):
        source.query("SELECT pg_sleep(60)", [])


def test_a_server_that_says_nothing_is_cut_off(source, monkeypatch):
    """Its process is stopped: it keeps no timeout of its own then."""
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 1.0)
    begin = module._begin
    backends = []

    def begin_then_stop(connection):
        backends.append(connection.info.backend_pid)
        found = begin(connection)
        os.kill(backends[-1], signal.SIGSTOP)
        return found

    monkeypatch.setattr(module, "_begin", begin_then_stop)
    try:
        assert "no answer within 1 s" in refused(source)
    finally:
        os.kill(backends[-1], signal.SIGCONT)


def test_a_page_of_a_huge_directory_costs_what_a_page_costs(postgres, database, source):
    """By what the server read, wherever in the directory the page lies."""
    with postgres.connect(database) as connection:
        connection.execute("INSERT INTO Path (PathId, Path) VALUES (1, '/'), (2, '/b/')")
        connection.execute(
            "INSERT INTO File (JobId, FileIndex, PathId, Filename, LStat, MD5)"
            " SELECT 1, n, 1, to_char(n, 'FM0000000'), 'l', 'd' FROM generate_series(1, 60000) AS n"
        )
        connection.execute("ANALYZE File")
    for after in ((-1, b"", -1), (1, b"0030000", 30000), (1, b"0059990", 59990)):
        plan = _explain(source, after)
        assert "file_jpfid_idx" in plan, plan
        assert "Seq Scan on file" not in plan, plan
        assert _rows_read(plan) <= 3 * 100 + 3, plan
    files = list(Catalog(source).files(1))
    assert [file.file_index for file in files] == list(range(1, 60001))


def _explain(source, after):
    asked = []

    class Explaining(PostgresSource):
        def query(self, statement, parameters):
            asked.append(
                PostgresSource.query(
                    self, "EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) " + statement, parameters
                )
            )
            return []

    Explaining(source.url, source.secret).files_page(1, after, 100)
    return "\n".join(row[0].decode() for row in asked[0])


def _rows_read(plan):
    """Return the most rows that came out of one scan of File's index."""
    rows = [int(n) for n in re.findall(r"Scan using file_jpfid_idx.*actual rows=(\d+)", plan)]
    return max(rows)


def test_a_site_gives_the_password_in_a_file(postgres, database, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o640)
    bacula = BaculaTable(catalog=postgres.url(database), catalog_password_file=file)
    with pytest.raises(SecretUnsafe):
        catalog_of(bacula)
    file.chmod(0o600)
    catalog = catalog_of(bacula)
    catalog.check()
    assert PASSWORD.encode() not in pickle.dumps(catalog)
    pickle.loads(pickle.dumps(catalog)).check()
    file.chmod(0o644)
    with pytest.raises(CatalogUnavailable, match="lets others in"):
        catalog.check()
    assert catalog_of(BaculaTable(catalog="/none.db")).name == "/none.db"

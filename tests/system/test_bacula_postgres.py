"""A real Director whose catalog is in PostgreSQL, and what Forebay reads there."""

import os
from dataclasses import replace

import pytest

from bacula_bridge import render
from bacula_bridge.bootstrap import Ranges, bootstrap
from bacula_bridge.catalog import Catalog
from bacula_bridge.catalog_postgres import PostgresSource
from bacula_bridge.director import Director
from tests.support.lab_fixture import bacula_programs, make_lab
from tests.support.postgres import PASSWORD, PORT, USER, driver_libraries, postgres, secret

__all__ = ["bacula_programs", "make_lab", "postgres"]

pytestmark = pytest.mark.bacula

END_S = 120.0


@pytest.fixture
def lab(make_lab, postgres, bacula_programs, monkeypatch):
    """A lab with another driver, and the catalog that its Director writes."""
    if not bacula_programs.private:
        pytest.skip("the installed Director has the SQLite driver")
    database = postgres.new_catalog()
    rendered = render.director_config

    def with_postgres(settings, jobs):
        text = rendered(settings, jobs)
        password = render.quote(PASSWORD)
        wanted = (
            f'dbname = "{database}"\n  dbuser = {USER}\n  dbpassword = {password}\n'
            f'  DB Address = "{postgres.sockets}"\n  DB Port = {PORT}\n'
        )
        found = 'dbname = "bacula"\n  dbuser = ""\n  dbpassword = ""\n'
        assert found in text
        return text.replace(found, wanted)

    monkeypatch.setattr(render, "director_config", with_postgres)
    lab = make_lab(up=False)
    head = list(bacula_programs.director)
    libraries = head.index("--library-path") + 1
    head[libraries] = f"{driver_libraries()}:{head[libraries]}"
    lab.programs = replace(bacula_programs, director=tuple(head))
    lab.up(devices=2, socket="/tmp/none.sock")
    return lab, Catalog(PostgresSource(postgres.url(database), secret))


def test_jobs_of_a_director_with_postgresql_are_read_as_they_ran(lab, tmp_path):
    lab, catalog = lab
    catalog.check()
    source = os.fsencode(tmp_path / "source")
    os.mkdir(source)
    names = [b"plain", b"\xff\xfe not utf-8", "ümläut".encode(), b"back\\slash 'quoted'", b"%s ?"]
    for name in names:
        with open(os.path.join(source, name), "wb") as file:
            file.write(name * 100)
    job = lab.set_plain_job("stock", os.fsdecode(source))
    director = Director(lab.console, catalog)
    [row] = director.follow(director.run_jobs([job]), timeout_s=END_S)
    assert (row.outcome, row.files, row.errors) == ("T", len(names) + 1, 0)
    assert row.end_epoch > 0
    assert row.start <= row.end
    assert catalog.jobs_named(job) == [row]
    assert "Backup OK" in director.job_log(row.job_id)
    files = list(catalog.files(row.job_id))
    assert {file.path for file in files} == {os.path.join(source, n) for n in [*names, b""]}
    [volume] = catalog.volumes(row.job_id)
    assert volume.bytes > row.bytes

    odd = next(file for file in files if b"\xff" in file.path)
    spans = {row.job_id: catalog.spans(row.job_id)}
    text = bootstrap({row.job_id: Ranges.of([odd.file_index])}, {row.job_id: row}, spans)
    written = tmp_path / "one.bsr"
    written.write_text("".join(text))
    target = tmp_path / "target"
    [back] = director.follow(director.run_restores([written], str(target)), timeout_s=END_S)
    assert back.outcome == "T"
    walk = os.walk(os.fsencode(target))
    restored = [os.path.join(folder, name) for folder, _, found in walk for name in found]
    assert restored == [os.fsencode(target) + odd.path]

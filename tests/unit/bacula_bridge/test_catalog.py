"""A catalog in a SQLite file: what is particular to it. The questions: tests/conformance."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bacula_bridge import catalog_sources as module
from bacula_bridge.catalog import Catalog
from bacula_bridge.errors import CatalogUnavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a catalog?.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE Job (JobId INTEGER PRIMARY KEY)")
    return file


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

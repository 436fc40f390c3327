"""Where a catalog is kept: what a question needs of the database below it.

Covers: the interface of a catalog's database; a SQLite file, read-only, while the Director writes.
Does not cover: the questions (catalog), a PostgreSQL database (catalog_postgres).

A reader blocks the Director's commits in SQLite, so that every statement is short: rows that can be
many are fetched in pages.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bacula_bridge.errors import CatalogUnavailable

BUSY_TIMEOUT_S = 30.0
VERSION = 1026
"""The version of the catalog's tables that Bacula 15.0 makes."""

FileKey = tuple[int, bytes, int]
"""PathId, name, FileId: the last row of a page of files."""

FIRST_FILE: FileKey = (-1, b"", -1)
Rows = list[Sequence[object]]

FILE_COLUMNS = "File.PathId, File.Filename, FileId, FileIndex, Path.Path, LStat, MD5"


class CatalogSource(Protocol):
    """A catalog's database. Picklable; holds no connection. `?` stands for a parameter.

    Text comes as bytes: names on disk are bytes, and not all of them are UTF-8.
    """

    @property
    def name(self) -> str:
        """What it is called in errors."""
        ...

    def query(self, statement: str, parameters: Sequence[object]) -> Rows:
        """Return the rows of a statement that only reads; CatalogUnavailable if it can't be."""
        ...

    def files_page(self, job_id: int, after: FileKey, rows_max: int) -> Rows:
        """Return FILE_COLUMNS of a job's next files by PathId, name, FileId.

        Each page is cut along the catalog's own index, so that each costs the same.
        """
        ...

    def restore_object(self, stored: bytes) -> bytes:
        """Undo what the Director's driver did to a restore object; ValueError if it can't be."""
        ...

    def version(self) -> int:
        """Return the version of the catalog's tables."""
        ...


@dataclass(frozen=True, slots=True)
class SqliteSource:
    """A catalog file. It is looked at only when something is asked, and never made."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def query(self, statement: str, parameters: Sequence[object]) -> Rows:
        try:
            uri = self.path.absolute().as_uri() + "?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as database:
                database.text_factory = bytes
                return database.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise CatalogUnavailable(self.name, str(error)) from error

    def files_page(self, job_id: int, after: FileKey, rows_max: int) -> Rows:
        statement = (
            f"SELECT {FILE_COLUMNS}"
            " FROM File JOIN Path ON Path.PathId = File.PathId"
            " WHERE JobId = ? AND (File.PathId, File.Filename, FileId) > (?, CAST(? AS TEXT), ?)"
            " ORDER BY File.PathId, File.Filename, FileId LIMIT ?"
        )
        return self.query(statement, [job_id, *after, rows_max])

    def restore_object(self, stored: bytes) -> bytes:
        """SQLite's driver stores base64 without padding."""
        return base64.b64decode(stored + b"=" * (-len(stored) % 4), validate=True)

    def version(self) -> int:
        rows = self.query("SELECT VersionId FROM Version", [])
        return int(str(rows[0][0])) if rows else 0


def wrong_version(found: int) -> str:
    """Say that a catalog is of another Bacula."""
    return (
        f"its tables have version {found}, and Bacula 15.0's have {VERSION}; use the catalog of a"
        " Bacula 15.0, or update it with Bacula's update_bacula_tables"
    )

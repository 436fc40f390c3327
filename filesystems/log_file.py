"""What the change logs of all sources are: an SQLite file with a table of settings.

Covers: transactions, errors as one sentence, settings, how large it is.
Does not cover: tables, and what is durable when (fanotify.log, lustre.log).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import ForebayError

BUSY_TIMEOUT_S = 30.0
META_TABLE = "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID"


class LogFile:
    """The file of a log, open for writing; whatever is wrong with it is one error."""

    def __init__(self, path: Path, unusable: type[ForebayError]) -> None:
        """Open the file, or make it, for its owner alone. unusable takes path and reason."""
        self._path = path
        self._unusable = unusable
        with self._using():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                path,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,  # one thread makes it, one uses it, never at once
            )

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError, TypeError) as error:
            raise self._unusable(str(self._path), str(error)) from error
        except OSError as error:
            raise self._unusable(str(self._path), error.strerror or str(error)) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._using():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            self._db.commit()

    def _get(self, key: str) -> object:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _set(self, **values: object) -> None:
        self._db.executemany("REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def _size_bytes(self) -> int:
        with self._using():
            pages = [
                int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            ]
        return (pages[0] - pages[1]) * pages[2]

    def close(self) -> None:
        self._db.close()

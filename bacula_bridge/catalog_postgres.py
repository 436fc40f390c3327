"""A catalog in PostgreSQL, as sites have it.

Covers: one bounded, read-only transaction for each question; names as the bytes that they are; a
password that shows nowhere; what is wrong, in a sentence.
Does not cover: the questions (catalog), where the password comes from (cluster).

Bacula's database is SQL_ASCII: the server keeps bytes and converts nothing, and so does this side.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from psycopg import conninfo
from psycopg.adapt import Dumper
from psycopg.types.string import TextLoader

from bacula_bridge.catalog_sources import (
    FILE_COLUMNS,
    VERSION,
    FileKey,
    Rows,
    wrong_version,
)
from bacula_bridge.errors import BadValue, CatalogUnavailable
from shards.errors import ForebayError

CONNECT_TIMEOUT_S = 15
STATEMENT_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 90.0
"""A server that neither answers nor hangs up within this is cut off."""

KEEPALIVE_IDLE_S = 10
REASON_MAX = 300

_WRONG_TABLES = ("3F000", "42703", "42P01")  # no such schema, column, table
_NO_RIGHT = "42501"
_TIMEOUTS = ("55P03", "57014")  # lock_timeout, statement_timeout
_LOADED_AS_BYTES = ("text", "varchar", "bpchar", "name", '"char"', "timestamp")


class RawText(Dumper):
    """Bytes as text, unchanged."""

    oid = psycopg.adapters.types["text"].oid

    def dump(self, obj: bytes) -> bytes:
        return obj


@dataclass(frozen=True, slots=True)
class PostgresSource:
    """A database by its URL, postgresql://USER@HOST:PORT/DATABASE.

    The password is asked for at each connection, so that it is not in here, and does not travel
    with it. Without one libpq's own ways hold: peer authentication, ~/.pgpass.
    """

    url: str
    secret: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if "password" in _parsed(self.url):
            # The URL itself is not shown: the password is in it.
            raise BadValue(
                "catalog", "its URL", "no password goes into it; name a file that has it"
            )

    @property
    def name(self) -> str:
        """The URL in short, by what libpq reads out of it."""
        parts = _parsed(self.url)
        host = parts.get("host") or parts.get("hostaddr") or "(local)"
        user = f"{parts['user']}@" if parts.get("user") else ""
        port = f":{parts['port']}" if parts.get("port") else ""
        return f"postgresql://{user}{host}{port}/{parts.get('dbname', '')}"

    def query(self, statement: str, parameters: Sequence[object]) -> Rows:
        with self._connected() as connection:
            if (found := _begin(connection)) != VERSION:
                raise CatalogUnavailable(self.name, wrong_version(found))
            return connection.execute(
                statement.replace("?", "%s"),
                [_encoded(value) for value in parameters],
            ).fetchall()

    def files_page(self, job_id: int, after: FileKey, rows_max: int) -> Rows:
        """Two walks along the index (JobId, PathId, Filename text_pattern_ops), cut at the limit.

        The index knows only the operators of text_pattern_ops: a comparison of rows, as in SQLite,
        would read a whole directory again for each page of it.
        """
        path_id, filename, file_id = after
        columns = "PathId, Filename, FileId, FileIndex, LStat, MD5"
        order = "ORDER BY PathId, Filename USING ~<~, FileId LIMIT ?"
        same = (
            f"SELECT {columns} FROM File WHERE JobId = ? AND PathId = ? AND Filename ~>=~ ?"
            f" AND (Filename ~>~ ? OR FileId > ?) {order}"
        )
        later = f"SELECT {columns} FROM File WHERE JobId = ? AND PathId > ? {order}"
        statement = (
            f"SELECT {FILE_COLUMNS}"
            f" FROM (SELECT * FROM (({same}) UNION ALL ({later})) AS Pages {order}) AS File"
            " JOIN Path ON Path.PathId = File.PathId"
            " ORDER BY File.PathId, File.Filename USING ~<~, FileId"
        )
        first = [job_id, path_id, filename, filename, file_id, rows_max]
        return self.query(statement, [*first, job_id, path_id, rows_max, rows_max])

    def restore_object(self, stored: bytes) -> bytes:
        """PostgreSQL stores bytes."""
        return stored

    def version(self) -> int:
        with self._connected() as connection:
            return _begin(connection)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        """Connect, and turn whatever goes wrong until the end into a sentence."""
        try:
            password = self.secret() if self.secret is not None else None
        except ForebayError as error:
            raise CatalogUnavailable(self.name, str(error)) from None
        try:
            connection = psycopg.connect(
                self.url,
                password=password,
                connect_timeout=CONNECT_TIMEOUT_S,
                client_encoding="SQL_ASCII",
                application_name="forebay",
                keepalives_idle=KEEPALIVE_IDLE_S,
                keepalives_interval=KEEPALIVE_IDLE_S,
                keepalives_count=3,
            )
        except psycopg.Error as error:
            raise CatalogUnavailable(self.name, _connect_reason(error)) from None
        cut = threading.Event()
        try:
            with connection, _cut_off_after(connection, ANSWER_TIMEOUT_S, cut):
                connection.read_only = True
                for name in _LOADED_AS_BYTES:
                    connection.adapters.register_loader(name, TextLoader)
                connection.adapters.register_dumper(bytes, RawText)
                yield connection
        except psycopg.Error as error:
            late = f"no answer within {ANSWER_TIMEOUT_S:.0f} s"
            raise CatalogUnavailable(self.name, late if cut.is_set() else _reason(error)) from None


def _begin(connection: psycopg.Connection) -> int:
    """Bound what follows in this transaction, and return the version of the tables.

    Not as start-up options: connection poolers refuse those.
    """
    connection.execute(
        "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true),"
        " set_config('datestyle', 'ISO', true)",
        [f"{STATEMENT_TIMEOUT_S * 1000:.0f}".encode(), f"{LOCK_TIMEOUT_S * 1000:.0f}".encode()],
    )
    row = connection.execute("SELECT VersionId FROM Version").fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _cut_off_after(
    connection: psycopg.Connection, timeout_s: float, cut: threading.Event
) -> Iterator[None]:
    """Hang up on a server that does not answer: it may have stopped, and enforces nothing then."""
    line = socket.socket(fileno=os.dup(connection.fileno()))

    def hang_up() -> None:
        cut.set()
        with suppress(OSError):  # the server may have hung up just now
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        line.close()


def _parsed(url: str) -> dict[str, object]:
    try:
        return dict(conninfo.conninfo_to_dict(url))
    except psycopg.Error as error:
        raise BadValue("catalog", url, f"no URL of PostgreSQL: {_words(error)}") from None


def _encoded(value: object) -> object:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _connect_reason(error: psycopg.Error) -> str:
    words = _words(error)
    if "authentication failed" in words or "no password supplied" in words:
        return f"the database refuses the user or the password: {words}"
    if "does not exist" in words:
        return f"there is no such database or user: {words}"
    return f"the Director's database cannot be reached: {words}"


def _reason(error: psycopg.Error) -> str:
    state, words = error.sqlstate, _words(error)
    if state in _WRONG_TABLES:
        return f"it is no catalog of Bacula 15: {words}"
    if state == _NO_RIGHT:
        return f"the user may not read it: {words}; grant SELECT on the catalog's tables"
    if state in _TIMEOUTS:
        return f"it is too busy to answer: {words}"
    return words


def _words(error: psycopg.Error) -> str:
    return " ".join(str(error).split())[:REASON_MAX] or type(error).__name__

"""All that the ledger says of one run, out of it and into another ledger (docs/formats/archive.md).

Covers: the rows as JSON, checks of rows that come from outside, putting them into a ledger.
Does not cover: the run's files (cluster.archive); what was still pending, which no archive has.
"""

from __future__ import annotations

import base64
import re
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from shards.errors import ForebayError
from shards.ledger import Ledger
from shards.ledger_schema import RunState

# Each table with the column that names the run, or the dataset.
OF_A_DATASET = {"datasets": "name", "pacing": "dataset", "hsm": "dataset"}
OF_A_RUN = {"runs": "number", "leases": "run", "segments": "run", "scan": "run", "jobs": "run"}
ENDED = frozenset(RunState) - {RunState.OPEN}
_FILE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,200}")
# What makes two runs of one number the same one.
_ORIGIN = ("number", "dataset", "root", "shards", "seed", "started")

Row = dict[str, Any]


class RowsForeign(ForebayError):
    """Rows that cannot be this ledger's: (run, why)."""

    template = "run {0} cannot be taken into the run ledger: {1}"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of a run as the ledger names it."""

    folder: str  # segments or receipts
    name: str
    size_bytes: int
    checksum: int  # CRC-32


@dataclass(frozen=True, slots=True)
class RunRows:
    """Rows of the ledger by table; those of its dataset are among them."""

    tables: dict[str, list[Row]]

    @property
    def run(self) -> Row:
        return self.tables["runs"][0]

    def files(self) -> list[NamedFile]:
        """Return the files that the rows name."""
        segments = [
            NamedFile("segments", row["name"], row["size_bytes"], row["checksum"])
            for row in self.tables["segments"]
        ]
        return segments + [
            NamedFile("receipts", row["receipts"], row["receipts_bytes"], row["receipts_checksum"])
            for row in self.tables["jobs"]
            if row["receipts"] is not None
        ]

    def is_same_run(self, other: RunRows) -> bool:
        """Tell whether both are of one run, though it may have gone on in between."""
        return all(self.run[name] == other.run[name] for name in _ORIGIN)

    def says_the_same(self, other: RunRows) -> bool:
        """Tell whether nothing about the run has changed; its dataset may have."""
        return all(self.tables[table] == other.tables[table] for table in OF_A_RUN)

    def to_json(self) -> dict[str, Any]:
        return {
            table: [{name: _out(value) for name, value in row.items()} for row in rows]
            for table, rows in self.tables.items()
        }

    @staticmethod
    def from_json(value: object, number: int) -> RunRows:
        """Take rows from outside; RowsForeign if they are not of this run alone."""
        try:
            assert isinstance(value, dict)
            tables = {
                table: [{str(key): _in(cell) for key, cell in row.items()} for row in value[table]]
                for table in (*OF_A_DATASET, *OF_A_RUN)
            }
            rows = RunRows(tables)
            _check(rows, number)
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RowsForeign(number, f"its rows are not in order ({error!r})") from error
        return rows


def read_run_rows(
    ledger: Ledger, number: int, wanted: Collection[str] = OF_A_RUN
) -> RunRows | None:
    """Return the rows of a run as they are at one moment; None if there is no such run.

    Leases and segments are numbered anew, from 1: a ledger's numbers mean nothing elsewhere.
    """
    ledger.query("BEGIN")
    try:
        run = ledger.query("SELECT * FROM runs WHERE number = ?", (number,))
        if not run:
            return None
        there = {row[0] for row in ledger.query("SELECT name FROM sqlite_master")}
        tables: dict[str, list[Row]] = {}
        for table, column in (OF_A_DATASET | OF_A_RUN).items():
            key = number if table in OF_A_RUN else run[0]["dataset"]
            rows = []
            if table in there and (table in OF_A_DATASET or table in wanted):
                sql = f"SELECT * FROM {table} WHERE {column} = ? ORDER BY rowid"
                rows = ledger.query(sql, (key,))
            tables[table] = [dict(row) for row in rows]
        return RunRows(_renumbered(tables))
    finally:
        ledger.query("COMMIT")


def _renumbered(tables: dict[str, list[Row]]) -> dict[str, list[Row]]:
    leases = {row["number"]: place for place, row in enumerate(tables["leases"], 1)}
    for table in ("leases", "segments", "scan"):
        for place, row in enumerate(tables[table], 1):
            if "number" in row:
                row["number"] = place
            if "lease" in row:
                row["lease"] = leases[row["lease"]]
    return tables


def insert_run_rows(ledger: Ledger, rows: RunRows) -> bool:
    """Put a run that was checked into a ledger; False if that has it already."""
    number = rows.run["number"]
    known = read_run_rows(ledger, number)
    if known is not None:
        if not known.is_same_run(rows):
            raise RowsForeign(number, "the ledger has another run of that number")
        return False
    try:
        with ledger.transaction() as db:
            _insert_dataset(db, number, rows)
            _insert(db, number, "runs", rows.run)
            leases = {}
            for row in rows.tables["leases"]:  # numbers are this ledger's own
                leases[row["number"]] = _insert(db, number, "leases", _without_number(row))
            for row in rows.tables["segments"]:  # in their order, for numbers tell it
                moved = _without_number(row) | {"lease": leases[row["lease"]]}
                _insert(db, number, "segments", moved)
            for row in rows.tables["scan"]:
                _insert(db, number, "scan", row | {"lease": leases[row["lease"]]})
            for row in rows.tables["jobs"]:
                _insert(db, number, "jobs", row)
            db.execute("INSERT INTO imported VALUES (?, ?)", (number, time.time()))
    except (sqlite3.IntegrityError, KeyError) as error:
        raise RowsForeign(number, str(error)) from error
    return True


def _insert_dataset(db: sqlite3.Connection, number: int, rows: RunRows) -> None:
    (dataset,) = rows.tables["datasets"]
    known = db.execute("SELECT * FROM datasets WHERE name = ?", (dataset["name"],)).fetchone()
    if known is None:
        for table in OF_A_DATASET:
            for row in rows.tables[table]:
                _insert(db, number, table, row)
    elif (known["root"], known["seed"]) != (dataset["root"], dataset["seed"]):
        raise RowsForeign(
            number, f"dataset {dataset['name']} has another root or seed in this ledger"
        )


def _insert(db: sqlite3.Connection, number: int, table: str, row: Row) -> int:
    known = {column[1] for column in db.execute(f"PRAGMA table_info({table})")}
    if not row or not set(row) <= known:
        raise RowsForeign(number, f"table {table} has no column {', '.join(set(row) - known)}")
    places = ", ".join("?" * len(row))
    cursor = db.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values())
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _without_number(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "number"}


def _check(rows: RunRows, number: int) -> None:
    (dataset,), (run,) = rows.tables["datasets"], rows.tables["runs"]
    assert run["dataset"] == dataset["name"], "the run is of another dataset"
    assert RunState(run["state"]) in ENDED, "the run has not ended"
    for table, column in OF_A_RUN.items():
        assert all(row[column] == number for row in rows.tables[table]), f"{table} of another run"
    for table, column in OF_A_DATASET.items():
        own = [row[column] for row in rows.tables[table]]
        assert own in ([], [dataset["name"]]), f"{table} of another dataset"
    leases = {row["number"] for row in rows.tables["leases"]}
    for table in ("segments", "scan"):
        assert all(row["lease"] in leases for row in rows.tables[table]), f"{table} without a lease"
    files = rows.files()
    assert all(_FILE_NAME.fullmatch(file.name) for file in files), "a file's name"
    assert len({(file.folder, file.name) for file in files}) == len(files), "a file's name twice"


def _out(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _in(value: object) -> object:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"], validate=True)
    assert value is None or isinstance(value, str | int | float), "a value's type"
    return value

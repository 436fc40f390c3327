"""Snapshots that runs read: which there are, kept so that none is left behind.

Covers: the ledger's tables of them.
Does not cover: taking and releasing (filesystems), when (bacula_bridge.coordinator).
"""

from __future__ import annotations

import sqlite3

from shards.ledger import Ledger
from shards.snapshot import Snapshot


class SnapshotStore:
    """The snapshots of the ledger's runs, and which datasets want them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def want(self, dataset: str, wanted: bool) -> None:
        """Say whether runs of a dataset read a snapshot, from the next one on."""
        with self._ledger.transaction() as db:
            db.execute("INSERT OR REPLACE INTO snapshots_wanted VALUES (?, ?)", (dataset, wanted))

    def are_wanted(self, dataset: str) -> bool:
        rows = self._ledger.query(
            "SELECT wanted FROM snapshots_wanted WHERE dataset = ?", (dataset,)
        )
        return bool(rows and rows[0]["wanted"])

    def keep(self, snapshot: Snapshot) -> None:
        """Remember a snapshot: before it is taken, and again when it is there."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, NULL, ?, ?, ?)",
                (snapshot.path, snapshot.root, snapshot.inode_mask, snapshot.time_ns),
            )

    def assign(self, path: bytes, run: int) -> None:
        """Let a run read a snapshot."""
        with self._ledger.transaction() as db:
            db.execute("UPDATE snapshots SET run = ? WHERE path = ?", (run, path))

    def of(self, run: int) -> Snapshot | None:
        """Return what a run reads; None: the dataset as it is."""
        rows = self._ledger.query(
            "SELECT * FROM snapshots WHERE run = ? ORDER BY time_ns DESC LIMIT 1", (run,)
        )
        return _snapshot(rows[0]) if rows else None

    def leftovers(self) -> list[Snapshot]:
        """Return snapshots, taken or perhaps taken, of runs that are not open, and of none."""
        rows = self._ledger.query(
            "SELECT snapshots.* FROM snapshots LEFT JOIN runs ON runs.number = run"
            " WHERE run IS NULL OR state != 'open'"
        )
        return [_snapshot(row) for row in rows]

    def drop(self, path: bytes) -> None:
        """Forget a snapshot, which has been released or never was."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM snapshots WHERE path = ?", (path,))


def _snapshot(row: sqlite3.Row) -> Snapshot:
    return Snapshot(row["path"], row["root"], row["inode_mask"], row["time_ns"])

"""Snapshots that runs read: which there are, kept so that none is left behind.

Covers: the ledger's tables of them, the interface to whoever takes them.
Does not cover: taking and releasing (filesystems), when (bacula_bridge.coordinator).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Protocol

from shards.errors import ForebayError
from shards.ledger import Ledger


class SnapshotRefused(ForebayError):
    """There is no snapshot to be had; the sentence goes to the job log, and the run reads live."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset's root as it was at one moment."""

    path: bytes  # to be released
    root: bytes = b""  # the dataset's root in it; empty: it was perhaps never taken
    inode_mask: int = 0  # bits of an inode number there that are the live one's; 0: all
    time_ns: int = 0  # CLOCK_REALTIME before it was taken: later changes are not in it


class Snapshotter(Protocol):
    """Takes snapshots of a dataset's root and releases them."""

    def path(self, root: bytes, name: str) -> bytes:
        """Return what a snapshot of this name would be; SnapshotRefused if there can be none."""

    def take(self, root: bytes, path: bytes) -> Snapshot:
        """Take it; SnapshotRefused if that fails, and then there may be one all the same."""

    def release(self, path: bytes) -> None:
        """Remove it; nothing, if there is none. SnapshotRefused if that fails."""


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

    def keep(self, run: int, snapshot: Snapshot) -> None:
        """Remember a run's snapshot: before it is taken, and again when it is there."""
        with self._ledger.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)",
                (run, snapshot.path, snapshot.root, snapshot.inode_mask, snapshot.time_ns),
            )

    def of(self, run: int) -> Snapshot | None:
        """Return what a run reads; None: the dataset as it is."""
        rows = self._ledger.query("SELECT * FROM snapshots WHERE run = ? AND root != x''", (run,))
        return _snapshot(rows[0]) if rows else None

    def leftovers(self) -> list[tuple[int, Snapshot]]:
        """Return snapshots, taken or perhaps taken, of runs that are not open."""
        rows = self._ledger.query(
            "SELECT snapshots.* FROM snapshots JOIN runs ON runs.number = run"
            " WHERE state != 'open' ORDER BY run"
        )
        return [(row["run"], _snapshot(row)) for row in rows]

    def drop(self, run: int) -> None:
        """Forget a run's snapshot, which has been released."""
        with self._ledger.transaction() as db:
            db.execute("DELETE FROM snapshots WHERE run = ?", (run,))


def _snapshot(row: sqlite3.Row) -> Snapshot:
    return Snapshot(row["path"], row["root"], row["inode_mask"], row["time_ns"])

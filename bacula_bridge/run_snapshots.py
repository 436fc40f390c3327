"""Snapshots of runs: taken before anything is read, released whatever happens.

Covers: whether a run reads one, what its job log says of it, leaving none behind.
Does not cover: taking and releasing them (shards.snapshot.Snapshotter). Its owner's lock guards it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from shards.ledger import Dataset, Ledger
from shards.snapshot import Snapshot, SnapshotGone, SnapshotRefused, Snapshotter
from shards.snapshots import SnapshotStore


class Reading:
    """What one run that is about to begin is going to read."""

    def __init__(self, owner: RunSnapshots, dataset: Dataset) -> None:
        self._owner = owner
        self._dataset = dataset
        self.path = b""
        self.refusal = ""

    def take(self) -> Snapshot | None:
        """Take a snapshot if the dataset wants one; None: the run reads live."""
        if not self._owner.store.are_wanted(self._dataset.name):
            return None
        try:
            return self._owner.take(self, self._dataset)
        except SnapshotRefused as refused:
            self.refusal = str(refused)
            return None

    def begin(self, run: int, how: str = "") -> None:
        """Say which run it is; how: what else its job logs say of the snapshot."""
        self._owner.begun(self, run, how)


class RunSnapshots:
    """One per coordinator."""

    def __init__(
        self,
        ledger: Ledger,
        snapshotter: Snapshotter | None,
        others_may_go_on: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Without a snapshotter all runs read live. others_may_go_on: taking one takes its time."""
        self.store = SnapshotStore(ledger)
        self._snapshotter = snapshotter
        self._others_may_go_on = others_may_go_on
        self._being_taken: set[bytes] = set()
        self._said: dict[int, str] = {}  # of open runs: what their job logs say

    @contextmanager
    def reading(self, dataset: Dataset) -> Iterator[Reading]:
        """Let a run begin; a snapshot that none came to read is released."""
        reading = Reading(self, dataset)
        try:
            yield reading
        finally:
            self._being_taken.discard(reading.path)
            self.release()

    def take(self, reading: Reading, dataset: Dataset) -> Snapshot:
        """Take a dataset's snapshot, under a name that nobody else's has."""
        if self._snapshotter is None:
            raise SnapshotRefused("no snapshots can be taken here")
        name = f"forebay-{dataset.name}-{secrets.token_hex(4)}"
        reading.path = self._snapshotter.path(dataset.root, name)
        self._being_taken.add(reading.path)
        self.store.keep(Snapshot(reading.path))
        with self._others_may_go_on():
            taken = self._snapshotter.take(dataset.root, reading.path)
        self.store.keep(taken)
        return taken

    def begun(self, reading: Reading, run: int, how: str) -> None:
        """Let a run read what was taken for it."""
        if reading.refusal:
            self._said[run] = f"read live, without a snapshot: {reading.refusal}"
        elif reading.path:
            self.store.assign(reading.path, run)
            self._said[run] = f"read from the snapshot {os.fsdecode(reading.path)}{how}"

    def of(self, run: int) -> Snapshot | None:
        """Return what a run reads; None: the dataset as it is."""
        return self.store.of(run)

    def said(self, run: int) -> str:
        """Return what a run's job log says of its snapshot; empty without one."""
        return self._said.get(run, "")

    def check(self, run: int) -> None:
        """Raise SnapshotGone if somebody has removed what a run reads."""
        snapshot = self.store.of(run)
        if snapshot is not None and not os.path.isdir(snapshot.root):
            raise SnapshotGone(os.fsdecode(snapshot.path))

    def release(self) -> None:
        """Remove those that no open run reads; what stays is tried again with the next run."""
        for snapshot in self.store.leftovers():
            if self._snapshotter is None or snapshot.path in self._being_taken:
                continue
            with suppress(SnapshotRefused):
                self._snapshotter.release(snapshot.path)
                self.store.drop(snapshot.path)

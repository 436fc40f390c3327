"""A walker's loop: take a lease, walk it, commit it, while the next one is being walked.

Covers: two leases at a time, one walked and one made durable and committed; what a failure does.
Does not cover: walking (lease_walker), who gets which lease (coordinator), reaching it (actors).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from filesystems.interface import Filesystem
from filesystems.lease_walker import LeaseWalker, WalkedLease
from filesystems.scan_measures import ScanMeasures
from shards.errors import ForebayError
from shards.ledger import Lease, LeaseLost, LeaseResult
from shards.state import StateDirectory

LEASE_WAIT_S = 5.0
_LOG = logging.getLogger("forebay.walker")


class LeaseSource(Protocol):
    """Where a walker's leases come from; all of its calls are fenced by the walker's epoch."""

    def take(self, wait_s: float) -> Lease | None:
        """Return a lease, waiting up to wait_s for one."""

    def commit(self, lease: int, result: LeaseResult) -> None:
        """Make what was found exist; LeaseLost if it is somebody else's by now."""

    def fail(self, run: int, reason: str) -> None:
        """Say that a run's scan cannot go on."""


class LeaseLoop:
    """Walks leases until it is stopped."""

    def __init__(
        self,
        source: LeaseSource,
        state: StateDirectory,
        open_filesystem: Callable[[bytes], Filesystem],
        excluded: tuple[str, ...] = (),
        measures: ScanMeasures | None = None,
    ) -> None:
        self._source = source
        self._state = state
        self._open_filesystem = open_filesystem
        self._excluded = excluded
        self._walkers: dict[bytes, LeaseWalker] = {}
        self._measures = measures or ScanMeasures(0)

    def serve(self, stopping: threading.Event) -> None:
        """Walk until stopping is set.

        Flushing and committing a lease takes as long as walking 50,000 names; therefore the next
        one is walked meanwhile. Commits keep their order, and there is never more than one under
        way.
        """
        commit: Future[None] | None = None
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="commit") as pool:
                while not stopping.is_set():
                    lease = self._source.take(LEASE_WAIT_S)
                    walked = None if lease is None else self._measured_walk(lease)
                    if commit is not None:
                        commit.result()
                    commit = None if walked is None else pool.submit(self._commit, walked)
                if commit is not None:
                    commit.result()
        finally:
            self._close_walkers()

    def _measured_walk(self, lease: Lease) -> WalkedLease | None:
        self._measures.walking(lease)
        walked = None
        try:
            walked = self._walk(lease)
        finally:
            self._measures.walked(walked)
        return walked

    def _walk(self, lease: Lease) -> WalkedLease | None:
        try:
            walker = self._walker(lease.root, lease.read_root)
            walked = walker.walk(lease, self._state.segments(lease.run))
            if lease.read_root:
                os.stat(lease.read_root)  # if it is gone, names looked gone that are not
            return walked
        except (OSError, ForebayError) as error:
            self._fail(lease, error)
            return None

    def _commit(self, walked: WalkedLease) -> None:
        with self._measures.commits.measure():
            try:
                result = walked.result()
            except OSError as error:
                self._fail(walked.lease, error)
                return
            try:
                self._source.commit(walked.lease.number, result)
            except LeaseLost:  # the run ended meanwhile; what was written is a leftover
                self._measures.lost(walked.lease.dataset)
                return
        self._measures.committed(walked.lease.dataset, result)

    def _fail(self, lease: Lease, error: Exception) -> None:
        self._measures.failed(lease.dataset)
        # Nothing of the lease was committed; without it the run cannot be complete.
        reason = f"the scan of {os.fsdecode(lease.root)} failed: {error}"
        _LOG.error("lease %d: %s", lease.number, reason, extra={"run": lease.run})
        self._source.fail(lease.run, reason)

    def _walker(self, root: bytes, read_root: bytes) -> LeaseWalker:
        place = read_root or root
        if place not in self._walkers:
            self._close_walkers()  # one dataset at a time; adapters are cheap to make
            self._walkers[place] = LeaseWalker(
                self._open_filesystem(place), self._excluded_directories(root, read_root)
            )
        return self._walkers[place]

    def _close_walkers(self) -> None:
        while self._walkers:
            _, walker = self._walkers.popitem()
            walker.close()

    def _excluded_directories(self, root: bytes, read_root: bytes) -> tuple[tuple[int, int], ...]:
        paths = [os.path.realpath(os.fsencode(path)) for path in self._excluded]
        if read_root:  # as they are in the snapshot
            inside = [path for path in paths if path.startswith(root.rstrip(b"/") + b"/")]
            paths += [os.path.join(read_root, os.path.relpath(path, root)) for path in inside]
        status = [os.stat(path) for path in paths if os.path.isdir(path)]
        return tuple((entry.st_dev, entry.st_ino) for entry in status)

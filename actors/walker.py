"""The walker's actor: enumerates one metadata target, lease by lease.

Covers: placement, the loop from lease to commit, fencing by epoch.
Does not cover: walking (filesystems), who gets which lease (coordinator).
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import ray

from actors.calls import answer
from filesystems.detect import detect
from filesystems.lease_walker import LeaseWalker
from shards.errors import ForebayError
from shards.ledger import Lease, LeaseLost
from shards.state import StateDirectory

LEASE_WAIT_S = 5.0


@ray.remote(
    num_cpus=0, max_restarts=-1, max_task_retries=0, concurrency_groups={"control": 1, "walk": 1}
)
class WalkerActor:
    """Enumerate one metadata target. A restart takes a new epoch and new leases."""

    def __init__(
        self,
        coordinator: str,
        target: int,
        state: str,
        threads: int,
        excluded: tuple[str, ...],
    ) -> None:
        # By name: a handle among the arguments would sit in the object store, and a restart would
        # fail with it.
        self._coordinator = ray.get_actor(coordinator)
        self._target = target
        self._state = StateDirectory(Path(state))
        self._threads = threads
        self._excluded = excluded
        self._walkers: dict[bytes, LeaseWalker] = {}
        self._stopping = threading.Event()
        self._role = f"walker:{target}"
        self._epoch = answer(self._coordinator.take_epoch.remote(self._role), "the coordinator")

    @ray.method(concurrency_group="walk")
    def serve(self) -> None:
        """Walk leases until stop(); the caller calls again after a restart."""
        while not self._stopping.is_set():
            reference = self._coordinator.take_lease.remote(
                self._target, self._role, self._epoch, LEASE_WAIT_S
            )
            lease = answer(reference, "the coordinator", LEASE_WAIT_S)
            if lease is not None:
                self._walk(lease)

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Let serve() end after its lease."""
        self._stopping.set()

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

    def _walk(self, lease: Lease) -> None:
        try:
            result = self._walker(lease).walk(lease, self._state.segments(lease.run))
        except (OSError, ForebayError) as error:
            # Nothing of the lease was committed; without it the run cannot be complete.
            reason = f"the scan of {os.fsdecode(lease.root)} failed: {error}"
            answer(self._coordinator.fail_run.remote(lease.run, reason), "the coordinator")
            return
        try:
            reference = self._coordinator.commit_lease.remote(
                lease.number, self._role, self._epoch, result
            )
            answer(reference, "the coordinator")
        except LeaseLost:
            return  # the run ended meanwhile; what was written is a leftover

    def _walker(self, lease: Lease) -> LeaseWalker:
        if lease.root not in self._walkers:
            self._walkers.clear()  # one dataset at a time; adapters are cheap to make
            self._walkers[lease.root] = LeaseWalker(
                detect(lease.root).filesystem, self._threads, self._excluded_directories()
            )
        return self._walkers[lease.root]

    def _excluded_directories(self) -> tuple[tuple[int, int], ...]:
        status = [os.stat(path) for path in self._excluded if os.path.isdir(path)]
        return tuple((entry.st_dev, entry.st_ino) for entry in status)

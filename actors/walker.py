"""The walker's actor: enumerates one metadata target, lease by lease.

Covers: placement, its epoch, reaching the coordinator.
Does not cover: the loop (filesystems.lease_loop), who gets which lease (coordinator).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import ray
from ray.actor import ActorHandle

from actors.calls import answer
from actors.metrics import walker_metrics
from filesystems.interface import Filesystem
from filesystems.lease_loop import LeaseLoop
from filesystems.scan_measures import ScanMeasures
from shards.ledger import Lease, LeaseResult
from shards.state import StateDirectory


class RemoteLeases:
    """The leases of one target, asked of the coordinator's actor (LeaseSource)."""

    def __init__(self, coordinator: ActorHandle, target: int) -> None:
        self._coordinator = coordinator
        self._target = target
        self._role = f"walker:{target}"
        self._epoch = answer(coordinator.take_epoch.remote(self._role), "the coordinator")

    def take(self, wait_s: float) -> Lease | None:
        reference = self._coordinator.take_lease.remote(
            self._target, self._role, self._epoch, wait_s
        )
        return answer(reference, "the coordinator", wait_s)

    def commit(self, lease: int, result: LeaseResult) -> None:
        reference = self._coordinator.commit_lease.remote(lease, self._role, self._epoch, result)
        answer(reference, "the coordinator")

    def fail(self, run: int, reason: str) -> None:
        answer(self._coordinator.fail_run.remote(run, reason), "the coordinator")


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
        excluded: tuple[str, ...],
        open_filesystem: Callable[[bytes], Filesystem],
    ) -> None:
        # By name: a handle among the arguments would sit in the object store, and a restart would
        # fail with it.
        leases = RemoteLeases(ray.get_actor(coordinator), target)
        self._target = target
        self._measures = ScanMeasures(target)
        self._loop = LeaseLoop(
            leases, StateDirectory(Path(state)), open_filesystem, excluded, self._measures
        )
        self._stopping = threading.Event()
        self._metrics = walker_metrics(self._measures)

    @ray.method(concurrency_group="walk")
    def serve(self) -> None:
        """Walk leases until stop(); the caller calls again after a restart."""
        self._loop.serve(self._stopping)

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Let serve() end after its lease."""
        self._stopping.set()

    def __repr__(self) -> str:
        # Ray's dashboard keeps what is said right after __init__, and nothing that changes is then.
        state = self._measures.state()
        return f"walker of target {self._target}{': ' if state else ''}{state}"

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        return os.getpid()

"""The coordinator's actor.

Covers: placement, concurrency and the boundary to Ray.
Does not cover: any decision (bacula_bridge.coordinator).
"""

from __future__ import annotations

from pathlib import Path

import ray

from actors.metrics import Metrics, coordinator_metrics
from bacula_bridge.catalog import Catalog
from bacula_bridge.coordinator import Coordinator, RunStatus
from bacula_bridge.protocol import Hello
from bacula_bridge.source import Joined, Scope, SegmentPage
from filesystems.change_sources import change_source
from filesystems.snapshots import Snapshots
from shards.changes import ChangeSource
from shards.lease import Pacing
from shards.ledger import Dataset, Lease, LeaseResult, Run
from shards.ledger_schema import HsmPolicy
from shards.shard_jobs import CatalogEnd, ReceiptsInfo, ShardJob
from shards.state import StateDirectory

# Each walker and each stream may hold one waiting call; the rest never waits.
WAITING_CALLS_MAX = 256


@ray.remote(
    num_cpus=0,
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"wait": WAITING_CALLS_MAX, "control": 16},
)
class CoordinatorActor:
    """Keep the run ledger. One per state directory: the ledger's lock says so, not Ray."""

    _coordinator: Coordinator
    _metrics: Metrics

    def __init__(self, state: str, catalog: str, targets: int) -> None:
        self._state = StateDirectory(Path(state))
        self._catalog = Catalog(Path(catalog))
        self._targets = targets

    @ray.method(concurrency_group="control")
    def open(self) -> None:
        """Open the ledger. Not in __init__: Ray would make text of its errors."""
        self._coordinator = Coordinator(
            self._state, self._catalog, self._change_source, self._targets, Snapshots()
        )
        self._metrics = coordinator_metrics(self._state, self._catalog, self._state.ledger)

    def _change_source(self, dataset: Dataset) -> ChangeSource | None:
        return change_source(self._state.changes(dataset.name), dataset.name, dataset.root)

    @ray.method(concurrency_group="control")
    def close(self) -> None:
        self._metrics.stop()
        self._coordinator.close()

    @ray.method(concurrency_group="control")
    def define_dataset(
        self,
        name: str,
        filesystem: str,
        root: bytes,
        shards: int,
        pacing: Pacing | None = None,
        hsm: HsmPolicy | None = None,
        snapshot: bool | None = None,
    ) -> Dataset:
        return self._coordinator.define_dataset(
            name, filesystem, root, shards, pacing, hsm, snapshot
        )

    @ray.method(concurrency_group="control")
    def open_run(self, dataset: str, level: str, margin_ns: int = 0) -> Run:
        return self._coordinator.open_run(dataset, level, margin_ns)

    @ray.method(concurrency_group="control")
    def reopen_run(self, number: int) -> Run:
        return self._coordinator.reopen_run(number)

    @ray.method(concurrency_group="control")
    def end_run(self, number: int) -> Run:
        return self._coordinator.end_run(number)

    @ray.method(concurrency_group="control")
    def fail_run(self, number: int, reason: str) -> None:
        self._coordinator.fail_run(number, reason)

    @ray.method(concurrency_group="control")
    def status(self, number: int) -> RunStatus:
        return self._coordinator.status(number)

    @ray.method(concurrency_group="control")
    def job_ended(self, run: int, shard: int, jobid: int, job: str, end: CatalogEnd) -> ShardJob:
        return self._coordinator.job_ended(run, shard, jobid, job, end)

    @ray.method(concurrency_group="control")
    def take_epoch(self, role: str) -> int:
        return self._coordinator.take_epoch(role)

    @ray.method(concurrency_group="wait")
    def take_lease(self, target: int, role: str, epoch: int, wait_s: float) -> Lease | None:
        return self._coordinator.take_lease(target, role, epoch, wait_s)

    @ray.method(concurrency_group="control")
    def commit_lease(self, number: int, role: str, epoch: int, result: LeaseResult) -> None:
        self._coordinator.commit_lease(number, role, epoch, result)

    @ray.method(concurrency_group="control")
    def join(self, hello: Hello) -> Joined:
        return self._coordinator.join(hello)

    @ray.method(concurrency_group="wait")
    def segments(self, run: int, after: int, wait_s: float) -> SegmentPage:
        return self._coordinator.segments(run, after, wait_s)

    @ray.method(concurrency_group="control")
    def scope(self, run: int) -> Scope:
        return self._coordinator.scope(run)

    @ray.method(concurrency_group="control")
    def streamed(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> None:
        self._coordinator.streamed(run, shard, jobid, receipts)

    @ray.method(concurrency_group="control")
    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        self._coordinator.broken(run, shard, jobid, reason)

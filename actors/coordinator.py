"""The coordinator's actor.

Covers: placement, concurrency and the boundary to Ray.
Does not cover: any decision (bacula_bridge.coordinator).
"""

from __future__ import annotations

import logging
import os
import threading
import traceback

import ray

from actors.calls import ActorStarting, open_again
from actors.logs import set_up
from actors.metrics import Metrics, coordinator_metrics
from actors.service import ServiceSpec, WalkerPool
from bacula_bridge.catalog import Catalog
from bacula_bridge.coordinator import Coordinator, RunStatus
from bacula_bridge.errors import CatalogUnavailable
from bacula_bridge.protocol import Hello, Hint
from bacula_bridge.source import Joined, Scope, SegmentPage
from filesystems.change_sources import change_source
from filesystems.snapshots import Snapshots
from shards.changes import ChangeSource
from shards.errors import ForebayError
from shards.lease import Pacing
from shards.ledger import Dataset, Lease, LeaseResult, Run
from shards.ledger_schema import HsmPolicy
from shards.shard_jobs import CatalogEnd, ReceiptsInfo, ShardJob
from shards.state import StateDirectory, StateDirectoryError

# Each walker and each stream may hold one waiting call; the rest never waits.
WAITING_CALLS_MAX = 256
_LOG = logging.getLogger("forebay.coordinator")
TICK_S = 2.0  # how often the catalog is asked which jobs are over
STOP_WAIT_S = 20.0
EXIT_BUG = 70  # EX_SOFTWARE, sysexits(3)


@ray.remote(
    num_cpus=0,
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"wait": WAITING_CALLS_MAX, "control": 16},
)
class CoordinatorActor:
    """Keep the run ledger. One per state directory: the ledger's lock says so, not Ray."""

    def __init__(
        self,
        state: StateDirectory,
        catalog: Catalog,
        targets: int,
        service: ServiceSpec | None = None,
    ) -> None:
        self._state = state
        self._catalog = catalog
        self._targets = targets
        self._service = service
        self._opened: Coordinator | None = None
        self._opening = threading.Lock()
        self._closing = threading.Event()
        self._ticker: threading.Thread | None = None
        self._metrics: Metrics | None = None
        open_again(self.open, "the coordinator")

    @property
    def _coordinator(self) -> Coordinator:
        if self._opened is None:
            raise ActorStarting("the coordinator")
        return self._opened

    @ray.method(concurrency_group="control")
    def open(self) -> None:
        """Open the ledger, if it is not yet. Not in __init__: Ray would make text of its errors."""
        with self._opening:
            if self._opened is not None:
                return
            self._closing.clear()
            if self._service is not None:
                set_up(self._service.log.format, self._service.log.level)
            policy = self._service.policy if self._service else None
            try:
                opened = Coordinator(
                    *(self._state, self._catalog, self._change_source, self._targets, Snapshots()),
                    service=policy,
                )
            except OSError as error:
                folder = str(self._state.ledger.parent)
                raise StateDirectoryError(folder, error.strerror) from error
            try:
                if self._service is not None:
                    self._service.define(opened)
            except ForebayError:
                opened.close()
                raise
            self._opened = opened
            names = {each.name for each in self._service.datasets} if self._service else None
            self._metrics = coordinator_metrics(self._state, self._catalog, names)
            if self._service is not None:
                pool = WalkerPool(self._service, opened)
                self._ticker = threading.Thread(
                    target=self._tick, args=(opened, pool), name="keeper", daemon=True
                )
                self._ticker.start()

    def _tick(self, coordinator: Coordinator, pool: WalkerPool) -> None:
        trouble = ""
        try:
            while not self._closing.wait(TICK_S):
                before, trouble = trouble, ""
                try:
                    pool.step()
                    coordinator.tick()
                except CatalogUnavailable as error:  # jobs run on meanwhile
                    trouble = str(error)
                if trouble != before:
                    _LOG.warning("%s", trouble or "the catalog can be read again")
            pool.stop()
        finally:
            if not self._closing.is_set():
                # A bug. Nobody would close a run any more: better a process that is started anew.
                traceback.print_exc()
                os._exit(EXIT_BUG)

    def _change_source(self, dataset: Dataset) -> ChangeSource | None:
        return change_source(self._state.changes(dataset.name), dataset.name, dataset.root)

    @ray.method(concurrency_group="control")
    def close(self) -> None:
        with self._opening:
            self._closing.set()
            if self._ticker is not None:
                self._ticker.join(STOP_WAIT_S)
            if self._metrics is not None:
                self._metrics.stop()
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    @ray.method(concurrency_group="control")
    def about(self) -> str:
        """Return the digest of the program and the configuration that it was started with."""
        return self._service.digest if self._service else ""

    @ray.method(concurrency_group="control")
    def drain(self, draining: bool = True) -> list[int]:
        return self._coordinator.drain(draining)

    @ray.method(concurrency_group="control")
    def draining(self) -> bool:
        return self._coordinator.draining

    @ray.method(concurrency_group="control")
    def open_runs(self) -> list[RunStatus]:
        return self._coordinator.open_runs()

    def __repr__(self) -> str:
        # Ray asks once, right after __init__.
        return f"coordinator of {self._state.base}"

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

    @ray.method(concurrency_group="wait")
    def join(self, hello: Hello, again: bool = False) -> Joined:
        return self._coordinator.join(hello, again)

    @ray.method(concurrency_group="control")
    def hint(self, hint: Hint) -> None:
        self._coordinator.hint(hint)

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

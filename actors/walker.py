"""The walker's actor: enumerates one metadata target, lease by lease.

Covers: placement, its epoch, reaching the coordinator.
Does not cover: the loop (filesystems.lease_loop), who gets which lease (coordinator).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

from actors.calls import NamedActor
from actors.logs import LogSpec, set_up
from actors.metrics import walker_metrics
from filesystems.interface import Filesystem
from filesystems.lease_loop import LeaseLoop
from filesystems.scan_measures import ScanMeasures
from shards.ledger import Lease, LeaseResult, StaleEpoch
from shards.state import StateDirectory

EXIT_REPLACED = 75  # EX_TEMPFAIL, sysexits(3)
_LOG = logging.getLogger("forebay.walker")


@dataclass(frozen=True, slots=True)
class WalkerSpec:
    """All that a walker is told."""

    coordinator: str  # its name: a handle would sit in the object store, and a restart fail with it
    target: int
    state: StateDirectory
    excluded: tuple[Path, ...]  # folders that it does not enter
    patience_s: float = 0.0  # for how long it waits for a coordinator that is restarted
    log: LogSpec | None = None  # None: nothing is logged


class RemoteLeases:
    """The leases of one target, asked of the coordinator's actor (LeaseSource)."""

    def __init__(self, spec: WalkerSpec) -> None:
        self._coordinator = NamedActor(spec.coordinator, "the coordinator", spec.patience_s)
        self._target = spec.target
        self._role = f"walker:{spec.target}"
        self._epoch = self._coordinator.ask("take_epoch", self._role)

    def take(self, wait_s: float) -> Lease | None:
        asked = (self._target, self._role, self._epoch, wait_s)
        return self._coordinator.ask("take_lease", *asked, wait_s=wait_s)

    def commit(self, lease: int, result: LeaseResult) -> None:
        self._coordinator.ask("commit_lease", lease, self._role, self._epoch, result)

    def fail(self, run: int, reason: str) -> None:
        self._coordinator.ask("fail_run", run, reason)


@ray.remote(
    num_cpus=0, max_restarts=-1, max_task_retries=0, concurrency_groups={"control": 1, "walk": 1}
)
class WalkerActor:
    """Enumerate one metadata target. A restart takes a new epoch and new leases."""

    def __init__(self, spec: WalkerSpec, open_filesystem: Callable[[bytes], Filesystem]) -> None:
        if spec.log is not None:
            set_up(spec.log.format, spec.log.level)
        self._target = spec.target
        excluded = tuple(map(str, spec.excluded))
        self._measures = ScanMeasures(spec.target)
        self._loop = LeaseLoop(
            RemoteLeases(spec), spec.state, open_filesystem, excluded, self._measures
        )
        self._stopping = threading.Event()
        self._metrics = walker_metrics(self._measures)

    @ray.method(concurrency_group="walk")
    def serve(self) -> None:
        """Walk leases until stop(); the caller calls again after a restart."""
        try:
            self._loop.serve(self._stopping)
        except StaleEpoch as error:
            # Ray may have ended this actor while its process was stopped, and will not end it now.
            _LOG.warning("%s", error)
            os._exit(EXIT_REPLACED)

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

"""The bridge's actor: one per data mover.

Covers: placement, and reaching the coordinator from the threads of the streams.
Does not cover: the streams (bacula_bridge.server).
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import ray

from actors.calls import COORDINATOR, NamedActor, open_again
from actors.logs import LogSpec, set_up
from actors.metrics import Metrics, bridge_metrics
from bacula_bridge.catalog import Catalog
from bacula_bridge.protocol import Hello, Hint
from bacula_bridge.server import JOIN_WAIT_S, BridgeServer, StreamProgress
from bacula_bridge.source import Joined, Scope, SegmentPage
from shards.shard_jobs import ReceiptsInfo
from shards.state import StateDirectory


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """All that a bridge is told."""

    socket: Path
    state: StateDirectory
    catalog: Catalog
    mover: str = "here"
    join_wait_s: float = JOIN_WAIT_S
    patience_s: float = 0.0  # for how long streams wait for a coordinator that is restarted
    digest: str = ""  # of program and configuration
    log: LogSpec | None = None  # None: nothing is logged


class RemoteSource:
    """The runs, asked of the coordinator's actor (RunSource)."""

    def __init__(self, patience_s: float) -> None:
        self._coordinator = NamedActor(COORDINATOR, "the coordinator", patience_s)

    def join(self, hello: Hello) -> Joined:
        return self._coordinator.ask("join", hello, again=(hello, True))

    def hint(self, hint: Hint) -> None:
        self._coordinator.ask("hint", hint)

    def segments(self, run: int, after: int, wait_s: float) -> SegmentPage:
        return self._coordinator.ask("segments", run, after, wait_s, wait_s=wait_s)

    def scope(self, run: int) -> Scope:
        return self._coordinator.ask("scope", run)

    def streamed(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> None:
        self._coordinator.ask("streamed", run, shard, jobid, receipts)

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        self._coordinator.ask("broken", run, shard, jobid, reason)


@ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)
class BridgeActor:
    """Serve shard streams on a Unix socket. When it dies its streams end and their jobs fail."""

    def __init__(self, spec: BridgeSpec) -> None:
        self._spec = spec
        self._server: BridgeServer | None = None
        self._metrics: Metrics | None = None
        self._opening = threading.Lock()
        open_again(self.open, f"the bridge of {spec.mover}")

    def open(self) -> None:
        """Listen, if it does not yet. Not in __init__: Ray would make text of its errors."""
        spec = self._spec
        with self._opening:
            if self._server is not None:
                return
            if spec.log is not None:
                set_up(spec.log.format, spec.log.level)
            self._server = BridgeServer(
                *(spec.socket, RemoteSource(spec.patience_s), spec.state, spec.catalog),
                join_wait_s=spec.join_wait_s,
            )
            self._metrics = bridge_metrics(self._server, spec.catalog)

    def progress(self) -> list[StreamProgress]:
        return self._server.progress() if self._server is not None else []

    def connections(self) -> int:
        """Count the jobs that stream or wait for their place."""
        return self._server.connections if self._server is not None else 0

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._metrics is not None:
            self._metrics.stop()
            self._metrics = None

    def about(self) -> str:
        """Return the digest of the program and the configuration that it was started with."""
        return self._spec.digest

    def pid(self) -> int:
        return os.getpid()

    def __repr__(self) -> str:
        # Ray asks once, right after __init__.
        return f"bridge of {self._spec.mover}"

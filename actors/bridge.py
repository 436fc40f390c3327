"""The bridge's actor: one per data mover.

Covers: placement, and reaching the coordinator from the threads of the streams.
Does not cover: the streams (bacula_bridge.server).
"""

from __future__ import annotations

from pathlib import Path

import ray
from ray.actor import ActorHandle

from actors.calls import answer
from actors.metrics import Metrics, bridge_metrics
from bacula_bridge.catalog import Catalog
from bacula_bridge.protocol import Hello
from bacula_bridge.server import BridgeServer, StreamProgress
from bacula_bridge.source import Joined, Scope, SegmentPage
from shards.shard_jobs import ReceiptsInfo
from shards.state import StateDirectory


class RemoteSource:
    """The runs, asked of the coordinator's actor (RunSource)."""

    def __init__(self, coordinator: ActorHandle) -> None:
        self._coordinator = coordinator

    def join(self, hello: Hello) -> Joined:
        return answer(self._coordinator.join.remote(hello), "the coordinator")

    def segments(self, run: int, after: int, wait_s: float) -> SegmentPage:
        reference = self._coordinator.segments.remote(run, after, wait_s)
        return answer(reference, "the coordinator", wait_s)

    def scope(self, run: int) -> Scope:
        return answer(self._coordinator.scope.remote(run), "the coordinator")

    def streamed(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> None:
        answer(self._coordinator.streamed.remote(run, shard, jobid, receipts), "the coordinator")

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        answer(self._coordinator.broken.remote(run, shard, jobid, reason), "the coordinator")


@ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)
class BridgeActor:
    """Serve shard streams on a Unix socket. When it dies its streams end and their jobs fail."""

    _server: BridgeServer
    _metrics: Metrics

    def __init__(
        self, coordinator: ActorHandle, socket_path: str, state: str, catalog: str
    ) -> None:
        self._catalog = Catalog(Path(catalog))
        self._source = RemoteSource(coordinator)
        self._socket = Path(socket_path)
        self._state = StateDirectory(Path(state))

    def open(self) -> None:
        """Listen. Not in __init__: Ray would make text of its errors."""
        self._server = BridgeServer(self._socket, self._source, self._state, self._catalog)
        self._metrics = bridge_metrics(self._server, self._catalog)

    def progress(self) -> list[StreamProgress]:
        return self._server.progress()

    def stop(self) -> None:
        self._server.stop()
        self._metrics.stop()

"""The bridge's Unix socket: one connection per Bacula job.

Covers: listening, who may connect, threads of a stream, keep-alives, silence, bounds on waiting.
Does not cover: what a stream says (stream, protocol), who has which run (source).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from bacula_bridge import events
from bacula_bridge.catalog import Catalog
from bacula_bridge.planner import JobPlan, Planner, Views
from bacula_bridge.protocol import (
    HEADER,
    FrameType,
    Hello,
    Payload,
    ProtocolError,
    check_payload,
    decode_hello,
    decode_hint,
    decode_reason,
    encode_accept,
    encode_reason,
    frame,
    parse_header,
)
from bacula_bridge.source import Joined, JoinLater, JoinRefused, RunSource
from bacula_bridge.stream import StreamState
from bacula_bridge.stream_measures import StreamMeasures, StreamProgress
from shards.errors import ForebayError
from shards.measures import Sample
from shards.order import stream_rows
from shards.plan import Manifest
from shards.receipts import ReceiptsWriter
from shards.segment import SegmentInfo, SegmentStore
from shards.state import StateDirectory, StateDirectoryError
from shards.view import ChainLink

SOCKET_PATH_BYTES_MAX = 107  # sun_path, unix(7), less its NUL
CONNECTIONS_MAX = 256
HELLO_TIMEOUT_S = 30.0
KEEPALIVE_S = 10.0
SILENCE_MAX_S = 60.0
SEGMENT_WAIT_S = 1.0
POLL_S = 0.5  # how soon a blocked sender sees that its stream is broken
ABORT_SEND_S = 2.0
JOIN_WAIT_S = 6 * 3600.0  # for a place in a run, unless the configuration says otherwise

Result = TypeVar("Result")


class SocketUnusable(ForebayError):
    """The bridge cannot listen."""

    template = "cannot listen on {0}: {1}"


class StreamBroken(ForebayError):
    """The stream cannot go on; the job fails."""


class BridgeServer:
    """Serves shard streams until it is stopped."""

    def __init__(
        self,
        path: Path,
        source: RunSource,
        state: StateDirectory,
        catalog: Catalog,
        allowed_uids: frozenset[int] | None = None,
        join_wait_s: float = JOIN_WAIT_S,
    ) -> None:
        self._path = path
        self._join_wait_s = join_wait_s
        self._source = source
        self._state = state
        self._planner = Planner(state, catalog)
        self._allowed_uids = allowed_uids or frozenset({0, os.geteuid()})
        self._lock = threading.Lock()
        self._measures = StreamMeasures()
        self._connections: dict[int, Connection] = {}
        self._next = 0
        self._stopping = threading.Event()
        self._listener = _listen(path)
        events.listening(path)
        self._thread = threading.Thread(target=self._accept, name="bridge-accept", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all streams and remove the socket; their jobs fail."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        with self._lock:
            connections = list(self._connections.values())
        events.stopping(self._path, len(connections))
        for connection in connections:
            connection.shut()
        self._thread.join()
        for connection in connections:
            connection.thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def progress(self) -> list[StreamProgress]:
        """Return the live streams."""
        with self._lock:
            connections = list(self._connections.values())
        return [p for connection in connections if (p := connection.progress()) is not None]

    @property
    def connections(self) -> int:
        """Count the plugins that are connected."""
        return len(self._connections)

    def samples(self) -> list[Sample]:
        """Return what the streams have done, as metrics."""
        with self._lock:  # so that a stream is live or over, never both
            return self._measures.samples(
                lambda: [p for c in self._connections.values() if (p := c.progress()) is not None]
            )

    def _accept(self) -> None:
        while not self._stopping.is_set():
            readable, _, _ = select.select([self._listener], [], [], POLL_S)
            if not readable:
                continue
            try:
                peer, _ = self._listener.accept()
            except OSError:  # the peer went away, or stop() shut the listener
                continue
            self._admit(peer)

    def _admit(self, peer: socket.socket) -> None:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        _pid, uid, _gid = struct.unpack("iII", credentials)
        with self._lock:
            if uid not in self._allowed_uids or len(self._connections) >= CONNECTIONS_MAX:
                why = "it may not" if uid not in self._allowed_uids else "there are too many"
                events.refused_peer(uid, why)
                peer.close()
                return
            number = self._next
            self._next += 1
            connection = Connection(
                *(peer, self._source, self._state, self._planner, self._stopping),
                *(self._measures, self._join_wait_s),
            )
            self._connections[number] = connection
        connection.thread = threading.Thread(
            target=self._run, args=(number, connection), name=f"stream-{number}", daemon=True
        )
        connection.thread.start()

    def _run(self, number: int, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[number]
                if (last := connection.progress()) is not None:
                    self._measures.over(last, is_whole=connection.is_whole)


class Connection:
    """One job's connection: this thread sends, a second one receives."""

    thread: threading.Thread

    def __init__(
        self,
        peer: socket.socket,
        source: RunSource,
        state: StateDirectory,
        planner: Planner,
        stopping: threading.Event,
        measures: StreamMeasures,
        join_wait_s: float,
    ) -> None:
        self._join_wait_s = join_wait_s
        self._peer = peer
        self._source = source
        self._state = state
        self._planner = planner
        self._stopping = stopping
        self._measures = measures
        self.is_whole = False  # its receipts are durable and in the ledger
        self._changed = threading.Condition()
        self._stream: StreamState | None = None
        self._writer: ReceiptsWriter | None = None
        self._hello: Hello | None = None
        self._joined: Joined | None = None
        self._total = 0
        self._broken: str | None = None
        self._done = False
        self._last_sent = time.monotonic()
        self._last_receipt = time.monotonic()

    def shut(self) -> None:
        """Wake both threads; the stream is broken."""
        with contextlib.suppress(OSError):  # it may have gone already
            self._peer.shutdown(socket.SHUT_RDWR)

    def progress(self) -> StreamProgress | None:
        with self._changed:
            if self._stream is None or self._joined is None or self._hello is None:
                return None
            summary = self._writer.summary if self._writer else None
            return StreamProgress(
                self._joined.accept.run,
                self._hello.shard,
                self._hello.jobid,
                self._stream.sent,
                self._stream.acknowledged,
                self._total,
                summary.warnings if summary else 0,
                summary.size_bytes if summary else 0,
                self._stream.ended,
                self._hello.dataset,
                self._idle_s(),
            )

    def _idle_s(self) -> float:
        assert self._stream is not None
        awaited = self._stream.unacknowledged
        return time.monotonic() - self._last_receipt if awaited else 0.0

    def serve(self) -> None:
        """Run the stream to its end, good or bad."""
        try:
            with self._peer:
                self._handshake()
                if self._joined is not None:
                    self._serve_joined()
        except (OSError, EOFError, ProtocolError):
            return  # it never got as far as a stream: the plugin says so in its job log

    def _handshake(self) -> None:
        self._peer.settimeout(HELLO_TIMEOUT_S)
        kind, payload = _read_frame(self._peer)
        if kind is FrameType.HINT:
            hint = decode_hint(payload)
            self._peer.sendall(frame(FrameType.DONE_ACK))  # the hook does not wait for us
            with contextlib.suppress(ForebayError):  # a coordinator that is away; hints may be lost
                self._source.hint(hint)
            return
        if kind is not FrameType.HELLO:
            raise ProtocolError("the first frame is not HELLO")
        try:
            hello = self._hello = decode_hello(payload)
            joined = self._join(hello)
        except ForebayError as error:
            self._measures.refused()
            events.refused_job(self._hello, error)
            self._peer.sendall(encode_reason(FrameType.REFUSE, str(error)))
            if not isinstance(error, JoinRefused):
                raise ProtocolError(str(error)) from error
            return
        self._hello, self._joined = hello, joined

    def _join(self, hello: Hello) -> Joined:
        """Ask until the job has a place; both sides tell one another meanwhile that they live."""
        deadline = time.monotonic() + self._join_wait_s
        while True:
            try:
                with self._measures.joins.measure():
                    return self._keeping_alive(lambda: self._source.join(hello))
            except JoinLater as error:
                if time.monotonic() >= deadline:
                    waited = f"{error}: this job has waited {self._join_wait_s:.0f} s for it"
                    raise JoinRefused(waited) from error
            self._check()
            while select.select([self._peer], [], [], 0)[0]:
                kind, _ = _read_frame(self._peer)
                if kind is not FrameType.KEEPALIVE:
                    raise ProtocolError(f"{kind.name} came before there was an answer to HELLO")

    def _serve_joined(self) -> None:
        assert self._hello is not None
        assert self._joined is not None
        accept, hello = self._joined.accept, self._hello
        place = (accept.run, hello.shard, hello.jobid)
        receiver = threading.Thread(target=self._receive, name="stream-receive", daemon=True)
        try:
            writer = ReceiptsWriter(self._state.receipts(accept.run), hello.shard, hello.jobid)
        except OSError as error:
            refusal = StateDirectoryError(str(self._state.base), error.strerror)
            self._peer.sendall(encode_reason(FrameType.REFUSE, str(refusal)))
            self._tell_broken(str(refusal))
            return
        try:
            with self._changed:
                self._stream, self._writer = StreamState(accept.window), writer
            views = self._open_views(hello.shard)
            note = "; ".join(filter(None, (accept.note, views.note if views else "")))
            self._send(encode_accept(dataclasses.replace(accept, note=note)))
            receiver.start()
            self._send_entries(self._stream, hello.shard, views)
            self._await_done()
            with self._measures.receipts_commits.measure():
                receipts = writer.commit()
            self._source.streamed(*place, receipts)
            self.is_whole = True
            self._send(frame(FrameType.DONE_ACK))
            self._planner.prepare(
                ChainLink(*place, tdate=0, receipts=receipts, margin_ns=self._joined.margin_ns)
            )
        except (OSError, ForebayError) as error:
            reason = str(error)
            self._abort(reason)
            self._tell_broken(reason)
        finally:
            writer.abandon()
            self.shut()
            if receiver.ident is not None:
                receiver.join()

    def _tell_broken(self, reason: str) -> None:
        """Leave a note for the report; what counts is the catalog, so its loss is harmless."""
        assert self._joined is not None
        assert self._hello is not None
        with contextlib.suppress(ForebayError):
            self._source.broken(
                self._joined.accept.run, self._hello.shard, self._hello.jobid, reason
            )

    # Sending

    def _open_views(self, shard: int) -> Views | None:
        """Open what an incremental job is compared with, before it is accepted."""
        assert self._joined is not None
        base, root = self._joined.base, self._joined.accept.root
        if base is None:
            return None
        return self._keeping_alive(lambda: self._planner.views(base, shard, root))

    def _send_entries(self, stream: StreamState, shard: int, views: Views | None) -> None:
        assert self._joined is not None
        if views is None:
            folder = self._state.segments(self._joined.accept.run)
            store = SegmentStore(folder, self._measures.segment_reads)
            pages = self._pages(shard)
        else:
            made = self._plan(shard, views)
            store, pages = made.store, iter([list(made.infos)])
            with self._changed:
                self._total = sum(sum(info.counts[shard]) for info in made.infos)
        for batch in stream_rows(store, pages, shard, self._joined.seed):
            frames = stream.entry_frames(batch)
            while True:
                self._wait_for(lambda: stream.has_room)
                with self._changed:  # the receiver reads the same state
                    if not stream.unacknowledged:
                        self._last_receipt = time.monotonic()  # none was awaited
                    data = next(frames, None)
                if data is None:
                    break
                self._send(data)
        with self._changed:
            data = stream.end_frame()
        self._send(data)

    def _plan(self, shard: int, views: Views) -> JobPlan:
        """Wait for the end of the scan and compare what it found with the views."""
        assert self._joined is not None
        joined, run = self._joined, self._joined.accept.run
        infos: list[SegmentInfo] = []
        everywhere = False
        while True:
            page = self._source.segments(run, infos[-1].number if infos else 0, SEGMENT_WAIT_S)
            if page.everywhere != everywhere:
                everywhere = page.everywhere
                if infos:
                    infos.clear()  # of the changes alone; now the whole tree is looked at
                    continue
            infos += page.infos
            if page.infos:
                continue
            if page.refusal:
                raise StreamBroken(page.refusal)
            if page.scan_ended:
                break
            self._check()
            self._keep_alive()
        manifest = Manifest(
            SegmentStore(self._state.segments(run), self._measures.segment_reads),
            tuple(infos),
            joined.shards,
            joined.seed,
        )
        scope = None if everywhere else self._source.scope(run)
        return self._keeping_alive(
            lambda: self._planner.plan(run, shard, manifest, scope, views, self._check)
        )

    def _keeping_alive(self, work: Callable[[], Result]) -> Result:
        """Do work that takes its time in a thread of its own, and tell the plugin so."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="stream-work") as pool:
            future = pool.submit(work)
            while not wait((future,), timeout=POLL_S).done:
                self._keep_alive()
        return future.result()

    def _pages(self, shard: int) -> Iterator[list[SegmentInfo]]:
        assert self._joined is not None
        run = self._joined.accept.run
        after = 0
        while True:
            page = self._source.segments(run, after, SEGMENT_WAIT_S)
            if page.infos:
                after = page.infos[-1].number
                with self._changed:
                    self._total += sum(sum(info.counts[shard]) for info in page.infos)
                yield list(page.infos)
                continue
            if page.refusal:
                raise StreamBroken(page.refusal)
            if page.scan_ended:
                return
            self._check()
            self._keep_alive()

    def _await_done(self) -> None:
        self._wait_for(lambda: self._done)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(
                    lambda: self._broken is not None or condition(), timeout=POLL_S
                ):
                    break
            self._check()
            self._keep_alive()
        self._check()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise StreamBroken("the bridge is stopping")
        if self._broken is not None:
            raise StreamBroken(self._broken)

    def _keep_alive(self) -> None:
        if time.monotonic() - self._last_sent >= KEEPALIVE_S:
            self._send(frame(FrameType.KEEPALIVE))

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self._peer], [], POLL_S)
            self._check()
            if writable:
                # The plugin may be busy with a huge file for hours: its keep-alives, seen by
                # the receiver, say that it lives.
                view = view[self._peer.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        self._last_sent = time.monotonic()

    def _abort(self, reason: str) -> None:
        """Tell the plugin why, if it still listens; the receiver may be gone already."""
        with contextlib.suppress(OSError):
            self._peer.settimeout(ABORT_SEND_S)
            self._peer.sendall(encode_reason(FrameType.ABORT, reason))

    # Receiving

    def _receive(self) -> None:
        assert self._stream is not None
        assert self._writer is not None
        try:
            self._peer.settimeout(SILENCE_MAX_S)
            while not self._done:
                kind, payload = _read_frame(self._peer)
                self._take(kind, payload, self._stream, self._writer)
        except TimeoutError:
            self._break(f"the plugin was silent for {SILENCE_MAX_S:.0f} s")
        except EOFError:
            self._break("the plugin closed the stream: its job was cancelled or has failed")
        except (OSError, ForebayError) as error:
            self._break(str(error))

    def _take(
        self, kind: FrameType, payload: Payload, stream: StreamState, writer: ReceiptsWriter
    ) -> None:
        if kind is FrameType.KEEPALIVE:
            return
        if kind is FrameType.ABORT:
            raise StreamBroken(f"the plugin gave up: {decode_reason(payload)}")
        if kind not in (FrameType.RECEIPTS, FrameType.DONE):
            raise ProtocolError(f"{kind.name} is not for the plugin to send")
        with self._changed:
            if kind is FrameType.RECEIPTS:
                writer.write(stream.receipts(payload))
                self._last_receipt = time.monotonic()
            else:
                stream.check_done(payload)
                self._done = True
            self._changed.notify_all()

    def _break(self, reason: str) -> None:
        with self._changed:
            if not self._done and self._broken is None:
                self._broken = reason
            self._changed.notify_all()


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise SocketUnusable(str(path), f"the path has more than {SOCKET_PATH_BYTES_MAX} bytes")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)  # /run is empty after a reboot
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # the socket is made with mode 0600, never wider
        try:
            listener.bind(os.fsencode(path))
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS_MAX)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SocketUnusable(str(path), error.strerror) from error
    return listener


def _read_exactly(peer: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        count = peer.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
    return data


def _read_frame(peer: socket.socket) -> tuple[FrameType, bytearray]:
    kind, length, checksum = parse_header(_read_exactly(peer, HEADER.size))
    payload = _read_exactly(peer, length)
    check_payload(payload, checksum)
    return kind, payload

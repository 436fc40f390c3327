"""The reader: takes events from the kernel's queue into the change log, and answers questions.

Covers: the mark, the loop, draining to a position, noticing that the filesystem is gone.
Does not cover: being a process with signals (cluster.watching), looking changes up (source).

One thread does everything. Memory is bounded: a batch is at most BATCH_LOOKS_MAX places and one
read; what waits in the kernel meanwhile merges by object.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from filesystems.fanotify.asking import Listener, answer
from filesystems.fanotify.errors import WatchEnded, WatchFailed, for_call
from filesystems.fanotify.events import METADATA, Event, parse
from filesystems.fanotify.libc import FAN_Q_OVERFLOW, handle_at, watch_filesystem, watch_queue
from filesystems.fanotify.log import ChangeLog, new_head, take_lock
from filesystems.fanotify.looks import Batch, EventIncomplete
from filesystems.fanotify.mounts import device_of, is_whole_filesystem, mounts_below
from filesystems.fanotify.sieve import drop_outside
from filesystems.fanotify.tree import RootIdentity, Tree
from filesystems.fanotify.unclosed import unclosed_inodes
from shards.errors import ForebayError

READ_BYTES = 256 << 10
BATCH_LOOKS_MAX = 10_000
# Events on one object merge while they are queued: let them, for a moment.
MERGE_MS = 100
CHECK_MS = 5_000  # how soon an idle reader sees that its filesystem was unmounted
_INT = struct.Struct("i")


class Reader:
    """The reader of one dataset; its life is a session. Events are queued from construction on."""

    def __init__(self, dataset: str, root: bytes, folder: Path) -> None:
        self.session = uuid.uuid4().hex
        self.sequence = 0  # of the newest event taken in
        self._root = root
        self._batch = Batch()
        self._stopping = False
        with ExitStack() as stack:
            self._queue = self._watch()
            stack.callback(os.close, self._queue)
            stack.callback(os.close, take_lock(folder, dataset))
            with Tree(root) as tree:
                self._identity = self._identify(tree)
                self._device = device_of(tree.descriptor)
                if not self._device:
                    told = "its mount is not in /proc/self/mountinfo"
                    advice = "start the reader in the mount namespace of the data"
                    raise WatchFailed(os.fsdecode(root), told, advice)
                self._is_whole = is_whole_filesystem(tree.descriptor, tree.path())
                self._mounts = mounts_below(tree.path())
            self._own_folder = self._handle_of(folder)
            self.unseen = unclosed_inodes(self._device).unseen
            self._head = new_head(dataset, root, self.session)
            self._log = ChangeLog(folder, self._head)
            stack.callback(self._log.close)
            self._listener = self._listen(folder)
            stack.callback(self._listener.close)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the session."""
        self._resources.close()

    def _watch(self) -> int:
        try:
            queue = watch_queue()
        except OSError as error:
            raise for_call(self._root, "fanotify_init", error.errno or 0) from error
        try:
            watch_filesystem(queue, self._root)
        except OSError as error:
            os.close(queue)
            raise for_call(self._root, "fanotify_mark", error.errno or 0) from error
        return queue

    def _identify(self, tree: Tree) -> RootIdentity:
        try:
            return tree.identity()
        except OSError as error:
            raise for_call(self._root, "name_to_handle_at", error.errno or 0) from error

    def _listen(self, folder: Path) -> Listener:
        try:
            return Listener(folder)
        except OSError as error:
            raise WatchFailed(
                os.fsdecode(self._root),
                f"no socket can be made in {folder}: {error.strerror}",
                "the state directory must be on a filesystem that has Unix sockets",
            ) from error

    def _handle_of(self, folder: Path) -> bytes:
        """Return the handle of our own folder if it is on the watched filesystem.

        Writing the log makes events; to log those would never end.
        """
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            same = device_of(descriptor) == self._device
            return handle_at(descriptor, b".") if same else b""
        finally:
            os.close(descriptor)

    def run(self, stop: int) -> None:
        """Work until the descriptor `stop` is readable or somebody asks to stop.

        Every other end is an exception.
        """
        quiet, every = select.poll(), select.poll()
        for descriptor in (stop, self._listener.fileno()):
            quiet.register(descriptor, select.POLLIN)
            every.register(descriptor, select.POLLIN)
        every.register(self._queue, select.POLLIN)
        while not self._stopping:
            ready = {descriptor for descriptor, _ in every.poll(CHECK_MS)}
            if ready == {self._queue}:
                ready = {descriptor for descriptor, _ in quiet.poll(MERGE_MS)}
            if stop in ready:
                return
            if self._listener.fileno() in ready:
                self._serve()
            self._take_in()
            self._check_watched()

    def _queued(self) -> int:
        """Return the number of events that are queued (the kernel counts their metadata alone)."""
        size = fcntl.ioctl(self._queue, termios.FIONREAD, bytes(_INT.size))
        return int(_INT.unpack(size)[0]) // METADATA.size

    def _take_in(self) -> None:
        """Take in and commit what is queued now; what comes meanwhile is for the next time."""
        left = self._queued()
        while left > 0:
            try:
                raw = os.read(self._queue, READ_BYTES)
            except BlockingIOError:
                break
            for event in parse(raw):
                self._take(event)
                left -= 1
            if self._batch.count >= BATCH_LOOKS_MAX:
                self._commit()
        self._commit()

    def _take(self, event: Event) -> None:
        self.sequence += 1
        if event.mask & FAN_Q_OVERFLOW:
            self._lose("the kernel had no memory for its queue of events")
            return
        if event.place is not None and event.place.directory == self._own_folder:
            return
        try:
            self._batch.add(event, self.sequence)
        except EventIncomplete:
            self._lose(f"an event (mask {event.mask:#x}) did not say where it happened")

    def _lose(self, reason: str) -> None:
        self._batch = Batch()
        self._log.lose(self.sequence, reason)

    def _commit(self) -> None:
        batch, self._batch = self._batch, Batch()
        if batch.found and not self._is_whole:
            try:
                with Tree(self._root) as tree:
                    if tree.identity() == self._identity:
                        drop_outside(batch, tree)
            except (OSError, ForebayError):
                pass  # the root cannot be reached: nothing is known to be outside of it
        if batch.found or batch.gone:
            self._log.add(batch, self.sequence)

    def _check_watched(self) -> None:
        """See that the mark is still there: unmounting its filesystem takes it away in silence."""
        if b"\nfanotify sdev:" not in Path(f"/proc/self/fdinfo/{self._queue}").read_bytes():
            raise WatchEnded(os.fsdecode(self._root), "its filesystem was unmounted")

    def _serve(self) -> None:
        accepted = self._listener.accept()
        if accepted is None:
            return
        peer, question = accepted
        try:
            value = self._answer(question)
        except ForebayError as error:
            answer(peer, {"error": str(error)})
            if isinstance(error, WatchEnded):
                raise
        except BaseException as error:
            answer(peer, {"error": f"the change reader failed: {error}"})
            raise
        else:
            answer(peer, value)

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question:
            case {"ask": "position"}:
                self._arrive(None)
            case {"ask": "changes"}:
                # First: what is closed after this was looked at has its event before the end.
                unclosed = unclosed_inodes(self._device)
                self.unseen = unclosed.unseen
                self._arrive(unclosed.inodes)
            case {"ask": "forget", "session": str(session), "sequence": int(sequence)}:
                if session == self.session:
                    self._log.forget(min(sequence, self.sequence))
            case {"ask": "status"}:
                pass
            case {"ask": "stop"}:
                self._stopping = True
            case _:
                return {"error": f"the change reader does not understand {question}"}
        return {
            "dataset": self._head.dataset,
            "root": os.fsdecode(self._root),
            "identity": self._identity.to_json(),
            "session": self.session,
            "sequence": self.sequence,
            "started": self._head.started,
            "queued": self._queued(),
            "unseen": len(self.unseen),
            "pid": os.getpid(),
        }

    def _arrive(self, unclosed: frozenset[int] | None) -> None:
        """Commit everything that was done before this call, and see that nothing is missed."""
        self._take_in()
        self._check_watched()
        with Tree(self._root) as tree:
            if tree.identity() != self._identity:
                raise WatchEnded(os.fsdecode(self._root), "another directory has taken its place")
            mounts = mounts_below(tree.path())
        if mounts != self._mounts:
            self.sequence += 1
            self._log.add_mounts(sorted(mounts ^ self._mounts), self.sequence)
            self._mounts = mounts
        self._log.arrive(self.sequence, unclosed)

"""Change readers as processes: one for each dataset root, from start to end.

Covers: running one until a signal, starting one in the background, ending one, asking them all;
setting up Lustre's changelogs, which need none.
Does not cover: what a reader does (filesystems.fanotify), printing (commands).
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bacula_bridge.render import check_dataset_name
from cluster.output import plural
from cluster.settings import Settings, default_dataset_name
from filesystems.detect import detect
from filesystems.fanotify.asking import ask
from filesystems.fanotify.log import LOCK_NAME, LogReader
from filesystems.fanotify.reader import Reader
from filesystems.lustre.settings import FILE_NAME as CHANGELOGS_NAME
from filesystems.lustre.settings import LustreChangelogs, tried
from filesystems.lustre.source import LustreSource
from filesystems.mountinfo import mount_point_of
from shards.changes import Gap
from shards.errors import ForebayError, UsageError
from shards.ledger import Ledger

LOG_NAME = "reader.log"  # what a reader in the background says
START_WAIT_S = 30.0
STOP_WAIT_S = 30.0
STATUS_TIMEOUT_S = 5.0
POLL_S = 0.05
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RootDiffers(UsageError):
    """A dataset's root is for ever."""

    template = "dataset {0} is {1}; give {2} the name of its own dataset with --name"


class NotWatched(UsageError):
    """There is no reader to end."""

    template = "dataset {0} is not watched; `forebay watch --status` lists the readers"


class ReaderNotStarted(ForebayError):
    """The process in the background ended, or does not answer."""

    template = "the change reader of {0} did not start: {1}"


class ReaderNotEnded(ForebayError):
    """The process did not end in time."""

    template = "the change reader of {0} (pid {1}) has not ended within {2:.0f} s; look at {3}"


class ChangelogUnknown(UsageError):
    """A word is not MDT=CONSUMER."""

    template = "{0!r} names no changelog; give MDT=CONSUMER, such as scratch-MDT0000=cl1"


class ChangelogsUnusable(ForebayError):
    """The changelogs cannot be read as they were named."""

    template = "the changelogs of {0} cannot be read: {1}"


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What is to be watched."""

    dataset: str
    root: Path


@dataclass(frozen=True, slots=True)
class ReaderStatus:
    """One reader, or the place where one was."""

    dataset: str
    reason: str | None  # why it does not answer; the rest is unknown then
    root: str = ""
    pid: int = 0
    session: str = ""
    started: float = 0.0
    sequence: int = 0
    places: int = 0  # in its log
    queued: int = 0  # events that it has not taken in yet
    unseen: int = 0  # processes that it may not look into
    changelogs: tuple[str, ...] = ()  # MDT=CONSUMER: read at each backup, without a reader


def plan_watch(settings: Settings, directory: Path, name: str | None) -> WatchRequest:
    """Find the dataset that a directory is, or name a new one; raises before any work starts."""
    root = directory.resolve()
    detect(root)
    known = {}
    if settings.state.ledger.exists():
        ledger = Ledger(settings.state.ledger, read_only=True)
        try:
            known = {dataset.name: dataset.root for dataset in ledger.datasets()}
        finally:
            ledger.close()
    if name is None:
        same = [dataset for dataset, path in known.items() if path == os.fsencode(root)]
        name = same[0] if same else default_dataset_name(root)
    dataset = check_dataset_name(name)
    if dataset in known and known[dataset] != os.fsencode(root):
        raise RootDiffers(dataset, os.fsdecode(known[dataset]), directory)
    return WatchRequest(dataset, root)


def watch(settings: Settings, request: WatchRequest, say: Callable[[str], None]) -> None:
    """Be the reader until SIGTERM, SIGINT or `forebay watch --stop`."""
    folder = _folder(settings, request.dataset)
    with _end_signals() as stop, Reader(request.dataset, os.fsencode(request.root), folder) as it:
        if it.unseen:
            say(
                f"cannot look into {plural(len(it.unseen), 'process', 'processes')}: what they"
                " write through mappings or native AIO is seen when they close the file"
            )
        say(f"watching {request.root} as {request.dataset}")
        it.run(stop)
    say(f"no longer watching {request.root}; the next incremental backup scans it")


def _folder(settings: Settings, dataset: str) -> Path:
    settings.state.make()
    return settings.state.changes(dataset)


@contextmanager
def _end_signals() -> Iterator[int]:
    """Yield a descriptor that becomes readable at a signal to end."""
    receiving, sending = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def ignore(number: int, frame: FrameType | None) -> None:
        """The descriptor tells."""

    handlers = {number: signal.signal(number, ignore) for number in _END_SIGNALS}
    before = signal.set_wakeup_fd(sending)
    try:
        yield receiving
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(receiving)
        os.close(sending)


def watch_in_background(settings: Settings, request: WatchRequest) -> ReaderStatus:
    """Start a reader that outlives this command; return once it watches."""
    folder = _folder(settings, request.dataset)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / LOG_NAME
    # Appended to: a second reader must not wipe what the first one says.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    begin = os.fstat(descriptor).st_size
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cli", "watch", request.root, "--name", request.dataset],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",  # a filesystem with a working directory on it cannot be unmounted
            env={**os.environ, "FOREBAY_HOME": str(settings.home)},
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + START_WAIT_S
    while process.poll() is None and time.monotonic() < deadline:
        status = _status(settings, request.dataset)
        if status.pid == process.pid:
            return status
        time.sleep(POLL_S)
    said = log.read_bytes()[begin:].decode("utf-8", "replace").strip().splitlines()
    if process.poll() is None:
        process.terminate()
        said = [f"it does not answer; look at {log}"]
    raise ReaderNotStarted(
        request.dataset, said[-1].removeprefix("forebay: ") if said else f"look at {log}"
    )


def read_changelogs(
    settings: Settings, request: WatchRequest, words: Sequence[str]
) -> ReaderStatus:
    """Let each backup of a dataset read Lustre's changelogs; they are read once to try.

    words are MDT=CONSUMER. Nothing is kept if they cannot be read.
    """
    root = os.fsencode(request.root)
    changelogs = LustreChangelogs(
        root, mount_point_of(root) or b"/", tuple(_changelog(word) for word in words)
    )
    folder = _folder(settings, request.dataset)
    changelogs.check_free(folder)
    with tried(folder):
        try:
            LustreSource(request.dataset, changelogs, folder).position()
        except Gap as gap:
            raise ChangelogsUnusable(request.root, gap) from gap
        changelogs.save(folder)
    return _status(settings, request.dataset)


def _changelog(word: str) -> tuple[str, str]:
    target, _, consumer = word.partition("=")
    if not target or not consumer:
        raise ChangelogUnknown(word)
    return target, consumer


def stop(settings: Settings, dataset: str) -> ReaderStatus:
    """End a reader, or the reading of changelogs; return what it was once it has ended."""
    folder = settings.state.changes(check_dataset_name(dataset))
    if LustreChangelogs.load(folder) is not None:
        status = _status(settings, dataset)
        (folder / CHANGELOGS_NAME).unlink()
        return status
    status = _status(settings, dataset)
    try:
        ask(folder, {"ask": "stop"})
    except Gap as gap:
        raise NotWatched(dataset) from gap
    deadline = time.monotonic() + STOP_WAIT_S
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return status
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ReaderNotEnded(
                        dataset, status.pid, STOP_WAIT_S, folder / LOG_NAME
                    ) from None
            time.sleep(POLL_S)
    finally:
        os.close(lock)


def statuses(settings: Settings) -> list[ReaderStatus]:
    """Ask every reader that there is, or was."""
    folder = settings.state.changes("")
    if not folder.is_dir():
        return []
    return [_status(settings, path.name) for path in sorted(folder.iterdir()) if path.is_dir()]


def _status(settings: Settings, dataset: str) -> ReaderStatus:
    folder = settings.state.changes(dataset)
    if (changelogs := LustreChangelogs.load(folder)) is not None:
        words = tuple("=".join(each) for each in changelogs.consumers)
        return ReaderStatus(dataset, None, os.fsdecode(changelogs.root), changelogs=words)
    try:
        answer: dict[str, Any] = ask(folder, {"ask": "status"}, STATUS_TIMEOUT_S)
        with LogReader(folder, dataset, answer["session"], 0) as log:
            places = log.count()
    except Gap as gap:
        return ReaderStatus(dataset, str(gap))
    return ReaderStatus(
        dataset,
        None,
        answer["root"],
        answer["pid"],
        answer["session"],
        answer["started"],
        answer["sequence"],
        places,
        answer["queued"],
        answer["unseen"],
    )

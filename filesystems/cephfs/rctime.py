"""CephFS's recursive change times as a change source: it needs no reader and keeps no log.

Covers: positions, waiting until changes can be seen, descending where something changed.
Does not cover: what the listed directories are compared with (shards.changed_directories).

ceph.dir.rctime of a directory is the newest ctime of all that is below it. A change moves the one
of its directory and, some seconds later, of each directory above (docs/filesystems/cephfs.md has
what was measured). So a directory whose rctime is older than the position, less a margin for that
lag and for clocks, holds nothing that changed, but for two cases:

- A directory that was moved takes its own rctime along, and so do those below it: all that is in a
  moved directory may look old. Its parents changed, and are listed here. Whoever has the views
  knows that the directory was not there, and looks at all below it.
- A file with several names counts where its first name is. There it is found, and then all its
  names are looked at, as for every such file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ClassVar

from filesystems.cephfs.attributes import cluster_id, recursive_change_second
from shards.changes import (
    CHANGES_MAX,
    RCTIME,
    ChangedDirectory,
    ChangeSet,
    Gap,
    Position,
    Subdirectory,
)
from shards.errors import ForebayError, UsageError
from shards.snapshot import Snapshot

# Between a change and its rctime at the root up to 20 s were measured, and a client keeps what
# was written for 5 s before it tells of it.
SETTLE_S = 30.0
# How far the clocks of clients and metadata servers may be behind this one's, and how much longer
# than that a client may keep what was written (Linux: dirty pages 30 s, attributes 60 s), or a
# request that is replayed when a metadata server fails over (session_autoclose: 300 s).
MARGIN_S = 480.0
MARGIN_VARIABLE = "FOREBAY_CEPHFS_MARGIN_S"
THREADS = 16
_DIRECTORIES_AT_ONCE = 1_024
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class MarginUnusable(UsageError):
    """The environment has a margin that is no time."""

    template = "{0} is {1!r}; give seconds from 0 to 86400"


def margin_s() -> float:
    """Return the margin: the environment's, or the usual one."""
    text = os.environ.get(MARGIN_VARIABLE)
    if text is None:
        return MARGIN_S
    if not text.isascii() or not text.isdigit() or int(text) > 86_400:
        raise MarginUnusable(MARGIN_VARIABLE, text)
    return float(text)


class RctimeSource:
    """Finds what changed in a CephFS tree by descending where rctime is new."""

    name: ClassVar[str] = RCTIME

    def __init__(
        self,
        root: bytes,
        *,
        settle_s: float = SETTLE_S,
        margin_s: float = MARGIN_S,
        wait: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._settle_s = settle_s
        self._margin_s = margin_s
        self._wait = wait
        self._now = now
        self._taken: Position | None = None

    def position(self) -> Position:
        """Return now, by this machine's clock; changes() allows for what is not visible yet."""
        try:
            session = f"{cluster_id(self._root)}/{os.stat(self._root).st_ino}"
        except (OSError, ForebayError) as error:
            raise Gap(f"recursive change times cannot be read: {error}") from error
        self._taken = Position(self.name, session, int(self._now() * 1e9))
        return self._taken

    def forget(self, before: Position) -> None:
        """There is no log to drop anything from."""

    def changes(self, since: Position, snapshot: Snapshot | None = None) -> ChangeSet:
        """Return where to look for what was done between since and the position taken last.

        It waits until what was done before that position shows in the directories above it. With a
        snapshot its directories are listed; whether something below one changed, both tell: what
        was done before it may reach only the live directories above.
        """
        until = self._taken or self.position()
        if (since.source, since.session) != (until.source, until.session):
            raise Gap(
                f"the last position is one of {since.source} {since.session}, not of this root"
            )
        if since.sequence > until.sequence:
            raise Gap("the last position is in the future: the clock was set back")
        left = until.sequence / 1e9 + self._settle_s - self._now()
        if left > 0:
            self._wait(min(left, self._settle_s))
        oldest = int(since.sequence / 1e9 - self._margin_s)
        try:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="rctime") as pool:
                return _Descent(self._root, oldest, pool, snapshot).run()
        except Gap:
            raise
        except (OSError, ForebayError) as error:
            raise Gap(f"recursive change times cannot be read: {error}") from error


class _Descent:
    """One descent, level by level."""

    def __init__(
        self, root: bytes, oldest: int, pool: ThreadPoolExecutor, snapshot: Snapshot | None
    ) -> None:
        self._live = root
        self._root = root if snapshot is None else snapshot.root
        self._mask = -1 if snapshot is None or not snapshot.inode_mask else snapshot.inode_mask
        self._oldest = oldest  # second; what changed before it is known
        self._pool = pool
        self._device = os.stat(self._root).st_dev
        self._names = 0

    def run(self) -> ChangeSet:
        found = ChangeSet(has_links_elsewhere=True)
        level = [b""]
        while level:
            below: list[bytes] = []
            paths = iter(level)
            while some := list(islice(paths, _DIRECTORIES_AT_ONCE)):
                for path, listed in zip(some, self._pool.map(self._list, some), strict=True):
                    if listed is _OLD:
                        continue
                    if listed is None:
                        # Gone, or away for a moment, perhaps after something below it changed.
                        found.subtrees.append(path)
                        continue
                    directory, names = listed
                    found.directories.append(directory)
                    found.names.append(directory.path)
                    found.names.extend(names)
                    below.extend(os.path.join(directory.path, n) for n in directory.subdirectories)
            level = below
        return found

    def _list(self, path: bytes) -> tuple[ChangedDirectory, list[bytes]] | None:
        """List a directory in which something may have changed; _OLD for one without.

        None if it is gone. A subdirectory that goes while it is listed is a name like others.
        """
        full = os.path.join(self._root, path) if path else self._root
        try:
            if recursive_change_second(full) < self._oldest and self._is_old_live(path, full):
                return _OLD
            names: list[bytes] = []
            subdirectories: dict[bytes, Subdirectory] = {}
            with os.scandir(full) as entries:
                for entry in entries:
                    self._count_name()
                    names.append(os.path.join(path, entry.name))
                    status = _directory_status(entry)
                    if status is not None and status.st_dev == self._device:
                        is_changed = status.st_ctime_ns >= self._oldest * 10**9
                        subdirectories[entry.name] = Subdirectory(
                            status.st_ino & self._mask, is_changed
                        )
        except OSError as error:
            if path and error.errno in _GONE:
                return None
            raise
        return ChangedDirectory(path, subdirectories), names

    def _is_old_live(self, path: bytes, full: bytes) -> bool:
        """Tell whether nothing changed in the live directory that a snapshot's is of."""
        if self._root == self._live:
            return True
        live = os.path.join(self._live, path) if path else self._live
        try:
            is_same = os.lstat(live).st_ino == os.lstat(full).st_ino & self._mask
            return is_same and recursive_change_second(live) < self._oldest
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise

    def _count_name(self) -> None:
        # Threads may lose a few of each other's: the bound is one of memory.
        self._names += 1
        if self._names > CHANGES_MAX:
            raise Gap(f"more than {CHANGES_MAX:,} names to look at: a scan costs less")


_OLD = (ChangedDirectory(b"", {}), [])


def _directory_status(entry: os.DirEntry[bytes]) -> os.stat_result | None:
    """Return a directory's attributes; None of what is none, or is gone."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return None
        return entry.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise

"""A client of CephFS in this process: one tree, mounted by libcephfs while walks need it.

Covers: sharing it among walks; giving it back to the cluster when none is left.
Does not cover: that it is the right tree (proof), falling back (filesystem), the library itself
(kernel.cephfs_mount).

What is in a client's cache the cluster has granted to it, and another client that wants to write
has to wait until it is taken back. So a client without walks unmounts after IDLE_S.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
import time

from filesystems.cephfs.proof import paths_in_cephfs, prove
from filesystems.cephfs.settings import CephfsSettings
from filesystems.fanotify.mounts import mounts_below
from filesystems.kernel.cephfs_mount import CephfsMount, CephfsUnusable, CephfsView

IDLE_S = 1.0
RETRY_S = 300.0  # after a failure; meanwhile walks go through the mount
# How much longer than it was told to libcephfs may take to give up.
PATIENCE_S = 5.0
_OTHER_PATH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EACCES})


class CephfsClient:
    """One tree's client. Any thread may use it; a forked process begins with none."""

    def __init__(self, root: bytes, settings: CephfsSettings) -> None:
        self._root = root
        self._settings = settings
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._view: CephfsView | None = None
        self._identity = (0, 0)  # st_dev and inode number of what was mounted
        self._walks = 0
        self._idle: threading.Timer | None = None
        self._failure: CephfsUnusable | None = None
        self._failed_at = 0.0

    def begin(self) -> CephfsView:
        """Mount unless it is mounted; end() has to follow. Raises CephfsUnusable."""
        with self._lock:
            if self._process != os.getpid():
                self._forget()
            self._check_mounts()
            status = os.stat(self._root)
            if self._view is not None and (status.st_dev, status.st_ino) != self._identity:
                if self._walks:
                    raise CephfsUnusable(
                        "the root was replaced, or a walk broke, and others still go on"
                    )
                self._unmount()
            if self._view is None:
                self._mount()
            assert self._view is not None
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            self._walks += 1
            return self._view

    def distrust(self) -> None:
        """A walk broke: perhaps the cluster has shut this client out. The next one mounts anew."""
        with self._lock:
            self._identity = (0, 0)  # no directory's

    def end(self) -> None:
        """A walk is over."""
        with self._lock:
            self._walks -= 1
            if self._walks == 0 and self._view is not None:
                self._idle = threading.Timer(IDLE_S, self.close_if_idle)
                self._idle.daemon = True
                self._idle.start()

    def close_if_idle(self) -> None:
        """Unmount unless there are walks."""
        with self._lock:
            if self._walks == 0 and self._process == os.getpid():
                self._unmount()

    def _check_mounts(self) -> None:
        if below := mounts_below(os.path.realpath(self._root)):
            shown = os.fsdecode(min(below))
            raise CephfsUnusable(f"something else is mounted below the root, at {shown}")

    def _mount(self) -> None:
        if self._failure is not None and time.monotonic() - self._failed_at < RETRY_S:
            raise CephfsUnusable(*self._failure.args)
        try:
            self._view, self._identity = self._mount_any()
        except CephfsUnusable as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise
        self._failure = None

    def _unmount(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._view is not None:
            self._view.mount.close()
            self._view = None

    def _mount_any(self) -> tuple[CephfsView, tuple[int, int]]:
        """Mount the first path that proves to be the tree; return also what that is."""
        found: CephfsUnusable | None = None
        for path in paths_in_cephfs(self._root, self._settings):
            try:
                mount = _mount_within(path, self._settings)
            except CephfsUnusable as error:
                if error.args[1] not in _OTHER_PATH:
                    raise
                found = found or error
                continue
            try:
                view, inode = prove(self._root, mount)
            except CephfsUnusable as error:
                mount.close()
                found = error
                continue
            return view, (view.device, inode)
        assert found is not None
        raise found


# A snapshot's root is a new one for each run.
CLIENTS_MAX = 64
_clients: dict[tuple[bytes, CephfsSettings], CephfsClient] = {}
_clients_lock = threading.Lock()


def client_of(root: bytes, settings: CephfsSettings) -> CephfsClient:
    """Return the process's client of a tree."""
    with _clients_lock:
        # The oldest go first; one that is still used lives as long as its walks.
        while len(_clients) >= CLIENTS_MAX and (root, settings) not in _clients:
            del _clients[next(iter(_clients))]
        return _clients.setdefault((root, settings), CephfsClient(root, settings))


def close_idle_clients() -> None:
    """Unmount what no walk uses, at once."""
    with _clients_lock:
        clients = list(_clients.values())
    for client in clients:
        client.close_if_idle()


atexit.register(close_idle_clients)


def _mount_within(path: bytes, settings: CephfsSettings) -> CephfsMount:
    """Mount, or leave it to a thread that then unmounts again. Raises CephfsUnusable."""
    lock, done = threading.Lock(), threading.Event()
    answer: list[CephfsMount | CephfsUnusable] = []
    is_left = False

    def mount() -> None:
        made: CephfsMount | CephfsUnusable
        try:
            made = CephfsMount(path, settings.user, settings.timeout_s, settings.library)
        except CephfsUnusable as error:
            made = error
        with lock:
            answer.append(made)
            done.set()
            if is_left and isinstance(made, CephfsMount):
                made.close()

    threading.Thread(target=mount, name="cephfs-mount", daemon=True).start()
    done.wait(settings.timeout_s + PATIENCE_S)
    with lock:
        if not answer:
            is_left = True
            raise CephfsUnusable(
                f"the cluster did not answer within {settings.timeout_s} s", errno.ETIMEDOUT
            )
    if isinstance(answer[0], CephfsUnusable):
        raise answer[0]
    return answer[0]

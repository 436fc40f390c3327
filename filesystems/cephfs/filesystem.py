"""A CephFS tree: walked by libcephfs where that is possible, else through its mount.

Covers: choosing between the two for each walk, saying which one it is and why; which rank serves a
directory, by its pins (docs.ceph.com/en/latest/cephfs/multimds).
Does not cover: libcephfs's client (client), incrementals (rctime); subtrees that the balancer moved
and ephemeral pins: only the cluster's administrator sees those, and they change by themselves.

Both give the same rows, so it does not matter to a run if its walks change from one to the other.
Only a cookie of one means nothing to the other: then a directory is listed from its beginning.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Sequence

from filesystems.cephfs.client import CephfsClient, client_of
from filesystems.cephfs.settings import WALK_VARIABLE, CephfsSettings
from filesystems.errors import WalkFailed
from filesystems.interface import Walk, WalkBatch, WalkOptions
from filesystems.kernel.cephfs_mount import CephfsUnusable, CephfsView
from filesystems.kernel.native import NativeWalk
from filesystems.targets import TargetsFilesystem
from shards.lease import PendingDirectory

PIN = b"ceph.dir.pin"  # the rank; -1: as the directory above
_PIN_FORM = re.compile(rb"-1|[0-9]{1,3}")
_NO_PIN = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
_LOG = logging.getLogger("forebay.walker")


class _LibraryWalk(NativeWalk):
    """A walk that keeps the client mounted until it is closed."""

    def __init__(
        self,
        client: CephfsClient,
        view: CephfsView,
        root: bytes,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        target: int,
        include_root: bool,
    ) -> None:
        self._client = client
        self._is_over = False
        try:
            super().__init__(root, directories, options, target, include_root, cephfs=view)
        except BaseException:
            client.distrust()
            client.end()
            raise

    def __next__(self) -> WalkBatch:
        try:
            return super().__next__()
        except WalkFailed:
            self._client.distrust()
            raise

    def close(self) -> None:
        super().close()
        if not self._is_over:
            self._is_over = True
            self._client.end()


class CephfsFilesystem(TargetsFilesystem):
    """A tree on CephFS that is mounted here."""

    name = "cephfs"

    def __init__(
        self, root: str | bytes | os.PathLike[str], settings: CephfsSettings | None = None
    ) -> None:
        super().__init__(root)
        self._settings = CephfsSettings.from_environment() if settings is None else settings
        self._client = client_of(self._root, self._settings)
        self._said = ""

    def names_of_targets(self, highest: int) -> list[str]:
        return [f"rank {index}" for index in range(highest + 1)]

    def target_of_open(self, descriptor: int, above: int) -> int:
        try:
            pin = os.getxattr(descriptor, PIN)
        except OSError as error:
            if error.errno in _NO_PIN:
                return above
            raise
        if _PIN_FORM.fullmatch(pin) is None or pin == b"-1":
            return above
        return int(pin)

    @property
    def access(self) -> str:
        try:
            version = self._begin().mount.version
        except CephfsUnusable as error:
            return f"through the mount: {error}"
        self._client.end()
        return f"by libcephfs {version}"

    def walk_one(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        target: int,
        include_root: bool,
    ) -> Walk:
        try:
            view = self._begin()
        except CephfsUnusable as error:
            if str(error) != self._said:
                self._said = str(error)
                _LOG.warning("%s is walked through its mount: %s", os.fsdecode(self._root), error)
            return super().walk_one(directories, options, target, include_root)
        return _LibraryWalk(
            self._client, view, self._root, directories, options, target, include_root
        )

    def close(self) -> None:
        self._client.close_if_idle()

    def _begin(self) -> CephfsView:
        if not self._settings.by_library:
            raise CephfsUnusable(f"{WALK_VARIABLE} says so")
        try:
            return self._client.begin()
        except OSError as error:
            raise CephfsUnusable(str(error)) from error

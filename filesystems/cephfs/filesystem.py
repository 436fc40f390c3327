"""A CephFS tree: walked by libcephfs where that is possible, else through its mount.

Covers: choosing between the two for each walk, saying which one it is and why.
Does not cover: libcephfs's client (client), incrementals (rctime).

Both give the same rows, so it does not matter to a run if its walks change from one to the other.
Only a cookie of one means nothing to the other: then a directory is listed from its beginning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from filesystems.cephfs.client import CephfsClient, client_of
from filesystems.cephfs.settings import WALK_VARIABLE, CephfsSettings
from filesystems.errors import WalkFailed
from filesystems.interface import MetadataTarget, Walk, WalkBatch, WalkOptions
from filesystems.kernel.cephfs_mount import CephfsUnusable, CephfsView
from filesystems.kernel.native import NativeWalk
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory

_LOG = logging.getLogger(__name__)


class _LibraryWalk(NativeWalk):
    """A walk that keeps the client mounted until it is closed."""

    def __init__(
        self,
        client: CephfsClient,
        view: CephfsView,
        root: bytes,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool,
    ) -> None:
        self._client = client
        self._is_over = False
        try:
            super().__init__(root, directories, options, include_root=include_root, cephfs=view)
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


class CephfsFilesystem(PosixFilesystem):
    """A tree on CephFS that is mounted here."""

    name = "cephfs"

    def __init__(
        self, root: str | bytes | os.PathLike[str], settings: CephfsSettings | None = None
    ) -> None:
        super().__init__(root)
        self._settings = CephfsSettings.from_environment() if settings is None else settings
        self._client = client_of(self._root, self._settings)
        self._said = ""

    def targets(self) -> list[MetadataTarget]:
        return [MetadataTarget(0, "cephfs")]

    @property
    def access(self) -> str:
        try:
            version = self._begin().mount.version
        except CephfsUnusable as error:
            return f"through the mount: {error}"
        self._client.end()
        return f"by libcephfs {version}"

    def walk(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool = False,
    ) -> Walk:
        assert all(directory.target == 0 for directory in directories), "there is one target"
        try:
            view = self._begin()
        except CephfsUnusable as error:
            if str(error) != self._said:
                self._said = str(error)
                _LOG.warning("%s is walked through its mount: %s", os.fsdecode(self._root), error)
            return super().walk(directories, options, include_root)
        return _LibraryWalk(self._client, view, self._root, directories, options, include_root)

    def close(self) -> None:
        self._client.close_if_idle()

    def _begin(self) -> CephfsView:
        if not self._settings.by_library:
            raise CephfsUnusable(f"{WALK_VARIABLE} says so")
        try:
            return self._client.begin()
        except OSError as error:
            raise CephfsUnusable(str(error)) from error

"""From FIDs to paths as they are now.

Covers: asking the filesystem about many FIDs at once, what is inside the root.
Does not cover: which FIDs (log), why they were asked for (source).

Each question is a round trip to a metadata target. They are asked by a few threads, a bounded
number at a time; the answers come in the order of the questions.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Self, TypeVar

from filesystems.lustre.api import LINKS_MAX, Library
from filesystems.lustre.errors import LustreFailed
from filesystems.lustre.fid import Fid

THREADS = 16
QUESTIONS_AT_ONCE = 4_096

# Too long, or encrypted: the object is reported by its number.
_UNTELLABLE = frozenset({errno.EOVERFLOW, errno.ENAMETOOLONG, errno.ENODATA})
Answer = TypeVar("Answer")


class Resolver:
    """Asks below one mount point. Leave it soon: an open directory keeps a filesystem mounted."""

    def __init__(self, library: Library, mount: bytes, threads: int = THREADS) -> None:
        self._library = library
        self._descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fid2path")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        os.close(self._descriptor)

    def _ask_all(
        self, ask: Callable[[bytes], Answer], questions: Iterable[bytes]
    ) -> Iterator[tuple[bytes, Answer]]:
        rest = iter(questions)
        while part := list(islice(rest, QUESTIONS_AT_ONCE)):
            yield from zip(part, self._pool.map(ask, part), strict=True)

    def directory(self, fid: bytes) -> bytes | None:
        """Return the path of a directory relative to the mount point; None if it is gone."""
        found = self._library.paths(self._descriptor, fid, links_max=1)
        return found[0] if found else None

    def directories(self, fids: Iterable[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield each FID with the path of the directory."""
        return self._ask_all(self.directory, fids)

    def names(self, fids: Iterable[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield each FID with the paths of all its links that can be told; none if it is gone."""
        return self._ask_all(self._names, fids)

    def _names(self, fid: bytes) -> list[bytes]:
        try:
            return self._library.paths(self._descriptor, fid, LINKS_MAX)
        except LustreFailed as error:
            if error.errno in _UNTELLABLE:
                return []
            raise

    def plain(self, fids: Iterable[bytes]) -> set[bytes]:
        """Return those that exist and are no directories."""
        return {fid for fid, is_plain in self._ask_all(self._is_plain, fids) if is_plain}

    def _is_plain(self, fid: bytes) -> bool:
        for path in self._names(fid)[:1]:
            try:
                status = os.stat(path or b".", dir_fd=self._descriptor, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    return False
                raise
            # Another object may have come to this path meanwhile.
            is_same = status.st_ino == Fid.from_bytes(fid).inode_number()
            return is_same and not stat.S_ISDIR(status.st_mode)
        return False


def inside(path: bytes, root_path: bytes) -> bytes | None:
    """Return a path as seen from the root; None if it is not below it."""
    if not root_path:
        return path
    if path == root_path:
        return b""
    return path[len(root_path) + 1 :] if path.startswith(root_path + b"/") else None

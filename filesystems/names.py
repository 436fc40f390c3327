"""Look at single names: their rows as a walk would give them, without what is below.

Covers: names that a change source reports; no symbolic link is followed on the way, no other
mount and no excluded directory is entered.
Does not cover: walking what is below a directory (kernel).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from filesystems.errors import for_root
from filesystems.interface import WalkBatch, WalkOptions
from shards.schema import INODE_SCHEMA, RowClass, RowFlag
from shards.shard_function import mix64_column

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
# The name is not there, or what leads to it is no directory any more.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def look_at_names(
    root: bytes, names: Iterable[bytes], options: WalkOptions, target: int = 0
) -> Iterator[WalkBatch]:
    """Yield rows of those names (relative to the root, b"" the root itself) that exist."""
    with _Parents(root, options) as parents:
        rows: list[dict[str, Any]] = []
        for name in sorted(set(names), key=lambda name: name.split(b"/")):
            if (row := parents.row(name, target)) is not None:
                rows.append(row)
            if len(rows) == options.batch_rows:
                yield _grouped(rows, options)
                rows = []
        if rows:
            yield _grouped(rows, options)


@dataclass(slots=True)
class _Open:
    """An open directory on the way to a name."""

    name: bytes
    descriptor: int
    device: int
    inode: int


@dataclass(slots=True)
class _Parents:
    """The directories above the current name, open; names come sorted, so each opens once."""

    root: bytes
    options: WalkOptions
    stack: list[_Open] = field(default_factory=list)

    def __enter__(self) -> _Parents:
        try:
            descriptor = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise for_root(self.root, error.errno or 0) from error
        status = os.fstat(descriptor)
        self.stack.append(_Open(b"", descriptor, status.st_dev, status.st_ino))
        return self

    def __exit__(self, *_: object) -> None:
        while self.stack:
            os.close(self.stack.pop().descriptor)

    def row(self, name: bytes, target: int) -> dict[str, Any] | None:
        """Return the row of a name; None if it is not there."""
        above = name.split(b"/")[:-1] if name else []
        try:
            if not self._enter(above):
                return None
            parent = self.stack[-1]
            last = name.rpartition(b"/")[2]
            status = (
                os.stat(last, dir_fd=parent.descriptor, follow_symlinks=False)
                if name
                else os.stat(parent.descriptor)
            )
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            return _failed(name, error.errno or errno.EIO, len(above) + 1, target)
        row = _row(name, status, parent.inode, len(above) + 1 if name else 0, target)
        if mask := self.options.inode_mask:
            row["ino"] &= mask
            row["parent"] &= mask
        if self._is_other_mount(status.st_dev):
            row["flags"] |= RowFlag.MOUNT_POINT
        elif (status.st_dev, status.st_ino) in self.options.excluded:
            row["flags"] |= RowFlag.EXCLUDED
        return row

    def _is_other_mount(self, device: int) -> bool:
        return self.options.one_filesystem and device != self.stack[0].device

    def _enter(self, above: list[bytes]) -> bool:
        """Open the directories above a name; False if one of them is not to be entered."""
        depth = 0
        while (
            depth < len(above)
            and depth + 1 < len(self.stack)
            and self.stack[depth + 1].name == above[depth]
        ):
            depth += 1
        while len(self.stack) > depth + 1:
            os.close(self.stack.pop().descriptor)
        for part in above[depth:]:
            descriptor = os.open(part, _DIRECTORY, dir_fd=self.stack[-1].descriptor)
            status = os.fstat(descriptor)
            self.stack.append(_Open(part, descriptor, status.st_dev, status.st_ino))
        return not any(
            self._is_other_mount(each.device) or (each.device, each.inode) in self.options.excluded
            for each in self.stack[1:]
        )


def _row(
    name: bytes, status: os.stat_result, parent: int, depth: int, target: int
) -> dict[str, Any]:
    return {
        "path": name,
        "ino": status.st_ino,
        "parent": parent,
        "mode": status.st_mode,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "nlink": status.st_nlink,
        "rdev": status.st_rdev,
        "size": status.st_size,
        "blocks": status.st_blocks,
        "atime": _saturated(status.st_atime_ns),
        "mtime": _saturated(status.st_mtime_ns),
        "ctime": _saturated(status.st_ctime_ns),
        "target": target,
        "flags": 0,
        "error": 0,
        "depth": depth,
    }


def _failed(name: bytes, error: int, depth: int, target: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("ino", "parent", "mode", "uid", "gid", "nlink", "rdev", "size", "blocks"), 0
    )
    row |= {"path": name, "atime": 0, "mtime": 0, "ctime": 0, "target": target, "depth": depth}
    return row | {"flags": int(RowFlag.STAT_FAILED), "error": error}


def _saturated(ns: int) -> int:
    return max(_INT64_MIN, min(ns, _INT64_MAX))


def _grouped(rows: list[dict[str, Any]], options: WalkOptions) -> WalkBatch:
    """Order rows as the kernel does: by shard, then by class (docs/formats/inode-schema.md)."""
    hashes = mix64_column(np.array([row["ino"] for row in rows], dtype=np.uint64), options.seed)
    shards = (hashes % np.uint64(options.shards)).astype(np.int64)
    classes = np.array([_class_of(row) for row in rows])
    depths = np.array([row["depth"] for row in rows])
    within = np.where(classes == RowClass.DIRECTORY, -depths, 0)
    linked = np.where(classes == RowClass.LINKED, hashes, 0).astype(np.uint64)
    order = np.lexsort((linked, within, classes, shards)).tolist()
    for row, shard in zip(rows, shards.tolist(), strict=True):
        row["shard"] = shard
    batch = pa.RecordBatch.from_pylist([rows[place] for place in order], schema=INODE_SCHEMA)
    counts = [
        tuple(
            int(np.count_nonzero((shards == shard) & (classes == row_class)))
            for row_class in (RowClass.PLAIN, RowClass.LINKED, RowClass.DIRECTORY)
        )
        for shard in range(options.shards)
    ]
    return WalkBatch(batch, tuple((plain, linked, folder) for plain, linked, folder in counts))


def _class_of(row: dict[str, Any]) -> RowClass:
    if row["error"]:
        return RowClass.PLAIN
    if stat.S_ISDIR(row["mode"]):
        return RowClass.DIRECTORY
    return RowClass.LINKED if row["nlink"] > 1 else RowClass.PLAIN

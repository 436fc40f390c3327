"""The walker kernel as a Walk. With cephfs_mount the one place where cffi objects are touched.

Covers: starting, iterating, cancelling, freeing; errno to exceptions.
Does not cover: which adapter uses it, for which directories.
"""

from __future__ import annotations

import errno
import functools
import threading
from collections.abc import Sequence

import pyarrow as pa

from filesystems.errors import for_root, for_walk
from filesystems.interface import Walk, WalkBatch, WalkOptions, WalkStats
from filesystems.kernel._walk import ffi, lib
from filesystems.kernel.cephfs_mount import CephfsView
from shards.lease import PendingDirectory
from shards.schema import INODE_SCHEMA

# How long the kernel may keep the calling thread before Python gets to look at signals.
POLL_MS = 200


def mix64(ino: int, seed: int) -> int:
    """Return the kernel's mix64, for comparing it with the other implementations."""
    return int(lib.fw_mix64(ino, seed))


@functools.cache
def kernel_schema() -> pa.Schema:
    """Return the schema that the kernel fills, metadata included."""
    exported = ffi.new("struct ArrowSchema *")
    code = lib.fw_schema(exported)
    if code != 0:
        raise MemoryError("no memory for the INODE schema")
    schema = pa.Schema._import_from_c(_address(exported))
    assert schema.equals(INODE_SCHEMA), "the kernel's columns are not those of shards/schema.py"
    return schema


def _address(pointer: object) -> int:
    return int(ffi.cast("uintptr_t", pointer))


class NativeWalk(Walk):
    """A walk by the C kernel; its threads run from construction on."""

    def __init__(
        self,
        root: bytes,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        target: int = 0,
        include_root: bool = False,
        cephfs: CephfsView | None = None,
    ) -> None:
        self._root = root
        self._cephfs = cephfs  # must not be unmounted before the walk is freed
        self._target = target
        self._shards = options.shards
        self._schema = kernel_schema()
        self._counts = ffi.new("uint32_t[]", 3 * options.shards)
        self._lock = threading.Lock()  # between close and what other threads may call
        self._frontier: list[PendingDirectory] | None = None
        self._final_stats = WalkStats()
        self._walk: object | None = None
        handle = ffi.new("struct fw_walk **")
        excluded = ffi.new("struct fw_identity[]", list(options.excluded))
        elsewhere = ffi.new("struct fw_identity[]", list(options.elsewhere))
        # `kept` holds the memory of the paths until fw_start has copied them.
        kept = [ffi.from_buffer(directory.path) for directory in directories]
        starts = ffi.new("struct fw_pending[]", len(kept))
        for start, path, directory in zip(starts, kept, directories, strict=True):
            start.path, start.path_size, start.cookie = path, len(path), directory.cookie
            start.device, start.inode = directory.device, directory.inode
        native = ffi.new("struct fw_options *", _native_options(options))
        native.target = target
        native.excluded, native.excluded_count = excluded, len(options.excluded)
        native.elsewhere, native.elsewhere_count = elsewhere, len(options.elsewhere)
        native.flags |= lib.FW_INCLUDE_ROOT if include_root else 0
        if cephfs is not None:
            native.cephfs, native.device = cephfs.mount.handle, cephfs.device
            native.flags |= lib.FW_BIRTH_TIMES if cephfs.has_birth_times else 0
        if b"\0" in root:
            raise for_root(root, errno.ENOENT)
        code = lib.fw_start(root, native, starts, len(kept), handle)
        assert code != -errno.EINVAL, "a start directory's path could lead out of the root"
        if code != 0:
            raise for_root(root, -code)
        self._walk = ffi.gc(handle[0], lib.fw_free)

    def __next__(self) -> WalkBatch:
        if self._walk is None:
            raise StopIteration
        array = ffi.new("struct ArrowArray *")
        result = lib.FW_TIMEOUT
        while result == lib.FW_TIMEOUT:
            result = lib.fw_next(self._walk, array, self._counts, POLL_MS)
        if result == lib.FW_BATCH:
            batch = pa.RecordBatch._import_from_c(_address(array), self._schema)
            numbers = ffi.unpack(self._counts, 3 * self._shards)
            counts = tuple(zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True))
            return WalkBatch(batch, counts)
        if result == lib.FW_END:
            self._frontier = self._read_frontier()
            self.close()
            raise StopIteration
        self.close()
        raise for_walk(self._root, -result)

    def _read_frontier(self) -> list[PendingDirectory]:
        item = ffi.new("struct fw_pending *")
        frontier: list[PendingDirectory] = []
        while lib.fw_frontier(self._walk, len(frontier), item):
            path = bytes(ffi.buffer(item.path, item.path_size))
            frontier.append(
                PendingDirectory(path, item.cookie, self._target, item.device, item.inode)
            )
        return frontier

    @property
    def frontier(self) -> list[PendingDirectory]:
        assert self._frontier is not None, "the frontier is known at the end of the iteration"
        return self._frontier

    @property
    def stats(self) -> WalkStats:
        with self._lock:
            return self._final_stats if self._walk is None else self._read_stats()

    def _read_stats(self) -> WalkStats:
        native = ffi.new("struct fw_stats *")
        lib.fw_stats(self._walk, native)
        return WalkStats(
            entries=native.entries,
            directories=native.directories,
            bytes=native.bytes,
            errors=native.errors,
            vanished=native.vanished,
            seconds=native.nanoseconds / 1e9,
            threads=native.threads,
            threads_active=native.threads_active,
            threads_high=native.threads_high,
            backoffs=native.backoffs,
            latency_s=native.latency_ns / 1e9,
            reopened=native.reopened,
            descriptors_high=native.descriptors_high,
            pending_high=native.pending_high,
            chunks_high=native.chunks_high,
            steals=native.steals,
            splits=native.splits,
        )

    def cancel(self) -> None:
        with self._lock:
            if self._walk is not None:
                lib.fw_cancel(self._walk)

    def close(self) -> None:
        with self._lock:
            if self._walk is not None:
                lib.fw_cancel(self._walk)
                self._final_stats = self._read_stats()
                ffi.release(self._walk)
                self._walk = None


def _native_options(options: WalkOptions) -> dict[str, int]:
    flags = lib.FW_ONE_FILESYSTEM if options.one_filesystem else 0
    flags |= lib.FW_DONT_SYNC if options.dont_sync else 0
    return {
        "threads": options.threads,
        "threads_start": options.threads_start,
        "latency_target_ns": options.latency_target_us * 1000,
        "shards": options.shards,
        "seed": options.seed,
        "budget_rows": options.budget_rows,
        "batch_rows": options.batch_rows,
        "descriptors_max": options.descriptors_max,
        "inode_mask": options.inode_mask,
        "flags": flags,
    }

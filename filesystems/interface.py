"""What every filesystem adapter offers: its metadata targets, and walks below its root.

Covers: the interface and the values that go through it.
Does not cover: how an adapter enumerates (posix, kernel), what a row means (inode-schema.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

import pyarrow as pa

from shards.errors import UsageError
from shards.lease import THREADS_AUTOMATIC, PendingDirectory
from shards.shard_function import SHARDS_MAX

THREADS_MAX = 256
LATENCY_TARGET_US_MAX = 2_000_000
BATCH_ROWS_MAX = 1 << 20
DESCRIPTORS_MIN = 8
DESCRIPTORS_MAX = 1 << 16
SEED_MAX = (1 << 64) - 1

# For each shard its rows by class: plain, linked, directory.
Counts = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class MetadataTarget:
    """What serves a part of the namespace."""

    index: int  # in the run; the `target` column
    name: str


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """How to walk; the same for all walks of a run but for the budget."""

    shards: int
    seed: int
    threads: int = 2  # or THREADS_AUTOMATIC
    threads_start: int = 0  # automatic: begin with so many, as an earlier walk ended; 0: the cores
    # Automatic: the number is halved when calls take longer than this; 0: only when fewer threads
    # would do as much. Below what the filesystem takes at rest, one thread is left.
    latency_target_us: int = 0
    budget_rows: int = 0  # give the rest back as a frontier after about so many rows; 0: none
    batch_rows: int = 65_536
    one_filesystem: bool = True
    excluded: tuple[tuple[int, int], ...] = ()  # (st_dev, inode) of directories not to descend into
    # The same, of directories that another target's walker is to list: they go to the frontier,
    # with device and inode, from the beginning (cookie 0).
    elsewhere: tuple[tuple[int, int], ...] = ()
    hands_over: bool = True  # what other targets serve; False: this walk lists all of it
    descriptors_max: int = 0  # directories open at once; 0: half of the process's limit
    inode_mask: int = 0  # bits of an inode number that are rows' (a snapshot's are the live ones)
    dont_sync: bool = False  # attributes from the client's cache will do (AT_STATX_DONT_SYNC)

    def __post_init__(self) -> None:
        _check("shards", self.shards, 1, SHARDS_MAX)
        _check("seed", self.seed, 0, SEED_MAX)
        _check("threads", self.threads, THREADS_AUTOMATIC, THREADS_MAX)
        _check("threads_start", self.threads_start, 0, THREADS_MAX)
        _check("latency_target_us", self.latency_target_us, 0, LATENCY_TARGET_US_MAX)
        if self.latency_target_us > 0 and self.threads != THREADS_AUTOMATIC:
            raise UsageError(
                f"a latency target of {self.latency_target_us} us needs threads = 0 (automatic);"
                f" {self.threads} threads are a fixed number"
            )
        _check("budget_rows", self.budget_rows, 0, SEED_MAX)
        _check("batch_rows", self.batch_rows, 1, BATCH_ROWS_MAX)
        if self.descriptors_max != 0:
            _check("descriptors_max", self.descriptors_max, DESCRIPTORS_MIN, DESCRIPTORS_MAX)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}; give a number from {low} to {high}")


@dataclass(frozen=True, slots=True)
class WalkBatch:
    """Rows grouped by shard and class (inode-schema.md), and how many there are of each."""

    batch: pa.RecordBatch
    counts: Counts


@dataclass(frozen=True, slots=True)
class WalkStats:
    """What a walk has done so far."""

    entries: int = 0  # names with a row; an inode with three names counts three
    directories: int = 0  # read to their end
    bytes: int = 0  # sizes of regular files, counted for each name
    errors: int = 0  # rows with an error, failed listings among them
    vanished: int = 0  # names that were gone before their attributes could be read
    seconds: float = 0.0
    threads: int = 0  # that were started; fewer than asked for where descriptors are few
    threads_active: int = 0  # that work at once, now
    threads_high: int = 0  # most that did
    backoffs: int = 0  # times their number was halved because calls took too long
    latency_s: float = 0.0  # of calls that waited, smoothed; 0 where the number is fixed
    reopened: int = 0  # directories closed for want of descriptors and opened again
    descriptors_high: int = 0  # most directories open at once
    pending_high: int = 0  # most tasks waiting with one thread
    chunks_high: int = 0  # most chunks of rows (up to 2,048 each) waiting for the consumer
    steals: int = 0
    splits: int = 0


class Walk(ABC, Iterator[WalkBatch]):
    """One walk, which is one lease. Use it as a context manager; leaving it frees everything.

    One thread iterates and closes; any thread may read stats or cancel. A cancelled or broken
    walk raises in the iteration, it never just ends.
    """

    @property
    @abstractmethod
    def frontier(self) -> list[PendingDirectory]:
        """What is still to be listed; valid once the iteration has ended."""

    @property
    @abstractmethod
    def stats(self) -> WalkStats:
        """What has been done so far; at the end, and after close, the final figures."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop soon; the iteration then raises WalkCancelled."""

    @abstractmethod
    def close(self) -> None:
        """Stop and free; batches already given out stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Filesystem(ABC):
    """A tree on one kind of filesystem."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def root(self) -> bytes:
        """Absolute path of the tree's root on this node."""

    @property
    @abstractmethod
    def access(self) -> str:
        """Say how walks reach the tree, and why not in a better way."""

    @abstractmethod
    def targets(self) -> list[MetadataTarget]:
        """Return what serves the namespace, in the order of the `target` column."""

    @abstractmethod
    def target_of(self, directory: bytes) -> int:
        """Return the index of the target that serves a directory, by its path below the root.

        Raises OSError if it cannot be opened.
        """

    @abstractmethod
    def walk(
        self,
        directories: Sequence[PendingDirectory],
        options: WalkOptions,
        include_root: bool = False,
    ) -> Walk:
        """List the directories and all below them; rows for their names, not for themselves.

        include_root adds the row of the root itself. All directories are of one target. With a
        budget the union of the rows of this walk and of walks of its frontier is the whole.
        A directory read in part is continued only if it is still the one that its device and
        inode name; another one at its path is listed from its beginning.
        """

    def close(self) -> None:  # noqa: B027 (most adapters keep nothing)
        """Give back at once what is kept between walks; the next walk gets it again."""

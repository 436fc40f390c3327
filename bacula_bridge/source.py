"""What the bridge needs of whoever keeps the runs.

Covers: the interface between streams and the coordinator, and the values that cross it.
Does not cover: how it is reached (an actor in production, a plain object in tests).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bacula_bridge.protocol import Accept, Hello, Hint
from shards.errors import ForebayError
from shards.segment import SegmentInfo
from shards.shard_jobs import ReceiptsInfo
from shards.view import ChainLink


class JoinRefused(ForebayError):
    """The job cannot have a stream; the sentence goes to the job log."""


class JoinLater(ForebayError):
    """There is no place for the job yet; whoever asks does so again, for a bounded time."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a job that is no Full is compared with."""

    chain: tuple[ChainLink, ...]  # that it builds on, oldest first
    currents: tuple[tuple[ChainLink, ...], ...]  # of all shards: everything good they have saved


@dataclass(frozen=True, slots=True)
class Joined:
    """A job's place in a run."""

    accept: Accept
    seed: int
    shards: int
    margin_ns: int
    base: Base | None = None  # None: everything is sent


@dataclass(frozen=True, slots=True)
class SegmentPage:
    """Segments committed since the last page."""

    infos: tuple[SegmentInfo, ...]
    scan_ended: bool
    everywhere: bool = True  # False: the run looks at what a change source named, and no further
    refusal: str | None = None  # why there will never be more


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that are compared, with what is below some of them."""

    names: tuple[bytes, ...]
    subtrees: tuple[bytes, ...]


class RunSource(Protocol):
    """The runs, as a stream sees them. Calls may block for as long as they say."""

    def join(self, hello: Hello) -> Joined:
        """Give a job its shard of the dataset's open run.

        JoinRefused if that cannot be, JoinLater if it cannot be yet.
        """

    def hint(self, hint: Hint) -> None:
        """Take note of what a hook says; nothing depends on it."""

    def segments(self, run: int, after: int, wait_s: float) -> SegmentPage:
        """Return what was committed after a segment number, waiting up to wait_s for news.

        While a run looks at changes only, a page has those; once it looks everywhere, only what
        that gives, from the beginning.
        """

    def scope(self, run: int) -> Scope:
        """Return what a run looks at that does not look everywhere."""

    def streamed(self, run: int, shard: int, jobid: int, receipts: ReceiptsInfo) -> None:
        """Record durable receipts; the job may end well once this returns."""

    def broken(self, run: int, shard: int, jobid: int, reason: str) -> None:
        """Record that a stream ended before its end."""

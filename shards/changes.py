"""Change sources: where to look for what has changed since a position.

Covers: the interface, positions, the gap.
Does not cover: any source (filesystems), how a run uses it (bacula_bridge.scoping).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from shards.errors import ForebayError


class Gap(ForebayError):
    """The source cannot say what changed since a position; only a full scan can."""


@dataclass(frozen=True, slots=True)
class Position:
    """A moment in the life of a change source: everything done before it lies before it."""

    source: str
    session: str  # of the reader; another one means that changes may have been missed
    sequence: int

    def to_json(self) -> str:
        return json.dumps([self.source, self.session, self.sequence])

    @classmethod
    def from_json(cls, text: str) -> Self:
        source, session, sequence = json.loads(text)
        return cls(source, session, sequence)


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Where to look; more than has changed, never less. Paths are relative to the root."""

    names: list[bytes] = field(default_factory=list)  # each on its own
    subtrees: list[bytes] = field(default_factory=list)  # with all that is, or was, below
    inodes: list[int] = field(default_factory=list)  # all names of these inode numbers


class ChangeSource(Protocol):
    """Says where to look. Both calls raise Gap, with the sentence that goes to the job log."""

    name: ClassVar[str]

    def position(self) -> Position:
        """Return where the source stands: everything done before this call is at or before it."""

    def changes(self, since: Position) -> ChangeSet:
        """Return where to look for everything that was done after a position."""

    def forget(self, before: Position) -> None:
        """Let the source drop what no position from this one on needs."""

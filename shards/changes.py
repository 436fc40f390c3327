"""Change sources: where to look for what has changed since a position.

Covers: the interface, positions, the gap.
Does not cover: any source (filesystems), how a run uses it (bacula_bridge.scoping).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, Self

from shards.errors import ForebayError
from shards.keys import name_key
from shards.snapshot import Snapshot

# More than that is no incremental any more: a scan costs less, in memory as in time.
CHANGES_MAX = 1_000_000
RCTIME = "rctime"  # the source that sees what is there, not what was done (filesystems.cephfs)


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


class Subdirectory(NamedTuple):
    """A directory as its parent's listing showed it."""

    inode: int
    is_changed: bool  # its own attributes, or its name, since the position


@dataclass(frozen=True, slots=True)
class ChangedDirectory:
    """A directory that was listed: what is missing in it was removed.

    Of its subdirectories only those are in the change set that changed themselves, or where
    something below did; one that was moved here is not, if nothing in it changed.
    """

    path: bytes
    subdirectories: dict[bytes, Subdirectory]  # by name


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Where to look; more than has changed, never less. Paths are relative to the root."""

    names: list[bytes] = field(default_factory=list)  # each on its own
    subtrees: list[bytes] = field(default_factory=list)  # with all that is, or was, below
    inodes: list[int] = field(default_factory=list)  # all names of these inode numbers
    # For sources that see what is there now and not what was done: to be compared with the views
    # (changed_directories). Their present names are among the names.
    directories: list[ChangedDirectory] = field(default_factory=list)
    # Of a file that has a name outside the root as well a change may not be in here.
    has_links_elsewhere: bool = False


class ChangeSource(Protocol):
    """Says where to look. Both calls raise Gap, with the sentence that goes to the job log."""

    name: ClassVar[str]

    def position(self) -> Position:
        """Return where the source stands: everything done before this call is at or before it."""

    def changes(self, since: Position, snapshot: Snapshot | None = None) -> ChangeSet:
        """Return where to look for everything that was done after a position.

        With a snapshot that is where the names will be looked at; it is later than the position
        that was taken last.
        """

    def forget(self, before: Position) -> None:
        """Let the source drop what no position from this one on needs."""


def without_covered(
    names: Iterable[bytes], subtrees: Iterable[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Leave out what is in a subtree anyway; both sorted by key."""
    # As keys of directories, so that a subtree comes right before all that it covers.
    is_subtree = {name_key(path, is_directory=True): True for path in subtrees}
    keys = {name_key(path, is_directory=True): False for path in names} | is_subtree
    kept: tuple[list[bytes], list[bytes]] = ([], [])
    covering: bytes | None = None
    for key in sorted(keys):
        if covering is not None and (covering == b"\0" or key.startswith(covering)):
            continue
        if keys[key]:
            covering = key
        kept[keys[key]].append(key[:-1].replace(b"\0", b"/"))
    return kept

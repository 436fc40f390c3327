"""Where an event makes us look: pure.

Covers: what has to be compared after an event, merging of what was to be compared anyway.
Does not cover: events as bytes (events), keeping it (log), finding out where it is now (source).

The queue merges events on one object, so a mask says what happened, never how often or in what
order; and names may be used again for other things. Therefore only the *set* of places is kept.

Why that is exact. Take a path that differs between two moments. If its directory is the same
object at the same path at both, then either the entry changed hands (ENTRY or TREE in that
directory) or the inode changed: through this name (LOOK), through another name, or through none
that still exists (INODE: all names of the inode). If its directory is not the same, some directory
above it is the last one that is the same object at the same path; there, an entry that is or was a
directory changed hands: TREE, at a path that is still right. Nothing else needs to be found again:
a directory that is gone, moved out or moved twice has its TREE in a directory that is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from filesystems.fanotify.events import Event, Place
from filesystems.fanotify.libc import (
    FAN_ATTRIB,
    FAN_CLOSE_WRITE,
    FAN_CREATE,
    FAN_DELETE,
    FAN_DELETE_SELF,
    FAN_MODIFY,
    FAN_ONDIR,
    FAN_RENAME,
)

_CONTENT = FAN_MODIFY | FAN_ATTRIB | FAN_CLOSE_WRITE


class Kind(IntEnum):
    """What has to be compared; the numbers are in the log."""

    LOOK = 1  # the name
    ENTRY = 2  # the name and its directory, whose times moved
    TREE = 3  # the name with all below it, and its directory
    INODE = 4  # all names of an inode


class Look(NamedTuple):
    """One place to look at; INODE has no name, and its own handle for the directory's."""

    handle: bytes
    name: bytes  # b"" is what the handle leads to itself
    kind: Kind
    through: Place | None = None  # for INODE: the name that the event came by


class EventIncomplete(Exception):
    """An event does not say where: to be treated as lost events are."""


def looks(event: Event) -> Iterator[Look]:
    """Yield where to look after an event."""
    is_directory = bool(event.mask & FAN_ONDIR)
    if event.mask & FAN_RENAME:
        yield from _renamed(event, is_directory)
    if event.mask & (FAN_CREATE | FAN_DELETE):
        # A directory also when it is made: all in it is new, and one TREE is less than many names.
        kind = Kind.TREE if is_directory else Kind.ENTRY
        yield Look(*_needed(event.place), kind)
    if event.mask & _CONTENT:
        yield from _changed(event)


def _renamed(event: Event, is_directory: bool) -> Iterator[Look]:
    # What is below a renamed directory makes no events of its own.
    kind = Kind.TREE if is_directory else Kind.ENTRY
    yield Look(*_needed(event.old), kind)
    yield Look(*_needed(event.new), kind)
    if not is_directory:  # its ctime moves, which its other names show as well
        if event.inode is None:
            raise EventIncomplete
        yield Look(event.inode, b"", Kind.INODE, event.new)


def _changed(event: Event) -> Iterator[Look]:
    """Yield the name that was used, and the inode.

    The inode too because the name is that of the opened file, whatever became of it: O_TMPFILE's
    "#123" while the file has been linked elsewhere, or a name removed meanwhile. link(), unlink()
    and rename() onto a name report the inode whose link count moved without any name at all, as do
    writes through a file handle (a kernel NFS server).
    """
    place = event.place
    if place is not None:
        yield Look(place.directory, b"" if place.name == b"." else place.name, Kind.LOOK)
    if event.inode is not None:
        yield Look(event.inode, b"", Kind.INODE, place)
    elif place is None:
        raise EventIncomplete


def _needed(place: Place | None) -> Place:
    if place is None:
        raise EventIncomplete
    return place


class Batch:
    """Looks that are not in the log yet, newest sequence each. What is gone takes its looks along.

    A handle never leads to anything again once its inode was destroyed: the looks that hang on it
    can go. For a directory, what happened in it is covered by its removal from its parent.
    """

    def __init__(self) -> None:
        self.found: dict[bytes, dict[tuple[bytes, Kind], tuple[int, Place | None]]] = {}
        self.gone: set[bytes] = set()
        self.count = 0  # of looks put in; those kept are fewer

    def add(self, event: Event, sequence: int) -> None:
        """Take an event in; raises EventIncomplete."""
        if event.mask & FAN_DELETE_SELF:
            # The kernel reports it for directories as for "." in them, for others by inode.
            is_directory = bool(event.mask & FAN_ONDIR)
            handle = _needed(event.place).directory if is_directory else event.inode
            if handle is None:
                raise EventIncomplete
            self.found.pop(handle, None)
            self.gone.add(handle)
            return
        for look in looks(event):
            kinds = self.found.setdefault(look.handle, {})
            key = (look.name, look.kind)
            through = look.through or kinds.get(key, (0, None))[1]
            kinds[key] = (sequence, through)
            self.count += 1

    def drop(self, handle: bytes) -> None:
        """Forget the looks in a directory."""
        self.found.pop(handle, None)

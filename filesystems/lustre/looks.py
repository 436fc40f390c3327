"""Where a record makes us look: pure.

Covers: what has to be compared after a record, merging of what was to be compared anyway.
Does not cover: records as bytes (records), keeping it (log), finding out where it is now (resolve).

Only the *set* of places is kept, each with the newest sequence, so the order of records does not
matter, neither on one metadata target nor between two. Nor does it matter whether a rename between
two targets left its record on both or on one of them: each such record names both places. Why a
set of places is exact is argued in filesystems/fanotify/looks.py; it holds here with FIDs for
handles, which are never used again. Three things differ:

- RENME does not say whether a directory was moved, and all below one moves with it. Where an
  earlier record told that the FID is no directory the two names are enough; else they are TREE
  looks that carry the FID (`about`), so that it can be asked once, when changes are looked up.
- MTIME, CTIME and ATIME records are left out by Lustre for an object that has a record of the
  kinds in DATA since anything was last cleared. So all of those are looked at, ATIME as well, and
  looking has to come after clearing.
- LYOUT of a directory (`lfs migrate -m`, `lfs setdirstripe`) may destroy stripes that earlier
  records name as the directory, and nothing leads from those to it any more. So all below it is
  looked at. Of a file nothing more is: the TREE is about the target itself.
- MIGRT gives a file another FID, hence another inode number: the old and the new one are looked at.

Types that change nothing that is saved (OPEN, NOPEN, GXATR) are skipped. A type that is not
known here is looked at as the most that its fields can mean: the target, its name with all below
it, and the same of a source. A record whose names cannot be found in it (records) makes us look at
all below its directories.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from filesystems.lustre.fid import ZERO_FID
from filesystems.lustre.records import CLM_FINI, LAST_LINK, Record, RecordType

NOTHING = b""


class Kind(IntEnum):
    """What has to be compared; the numbers are in the log."""

    ENTRY = 2  # a name in a directory, and the directory, whose times moved
    TREE = 3  # the name with all below it, and the directory
    INODE = 4  # all names of an inode; the name is empty


_MADE = frozenset({RecordType.CREAT, RecordType.SLINK, RecordType.MKNOD})
_DIRECTORY = frozenset({RecordType.MKDIR, RecordType.RMDIR})
_MOVED = frozenset({RecordType.RENME, RecordType.MIGRT})
_SKIPPED = frozenset({RecordType.OPEN, RecordType.NOPEN, RecordType.GXATR})
# Stored by one function of the metadata server, which is the one that leaves repetitions out. An
# ATIME is looked at only because an MTIME behind it may have been left out.
DATA = frozenset(
    {
        RecordType.CLOSE,
        RecordType.LYOUT,
        RecordType.TRUNC,
        RecordType.SATTR,
        RecordType.XATTR,
        RecordType.HSM,
        RecordType.MTIME,
        RecordType.CTIME,
        RecordType.ATIME,
        RecordType.FLRW,
        RecordType.RESYNC,
    }
)
Place = tuple[bytes, bytes, int]  # FID of the directory, name, Kind.ENTRY or Kind.TREE
_ENTRY, _TREE = int(Kind.ENTRY), int(Kind.TREE)  # which hash in a fifth of the time
# What to do by type, likewise.
_IS_DATA, _IS_MADE, _IS_LINK, _IS_DIRECTORY, _IS_MOVED, _IS_SKIPPED, _IS_ANYTHING = range(7)
_MARK, _HLINK, _LYOUT = int(RecordType.MARK), int(RecordType.HLINK), int(RecordType.LYOUT)
_ACTIONS = {
    int(kind): action
    for action, kinds in (
        (_IS_DATA, DATA),
        (_IS_MADE, _MADE),
        (_IS_LINK, (RecordType.HLINK, RecordType.UNLNK)),
        (_IS_DIRECTORY, _DIRECTORY),
        (_IS_MOVED, _MOVED),
        (_IS_SKIPPED, (*_SKIPPED, RecordType.MARK)),
    )
    for kind in kinds
}


@dataclass(slots=True)
class Batch:
    """What the records of one batch make us look at."""

    # The FID that a TREE is about, empty if it is one whatever that is.
    places: dict[Place, bytes] = field(default_factory=dict)
    inodes: set[bytes] = field(default_factory=set)  # INODE looks
    plain: set[bytes] = field(default_factory=set)  # FIDs that are no directories
    was_off: bool = False  # a marker says that changes were not recorded for a time

    def add_all(self, records: Iterable[Record]) -> None:
        """Take records in."""
        places, inodes, plain, actions = self.places, self.inodes, self.plain, _ACTIONS
        for record in records:
            kind, flags, _, _, target, parent, name, _, _, _ = record
            action = actions.get(kind, _IS_ANYTHING)
            if action == _IS_DATA:
                inodes.add(target)
                if kind == _LYOUT and target not in plain:
                    self._tree(target, NOTHING, target)
            elif action == _IS_SKIPPED:
                if kind == _MARK and record.marker & CLM_FINI:
                    self.was_off = True
            elif action == _IS_ANYTHING or not name:
                self._anything(record)
            elif action == _IS_MADE:
                plain.add(target)
                places[parent, name, _ENTRY] = NOTHING
            elif action == _IS_LINK:
                plain.add(target)
                places[parent, name, _ENTRY] = NOTHING
                if kind == _HLINK or not flags & LAST_LINK:
                    self._inode(target)  # link count and ctime show at its other names
            elif action == _IS_DIRECTORY:
                places[parent, name, _TREE] = NOTHING
            else:
                self._moved(record)
        inodes.discard(ZERO_FID)

    def _moved(self, record: Record) -> None:
        about = record.source if record.kind == RecordType.RENME else NOTHING
        self._tree(record.parent, record.name, about)
        self._tree(record.source_parent, record.source_name, about)
        self._inode(record.source)
        if not record.flags & LAST_LINK or record.kind == RecordType.MIGRT:
            self._inode(record.target)

    def _anything(self, record: Record) -> None:
        self._inode(record.target)
        self._inode(record.source)
        self._tree(record.parent, record.name, NOTHING)
        self._tree(record.source_parent, record.source_name, NOTHING)

    def _inode(self, fid: bytes) -> None:
        if fid and fid != ZERO_FID:
            self.inodes.add(fid)

    def _tree(self, parent: bytes, name: bytes, about: bytes) -> None:
        if not parent or parent == ZERO_FID:
            return
        if about in self.plain:
            self.places[parent, name, _ENTRY] = NOTHING
            return
        if about == ZERO_FID:
            about = NOTHING
        place = (parent, name, _TREE)
        if self.places.get(place, about) != about:
            about = NOTHING  # about several: whatever they are
        self.places[place] = about

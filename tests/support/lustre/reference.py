"""Records and places in plain Python, straight from their description: what the kernel is held to.

Covers: decoding one record, the rules of filesystems/lustre/looks.py on a batch of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from filesystems.lustre.errors import RecordMalformed
from filesystems.lustre.looks import Kind
from filesystems.lustre.records import Record, RecordType
from tests.support.lustre.encoding import NO_FID

HEADER = struct.Struct("<HHIQQQ16s16s")
EXTRA_BYTES = {0x1: 16, 0x2: 24, 0x4: 4, 0x8: 256, 0x10: 0}
KNOWN_EXTRA = sum(EXTRA_BYTES)
NO_NAMES = (b".", b"..")


def decode(data: bytes) -> Record:
    size = len(data)
    if not HEADER.size <= size <= 952:
        raise RecordMalformed(size, "length")
    length, flags, kind, index, _, time, target, parent = HEADER.unpack_from(data)
    offset = 64 + 32 * bool(flags & 0x2000) + 32 * bool(flags & 0x4000) + 8 * bool(flags & 0x8000)
    is_lost = False
    if flags & 0x8000:
        if size < offset:
            raise RecordMalformed(size, "extensions")
        extra = int.from_bytes(data[offset - 8 : offset], "little")
        offset += sum(EXTRA_BYTES[flag] for flag in EXTRA_BYTES if extra & flag)
        is_lost = extra > KNOWN_EXTRA
    if size < offset + length:
        raise RecordMalformed(size, "names")
    name = b"" if is_lost else data[offset : offset + length]
    head = (kind, flags, index, time, target, parent)
    if not flags & 0x2000:
        if b"\0" in name or b"/" in name or name in NO_NAMES:
            name = b""
        return Record(*head, name, b"", b"", b"")
    name, _, old = name.partition(b"\0")
    old = old or name
    if b"\0" in old or b"/" in name + old or name in NO_NAMES or old in NO_NAMES:
        name = old = b""
    return Record(*head, name, data[64:80], data[80:96], old)


MADE = (RecordType.CREAT, RecordType.SLINK, RecordType.MKNOD)
DATA = (
    RecordType.CLOSE, RecordType.LYOUT, RecordType.TRUNC, RecordType.SATTR, RecordType.XATTR,
    RecordType.HSM, RecordType.MTIME, RecordType.CTIME, RecordType.ATIME, RecordType.FLRW,
    RecordType.RESYNC,
)  # fmt: skip
SKIPPED = (RecordType.MARK, RecordType.OPEN, RecordType.NOPEN, RecordType.GXATR)


@dataclass
class Looks:
    """What the records of one batch make us look at."""

    places: dict[tuple[bytes, bytes, int], bytes] = field(default_factory=dict)
    inodes: set[bytes] = field(default_factory=set)
    was_off: bool = False
    plain: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)

    def add_all(self, records: list[Record]) -> None:
        for record in records:
            self._add(record)
        self.inodes -= self.gone | {NO_FID, b""}

    def _add(self, record: Record) -> None:
        kind, name, target = record.kind, record.name, record.target
        is_last = bool(record.flags & 1)
        if kind in SKIPPED:
            if kind == RecordType.MARK and int.from_bytes(target[:4], "little") & 0x20000:
                self.was_off = True
        elif kind in DATA:
            self.inodes.add(target)
            if kind == RecordType.LYOUT and target not in self.plain:
                self._tree(target, b"", target)
        elif kind in MADE and name:
            self._plain(target)
            self.places[record.parent, name, Kind.ENTRY] = b""
        elif kind in (RecordType.HLINK, RecordType.UNLNK) and name:
            self._plain(target)
            self.places[record.parent, name, Kind.ENTRY] = b""
            if kind == RecordType.UNLNK and is_last:
                self.gone.add(target)
            else:
                self.inodes.add(target)
        elif kind in (RecordType.MKDIR, RecordType.RMDIR) and name:
            self.places[record.parent, name, Kind.TREE] = b""
        elif kind in (RecordType.RENME, RecordType.MIGRT) and name:
            self._moved(record, is_last and kind == RecordType.RENME)
        else:
            self.inodes |= {target, record.source}
            self._tree(record.parent, name, b"")
            self._tree(record.source_parent, record.source_name, b"")

    def _moved(self, record: Record, is_last: bool) -> None:
        about = record.source if record.kind == RecordType.RENME else b""
        self._tree(record.parent, record.name, about)
        self._tree(record.source_parent, record.source_name, about)
        self.inodes.add(record.source)
        if not is_last:
            self.inodes.add(record.target)
        elif record.source:
            self.gone.add(record.target)

    def _plain(self, fid: bytes) -> None:
        if fid != NO_FID:
            self.plain.add(fid)

    def _tree(self, parent: bytes, name: bytes, about: bytes) -> None:
        if parent in (b"", NO_FID):
            return
        if about in self.plain:
            self.places[parent, name, Kind.ENTRY] = b""
            return
        place = (parent, name, Kind.TREE)
        about = b"" if about == NO_FID else about
        self.places[place] = about if self.places.get(place, about) == about else b""

"""Lustre file identifiers.

Covers: the 16 bytes of a record, the text form, the inode number that stat shows.
Does not cover: finding out where a FID is (resolve).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Self

from filesystems.lustre.errors import FidMalformed

FID_BYTES = 16
ZERO_FID = bytes(FID_BYTES)

_STRUCT = struct.Struct("<QII")
_TEXT = re.compile(r"\[?(0x[0-9a-f]+):(0x[0-9a-f]+):(0x[0-9a-f]+)\]?", re.IGNORECASE)
_U64, _U32 = (1 << 64) - 1, (1 << 32) - 1
# FIDs made of the inode numbers of an MDT that was older than FIDs: the sequence is that number.
_IGIF_FIRST, _IGIF_LAST = 12, _U32


@dataclass(frozen=True, slots=True, order=True)
class Fid:
    """Unique in the filesystem, never used again."""

    sequence: int
    object_id: int
    version: int = 0

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        if len(data) != FID_BYTES:
            raise FidMalformed(data)
        return cls(*_STRUCT.unpack(data))

    def to_bytes(self) -> bytes:
        return _STRUCT.pack(self.sequence, self.object_id, self.version)

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _TEXT.fullmatch(text)
        if match is None or text.startswith("[") != text.endswith("]"):
            raise FidMalformed(text)
        sequence, object_id, version = (int(part, 16) for part in match.groups())
        if sequence > _U64 or object_id > _U32 or version > _U32:
            raise FidMalformed(text)
        return cls(sequence, object_id, version)

    def __str__(self) -> str:
        return f"[{self.sequence:#x}:{self.object_id:#x}:{self.version:#x}]"

    def inode_number(self) -> int:
        """Return what stat shows as the inode number on a 64-bit client.

        The client maps 128 bits to 64 (fid_flatten64 of the kernel interface's lustre_fid.h): the
        sequence above 24 bits of object id. Bits that the shift loses, the sequence's from the
        40th on, are added again at bits 16 to 39; all modulo 2^64. A sum of 0 becomes the object
        id. A sequence from 12 to 2^32 - 1 is an inode number of old (IGIF) and stays what it is.
        The root, [0x200000007:0x1:0x0], is 144115188193296385. Clients with the mount option
        32bitapi have another mapping; the source compares the root's number with stat's.
        """
        sequence, object_id = self.sequence, self.object_id
        if _IGIF_FIRST <= sequence <= _IGIF_LAST:
            return sequence
        folded = (sequence >> 24) & 0xFFFFFF0000
        return ((sequence << 24) + folded + object_id) & _U64 or object_id

"""Changelog records as bytes, put together from the interface's description.

Covers: what tests need to write; nothing of it is shared with the decoder.
"""

from __future__ import annotations

import struct

NO_FID = bytes(16)


def fid(sequence: int, object_id: int, version: int = 0) -> bytes:
    return struct.pack("<QII", sequence, object_id, version)


def encode(
    kind: int,
    index: int,
    target: bytes = NO_FID,
    parent: bytes = NO_FID,
    name: bytes = b"",
    *,
    flags: int = 0,
    moved: tuple[bytes, bytes, bytes] | None = None,  # what, from which directory, its old name
    job: bytes | None = None,
    extra: dict[int, bytes] | None = None,  # the extension's flag and its bytes
    time: int = 0,
    previous: int = 0,
) -> bytes:
    """Return a record."""
    extensions = b""
    flags |= 0x1000
    if moved is not None:
        flags |= 0x2000
        extensions += moved[0] + moved[1]
        name += b"\0" + moved[2]
    if job is not None:
        flags |= 0x4000
        extensions += job.ljust(32, b"\0")
    if extra is not None:
        flags |= 0x8000
        extensions += struct.pack("<Q", sum(extra)) + b"".join(extra[key] for key in sorted(extra))
    head = struct.pack("<HHIQQQ", len(name), flags, kind, index, previous, time)
    return head + target + parent + extensions + name

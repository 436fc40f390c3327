"""Layouts of Lustre and CephFS, good and bad ones, put together from their documents.

Covers: what was saved, what a new file is to be given, what is wrong with the bad ones.
Does not cover: how they are put together (layout_support.py).
"""

import struct

from tests.plugin.layout_support import (
    ANY,
    EOF,
    EXTENSION,
    FOREIGN,
    INIT,
    MDT,
    MIB,
    NOSYNC,
    OVERSTRIPED,
    PREFER_READ,
    RAID0,
    RELEASED,
    SPECIFIC,
    STALE,
    V3,
    Component,
    composite,
    plain,
    saved,
)

OK, DAMAGED, FOREIGN_DATA, UNKNOWN = 0, 1, 2, 3
INO = 77  # of make_stat()
CEPH_DEFAULT = b"stripe_unit=4194304 stripe_count=1 object_size=4194304 pool=cephfs_data"
CEPH_STRIPED = b"stripe_unit=65536 stripe_count=2 object_size=131072"

PFL = composite(
    Component(0, MIB, saved(), INIT, 1),
    Component(MIB, EOF, plain(4, magic=V3, pool=b"fast"), 0, 2),
    generation=5,
)
DOM = composite(
    Component(0, MIB, saved(0, pattern=MDT), INIT, 1),
    Component(MIB, EOF, saved(2, size=4 * MIB), INIT, 2),
    generation=2,
)
FLR = composite(
    Component(0, EOF, saved(2), INIT | PREFER_READ, 0x10001),
    Component(0, 64 * MIB, saved(1), INIT | STALE | NOSYNC, 0x20002, timestamp=1_700_000_000),
    Component(64 * MIB, EOF, plain(4), STALE, 0x20003),
    mirrors=2,
    generation=9,
    flags=1,
)
SELF_EXTENDING = composite(
    Component(0, 64 * MIB, saved(1), INIT, 1),
    Component(64 * MIB, 64 * MIB, plain(4), 0, 2),
    Component(64 * MIB, EOF, plain(4, size=128 * MIB), EXTENSION, 3),
)
# What was saved, and what a new file is given.
GOOD = {
    "one stripe": (saved(1), plain(1)),
    "not instantiated": (plain(4, generation=0), plain(4)),
    "all OSTs": (plain(ANY, generation=0), plain(ANY)),
    "of a directory": (plain(0, pattern=0, size=0), plain(0, size=0)),
    "pool": (saved(2, magic=V3, pool=b"fast"), plain(2, magic=V3, pool=b"fast")),
    "empty pool": (saved(2, magic=V3), plain(2)),
    "chosen OSTs": (saved(2, magic=SPECIFIC, pool=b"fast"), plain(2, magic=V3, pool=b"fast")),
    "overstriped": (
        saved(9, pattern=RAID0 | OVERSTRIPED),
        plain(9, pattern=RAID0 | OVERSTRIPED),
    ),
    "overstriped alone": (plain(9, pattern=OVERSTRIPED), plain(9, pattern=RAID0 | OVERSTRIPED)),
    "released": (saved(2, pattern=RAID0 | RELEASED, objects=0), plain(2)),
    "PFL": (
        PFL,
        composite(
            Component(0, MIB, plain(1), 0, 1),
            Component(MIB, EOF, plain(4, magic=V3, pool=b"fast"), 0, 2),
        ),
    ),
    "DoM": (
        DOM,
        composite(
            Component(0, MIB, plain(0, pattern=MDT), 0, 1),
            Component(MIB, EOF, plain(2, size=4 * MIB), 0, 2),
        ),
    ),
    "FLR with a stale mirror": (
        FLR,
        composite(
            Component(0, EOF, plain(2), PREFER_READ, 0x10001),
            Component(0, 64 * MIB, plain(1), 0, 0x20002),
            Component(64 * MIB, EOF, plain(4), 0, 0x20003),
            mirrors=2,
        ),
    ),
    "self-extending": (
        SELF_EXTENDING,
        composite(
            Component(0, 64 * MIB, plain(1), 0, 1),
            Component(64 * MIB, 64 * MIB, plain(4), 0, 2),
            Component(64 * MIB, EOF, plain(4, size=128 * MIB), EXTENSION, 3),
        ),
    ),
}


def patched(blob: bytes, at: int, form: str, number: int) -> bytes:
    out = bytearray(blob)
    struct.pack_into("<" + form, out, at, number)
    return bytes(out)


ENTRY = 32  # of the first component
TWO = composite(Component(0, MIB, plain(1), 0, 1), Component(MIB, EOF, plain(1), 0, 2))
BAD = {
    "empty": (b"", DAMAGED),
    "three bytes": (b"\xd0\x0b\xd1", DAMAGED),
    "more stripes than objects": (patched(saved(2), 28, "H", 3), DAMAGED),
    "fewer stripes than objects": (patched(saved(2), 28, "H", 1), DAMAGED),
    "more stripes than there can be": (plain(2001), DAMAGED),
    "objects on all OSTs": (saved(2)[:28] + b"\xff\xff\0\0" + saved(2)[32:], DAMAGED),
    "pool without an end": (plain(1, magic=V3, pool=b"p" * 16), DAMAGED),
    "pool with a control character": (plain(1, magic=V3, pool=b"a\nb"), DAMAGED),
    "no component": (composite(), DAMAGED),
    "size beyond the end": (patched(PFL, 4, "I", len(PFL) + 1), DAMAGED),
    "size before the end": (patched(PFL, 4, "I", len(PFL) - 1), DAMAGED),
    "more entries than bytes": (patched(PFL, 14, "H", 0xFFFF), DAMAGED),
    "one entry more": (patched(PFL, 14, "H", 3), DAMAGED),
    "offset beyond the end": (patched(PFL, ENTRY + 24, "I", 0xFFFFFFF0), DAMAGED),
    "offset in the entries": (patched(PFL, ENTRY + 24, "I", 32), DAMAGED),
    "component too long": (patched(PFL, ENTRY + 28, "I", 0xFFFFFFFF), DAMAGED),
    "component too short": (patched(PFL, ENTRY + 28, "I", 3), DAMAGED),
    "bodies are one": (patched(TWO, ENTRY + 48 + 24, "I", 32 + 96), DAMAGED),
    "bodies overlap": (patched(TWO, ENTRY + 48 + 24, "I", 32 + 96 + 31), DAMAGED),
    "many entries for one body": (
        struct.pack("<IIIHHH14x", 0x0BD60BD0, 32 + 100 * 48 + 48, 0, 0, 100, 0)
        + b"".join(
            struct.pack("<IIQQIIIQ4x", 1, 0, n, n + 1, 32 + 100 * 48, 48, 0, 0) for n in range(100)
        )
        + plain(1, magic=V3, pool=b"fast"),
        DAMAGED,
    ),
    "extents overlap": (patched(PFL, ENTRY + 48 + 8, "Q", MIB - 1), DAMAGED),
    "extent backwards": (patched(PFL, ENTRY + 8, "Q", 2 * MIB), DAMAGED),
    "mirror in two places": (
        composite(
            Component(0, EOF, plain(1), 0, 0x10001),
            Component(0, EOF, plain(1), 0, 0x20002),
            Component(0, EOF, plain(1), 0, 0x10003),
            mirrors=2,
        ),
        DAMAGED,
    ),
    "DoM behind the beginning": (
        composite(Component(MIB, EOF, plain(0, pattern=MDT), 0, 1)),
        DAMAGED,
    ),
    "DoM without a component": (plain(0, pattern=MDT), DAMAGED),
    "foreign": (struct.pack("<IIII", FOREIGN, 4, 1, 0) + b"uuid", FOREIGN_DATA),
    "foreign pattern": (plain(1, pattern=0x400), FOREIGN_DATA),
    "foreign component": (
        composite(Component(0, EOF, struct.pack("<IIII", FOREIGN, 0, 1, 0), 0, 1)),
        FOREIGN_DATA,
    ),
    "unknown magic": (patched(plain(1), 0, "I", 0x0BD90BD0), UNKNOWN),
    "unknown pattern": (plain(1, pattern=RAID0 | 0x1000), UNKNOWN),
    "unknown flag": (composite(Component(0, EOF, plain(1), 0x80, 1)), UNKNOWN),
    "composite in a composite": (composite(Component(0, EOF, PFL, 0, 1)), UNKNOWN),
}

"""Write the inputs that a fuzzer begins with: NAME FOLDER.

Covers: one function for each fuzzer, named after it.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.plugin.layout_examples import BAD, CEPH_DEFAULT, CEPH_STRIPED, GOOD, INO
from tests.plugin.layout_support import command, plain
from tests.support.lustre.encoding import NO_FID, encode, fid

FILE, OTHER, HERE, THERE = (fid(0x200000401, number) for number in range(1, 5))
EXTRA = {1: bytes(16), 2: bytes(24), 4: bytes(4), 8: b"user.a".ljust(256, b"\0")}


def _row(kind: int, name: bytes, about: bytes = b"") -> bytes:
    head = struct.pack("<Q16sBBH", 7, HERE, kind, bool(about), len(name))
    return head + about + name


def records() -> list[bytes]:
    """Return inputs of fuzz_records.c: records of every type, and a block."""
    found = []
    for kind in range(26):
        moved = (FILE, THERE, b"old") if kind in (8, 20) else None
        found.append(encode(kind, kind + 1, OTHER, HERE, b"%d" % kind * 20, moved=moved))
    found += [
        encode(1, 27, FILE, HERE, b"n" * 255, job=b"cp.1000", extra=EXTRA),
        encode(6, 28, FILE, HERE, b"n" * 255, flags=1, extra={1: bytes(16), 0x10: b""}),
        encode(8, 29, NO_FID, HERE, b"new", flags=1, moved=(FILE, HERE, b"")),
        encode(0, 30, b"\0\0\2\0" + bytes(12)),
        encode(1, 31, FILE, HERE, b"a/b", extra={0x20: b"????"}),
    ]
    inputs = [struct.pack("<H", len(record)) + record for record in found]
    block = _row(2, b"name") + _row(3, b"", FILE) + _row(3, b"x") + _row(4, b"")
    return [b"\xfe" + b"".join(inputs), *(b"\x04" + one for one in inputs), b"\x01" + block]


def layouts() -> list[bytes]:
    """Return inputs of fuzz_layouts.c: lustre.lov behind a zero, plugin commands behind a one."""
    lovs = [lov for lov, _ in (*GOOD.values(), *BAD.values())]
    commands = [command("l", INO, plain(2)), command("c", INO, CEPH_STRIPED)]
    return [*(b"\0" + lov for lov in lovs), *(b"\1" + text for text in (*commands, *lovs))]


def ceph() -> list[bytes]:
    """Return inputs of fuzz_ceph.c: texts of layouts, and a number."""
    return [CEPH_DEFAULT, CEPH_STRIPED + b" pool=a pool_namespace=b", b"12"]


INPUTS = {"records": records, "layouts": layouts, "ceph": ceph}


def main() -> None:
    """Write the seeds of a fuzzer."""
    name, folder = sys.argv[1:]
    for number, seed in enumerate(INPUTS[name]()):
        Path(folder, f"{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()

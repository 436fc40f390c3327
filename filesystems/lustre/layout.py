"""Lustre: the xattr lustre.lov, in words (lustre_user.h: struct lov_user_md_v1, lov_comp_md_v1).

Covers: plain and composite layouts, for people.
Does not cover: saving and restoring them, damaged ones (bacula_bridge/plugin/layout_lustre.c).
"""

from __future__ import annotations

import struct

_V1, _V3, _SPECIFIC, _COMPOSITE, _FOREIGN = (
    0x0BD10BD0,
    0x0BD30BD0,
    0x0BD50BD0,
    0x0BD60BD0,
    0x0BD70BD0,
)
_PATTERNS = {0x1: "raid0", 0x100: "mdt", 0x200: "overstriped", 0x80000000: "released"}
_FLAGS = {0x1: "stale", 0x2: "prefer-read", 0x4: "prefer-write", 0x10: "init", 0x20: "nosync"}
_FLAGS |= {0x40: "extension", 0x80: "parity"}
_EOF = (1 << 64) - 1
_ALL = 0xFFFF  # as many stripes as there are OSTs
_HEAD, _ENTRY = struct.Struct("<IIIHHH14x"), struct.Struct("<IIQQIIIQ4x")
_PLAIN = struct.Struct("<II16sIHH")
_POOL_BYTES = 16


def describe(lov: bytes) -> dict[str, object]:
    """Return what a layout says; {"unknown": hexadecimal} if it is none that is known here."""
    try:
        return _layout(lov)
    except (struct.error, ValueError):
        return {"unknown": lov.hex()}


def _layout(lov: bytes) -> dict[str, object]:
    (magic,) = struct.unpack_from("<I", lov)
    if magic == _FOREIGN:
        return {"kind": "foreign"}
    if magic != _COMPOSITE:
        return {"kind": "plain", **_plain(lov)}
    _, _, _, _, count, mirrors = _HEAD.unpack_from(lov)
    components = [_component(lov, _HEAD.size + number * _ENTRY.size) for number in range(count)]
    return {"kind": "composite", "mirrors": mirrors + 1, "components": components}


def _component(lov: bytes, at: int) -> dict[str, object]:
    number, flags, start, end, offset, size, _, _ = _ENTRY.unpack_from(lov, at)
    if offset + size > len(lov):
        raise ValueError(offset)
    return {
        "mirror": number >> 16,
        "start": start,
        "end": None if end == _EOF else end,
        "flags": _named(flags, _FLAGS),
        **_plain(lov[offset : offset + size]),
    }


def _plain(lov: bytes) -> dict[str, object]:
    magic, pattern, _, size, count, _ = _PLAIN.unpack_from(lov)
    if magic not in (_V1, _V3, _SPECIFIC):
        raise ValueError(magic)
    found: dict[str, object] = {
        "pattern": _named(pattern, _PATTERNS),
        "stripe_size": size,
        "stripe_count": "all" if count == _ALL else count,
    }
    if magic != _V1:
        pool = lov[_PLAIN.size : _PLAIN.size + _POOL_BYTES].split(b"\0")[0]
        if pool:
            found["pool"] = pool.decode("utf-8", "backslashreplace")
    return found


def _named(bits: int, names: dict[int, str]) -> list[str]:
    """Return the names of the bits that are set; those without one in hexadecimal."""
    found = [name for bit, name in names.items() if bits & bit]
    rest = bits & ~sum(names)
    return found + ([hex(rest)] if rest else [])

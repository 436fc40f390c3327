"""Records from bytes: golden ones put together by hand, and all that can be wrong with them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from filesystems.lustre.errors import RecordMalformed
from filesystems.lustre.kernel.native import Places, Records, decode
from filesystems.lustre.records import Record, RecordType
from tests.support.lustre import reference
from tests.support.lustre.encoding import encode

TARGET = bytes.fromhex("01040000020000000100000000000000")  # [0x200000401:0x1:0x0]
PARENT = bytes.fromhex("07000000020000000100000000000000")  # [0x200000007:0x1:0x0]
OLD_PARENT = bytes.fromhex("01040000020000000900000000000000")
NONE = bytes(16)
TIME = 1700000000 << 30 | 5  # 2023-11-14 22:13:20.000000005


def head(namelen, flags, kind, index=100):
    """The first 32 bytes but for cr_prev and cr_time, which are always the same here."""
    return (
        namelen.to_bytes(2, "little")
        + flags.to_bytes(2, "little")
        + kind.to_bytes(4, "little")
        + index.to_bytes(8, "little")
        + bytes.fromhex("6300000000000000")
        + bytes.fromhex("0500000040fc5419")
    )


JOBID = b"cp.1000" + bytes(25)
UIDGID = bytes.fromhex("e803000000000000e803000000000000")
NID = bytes.fromhex("0100a8c000000200") + bytes(16)
OMODE = bytes.fromhex("02000000")
XATTR = b"user.color" + bytes(246)


def flags64(value):
    return value.to_bytes(8, "little")


def expected(kind, flags, name=b"", target=TARGET, moved=(b"", b"", b"")):
    return Record(kind, flags, 100, TIME, target, PARENT, name, *moved)


GOLDEN = {
    "bare": (head(0, 0x1000, 14) + TARGET + PARENT, expected(14, 0x1000)),
    "create": (
        head(2, 0xD000, 1) + TARGET + PARENT + JOBID + flags64(3) + UIDGID + NID + b"f0",
        expected(1, 0xD000, b"f0"),
    ),
    "close": (
        head(0, 0xD243, 11) + TARGET + PARENT + JOBID + flags64(7) + UIDGID + NID + OMODE,
        expected(11, 0xD243),
    ),
    "rename": (
        head(7, 0xF001, 8)
        + (NONE + PARENT + TARGET + OLD_PARENT + JOBID + flags64(3) + UIDGID + NID)
        + b"NEW\0OLD",
        expected(8, 0xF001, b"NEW", NONE, (TARGET, OLD_PARENT, b"OLD")),
    ),
    "xattr": (
        head(0, 0x9000, 15) + TARGET + PARENT + flags64(0xB) + UIDGID + NID + XATTR,
        expected(15, 0x9000),
    ),
    "all extensions": (
        head(3, 0xF000, 8)
        + (NONE + PARENT + TARGET + OLD_PARENT + JOBID + flags64(0x1F))
        + (UIDGID + NID + OMODE + XATTR + b"a\0b"),
        expected(8, 0xF000, b"a", NONE, (TARGET, OLD_PARENT, b"b")),
    ),
    "network identifier of 2.16": (
        head(1, 0x9000, 2) + TARGET + PARENT + flags64(0x13) + UIDGID + NID + b"d",
        expected(2, 0x9000, b"d"),
    ),
    "a name that is not text": (
        head(5, 0x1000, 6) + TARGET + PARENT + b"\xff\n\x01 \\",
        expected(6, 0x1000, b"\xff\n\x01 \\"),
    ),
    "no second name": (
        head(1, 0x3000, 20) + TARGET + PARENT + TARGET + OLD_PARENT + b"a",
        expected(20, 0x3000, b"a", TARGET, (TARGET, OLD_PARENT, b"a")),
    ),
    "a type that is not known": (
        head(1, 0x1000, 99) + TARGET + PARENT + b"x",
        expected(99, 0x1000, b"x"),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_records(name):
    data, record = GOLDEN[name]
    assert struct.unpack_from("<Q", data, 24)[0] == TIME
    assert decode(data) == record
    assert decode(data + b"\0\0\0") == record  # padding
    assert Records.of([data.ljust(952, b"\xff")]).data(0) == data


@pytest.mark.parametrize("name", GOLDEN)
def test_a_record_that_is_cut_short_anywhere_is_malformed(name):
    data, _ = GOLDEN[name]
    for length in range(len(data)):
        with pytest.raises(RecordMalformed):
            decode(data[:length])


@pytest.mark.parametrize("kind", range(25))
def test_all_types_have_their_names(kind):
    assert decode(encode(kind, 1, TARGET, PARENT)).kind == RecordType(kind)


def test_a_marker_has_flags_instead_of_a_target():
    assert decode(encode(0, 1, bytes.fromhex("00000200") + bytes(12))).target[:4] == b"\0\0\2\0"


def test_names_behind_an_extension_that_is_not_known_are_not_believed():
    data = head(1, 0x9000, 1) + TARGET + PARENT + flags64(0x21) + UIDGID + b"????" + b"f"
    assert decode(data).name == b""
    moved = head(3, 0xB000, 8) + NONE + PARENT + TARGET + OLD_PARENT + flags64(0x20) + b"????a\0b"
    assert decode(moved) == expected(8, 0xB000, b"", NONE, (TARGET, OLD_PARENT, b""))


@pytest.mark.parametrize("name", [b"a/b", b".", b"..", b"a\0b"])
def test_what_cannot_be_a_name_is_not_believed(name):
    assert decode(encode(1, 1, TARGET, PARENT, name)).name == b""
    if b"\0" not in name:
        for one, other in ((b"a", name), (name, b"a")):
            moved = decode(encode(8, 1, TARGET, PARENT, one, moved=(TARGET, PARENT, other)))
            assert (moved.name, moved.source_name) == (b"", b"")
            assert (moved.parent, moved.source, moved.source_parent) == (PARENT, TARGET, PARENT)


def test_more_than_two_names_are_not_believed():
    moved = decode(encode(8, 1, TARGET, PARENT, b"a", moved=(TARGET, PARENT, b"b\0c")))
    assert (moved.name, moved.source_name) == (b"", b"")


def test_a_record_is_not_longer_than_the_interface_allows():
    with pytest.raises(RecordMalformed):
        decode(encode(1, 1, TARGET, PARENT, b"n" * 900))
    with pytest.raises(RecordMalformed):
        Records.of([encode(1, 1, TARGET, PARENT, b"n" * 900)])


def decoded(data, decoder):
    try:
        return decoder(data)
    except RecordMalformed:
        return None


@given(st.binary(max_size=1000))
@example(b"\xff" * 952)
def test_any_bytes_are_a_record_or_malformed(data):
    record = decoded(data, decode)
    assert record == decoded(data, reference.decode)
    if record is not None:
        Places().add(Records.of([data]))


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 64) - 1),
    st.binary(max_size=900),
)
def test_lengths_and_flags_that_lie_do_not_lead_out_of_the_record(namelen, flags, extra, rest):
    data = struct.pack("<HH", namelen, flags) + head(0, 0, 8)[4:] + TARGET + PARENT
    offset = 64 + (32 if flags & 0x2000 else 0) + (32 if flags & 0x4000 else 0)
    data = (data + rest)[:offset].ljust(offset, b"\0") + flags64(extra) + rest
    record = decoded(data[:952], decode)
    assert record == decoded(data[:952], reference.decode)

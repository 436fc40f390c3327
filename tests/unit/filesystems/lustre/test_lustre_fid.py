"""FIDs: bytes, text, inode numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filesystems.lustre.errors import FidMalformed
from filesystems.lustre.fid import Fid

GOLDEN = bytes.fromhex("0104000002000000 0f000000 00000000".replace(" ", ""))


def test_the_bytes_of_a_record_are_little_endian():
    assert Fid.from_bytes(GOLDEN) == Fid(0x200000401, 0xF, 0)
    assert Fid(0x200000401, 0xF).to_bytes() == GOLDEN
    assert str(Fid(0x200000401, 0xF)) == "[0x200000401:0xf:0x0]"


@given(*(st.integers(0, (1 << bits) - 1) for bits in (64, 32, 32)))
def test_text_and_bytes_lead_back(sequence, object_id, version):
    fid = Fid(sequence, object_id, version)
    assert Fid.parse(str(fid)) == fid
    assert Fid.parse(str(fid)[1:-1]) == fid
    assert Fid.from_bytes(fid.to_bytes()) == fid
    assert 0 <= fid.inode_number() < 1 << 64


@pytest.mark.parametrize(
    "text",
    [
        *("", "[0x1:0x2]", "[0x1:0x2:0x3", "0x1:0x2:0x3]", "[1:2:3]", "[0x1:0x2:0x3]\n"),
        *("[0x10000000000000000:0x0:0x0]", "[0x1:0x100000000:0x0]", "[0x1:0x1:0x100000000]"),
    ],
)
def test_what_is_no_fid_is_refused(text):
    with pytest.raises(FidMalformed):
        Fid.parse(text)


def test_fids_have_sixteen_bytes():
    with pytest.raises(FidMalformed):
        Fid.from_bytes(GOLDEN[:-1])


@pytest.mark.parametrize(
    ("sequence", "object_id", "number"),
    [
        (0x200000007, 1, 144115188193296385),  # what stat shows of every Lustre's root
        (0x200000401, 0xF, 0x20000040100000F),
        (12, 77, 12),  # inode numbers of old: the object id is the generation
        (0xFFFFFFFF, 3, 0xFFFFFFFF),
        (0x100000000, 1, 0x100000000000001),
        (0x12345678901, 0xAB, 0x23456789010100AB),  # the bit that is shifted out comes back
        (0xFFFFFFFFFF000000, 0, 0xFFFF00FFFFFF0000),
        (0, 5, 5),
    ],
)
def test_inode_numbers_are_those_of_stat(sequence, object_id, number):
    assert Fid(sequence, object_id).inode_number() == number

"""What a record makes us look at."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesystems.lustre.errors import BlockMalformed
from filesystems.lustre.kernel.native import Places, Records
from filesystems.lustre.looks import Kind
from tests.support.lustre import reference
from tests.support.lustre.encoding import NO_FID, encode, fid
from tests.support.lustre.reference import Looks

FILE, GONE, HERE, THERE = (fid(0x200000401, number) for number in range(1, 5))


def gathered(*batches):
    """Return what a set of places has, as the reference does."""
    found = Places()
    for batch in batches:
        found.add(Records.of(batch))
    rows = list(found)
    places = {(row.fid, row.name, row.kind): row.about for row in rows if row.kind != Kind.INODE}
    inodes = {row.fid for row in rows if row.kind == Kind.INODE}
    assert len(places) + len(inodes) == len(rows) == len(found)
    return Looks(places, inodes, found.was_off)


def looked(*records):
    return gathered(records)


@pytest.mark.parametrize("kind", [1, 4, 5])
def test_a_new_name_is_looked_at_with_its_directory(kind):
    batch = looked(encode(kind, 1, FILE, HERE, b"n"))
    assert batch.places == {(HERE, b"n", Kind.ENTRY): b""}
    assert batch.inodes == set()


@pytest.mark.parametrize("kind", [2, 7])
def test_a_directory_is_looked_at_with_all_below_it(kind):
    assert looked(encode(kind, 1, FILE, HERE, b"n")).places == {(HERE, b"n", Kind.TREE): b""}


def test_links_are_looked_at_by_all_their_names():
    assert looked(encode(3, 1, FILE, HERE, b"n")).inodes == {FILE}
    assert looked(encode(6, 1, FILE, HERE, b"n")).inodes == {FILE}
    assert looked(encode(6, 1, FILE, HERE, b"n", flags=1)).inodes == set()
    assert looked(encode(6, 1, NO_FID, HERE, b"n")).inodes == set()


@pytest.mark.parametrize("kind", [11, 13, 14, 15, 16, 17, 18, 19, 21, 22])
def test_data_is_looked_at_by_inode(kind):
    batch = looked(encode(kind, 7, FILE), encode(kind, 9, FILE))
    assert (batch.places, batch.inodes) == ({}, {FILE})


def test_a_layout_may_be_a_directorys_whose_stripes_are_gone():
    batch = looked(encode(12, 7, HERE), encode(12, 8, NO_FID))
    assert (batch.places, batch.inodes) == ({(HERE, b"", Kind.TREE): HERE}, {HERE})
    batch = looked(encode(1, 1, FILE, HERE, b"n"), encode(12, 2, FILE))
    assert batch.places == {(HERE, b"n", Kind.ENTRY): b""}


@pytest.mark.parametrize("kind", [0, 10, 23, 24])
def test_what_changes_nothing_is_not_looked_at(kind):
    batch = looked(encode(kind, 1, FILE))
    assert (batch.places, batch.inodes, batch.was_off) == ({}, set(), False)


@pytest.mark.parametrize(
    ("flags", "was_off"), [(0x10000, False), (0x20000, True), (0x40000, False)]
)
def test_the_marker_of_the_end_is_remembered(flags, was_off):
    assert looked(encode(0, 1, flags.to_bytes(4, "little") + bytes(12))).was_off is was_off


def test_a_rename_makes_trees_until_it_is_known_what_was_moved():
    batch = looked(encode(8, 1, GONE, HERE, b"new", moved=(FILE, THERE, b"old")))
    assert batch.places == {(HERE, b"new", Kind.TREE): FILE, (THERE, b"old", Kind.TREE): FILE}
    assert batch.inodes == {FILE, GONE}


def test_the_last_name_of_what_was_overwritten_leads_nowhere():
    batch = looked(encode(8, 1, GONE, HERE, b"new", moved=(FILE, THERE, b"old"), flags=1))
    assert batch.inodes == {FILE}


def test_a_file_made_before_its_rename_is_no_directory():
    batch = looked(
        encode(1, 1, FILE, HERE, b"new~"),
        encode(8, 2, GONE, HERE, b"new", moved=(FILE, HERE, b"new~"), flags=1),
    )
    assert batch.places == {(HERE, b"new~", Kind.ENTRY): b"", (HERE, b"new", Kind.ENTRY): b""}


def test_a_name_that_several_were_moved_to_is_a_tree_whatever_they_are():
    batch = looked(
        encode(8, 1, NO_FID, HERE, b"n", moved=(FILE, THERE, b"a")),
        encode(8, 2, FILE, HERE, b"n", moved=(GONE, THERE, b"b")),
    )
    assert batch.places[HERE, b"n", Kind.TREE] == b""


def test_renames_of_old_servers_are_two_records():
    batch = looked(encode(8, 1, FILE, THERE, b"old"), encode(9, 2, GONE, HERE, b"new"))
    assert set(batch.places) == {(THERE, b"old", Kind.TREE), (HERE, b"new", Kind.TREE)}
    assert set(batch.inodes) == {FILE, GONE}


def test_migration_gives_another_fid():
    batch = looked(encode(20, 1, GONE, HERE, b"n", moved=(FILE, HERE, b"n")))
    assert batch.places == {(HERE, b"n", Kind.TREE): b""}
    assert set(batch.inodes) == {FILE, GONE}


def test_an_unknown_type_is_looked_at_as_the_most_that_it_can_mean():
    batch = looked(encode(77, 1, GONE, HERE, b"a", moved=(FILE, THERE, b"b")))
    assert set(batch.places) == {(HERE, b"a", Kind.TREE), (THERE, b"b", Kind.TREE)}
    assert set(batch.inodes) == {FILE, GONE}
    assert looked(encode(78, 1, GONE)).inodes == {GONE}


def test_a_record_whose_name_is_not_known_makes_a_tree_of_its_directory():
    for kind in (1, 77):
        batch = looked(encode(kind, 1, FILE, HERE, b"n", extra={0x20: b"????"}))
        assert set(batch.places) == {(HERE, b"", Kind.TREE)}
        assert set(looked(encode(kind, 1, FILE, HERE, b"a/b")).places) == set(batch.places)
    batch = looked(encode(8, 1, GONE, HERE, b"a", moved=(FILE, THERE, b"..")))
    assert set(batch.places) == {(HERE, b"", Kind.TREE), (THERE, b"", Kind.TREE)}


def test_a_file_that_came_and_went_leaves_its_place_only():
    batch = looked(
        encode(1, 1, FILE, HERE, b"n"),
        encode(11, 2, FILE),
        encode(6, 3, FILE, HERE, b"n", flags=1),
        encode(15, 4, FILE),  # through a descriptor
    )
    assert (batch.places, batch.inodes) == ({(HERE, b"n", Kind.ENTRY): b""}, set())
    batch = looked(encode(11, 1, FILE), encode(6, 2, FILE, HERE, b"n"))  # it has other names
    assert batch.inodes == {FILE}


def test_what_was_overwritten_is_gone_too():
    data, moved = encode(11, 1, GONE), (FILE, THERE, b"old")
    assert looked(data, encode(8, 2, GONE, HERE, b"new", moved=moved, flags=1)).inodes == {FILE}
    assert looked(data, encode(8, 2, GONE, HERE, b"new", moved=moved)).inodes == {FILE, GONE}
    assert looked(data, encode(20, 2, GONE, HERE, b"n", moved=moved, flags=1)).inodes == {
        FILE,
        GONE,
    }


def test_the_target_of_an_old_servers_rename_is_what_was_moved():
    assert looked(encode(11, 1, FILE), encode(8, 2, FILE, THERE, b"old", flags=1)).inodes == {FILE}


FIDS = st.sampled_from([NO_FID, FILE, GONE, HERE, THERE])
NAMES = st.sampled_from([b"", b"a", b"b", b"n" * 255, b"a/b", b".."])
RECORDS = st.builds(
    encode,
    st.sampled_from([*range(26), 1, 3, 6, 6, 8, 8, 8, 12, 99]),
    st.just(1),
    FIDS,
    FIDS,
    NAMES,
    flags=st.sampled_from([0, 0, 1]),
    moved=st.none() | st.tuples(FIDS, FIDS, NAMES),
    extra=st.sampled_from([None, None, None, {0x20: b""}]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORDS, max_size=40))
def test_the_kernel_does_what_the_description_says(records):
    expected = Looks()
    expected.add_all([reference.decode(data) for data in records])
    found = looked(*records)
    assert found.places == expected.places
    assert found.inodes == expected.inodes
    assert found.was_off == expected.was_off


def test_many_places_are_kept_apart():
    """Enough of them for the table to grow, and for several blocks."""
    names = [b"%05d" % number * 50 for number in range(40_000)]
    found = Places()
    for turn in range(2):
        found.add(Records.of([encode(1, turn, FILE, HERE, name) for name in names]))
    assert len(found) == len(names)
    assert sum(1 for _ in found.blocks(0, 1)) > 1
    assert {row.name for row in found} == set(names)
    again = Places()
    for block in found.blocks(0, 7):
        again.load(bytes(block.data), block.count, since=6)
        again.load(bytes(block.data), block.count, since=7)
    assert set(again) == {row._replace(sequence=7) for row in found}


def block(*rows):
    """Put a block together by hand."""
    return b"".join(
        struct.pack("<Q16sBBH", sequence, HERE, kind, flags, len(name)) + about + name
        for sequence, kind, flags, about, name in rows
    )


def loaded(data, count, since=0):
    found = Places()
    found.load(data, count, since)
    return {(row.name, row.kind, row.about, row.sequence) for row in found}


def test_a_block_has_its_golden_bytes():
    found = Places()
    found.add(Records.of([encode(8, 1, NO_FID, HERE, b"new", moved=(FILE, NO_FID, b"old"))]))
    (one,) = found.blocks(0, 5)
    tree = block((5, 3, 1, FILE, b"new"))
    inode = struct.pack("<Q16sBBH", 5, FILE, 4, 0, 0)
    assert (bytes(one.data), one.count, one.newest) == (tree + inode, 2, 5)


def test_places_of_several_blocks_are_one_with_the_newest_sequence():
    data = block((1, 2, 0, b"", b"a"), (4, 2, 0, b"", b"a"), (3, 2, 0, b"", b"a"))
    assert loaded(data, 3) == {(b"a", 2, b"", 4)}
    data = block((1, 3, 1, FILE, b"a"), (2, 3, 1, FILE, b"a"), (2, 3, 1, GONE, b"b"))
    assert loaded(data, 3) == {(b"a", 3, FILE, 2), (b"b", 3, GONE, 2)}
    data = block((1, 3, 1, FILE, b"a"), (2, 3, 1, GONE, b"a"), (3, 3, 1, FILE, b"a"))
    assert loaded(data, 3) == {(b"a", 3, b"", 3)}  # about several
    assert loaded(data, 3, since=2) == {(b"a", 3, FILE, 3)}


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (block((1, 2, 0, b"", b"a"))[:-1], 1),
        (block((1, 2, 0, b"", b"a")) + b"x", 1),
        (block((1, 2, 0, b"", b"a")), 2),
        (b"", 1),
        (block((1, 1, 0, b"", b"a")), 1),
        (block((1, 5, 0, b"", b"a")), 1),
        (block((1, 3, 2, b"", b"a")), 1),
        (block((1, 2, 1, FILE, b"a")), 1),
        (block((1, 4, 0, b"", b"a")), 1),
        (block((1, 2, 0, b"", b"n" * 969)), 1),
    ],
)
def test_what_is_no_block_is_refused(data, count):
    with pytest.raises(BlockMalformed):
        loaded(data, count)


def test_which_sequence_leaves_so_many_places():
    found = Places()
    data = block(*((number, 2, 0, b"", b"%d" % number) for number in (1, 2, 2, 3, 4)))
    found.load(data, 5, 0)
    found.load(block((2, 2, 0, b"", b"x")), 1, 0)
    assert [found.newest(count) for count in range(6)] == [4, 3, 2, 2, 1, 0]

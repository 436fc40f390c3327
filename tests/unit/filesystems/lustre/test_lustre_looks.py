"""What a record makes us look at."""

from __future__ import annotations

import pytest

from filesystems.lustre.kernel.native import Places, Records
from filesystems.lustre.looks import Kind
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

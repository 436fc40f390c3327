"""What follows from listed directories, beside views as they are on disk."""

import pytest

from shards.changed_directories import compare, partly_named
from shards.changes import ChangedDirectory, Gap, Subdirectory
from tests.support.snapshot_view import SnapshotView

TREE = {
    b"": 1,
    b"a": 2,
    b"a/f": 3,
    b"a/in": 4,
    b"a/in/f": 5,
    b"a/in/deep": 6,
    b"a/in/deep/f": 7,
    b"a.file": 8,
    b"b": 9,
    b"b/f": 10,
}
DIRECTORIES = {b"", b"a", b"a/in", b"a/in/deep", b"b"}


def view(paths=TREE):
    return SnapshotView({path: (TREE[path], path in DIRECTORIES) for path in paths})


def listed(path, distrust=False, views=None, **subdirectories):
    found = {
        name.encode(): Subdirectory(ino, changed) for name, (ino, changed) in subdirectories.items()
    }
    directory = ChangedDirectory(path, found)
    return compare([directory], [views or [view()]], distrust_changed=distrust)


def test_what_a_view_has_in_a_directory_is_looked_at_but_not_below_known_subdirectories():
    names, subtrees = listed(b"a", **{"in": (4, True)})
    assert names == {b"a/f"}
    assert subtrees == set()


def test_a_subdirectory_that_no_view_has_there_is_looked_at_with_all_below():
    assert listed(b"a", **{"in": (4, False), "new": (6, False)})[1] == {b"a/new"}


def test_another_directory_at_a_known_name_is_looked_at_with_all_below():
    assert listed(b"a", **{"in": (99, False)})[1] == {b"a/in"}


def test_a_lost_subdirectory_is_looked_at_with_all_below():
    names, subtrees = listed(b"a")
    assert names == {b"a/f"}
    assert subtrees == {b"a/in"}


def test_a_lost_subdirectory_is_seen_in_the_views_of_shards_that_only_have_what_is_below():
    shards = [view([b"a/in/deep/f"]), view([b"", b"a"])]
    assert listed(b"a", views=shards)[1] == {b"a/in"}


def test_a_directory_is_known_if_one_shard_has_it():
    shards = [view([b"a/f"]), view([b"a/in"])]
    assert listed(b"a", views=shards, **{"in": (4, False)}) == ({b"a/f"}, set())


def test_a_directory_must_be_known_in_every_set_of_views():
    directory = ChangedDirectory(b"a", {b"in": Subdirectory(4, False)})
    base, current = view([b"a"]), view()
    found = compare([directory], [[base], [current]], distrust_changed=False)
    assert found[1] == {b"a/in"}


def test_a_changed_subdirectory_is_not_trusted_where_shards_know_different_moments():
    assert listed(b"a", distrust=True, **{"in": (4, True)})[1] == {b"a/in"}
    assert listed(b"a", distrust=True, **{"in": (4, False)})[1] == set()


def test_the_root_has_no_end():
    names, subtrees = listed(b"", a=(2, True))
    assert names == {b"a.file"}
    assert subtrees == {b"b"}


def test_names_that_begin_alike_are_apart():
    names, subtrees = listed(b"", b=(9, True))
    assert names == {b"a.file"}
    assert subtrees == {b"a"}


def test_a_name_that_became_a_directory_is_new():
    assert listed(b"", a=(2, False), b=(9, False), **{"a.file": (8, False)})[1] == {b"a.file"}


def test_more_than_a_scan_is_a_gap(monkeypatch):
    monkeypatch.setattr("shards.changed_directories.CHANGES_MAX", 1)
    with pytest.raises(Gap, match="more than 1 names are gone"):
        listed(b"", a=(2, False))


def test_the_newest_word_on_a_name_counts_and_not_that_of_a_shard_that_lost_it():
    # The first shard's inode was at a/in, then the second one's directory took the name over.
    lost = SnapshotView({b"a": (2, True), b"a/in": (4, True)}, tdate=1)
    newer = SnapshotView({b"a/in": (77, True)}, tdate=2)
    assert listed(b"a", views=[lost, newer], **{"in": (4, False)})[1] == {b"a/in"}
    assert listed(b"a", views=[lost, newer], **{"in": (77, False)})[1] == set()


def test_two_words_of_the_same_moment_are_none():
    views = [SnapshotView({b"a/in": (ino, True)}, tdate=1) for ino in (4, 77)]
    assert listed(b"a", views=views, **{"in": (4, False)})[1] == {b"a/in"}


def test_files_with_names_elsewhere_are_looked_at_each_time():
    names = {b"a/f": (3, False), b"b/f": (3, False), b"b/g": (4, False), b"b": (9, True)}
    assert partly_named(SnapshotView(names, nlink=2)) == [b"b\0g"]
    assert partly_named(SnapshotView(names, nlink=1)) == []

"""What the restore side of the plugin does with a place that is not empty, and at its borders.

Covers: replace modes, links and swapped inodes that stand in the way, names that lead elsewhere.
Does not cover: kinds of files, attributes and directories (test_plugin_restore.py).
"""

import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from tests.plugin.restore_support import (
    CF_CREATED,
    CF_ERROR,
    CF_EXTRACT,
    CF_SKIP,
    FT_DIREND,
    FT_LNK,
    FT_LNKSAVED,
    FT_REG,
    FT_SPEC,
    M_ERROR,
    M_FATAL,
    M_SKIPPED,
    assert_quiet,
    make_stat,
    names,
)
from tests.support.making import encode_acl

NOBODY = 65534
ACCESS_ACL, DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
# user::rwx user:1234:rwx group::r-x mask::rwx other::---
ACL = encode_acl(
    [(1, 7, 0xFFFFFFFF), (2, 7, 1234), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# Replace modes.

OLDER, SAVED, NEWER = 900_000_000, 1_000_000_000, 1_100_000_000


@pytest.mark.parametrize(
    ("replace", "there", "restored"),
    [
        ("a", OLDER, True),
        ("a", NEWER, True),
        ("w", OLDER, True),
        ("w", SAVED, False),
        ("w", NEWER, False),
        ("o", OLDER, False),
        ("o", SAVED, False),
        ("o", NEWER, True),
        ("n", OLDER, False),
        ("n", NEWER, False),
        ("?", OLDER, False),
    ],
)
@pytest.mark.parametrize("kind", ["file", "symlink", "hard link"])
def test_replace_modes_decide_like_bacula(harness, script, place, replace, there, restored, kind):
    script.replace = replace
    (place / "file").write_text("old")
    os.link(place / "file", place / "other name")
    os.utime(place / "file", (there, there))
    (place / "first").write_text("first")
    if kind == "file":
        script.file(FT_REG, b"file", make_stat(0o100644, SAVED), data=[(0, b"new")])
    elif kind == "symlink":
        script.file(FT_LNK, b"file", make_stat(0o120777, SAVED), link=b"new")
    else:
        script.file(FT_LNKSAVED, b"file", make_stat(0o100644, SAVED), link=b"first", blob=[])
    outcome = script.run(harness)
    content = os.readlink(place / "file") if kind == "symlink" and restored else None
    content = content or (place / "file").read_text()
    assert content == ({"hard link": "first"}.get(kind, "new") if restored else "old")
    assert (outcome.created == [CF_SKIP]) == (not restored)
    assert len(outcome.texts(M_SKIPPED)) == (0 if restored else 1)
    # The old inode is not written to: its other name keeps the contents.
    assert (place / "other name").read_text() == "old"


@pytest.mark.parametrize("replace", ["a", "w", "o", "n"])
def test_what_is_missing_is_restored_in_every_mode(harness, script, place, replace):
    script.replace = replace
    script.file(FT_REG, b"a/b/file", data=[(0, b"new")])
    script.file(FT_DIREND, b"a/b", mode=0o40555)
    script.file(FT_DIREND, b"a", mode=0o40511)
    outcome = script.run(harness)
    assert (place / "a/b/file").read_text() == "new"
    assert [stat.S_IMODE((place / p).stat().st_mode) for p in ("a", "a/b")] == [0o511, 0o555]
    assert (place / "a").stat().st_mtime_ns == make_stat(0).st_mtime_ns
    assert_quiet(outcome)


@pytest.mark.parametrize(("replace", "skipped"), [("a", 0), ("w", 1), ("o", 0), ("n", 1)])
def test_an_existing_directory_is_judged_like_a_file(harness, script, place, replace, skipped):
    script.replace = replace
    (place / "d").mkdir(mode=0o700)
    script.file(FT_DIREND, b"d", mode=0o40750)  # saved long before now
    outcome = script.run(harness)
    assert outcome.created == [CF_SKIP if skipped else CF_CREATED]
    assert stat.S_IMODE((place / "d").stat().st_mode) == (0o700 if skipped else 0o750)


@pytest.mark.parametrize("replace", ["a", "w", "o", "n"])
def test_a_symlink_above_a_target_never_leads_out(harness, script, place, tmp_path, replace):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("victim")
    before = outside.stat().st_mtime_ns
    (place / "d").symlink_to(outside)
    script.replace = replace
    script.file(FT_REG, b"d/file", make_stat(0o100644, 2**33), data=[(0, b"new")])
    script.file(FT_REG, b"d/e/file", make_stat(0o100644, 2**33), data=[(0, b"new")])
    script.file(FT_LNKSAVED, b"d/linked", make_stat(0o100644, 2**33), link=b"d/file", blob=[])
    outcome = script.run(harness)
    assert (outside / "file").read_text() == "victim"
    assert sorted(os.listdir(outside)) == ["file"]
    assert outside.stat().st_mtime_ns == before
    if replace == "a":
        assert (place / "d/file").read_text() == (place / "d/e/file").read_text() == "new"
        assert not (place / "d").is_symlink()
        assert_quiet(outcome)
    else:
        assert outcome.created == [CF_ERROR] * 3
        assert (place / "d").is_symlink()
        assert "d/file: a symlink stands" in names(outcome, M_ERROR)


def test_in_the_original_place_a_symlink_above_is_an_error(harness, script, place, tmp_path):
    """/home may be a link on this machine by its administrator's will: it stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (place / "d").symlink_to(outside)
    below = os.fsencode(place).lstrip(b"/")
    script.where = b""
    script.file(FT_REG, below + b"/d/file", make_stat(0o100644, 2**33), data=[(0, b"new")])
    script.file(FT_DIREND, below + b"/d", mode=0o40700)
    script.file(FT_REG, below + b"/file", make_stat(0o100644, 2**33), data=[(0, b"new")])
    outcome = script.run(harness)
    assert outcome.created == [CF_ERROR, CF_ERROR, CF_EXTRACT]
    assert os.readlink(place / "d") == str(outside)
    assert os.listdir(outside) == []
    assert (place / "file").read_text() == "new"


@pytest.mark.parametrize("replace", ["a", "w", "o", "n"])
def test_a_symlink_at_a_target_is_never_written_through(harness, script, place, tmp_path, replace):
    victim = tmp_path / "victim"
    victim.write_text("victim")
    for name in ("file", "fifo", "link"):
        (place / name).symlink_to(victim)
    script.replace = replace
    script.file(FT_REG, b"file", make_stat(0o100600, 2**33), data=[(0, b"new")])
    script.file(FT_SPEC, b"fifo", make_stat(stat.S_IFIFO | 0o600, 2**33))
    script.file(FT_LNK, b"link", make_stat(0o120777, 2**33), link=b"x")
    outcome = script.run(harness)
    assert victim.read_text() == "victim"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    if replace in "aw":
        assert (place / "file").read_text() == "new"
        assert not (place / "file").is_symlink()
        assert os.readlink(place / "link") == "x"
        assert_quiet(outcome)
    else:
        assert outcome.created == [CF_SKIP] * 3


@pytest.mark.parametrize(
    ("replace", "status"), [("a", CF_CREATED), ("o", CF_ERROR), ("n", CF_SKIP)]
)
def test_a_symlink_where_a_directory_must_be(harness, script, place, tmp_path, replace, status):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (place / "d").symlink_to(outside)
    script.replace = replace
    script.file(FT_DIREND, b"d", mode=0o40700)
    outcome = script.run(harness)
    assert outcome.created == [status]
    assert (place / "d").is_symlink() == (replace != "a")
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755


FIFO, CHARACTER = stat.S_IFIFO | 0o640, stat.S_IFCHR | 0o640
USER = 1234


def make_swapped(path: Path, kind: str) -> None:
    """Make the inode that a user moves over the name that the restore made."""
    if kind == "a file":
        path.write_text("victim")
    elif kind == "another link":
        path.symlink_to("elsewhere")
    elif kind == "another device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    else:
        os.mkfifo(path, 0o600)
    if kind == "a second name":
        os.link(path, path.with_name("first name"))
    if kind == "another's":
        os.chown(path, USER, USER)


@needs_root
@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("a file", FT_LNK),
        ("a file", FIFO),
        ("another link", FT_LNK),
        ("another device", CHARACTER),
        ("a second name", FIFO),
        ("another's", FIFO),
    ],
)
def test_an_inode_moved_over_a_new_name_is_given_nothing(harness, script, place, kind, made):
    victim = place.parent / "victim"
    make_swapped(victim, kind)
    descriptor = os.open(victim, os.O_PATH | os.O_NOFOLLOW)
    before = os.fstat(descriptor)
    script.lines.append(f"swap {bytes(victim).hex()}")
    if made == FT_LNK:
        st = make_stat(stat.S_IFLNK | 0o777, uid=NOBODY)
        script.file(FT_LNK, b"name", st, link=b"text")
    else:
        script.file(FT_SPEC, b"name", make_stat(made, uid=NOBODY, rdev=os.makedev(1, 3)))
    outcome = script.run(harness)
    after = os.fstat(descriptor)
    os.close(descriptor)
    assert not os.path.lexists(victim)  # it was moved indeed
    for field in ("st_uid", "st_gid", "st_mode", "st_mtime_ns"):
        assert getattr(after, field) == getattr(before, field), field
    got = (place / "name").lstat()
    assert (got.st_uid, got.st_ino == before.st_ino) == (NOBODY, False)
    assert got.st_mtime_ns == make_stat(0).st_mtime_ns
    if made == FT_LNK:
        assert os.readlink(place / "name") == "text"
    else:
        assert got.st_mode == made
    assert_quiet(outcome)


@needs_root
@pytest.mark.parametrize(("mode", "taken"), [(0o755, True), (0o775, False), (0o757, False)])
def test_what_belongs_to_the_only_writer_of_its_directory_is_taken(
    harness, script, place, mode, taken
):
    """A server that maps root to another user makes such inodes."""
    (place / "d").mkdir()
    os.chown(place / "d", USER, USER)
    (place / "d").chmod(mode)
    mapped = place.parent / "mapped"
    make_swapped(mapped, "another's")
    descriptor = os.open(mapped, os.O_PATH)  # its inode number is not used again meanwhile
    script.lines.append(f"swap {bytes(mapped).hex()}")
    script.file(FT_SPEC, b"d/name", make_stat(FIFO))
    assert_quiet(script.run(harness))
    links = os.fstat(descriptor).st_nlink
    os.close(descriptor)
    assert links == (1 if taken else 0)
    assert (place / "d/name").lstat().st_mode == FIFO


def test_a_directory_in_the_way_is_removed_only_if_it_is_empty(harness, script, place):
    (place / "empty").mkdir()
    (place / "full").mkdir()
    (place / "full" / "kept").write_text("kept")
    script.file(FT_REG, b"empty", data=[(0, b"new")])
    script.file(FT_REG, b"full", data=[(0, b"new")])
    outcome = script.run(harness)
    assert outcome.created == [CF_EXTRACT, CF_ERROR]
    assert (place / "empty").read_text() == "new"
    assert (place / "full" / "kept").read_text() == "kept"
    assert f"{place}/full: a directory that is not empty" in names(outcome, M_ERROR)


def test_a_file_in_the_way_of_a_directory_is_removed(harness, script, place):
    (place / "d").write_text("old")
    (place / "e").write_text("old")
    script.file(FT_REG, b"d/file", data=[(0, b"new")])
    script.file(FT_DIREND, b"e", mode=0o40750)
    assert_quiet(script.run(harness))
    assert (place / "d/file").read_text() == "new"
    assert stat.S_IMODE((place / "e").stat().st_mode) == 0o750


def test_a_second_restore_over_the_first_changes_nothing(harness, script, place):
    script.file(FT_REG, b"one", data=[(0, b"1")])
    script.file(FT_LNKSAVED, b"two", link=b"one", blob=[])
    script.file(FT_LNKSAVED, b"two", link=b"one", blob=[])  # already the same inode
    script.file(FT_DIREND, b"d", mode=0o40555)
    assert_quiet(script.run(harness))
    assert_quiet(script.run(harness))
    assert (place / "one").stat().st_nlink == 2
    assert stat.S_IMODE((place / "d").stat().st_mode) == 0o555


# The restore place.


def test_the_place_is_made_and_may_be_reached_through_a_symlink(harness, script, place):
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    script.where = bytes(place) + b"/link/new/deep"
    script.file(FT_REG, b"file", data=[(0, b"x")])
    assert_quiet(script.run(harness))
    assert (place / "real/new/deep/file").read_text() == "x"


@pytest.mark.parametrize("where", [b"", b"/"])
def test_without_where_names_are_absolute(harness, script, place, where):
    root = script.where
    script.where = b""
    script.file(FT_REG, root[1:] + b"/a/file", data=[(0, b"x")])
    script.where = where
    assert_quiet(script.run(harness))
    assert (place / "a/file").read_text() == "x"


def test_a_slash_at_the_end_of_where_makes_no_difference(harness, script, place):
    script.file(FT_REG, b"file", data=[(0, b"x")])
    script.where += b"/"
    assert_quiet(script.run(harness))
    assert (place / "file").read_text() == "x"


def test_a_place_that_cannot_be_made_is_fatal_once(harness, script, place):
    (place / "file").write_text("")
    script.where = bytes(place) + b"/file/below"
    script.file(FT_REG, b"a")
    script.file(FT_REG, b"b")
    outcome = script.run(harness)
    assert outcome.created == [CF_ERROR, CF_ERROR]
    assert len(outcome.texts(M_FATAL)) == 1


@pytest.mark.parametrize(
    "name", [b"../x", b"a/../../x", b"./x", b"a//x", b"a/./x", b"", b"a/", b"..", b"."]
)
def test_names_that_are_no_plain_paths_are_refused(harness, script, place, name):
    script.file(FT_REG, name, data=[(0, b"x")])
    outcome = script.run(harness)
    assert outcome.created == [CF_ERROR]
    assert len(outcome.texts(M_ERROR)) == 1
    assert os.listdir(place) == []
    assert not (place.parent / "x").exists()


def test_a_name_outside_of_where_is_refused(harness, script, place):
    for name in (bytes(place) + b"2/x", b"/tmp/x", b"x", bytes(place)):
        script.raw(FT_REG, make_stat(0o100644), name, None)
        script.lines.append("end")
    outcome = script.run(harness)
    assert outcome.created == [CF_ERROR] * 4
    assert os.listdir(place) == []


def test_names_of_255_bytes_and_paths_past_path_max_come_back(harness, script, place):
    deep = b"/".join([b"n" * 255] * 30)
    script.file(FT_REG, deep + b"/file", data=[(0, b"x")])
    script.file(FT_DIREND, deep, mode=0o40711)
    script.file(FT_REG, b"m" * 256)
    outcome = script.run(harness)
    assert outcome.created == [CF_EXTRACT, CF_CREATED, CF_ERROR]
    descriptor = os.open(place, os.O_RDONLY)
    for _ in range(30):
        descriptor = os.open(b"n" * 255, os.O_RDONLY, dir_fd=descriptor)
    assert os.listdir(descriptor) == ["file"]
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o711
    subprocess.run(["rm", "-rf", place / ("n" * 255)], check=True)


def test_control_characters_and_broken_utf8_are_escaped_in_messages(harness, script, place):
    (place / "d").mkdir()
    name = "é\n\x1b[31m\\".encode() + b"\xff"
    (place / os.fsdecode(name)).mkdir()
    (place / os.fsdecode(name) / "x").write_text("")
    script.file(FT_REG, name)
    outcome = script.run(harness)
    assert f"{place}/é\\x0a\\x1b[31m\\x5c\\xff: a directory" in names(outcome, M_ERROR)


def test_a_missing_first_name_is_an_error_with_both_names(harness, script, place):
    script.file(FT_LNKSAVED, b"two", link=b"one", blob=[])
    script.file(FT_LNKSAVED, b"three", link=b"../../etc/passwd", blob=[])
    outcome = script.run(harness)
    assert outcome.created == [CF_ERROR] * 2
    said = names(outcome, M_ERROR)
    assert f"{place}/two: could not be made a hard link to {place}/one" in said
    assert "restore both" in said

"""Files that need no attributes stream: times go in Bacula's own record.

Covers: which files are saved so, hard links, xattrs that cannot be listed; the restore of every
kind, inherited ACLs, directories, records that are no such ones, a stream that comes all the same.
Does not cover: the number itself (test_blob.py), files with a stream (test_plugin_restore.py), how
Bacula keeps it (test_plugin_in_bacula.py).
"""

import errno
import os
import stat

import pytest

from tests.plugin.backup_support import (
    CHUNK,
    M_ERROR,
    M_WARNING,
    back_up,
    check_saved,
    entry_of,
    statuses,
    write,
)
from tests.plugin.restore_support import (
    FT_DIREND,
    FT_LNK,
    FT_LNKSAVED,
    FT_REG,
    FT_REGE,
    FT_SPEC,
    ITEM_LOST,
    ITEM_STAT,
    assert_quiet,
    make_stat,
    parse,
    read_xattrs,
    short,
    short_rdev,
    stream_of,
    with_rdev,
)
from tests.support.making import encode_acl
from tests.support.stream_bridge import CHANGED, LINK, SAVED

ACCESS_ACL, DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
ANYBODY = 0xFFFFFFFF
ACL = encode_acl(
    [(1, 7, ANYBODY), (2, 7, 1234), (4, 5, ANYBODY), (16, 7, ANYBODY), (32, 0, ANYBODY)]
)
ATIME_NS, MTIME_NS = -(10**18) + 1, 1_500_000_000 * 10**9 + 999_999_999
MODES = {
    FT_REG: stat.S_IFREG | 0o4751,
    FT_REGE: stat.S_IFREG | 0o640,
    FT_DIREND: stat.S_IFDIR | 0o2711,
    FT_LNK: stat.S_IFLNK | 0o777,
    FT_SPEC: stat.S_IFIFO | 0o620,
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# Saved.


def saved_names(dump, root):
    """Return what Bacula got by its name below the root."""
    return {os.fsdecode(saved.fname).removeprefix(f"{root}/"): saved for saved in dump.files}


def test_only_what_times_alone_do_not_tell_has_a_stream(backup_harness, out, root):
    write(root / "plain", 10)
    write(root / "empty", 0)
    write(root / "large", CHUNK + 1)
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 30)
    (root / "directory").mkdir()
    (root / "symlink").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    without = [path.name for path in root.iterdir()]
    for name in ("user", "acl"):
        write(root / name, 10)
    os.setxattr(root / "user", "user.x", b"")
    os.setxattr(root / "acl", ACCESS_ACL, ACL)
    (root / "default").mkdir()
    os.setxattr(root / "default", DEFAULT_ACL, ACL)
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        for name in ("trusted symlink", "trusted fifo"):
            os.symlink("x", root / name) if "symlink" in name else os.mkfifo(root / name)
            os.setxattr(root / name, "trusted.x", b"1", follow_symlinks=False)
    paths = sorted(root.iterdir(), key=lambda path: path.is_dir() and not path.is_symlink())
    for number, path in enumerate(paths):
        nanoseconds = (number, 999_999_999 - number) if number else (999_999_999, 0)
        seconds = -(10**18) if number % 2 else 10**18
        times = tuple(seconds + ns for ns in nanoseconds)
        os.utime(path, ns=times, follow_symlinks=False)
    entries = [entry_of(root, path.name) for path in paths]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED] * len(entries)
    check_saved(root, entries, dump, stream)
    saved = saved_names(dump, root)
    assert sorted(name.rstrip("/") for name in saved if not saved[name].blob) == sorted(without)


def test_what_changes_while_it_is_read_has_the_times_of_its_receipt(backup_harness, out, root):
    write(root / "file", 5000)
    entries = [entry_of(root, "file", ctime_ns=0)]
    fault = f"rewrite:{entries[0].ino}:5000"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    (receipt,), (saved,) = stream.receipts, dump.files
    assert (receipt.status, saved.blob) == (CHANGED, [])
    assert saved.rdev == short_rdev(receipt.mtime_ns, receipt.atime_ns)


def test_the_further_names_of_an_inode_carry_no_times(backup_harness, out, root):
    write(root / "a", 10)
    (root / "b").hardlink_to(root / "a")
    entries = [entry_of(root, name) for name in "ab"]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    assert statuses(stream) == [SAVED, LINK]
    check_saved(root, entries, dump, stream)
    assert [saved.rdev >> 60 for saved in dump.files] == [5, 0]


def test_a_filesystem_without_xattrs_has_none(backup_harness, out, root):
    write(root / "file", 10)
    entries = [entry_of(root, "file")]
    fault = f"list:{entries[0].ino}:{errno.ENOTSUP}"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    assert statuses(stream) == [SAVED]
    check_saved(root, entries, dump, stream)


def test_xattrs_that_cannot_be_listed_are_lost_and_not_none(backup_harness, out, root):
    write(root / "file", 10)
    entries = [entry_of(root, "file")]
    fault = f"list:{entries[0].ino}:{errno.EIO}"
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], fault=fault)
    assert [(r.status, r.error) for r in stream.receipts] == [(CHANGED, errno.EIO)]
    assert [tag for tag, _, _ in parse(dump.files[0].blob)][:2] == [ITEM_STAT, ITEM_LOST]
    assert dump.files[0].rdev == 0
    assert len(dump.said(M_ERROR)) == 1


# Restored.


def two_times(mode: int, **changes: int) -> os.stat_result:
    """A record without a stream, with an atime that is not the mtime."""
    st = make_stat(mode, **changes)
    seconds = [ATIME_NS // 10**9, MTIME_NS // 10**9, 1]
    values = [*st[:7], *seconds, *seconds, ATIME_NS, MTIME_NS, 1, 4096, 0, 0]
    return short(os.stat_result(values))


def add(script, type_, path, st, blob=()):
    link = b"nowhere" if type_ == FT_LNK else None
    data = [(0, b"x")] if type_ == FT_REG else ()
    script.file(type_, path, st, link=link, data=data, blob=list(blob))


@pytest.mark.parametrize("type_", MODES)
def test_every_kind_comes_back_to_the_nanosecond(harness, script, place, type_):
    ids = {"uid": 4_000_000_000, "gid": 77} if os.geteuid() == 0 else {}
    st = two_times(MODES[type_], **ids)
    add(script, type_, b"d/name", st)
    assert_quiet(script.run(harness))
    got = (place / "d/name").lstat()
    assert got.st_mode == st.st_mode
    assert (got.st_uid, got.st_gid) == (st.st_uid, st.st_gid)
    assert (got.st_mtime_ns, got.st_atime_ns) == (MTIME_NS, ATIME_NS)


@pytest.mark.parametrize("times", [(0, 0), (-(10**18), 10**18), (1, 10**9 - 1), (10**9 - 1, 1)])
def test_whole_seconds_are_times_as_well(harness, script, place, times):
    atime, mtime = (ns // 10**9 for ns in times)
    seconds = [atime, mtime, 1]
    values = [stat.S_IFREG | 0o640, 77, 1, 1, os.geteuid(), os.getegid(), 1, *seconds, *seconds]
    add(script, FT_REG, b"file", short(os.stat_result([*values, *times, 1, 4096, 0, 0])))
    assert_quiet(script.run(harness))
    got = (place / "file").stat()
    assert (got.st_atime_ns, got.st_mtime_ns) == times


@pytest.mark.parametrize("type_", set(MODES) - {FT_LNK})
def test_nothing_that_was_inherited_or_stood_there_stays(harness, script, place, type_):
    """A file that was saved without xattrs has none, whatever lies above."""
    os.setxattr(place, DEFAULT_ACL, ACL)
    if type_ == FT_DIREND:
        (place / "name").mkdir()
        os.setxattr(place / "name", "user.old", b"1")
        os.setxattr(place / "name", ACCESS_ACL, ACL)
        assert len(read_xattrs(bytes(place / "name"))) == 3
    for path in (b"name", b"below/name"):
        add(script, type_, path, two_times(MODES[type_]))
    assert_quiet(script.run(harness))
    for path in (place / "name", place / "below/name"):
        assert read_xattrs(bytes(path)) == {}
        assert path.stat().st_mode == MODES[type_]


@needs_root
def test_what_the_filesystem_keeps_for_itself_stays(harness, script, place):
    (place / "d").mkdir()
    for name in ("trusted.lov", "trusted.link", "trusted.mine"):
        os.setxattr(place / "d", name, b"1")
    add(script, FT_DIREND, b"d", two_times(MODES[FT_DIREND]))
    assert_quiet(script.run(harness))
    assert set(read_xattrs(bytes(place / "d"))) == {b"trusted.lov", b"trusted.link"}


def test_directories_with_and_without_a_stream_do_not_mix(harness, script, place):
    """Their attributes wait for the end of the job in one file."""
    names = [b"d%d" % number for number in range(9)]
    for number, name in enumerate(names):
        if number % 3 == 1:
            add(script, FT_DIREND, name, two_times(stat.S_IFDIR | 0o700 + number))
        else:
            st = make_stat(stat.S_IFDIR | 0o700 + number)
            blob = stream_of(st, {b"user.a": name * 100}) if number % 3 == 0 else []
            add(script, FT_DIREND, name, st, blob)
    for name in names:
        (place / os.fsdecode(name)).mkdir()
        os.setxattr(place / os.fsdecode(name), "user.old", b"1")
    outcome = script.run(harness)
    for number, name in enumerate(names):
        path = place / os.fsdecode(name)
        xattrs = [{b"user.a": name * 100}, {}, {b"user.old": b"1"}][number % 3]
        ns = [make_stat(0).st_mtime_ns, MTIME_NS, 10**18][number % 3]
        assert (read_xattrs(bytes(path)), path.stat().st_mtime_ns) == (xattrs, ns), name
        assert stat.S_IMODE(path.stat().st_mode) == 0o700 + number
    first, last = outcome.texts(M_WARNING)
    assert f"{place}/d2/: its attributes stream is missing" in first
    assert last.startswith("3 files in all")


RDEV = short_rdev(1, 2)
NOT_SHORT = {
    "no mark": RDEV & (1 << 60) - 1,
    "nothing": 0,
    "a bit too few": RDEV ^ 1 << 60,
    "another bit too few": RDEV ^ 1 << 62,
    "a bit too many": RDEV ^ 1 << 61,
    "mtime beyond a second": short_rdev(10**9, 2),
    "atime beyond a second": short_rdev(1, 10**9),
}


@pytest.mark.parametrize("what", NOT_SHORT)
@pytest.mark.parametrize("type_", set(MODES) - {FT_LNK})
def test_a_record_that_is_no_such_one_lacks_its_stream(harness, script, place, what, type_):
    (place / "d").mkdir()
    os.setxattr(place / "d", "user.old", b"1")
    add(script, type_, b"d", with_rdev(two_times(MODES[type_]), NOT_SHORT[what]))
    outcome = script.run(harness)
    (text,) = outcome.texts(M_WARNING)
    assert f"{place}/d" in text
    assert ": its attributes stream is missing: xattrs and ACLs are not restored" in text
    got = (place / "d").stat()
    assert got.st_mode == MODES[type_]
    seconds = (MTIME_NS // 10**9 * 10**9, ATIME_NS // 10**9 * 10**9)
    assert (got.st_mtime_ns, got.st_atime_ns) == seconds
    # Of a directory that stands it is not known what it had.
    assert len(read_xattrs(bytes(place / "d"))) == (type_ == FT_DIREND)


@pytest.mark.parametrize("type_", MODES)
def test_a_stream_that_comes_all_the_same_is_damage(harness, script, place, type_):
    st = two_times(MODES[type_])
    other = make_stat(stat.S_IFMT(MODES[type_]) | 0o777, 77, size=st.st_size)
    for name in (b"one", b"two"):
        add(script, type_, name, st, stream_of(other, {b"user.a": b"1"}))
    outcome = script.run(harness)
    first, last = outcome.texts(M_WARNING)
    assert f"{place}/one" in first
    assert ": its attributes stream goes on after its end: xattrs and ACLs are not" in first
    assert last.startswith("2 files in all")
    for name in ("one", "two"):
        got = (place / name).lstat()
        assert got.st_mode == MODES[type_]
        assert (got.st_mtime_ns, got.st_atime_ns) == (MTIME_NS, ATIME_NS)
        assert read_xattrs(bytes(place / name)) == {}


def test_the_size_of_the_record_counts(harness, script, place):
    st = two_times(stat.S_IFREG | 0o755)
    script.file(FT_REG, b"cut", st, data=[(0, b"hello")], size=6, blob=[])
    script.file(FT_REG, b"whole", st, data=[(0, b"hello")], blob=[])
    outcome = script.run(harness)
    assert f"{place}/cut: the backup of this file is incomplete" in outcome.texts(M_ERROR)[0]
    assert stat.S_IMODE((place / "cut").stat().st_mode) == 0o600
    assert (place / "whole").stat().st_mtime_ns == MTIME_NS


def test_a_further_name_changes_nothing_of_the_first(harness, script, place):
    st = two_times(MODES[FT_REG])
    add(script, FT_REG, b"one", st)
    script.file(FT_LNKSAVED, b"two", make_stat(0o100600), link=b"one", blob=[])
    assert_quiet(script.run(harness))
    got = (place / "two").stat()
    assert (got.st_mode, got.st_mtime_ns, got.st_nlink) == (MODES[FT_REG], MTIME_NS, 2)

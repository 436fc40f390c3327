"""Changes looked up through the stand-in: what is found, what is a gap, what outlives a crash."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from filesystems.lustre import api as api_module
from filesystems.lustre import changelog as changelog_module
from filesystems.lustre import log as log_module
from filesystems.lustre import source as source_module
from filesystems.lustre.errors import LogBusy, LogUnusable, LustreFailed, SettingsWrong
from filesystems.lustre.fid import Fid
from filesystems.lustre.kernel.native import rows as block_rows
from filesystems.lustre.log import ChangeLog, locked
from filesystems.lustre.resolve import Resolver, inside
from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import LustreSource
from shards.changes import ChangeSet, Gap, Position
from tests.support.change_histories import missed, snapshot
from tests.support.lustre.encoding import NO_FID, encode, fid
from tests.support.lustre.killed import ENDED
from tests.support.lustre.targets import FINI, START, library

CHECKOUT = Path(__file__).resolve().parents[4]
EMPTY = ChangeSet([], [], [])


def rows(lustre):
    """Return what the log's blocks have, one after the other."""
    found = []
    with closing(sqlite3.connect(lustre.base / "log" / "lustre.sqlite")) as db:
        for data, count in db.execute("SELECT data, places FROM blocks ORDER BY number"):
            found += [(row.name, row.kind, row.sequence) for row in block_rows(data, count)]
    return found


# What is found.


def test_nothing_done_is_nothing_to_look_at(lustre):
    lustre.tree.create(lustre.root + b"/old", b"old")
    before = lustre.source.position()
    assert lustre.source.changes(before) == EMPTY


def test_names_and_their_directories_are_named(lustre):
    for name in (b"/changed", b"/made", b"/removed"):
        lustre.tree.mkdir(lustre.root + name)
    lustre.tree.create(lustre.root + b"/changed/x")
    lustre.tree.create(lustre.root + b"/removed/x")
    before, state = lustre.now()
    lustre.tree.write(lustre.root + b"/changed/x", b"new")
    lustre.tree.create(lustre.root + b"/made/x")
    lustre.tree.unlink(lustre.root + b"/removed/x")
    changes = lustre.since(before, state)
    assert changes == ChangeSet(
        [b"changed/x", b"made", b"made/x", b"removed", b"removed/x"], [], []
    )


def test_a_directory_that_is_made_or_removed_is_a_subtree(lustre):
    lustre.tree.mkdir(lustre.root + b"/old")
    before, state = lustre.now()
    lustre.tree.mkdir(lustre.root + b"/new")
    lustre.tree.create(lustre.root + b"/new/x")
    lustre.tree.rmdir(lustre.root + b"/old")
    assert lustre.since(before, state) == ChangeSet([b""], [b"new", b"old"], [])


def test_a_renamed_directory_is_two_subtrees(lustre):
    lustre.tree.mkdir(lustre.root + b"/old")
    lustre.tree.create(lustre.root + b"/old/x")
    before, state = lustre.now()
    lustre.tree.rename(lustre.root + b"/old", lustre.root + b"/new")
    lustre.tree.write(lustre.root + b"/new/x", b"x")
    assert lustre.since(before, state).subtrees == [b"new", b"old"]


def renamed(lustre, old, new):
    """Rename as servers of today record it."""
    lustre.tree.random.choice = lambda styles: styles[0]
    lustre.tree.rename(old, new)


def test_a_renamed_file_is_two_names(lustre):
    lustre.tree.create(lustre.root + b"/old", b"x")
    before, state = lustre.now()
    renamed(lustre, lustre.root + b"/old", lustre.root + b"/new")
    assert lustre.since(before, state) == ChangeSet([b"", b"new", b"old"], [], [])


def test_a_file_that_was_renamed_and_is_gone_may_have_been_a_directory(lustre):
    lustre.tree.create(lustre.root + b"/old", b"x")
    before, state = lustre.now()
    renamed(lustre, lustre.root + b"/old", lustre.root + b"/new")
    lustre.source.position()  # so that the removal is in another batch
    lustre.tree.unlink(lustre.root + b"/new")
    assert lustre.since(before, state).subtrees == [b"new", b"old"]


def test_what_is_beside_the_root_is_left_out(lustre):
    lustre.tree.mkdir(lustre.settings.mount + b"/rootlike")
    before = lustre.source.position()
    lustre.tree.create(lustre.outside + b"/x", b"x")
    lustre.tree.create(lustre.settings.mount + b"/rootlike/x", b"x")
    changes = lustre.source.changes(before)
    assert (changes.names, changes.subtrees) == ([], [])


def test_moving_in_and_out(lustre):
    for base in (lustre.root, lustre.outside):
        lustre.tree.mkdir(base + b"/d")
        lustre.tree.create(base + b"/d/x", b"x")
    before, state = lustre.now()
    lustre.tree.rename(lustre.root + b"/d", lustre.outside + b"/gone")
    lustre.tree.rename(lustre.outside + b"/d", lustre.root + b"/came")
    lustre.tree.write(lustre.outside + b"/gone/x", b"x")
    assert lustre.since(before, state).subtrees == [b"came", b"d"]


def test_all_links_of_an_inode_are_named_and_its_number_too(lustre):
    lustre.tree.create(lustre.root + b"/a", b"x")
    lustre.tree.link(lustre.root + b"/a", lustre.root + b"/b")
    before, state = lustre.now()
    lustre.tree.chmod(lustre.root + b"/a", 0o600)
    number = os.stat(lustre.root + b"/a").st_ino
    assert lustre.since(before, state) == ChangeSet([b"a", b"b"], [], [number])


def test_an_inode_without_a_name_inside_is_told_by_its_number(lustre):
    lustre.tree.create(lustre.root + b"/a", b"x")
    lustre.tree.link(lustre.root + b"/a", lustre.outside + b"/b")
    number = os.stat(lustre.root + b"/a").st_ino
    before, state = lustre.now()
    lustre.tree.unlink(lustre.root + b"/a")
    lustre.tree.write(lustre.outside + b"/b", b"x")
    assert lustre.since(before, state).inodes == [number]


def test_links_that_lustre_had_no_room_for_are_found_by_number(lustre):
    lustre.tree.create(lustre.root + b"/a", b"x")
    lustre.tree.link(lustre.root + b"/a", lustre.root + b"/b")
    what = lustre.tree.fid(lustre.root + b"/a")
    before, state = lustre.now()
    for links in ([], lustre.tree.links[what][:1]):
        lustre.tree.links[what] = links
        lustre.tree._relink(what)
        lustre.tree.data(14, what)
        os.chmod(lustre.root + b"/a", 0o600)
        lustre.since(before, state)


def test_a_path_that_is_too_long_is_told_by_number_or_a_gap(lustre, monkeypatch):
    lustre.tree.create(lustre.root + b"/long", b"x")
    before, state = lustre.now()
    lustre.tree.write(lustre.root + b"/long", b"x")
    monkeypatch.setattr(api_module, "PATH_BYTES", len(b"root/long"))
    changes = lustre.since(before, state)
    assert changes == ChangeSet([], [], [os.stat(lustre.root + b"/long").st_ino])
    monkeypatch.undo()
    lustre.tree.mkdir(lustre.root + b"/deep")
    lustre.tree.create(lustre.root + b"/deep/x", b"x")
    monkeypatch.setattr(api_module, "PATH_BYTES", len(b"root/deep"))
    assert "too large" in gap(lustre, before)


def test_a_directory_that_moved_meanwhile_is_found_where_it_is(lustre):
    lustre.tree.mkdir(lustre.root + b"/d")
    lustre.tree.create(lustre.root + b"/d/x", b"x")
    before, state = lustre.now()
    lustre.tree.write(lustre.root + b"/d/x", b"x")
    lustre.source.position()
    lustre.tree.rename(lustre.root + b"/d", lustre.root + b"/e")
    lustre.since(before, state)


def test_the_root_may_be_the_mount_point(lustre):
    settings = replace(lustre.settings, root=lustre.settings.mount)
    source = LustreSource("all", settings, lustre.base / "other", library())
    before = source.position()
    lustre.tree.create(lustre.root + b"/x", b"x")
    assert source.changes(before).names == [b"root", b"root/x"]


@pytest.mark.parametrize("style", [0, 1, 2])
def test_renames_between_two_targets(two_targets, style):
    """On the new one's changelog only, on both, or as two records of old servers."""
    tree, root = two_targets.tree, two_targets.root
    tree.random.randrange = lambda count: 0
    tree.mkdir(root + b"/here")
    tree.random.randrange = lambda count: count - 1
    tree.mkdir(root + b"/there")
    assert {tree.on[tree.fid(root + name)] for name in (b"/here", b"/there")} == {0, 1}
    tree.mkdir(root + b"/here/d")
    tree.create(root + b"/here/d/x", b"x")
    tree.create(root + b"/here/f", b"x")
    before, state = two_targets.now()
    tree.random.choice = lambda styles: styles[style]
    sizes = [target.records.stat().st_size for target in tree.targets]
    tree.rename(root + b"/here/d", root + b"/there/d")
    tree.rename(root + b"/here/f", root + b"/there/f")
    assert tree.targets[1].records.stat().st_size > sizes[1]
    assert (tree.targets[0].records.stat().st_size > sizes[0]) is (style > 0)
    changes = two_targets.since(before, state)
    assert {b"here/d", b"there/d"} <= set(changes.subtrees)


def test_times_that_lustre_leaves_out_are_recorded_again_once_cleared(lustre):
    """Also if another consumer keeps the record; and what is left out until then is looked at."""
    lustre.target.register()
    lustre.tree.create(lustre.root + b"/x")
    lustre.source.position()
    before, state = lustre.now()
    lustre.tree.targets[0].data(19, lustre.tree.fid(lustre.root + b"/x"))  # ATIME
    newest = lustre.target.newest
    lustre.tree.set_times(lustre.root + b"/x", 2)
    assert lustre.target.newest == newest
    lustre.since(before, state)
    before, state = lustre.now()
    lustre.tree.set_times(lustre.root + b"/x", 3)
    assert lustre.target.newest > newest
    lustre.since(before, state)


def test_many_records_of_few_names_are_few_places(lustre):
    before = lustre.source.position()
    root = lustre.tree.fid(lustre.root)
    files = [fid(500 + number, 1) for number in range(10)]
    stored = b"".join(
        encode(11, number, files[number % 10])
        if number % 2
        else encode(1, number, files[number % 10], root, b"n%d" % (number % 10))
        for number in range(lustre.target.newest + 1, lustre.target.newest + 20_001)
    )
    lustre.target.append_raw(stored)
    lustre.source.changes(before)
    new = [row for row in rows(lustre) if row[2] > before.sequence]
    assert len(new) == 10


# What is a gap.


def gap(lustre, since):
    with pytest.raises(Gap) as caught:
        lustre.source.changes(since)
    return str(caught.value)


def test_records_purged_unread_are_a_gap_for_all_positions_before(lustre):
    before = lustre.source.position()
    lustre.tree.create(lustre.root + b"/x")
    lustre.target.purge(lustre.target.newest)
    lustre.tree.create(lustre.root + b"/y")
    assert "jumps from record" in gap(lustre, before)
    after, state = lustre.now()
    assert "jumps from record" in gap(lustre, before)
    lustre.tree.create(lustre.root + b"/z")
    assert lustre.since(after, state).names == [b"", b"z"]


def test_a_gap_on_one_target_is_one_of_the_whole_filesystem(two_targets):
    for _ in range(2):
        for target in two_targets.tree.targets:
            target.append(10, NO_FID)
        before = two_targets.source.position()
    two_targets.tree.targets[1].purge(two_targets.tree.targets[1].newest)
    assert "scratch-MDT0001" in gap(two_targets, before)


def test_a_consumer_that_is_gone_is_a_gap_until_another_one_is_named(lustre):
    before = lustre.source.position()
    lustre.target.deregister("cl1")
    with pytest.raises(Gap, match="cl1-backup is not registered on scratch-MDT0000"):
        lustre.source.position()
    assert "is not registered" in gap(lustre, before)
    consumers = ((lustre.target.name, lustre.target.register("backup")),)
    lustre.settings = replace(lustre.settings, consumers=consumers)
    lustre.target.append(10, NO_FID)
    after, state = lustre.now()
    assert "other changelogs, consumers" in gap(lustre, before)
    lustre.tree.create(lustre.root + b"/x")
    lustre.since(after, state)


def test_a_changelog_that_was_off_for_a_time_is_a_gap(lustre):
    before = lustre.source.position()
    lustre.target.mark(FINI)
    lustre.target.mark(START)
    assert "was off for a time" in gap(lustre, before)


def test_a_server_that_was_restarted_is_no_gap(lustre):
    before = lustre.source.position()
    lustre.target.mark(START)
    assert lustre.source.changes(before) == EMPTY


def test_a_changelog_that_cannot_be_read_is_a_gap_of_the_moment(lustre):
    before, state = lustre.now()
    lustre.tree.create(lustre.root + b"/x")
    lustre.tree.create(lustre.root + b"/y")
    with lustre.target.fault("recv", errno.EIO, after=1):
        assert "Input/output error" in gap(lustre, before)
        with pytest.raises(Gap, match="Input/output error"):
            lustre.source.position()
    assert lustre.since(before, state).names == [b"", b"x", b"y"]


@pytest.mark.parametrize("call", ["start", "clear"])
def test_other_errors_are_gaps_of_the_moment(lustre, call):
    before, state = lustre.now()
    lustre.tree.create(lustre.root + b"/x")
    with lustre.target.fault(call, errno.EACCES):
        assert "Permission denied" in gap(lustre, before)
    assert lustre.since(before, state).names == [b"", b"x"]


def test_a_record_that_cannot_be_understood_is_a_gap(lustre):
    before = lustre.source.position()
    lustre.target.append(1, fid(77, 1), lustre.tree.fid(lustre.root), b"n" * 900)
    assert "cannot be understood" in gap(lustre, before)


def test_a_name_that_cannot_be_one_does_not_stop_the_dataset(lustre):
    lustre.tree.mkdir(lustre.root + b"/d")
    before = lustre.source.position()
    lustre.target.append(1, fid(77, 1), lustre.tree.fid(lustre.root + b"/d"), b"a/b")
    assert lustre.source.changes(before).subtrees == [b"d"]
    assert lustre.source.changes(lustre.source.position()) == EMPTY


def test_a_fid_that_cannot_be_resolved_is_a_gap(lustre):
    before = lustre.source.position()
    lustre.tree.create(lustre.root + b"/x")
    fault = lustre.tree.state / "fault"
    fault.write_text(f"fid2path {errno.ENODATA} 0")
    assert "encrypted directories" in gap(lustre, before)


@pytest.mark.parametrize(
    ("present", "says"),
    [
        ("0000 0001", ""),
        ("", ""),  # not mounted, or another filesystem's name: opening a changelog tells
        ("0000 0001 0002", "names no consumer on scratch-MDT0002: register one there"),
        ("0000 0001 0002 000a", "names no consumer on scratch-MDT0002, scratch-MDT000a:"),
        ("0000", "names scratch-MDT0001, but .* has no changelog device of that"),
    ],
)
def test_the_named_targets_are_those_that_have_devices(two_targets, tmp_path, present, says):
    devices = tmp_path / "dev"
    devices.mkdir()
    names = [f"changelog-scratch-MDT{number}" for number in present.split()]
    for name in (*names, "changelog-scratch2-MDT0007", "changelog-other-MDT0000", "null"):
        (devices / name).touch()
    source = LustreSource(
        "set", two_targets.settings, two_targets.base / "log", library(), devices=devices
    )
    if not says:
        source.position()
        return
    with pytest.raises(Gap, match=says):
        source.position()


def emptied(target):
    """Take its records from a target: it never had any, with its one consumer."""
    target.records.write_bytes(b"")
    target._newest = target._size = 0
    (target.folder / "users").write_text("cl1 0\n")
    return target


def test_a_target_that_never_had_a_record_is_a_gap_until_it_has_one(two_targets):
    quiet = emptied(two_targets.tree.targets[1])
    before = two_targets.source.position()
    assert "scratch-MDT0001 has had no record yet" in gap(two_targets, before)
    before = two_targets.source.position()
    assert "`lfs mkdir -i 1 DIR/x && rmdir DIR/x`" in gap(two_targets, before)
    before = two_targets.source.position()
    quiet.append(10, NO_FID)
    assert "scratch-MDT0001 had no record before 1" in gap(two_targets, before)
    before, state = two_targets.now()
    two_targets.tree.create(two_targets.root + b"/x")
    assert two_targets.since(before, state).names == [b"", b"x"]


def test_a_consumer_that_is_gone_before_any_record_is_a_gap(two_targets):
    quiet = emptied(two_targets.tree.targets[1])
    two_targets.source.position()
    (quiet.folder / "users").write_text("")
    with pytest.raises(Gap, match="cl1-backup is not registered on scratch-MDT0001"):
        two_targets.source.position()


def test_a_layout_of_a_directory_is_all_below_it_and_of_a_file_the_file(lustre, monkeypatch):
    """A stripe that an earlier record names as the directory may be gone by it."""
    asked, directory = [], Resolver.directory
    monkeypatch.setattr(
        Resolver, "directory", lambda self, fid: asked.append(fid) or directory(self, fid)
    )
    for name in (b"/d", b"/d/below"):
        lustre.tree.mkdir(lustre.root + name)
    lustre.tree.create(lustre.root + b"/file", b"x")
    before, state = lustre.now()
    (Path(os.fsdecode(lustre.root)) / "d" / "x").touch()
    lustre.target.append(1, fid(77, 1), fid(66, 6), b"x")  # in a stripe
    for name in (b"/d", b"/file"):
        lustre.tree.data(12, lustre.tree.fid(lustre.root + name))
    changes = lustre.since(before, state)
    assert changes == ChangeSet([b"file"], [b"d"], [])
    assert lustre.tree.fid(lustre.root + b"/d") in asked
    assert lustre.tree.fid(lustre.root + b"/file") not in asked


def test_an_object_whose_path_is_another_ones_is_not_known_to_be_plain(lustre):
    lustre.tree.mkdir(lustre.root + b"/d")
    lustre.tree.create(lustre.root + b"/file", b"x")
    directory, file = (lustre.tree.fid(lustre.root + name) for name in (b"/d", b"/file"))
    with Resolver(lustre.library, lustre.settings.mount) as resolver:
        assert resolver.plain([directory, file]) == {file}
        lustre.tree.links[directory] = lustre.tree.links[file]  # it was moved, and that came
        lustre.tree._relink(directory)
        assert resolver.plain([directory, file]) == {file}


def test_names_that_are_encrypted_are_told_by_number_but_not_those_of_directories(lustre):
    lustre.tree.create(lustre.root + b"/x", b"x")
    what = lustre.tree.fid(lustre.root + b"/x")
    (lustre.tree.state / "fault").write_text(f"fid2path {errno.ENODATA} 0")
    with Resolver(lustre.library, lustre.settings.mount) as resolver:
        assert list(resolver.names([what])) == [(what, [])]
        assert resolver.plain([what]) == set()
        with pytest.raises(LustreFailed, match="encrypted directories"):
            resolver.directory(what)


def test_a_position_is_not_given_where_changes_could_not_be_looked_up(lustre):
    (lustre.tree.state / "fault").write_text(f"fid2path {errno.EINVAL} 0")
    with pytest.raises(Gap, match="llapi_fid2path_at: Invalid argument"):
        lustre.source.position()


def test_paths_have_the_room_that_clients_allow(lustre, monkeypatch):
    lustre.source.position()
    monkeypatch.setattr(api_module, "PATH_BYTES", 4097)
    with pytest.raises(Gap, match="llapi_fid2path_at: Invalid argument"):
        lustre.source.position()


def test_no_client_is_a_gap_with_advice(lustre):
    source = LustreSource("set", lustre.settings, lustre.base / "log", "no-such.so")
    with pytest.raises(Gap, match="install lustre-client"):
        source.position()


def test_inode_numbers_that_are_not_those_of_stat_are_a_gap(lustre):
    number = os.stat(lustre.root).st_ino
    (lustre.tree.state / "inodes" / str(number)).write_bytes(Fid(0x200000401, 1).to_bytes())
    with pytest.raises(Gap, match="32bitapi"):
        lustre.source.position()


def test_a_root_that_was_replaced_is_a_gap(lustre):
    before = lustre.source.position()
    lustre.tree.rename(lustre.root, lustre.outside + b"/old")
    lustre.tree.mkdir(lustre.root)
    assert "other changelogs" in gap(lustre, before)


def test_positions_of_others_are_gaps(lustre):
    before = lustre.source.position()
    assert "one of fanotify" in gap(lustre, replace(before, source="fanotify"))
    assert "other changelogs" in gap(lustre, replace(before, session="x"))
    assert "but the change log is at" in gap(lustre, replace(before, sequence=99))
    assert "but the change log is at" in gap(lustre, replace(before, sequence=-1))
    assert Position.from_json(before.to_json()) == before


def test_more_names_than_a_scan_would_cost_are_a_gap(lustre, monkeypatch):
    before = lustre.source.position()
    for number in range(6):
        lustre.tree.create(lustre.root + b"/%d" % number)
    monkeypatch.setattr(source_module, "CHANGES_MAX", 6)
    assert "more than 6 names changed" in gap(lustre, before)
    monkeypatch.setattr(source_module, "CHANGES_MAX", 5)
    (lustre.tree.state / "fault").write_text(f"fid2path {errno.EIO} 0")  # nothing is asked then
    assert "more than 5 names changed" in gap(lustre, before)


# The log.


def test_a_log_that_is_full_begins_anew(lustre, monkeypatch):
    before = lustre.source.position()
    monkeypatch.setattr(ChangeLog.__init__, "__defaults__", (1,))
    lustre.tree.create(lustre.root + b"/x")
    assert "more changes than the change log takes" in gap(lustre, before)
    assert rows(lustre) == []


def test_what_no_position_needs_is_dropped(lustre):
    first = lustre.source.position()
    lustre.tree.create(lustre.root + b"/x")
    second, state = lustre.now()
    lustre.tree.create(lustre.root + b"/y")
    lustre.source.position()
    lustre.source.forget(second)
    assert {sequence for _, _, sequence in rows(lustre)} == {second.sequence + 1}
    assert "older changes were pruned" in gap(lustre, first)
    assert lustre.since(second, state).names == [b"", b"y"]
    lustre.source.forget(replace(second, session="another", sequence=99))
    lustre.source.forget(first)
    assert lustre.since(second, state).names == [b"", b"y"]


@pytest.mark.parametrize(
    "change",
    [
        "data = CAST(substr(data, 1, length(data) - 1) || x'79' AS BLOB)",
        "data = x''",
        "places = places + 1",
        "places = -1",
        "newest = newest + 1",
    ],
)
def test_a_log_whose_blocks_are_damaged_is_a_gap(lustre, change):
    before = lustre.source.position()
    lustre.tree.create(lustre.root + b"/x")
    lustre.source.position()
    with closing(sqlite3.connect(lustre.base / "log" / "lustre.sqlite")) as db:
        db.execute(f"UPDATE blocks SET {change}")
        db.commit()
    assert "is damaged" in gap(lustre, before)


def test_a_log_that_is_no_log_is_a_gap_and_stays_as_it_is(lustre):
    before = lustre.source.position()
    path = lustre.base / "log" / "lustre.sqlite"
    path.write_bytes(b"something else" * 1000)
    assert "remove that file" in gap(lustre, before)
    assert path.read_bytes().startswith(b"something else")


def test_a_log_of_another_version_is_not_believed(lustre):
    before = lustre.source.position()
    with closing(sqlite3.connect(lustre.base / "log" / "lustre.sqlite")) as db:
        db.execute("UPDATE meta SET value = 99 WHERE key = 'version'")
        db.commit()
    assert "another change log" in gap(lustre, before)


def test_a_lost_log_is_a_gap(lustre):
    before = lustre.source.position()
    for path in (lustre.base / "log").iterdir():
        path.unlink()
    assert "another change log" in gap(lustre, before)


def test_only_one_writes_a_log(lustre, monkeypatch):
    folder = lustre.base / "log"
    with locked(folder), pytest.raises(LogBusy), locked(folder, timeout_s=0.0):
        pass
    monkeypatch.setattr(locked.__wrapped__, "__defaults__", (0.0,))
    with locked(folder), pytest.raises(Gap, match="in use by another process"):
        lustre.source.position()


def test_every_commit_is_flushed(lustre):
    with locked(lustre.base / "log"), ChangeLog(lustre.base / "log", "x") as log:
        assert log._db.execute("PRAGMA synchronous").fetchone()[0] == 2


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_when_the_records_are_durable_here(lustre, step):
    before, state = lustre.now()
    lustre.tree.create(lustre.root + b"/x", b"x")
    users = lustre.target.users()
    given = {
        "root": os.fsdecode(lustre.root),
        "mount": os.fsdecode(lustre.settings.mount),
        "consumers": lustre.settings.consumers,
        "folder": str(lustre.base / "log"),
        "library": library(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.lustre.killed", step, json.dumps(given)],
        cwd=CHECKOUT,
        check=False,
    )
    assert done.returncode == ENDED
    assert (lustre.target.users() == users) is (step == "before")
    durable = rows(lustre)
    assert {name for name, _, _ in durable} >= {b"x", b""}
    lustre.tree.create(lustre.root + b"/y", b"y")
    assert lustre.since(before, state).names == [b"", b"x", b"y"]
    after, state = lustre.now()
    lustre.tree.create(lustre.root + b"/z")
    assert lustre.since(after, state).names == [b"", b"z"]


def test_records_are_cleared_only_when_their_places_are_in_the_log(lustre, monkeypatch):
    before, state = lustre.now()
    lustre.tree.create(lustre.root + b"/x", b"x")
    users = lustre.target.users()

    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(log_module, "_checksum", fail)
    assert "disk I/O error" in gap(lustre, before)
    assert lustre.target.users() == users
    monkeypatch.undo()
    assert lustre.since(before, state).names == [b"", b"x"]


def test_what_came_before_an_error_is_in_the_log(lustre):
    before = lustre.source.position()
    for name in (b"/x", b"/y"):
        lustre.tree.create(lustre.root + name)
    users = lustre.target.users()
    with lustre.target.fault("recv", errno.EIO, after=1):  # there is no anchor yet
        assert "Input/output error" in gap(lustre, before)
    assert [name for name, _, _ in rows(lustre)] == [b"x"]
    assert lustre.target.users() == users
    assert lustre.source.changes(before).names == [b"", b"x", b"y"]
    assert [name for name, _, _ in rows(lustre)] == [b"x", b"y"]


@pytest.mark.parametrize(("memory_max", "blocks"), [(0, 4), (source_module.GATHERED_BYTES_MAX, 1)])
def test_batches_are_gathered_until_they_take_too_much_memory(
    lustre, monkeypatch, memory_max, blocks
):
    monkeypatch.setattr(changelog_module, "BATCH_RECORDS_MAX", 2)
    monkeypatch.setattr(source_module, "GATHERED_BYTES_MAX", memory_max)
    before = lustre.source.position()
    names = [b"%d" % number for number in range(7)]
    for name in names:
        lustre.tree.create(lustre.root + b"/" + name)
    assert lustre.source.changes(before).names == [b"", *names]
    with closing(sqlite3.connect(lustre.base / "log" / "lustre.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM blocks").fetchone() == (blocks,)


# Smaller things.


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [
        (b"a/b", b"", b"a/b"),
        (b"", b"", b""),
        (b"a", b"a", b""),
        (b"a/b", b"a", b"b"),
        (b"ab", b"a", None),
        (b"", b"a", None),
    ],
)
def test_inside(path, root, found):
    assert inside(path, root) == found


GOOD = (("scratch-MDT0000", "cl1"), ("scratch-MDT000a", "cl12-backup"))


@pytest.mark.parametrize(
    ("root", "consumers", "why"),
    [
        (b"/mnt/x", (), "no metadata target"),
        (b"/other", GOOD, "not below"),
        (b"/mnt/x", (("scratch", "cl1"),), "no target"),
        (b"/mnt/x", (("scratch-MDT0000", "7"),), "no consumer"),
        (b"/mnt/x", (("scratch-MDT0000", "cl1-0"),), "no consumer"),
        (b"/mnt/x", (GOOD[0], GOOD[0]), "named twice"),
        (b"/mnt/x", (GOOD[0], ("work-MDT0001", "cl1")), "several filesystems"),
    ],
)
def test_settings_that_cannot_be_are_refused(root, consumers, why):
    with pytest.raises(SettingsWrong, match=why):
        LustreChangelogs(root, b"/mnt", consumers)


def test_the_order_of_targets_does_not_matter():
    one, two = (LustreChangelogs(b"/mnt/x", b"/mnt/", c) for c in (GOOD, GOOD[::-1]))
    assert one.identity() == two.identity()
    assert one.filesystem == "scratch"


def test_snapshots_see_what_a_planner_would_miss(lustre):
    """The check that the tests above rely on."""
    before, state = lustre.now()
    lustre.tree.create(lustre.root + b"/x")
    assert before.sequence
    assert missed(state, snapshot(lustre.root), EMPTY) == [b"", b"x"]


def test_a_gap_that_could_not_be_written_down_is_found_again(lustre, monkeypatch):
    """The cursor must not be kept behind it: the next reading would see nothing wrong."""
    before = lustre.source.position()
    lustre.target.mark(FINI)
    lustre.target.append(1, fid(900, 1), lustre.tree.fid(lustre.root), b"x")
    real = ChangeLog.lose

    def full(self, *arguments):
        raise LogUnusable(str(self._path), os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ChangeLog, "lose", full)
    with pytest.raises(Gap, match="No space left"):
        lustre.source.position()
    monkeypatch.setattr(ChangeLog, "lose", real)
    with pytest.raises(Gap, match="was off for a time"):
        lustre.source.changes(before)

"""Reading one changelog through the library: what comes, what is missing, what is cleared."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from filesystems.lustre import changelog as changelog_module
from filesystems.lustre.api import Library
from filesystems.lustre.changelog import HOLE_TRIES_MAX, Changelog, Cursor
from filesystems.lustre.errors import (
    ChangelogEndless,
    ConsumerGone,
    LibraryMissing,
    LibraryTooOld,
    LustreFailed,
    RecordMalformed,
    RolledBack,
)
from filesystems.lustre.fid import Fid
from filesystems.lustre.kernel.native import Records
from tests.support.lustre.encoding import encode, fid
from tests.support.lustre.targets import Target, library, standin_state

NAME = "scratch-MDT0000"
FILE = fid(0x200000401, 1)


@pytest.fixture(params=[False, True], ids=["no marks", "marks"])
def target(tmp_path, request, machine_fits):
    with standin_state(tmp_path / "state") as state:
        target = Target(state, NAME, marks=request.param)
        target.register("backup")
        yield target


@pytest.fixture
def changelog(target):
    return Changelog(Library(library()), NAME, "cl1-backup")


def store(target, count):
    return [target.append(14, FILE) for _ in range(count)]


def drained(changelog, cursor):
    """Return the numbers of what is read, the cursor then, and why anything is missing."""
    numbers, lost = [], []
    for part in changelog.drain(cursor):
        numbers += [record.number for record in part.records]
        cursor = part.cursor
        lost += [part.lost] if part.lost else []
    return numbers, cursor, lost


@pytest.fixture
def read(target, changelog):
    """A changelog that was read, made durable and cleared twice, as in normal life."""
    store(target, 5)
    cursor = changelog.clear(drained(changelog, Cursor())[1])
    store(target, 5)
    _, cursor, lost = drained(changelog, cursor)
    assert lost == []
    return changelog.clear(cursor)


def test_the_first_reading_has_all_that_is_left_and_says_that_more_may_be_missing(
    target, changelog
):
    stored = store(target, 3)
    numbers, cursor, lost = drained(changelog, Cursor())
    assert numbers[-3:] == stored
    assert len(numbers) == 3 + target.marks  # of the registration
    assert lost == [f"the changelog of {NAME} is read for the first time"]
    assert cursor.index == stored[-1]


def test_reading_goes_on_where_it_ended(target, changelog, read):
    stored = store(target, 3)
    numbers, cursor, lost = drained(changelog, read)
    assert (numbers, lost) == (stored, [])
    assert drained(changelog, cursor)[0] == []


def test_what_is_cleared_is_all_but_the_newest_record(target, changelog, read):
    assert target.users() == {"cl1": read.index - 1}
    assert target.purged()[0] == read.index - 1


def test_the_first_clearing_is_not_below_the_registration(target, changelog):
    store(target, 3)
    target.deregister("cl1")
    target.registered = 0
    target.register()
    _, cursor, _ = drained(changelog, Cursor())
    assert cursor.index == target.users()["cl1"]
    assert changelog.clear(cursor).cleared == cursor.index


def test_many_batches_are_one_reading(target, changelog, read, monkeypatch):
    monkeypatch.setattr(changelog_module, "BATCH_RECORDS_MAX", 2)
    stored = store(target, 7)
    parts = list(changelog.drain(read))
    assert [record.number for part in parts for record in part.records] == stored
    assert len(parts) == 4


def test_killed_before_clearing_nothing_is_lost_or_repeated(target, changelog, read):
    stored = store(target, 3)
    numbers, durable, _ = drained(changelog, read)
    assert numbers == stored
    stored = store(target, 2)  # and `durable` was never cleared
    assert drained(changelog, durable)[::2] == (stored, [])


def test_killed_before_it_was_noted_that_it_was_cleared(target, changelog, read):
    store(target, 3)
    _, durable, _ = drained(changelog, read)
    changelog.clear(durable)
    stored = store(target, 2)
    assert drained(changelog, durable)[::2] == (stored, [])


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_records_purged_unread_are_a_gap(target, changelog, read, margin):
    store(target, 3)
    target.purge(read.index + margin)
    numbers, _, lost = drained(changelog, read)
    assert numbers == list(range(read.index + margin + 1, target.newest + 1))
    assert lost == [
        f"the changelog of {NAME} jumps from record {read.index} to {read.index + margin + 1}"
    ]


def test_a_changelog_purged_to_its_end_is_a_gap(target, changelog, read):
    store(target, 3)
    target.purge(target.newest)
    assert drained(changelog, read)[2] == [
        f"the changelog of {NAME} has no record {read.index} any more"
    ]


def test_a_jump_behind_a_first_clearing_is_a_gap(target, changelog):
    store(target, 3)
    cursor = changelog.clear(drained(changelog, Cursor())[1])
    store(target, 3)
    assert target.purged()[0] == cursor.index
    target.purge(cursor.index + 1)
    assert "jumps" in drained(changelog, cursor)[2][0]


def test_a_server_that_uses_numbers_again_is_a_gap(target, changelog, read):
    target.records.write_bytes(
        b"".join(encode(11, number, FILE) for number in range(1, read.index + 10))
    )
    numbers, _, lost = drained(changelog, read)
    assert lost == [f"the changelog of {NAME} has another record {read.index}"]
    assert numbers == list(range(read.index, read.index + 10))


def test_a_server_that_went_back_is_a_gap(target, changelog, read):
    target.records.write_bytes(encode(11, 1, FILE))
    (target.folder / "purged").unlink()
    numbers, cursor, lost = drained(changelog, read)
    assert lost == [f"the changelog of {NAME} has no record {read.index} any more"]
    assert (numbers, cursor.index) == ([1], 1)


def test_clearing_what_the_server_has_lost_is_told(target, changelog, read):
    target.records.write_bytes(encode(11, 1, FILE))
    with pytest.raises(RolledBack):
        changelog.clear(read)


def test_numbers_that_go_back_within_a_reading_are_a_gap(target, changelog, read):
    stored = store(target, 2)
    target.append_raw(encode(11, stored[0], FILE))
    numbers, _, lost = drained(changelog, read)
    assert numbers == [*stored, stored[0]]
    assert lost == [f"the changelog of {NAME} goes back from record {stored[-1]} to {stored[0]}"]


def test_a_consumer_that_is_gone_is_told_even_if_nothing_is_new(target, changelog, read):
    target.deregister("cl1")
    with pytest.raises(ConsumerGone, match="consumer cl1-backup is not registered"):
        changelog.clear(read)


def test_what_was_read_before_an_error_is_kept(target, changelog, read):
    stored = store(target, 5)
    found: list[int] = []

    def read_all():
        for part in changelog.drain(read):
            found.extend(record.number for record in part.records)

    with target.fault("recv", errno.EIO, after=3), pytest.raises(LustreFailed) as caught:
        read_all()
    assert caught.value.errno == errno.EIO
    assert "console log" in str(caught.value)
    assert found == stored[:2]  # after the anchor


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.EACCES, "only root"), (errno.ENOENT, "mounted here"), (errno.EPERM, "only root")],
)
def test_a_changelog_that_cannot_be_opened_says_why(target, changelog, read, code, advice):
    with target.fault("start", code), pytest.raises(LustreFailed, match=advice):
        drained(changelog, read)


def test_no_memory_in_the_library_is_not_the_end(target, changelog, read):
    store(target, 5)
    with target.fault("nomem", errno.ENOMEM, after=2), pytest.raises(LustreFailed, match="memory"):
        drained(changelog, read)


def test_a_record_that_announces_more_than_there_can_be_is_not_copied(target, changelog, read):
    record = bytearray(encode(14, target.newest + 1, FILE))
    record[:2] = b"\xff\xff"
    target.append_raw(bytes(record) + b"x" * 0xFFFF)
    with Library(library()).changelog(NAME, target.newest + 1) as opened:
        found = Records(2, 0)
        with pytest.raises(RecordMalformed, match=f"a changelog record of {64 + 0xFFFF} bytes"):
            opened.read(found)
    assert len(found) == 0
    with pytest.raises(RecordMalformed):
        drained(changelog, read)


def test_a_changelog_without_an_end_is_given_up(target, changelog, read, monkeypatch):
    monkeypatch.setattr(changelog_module, "DRAIN_RECORDS_MAX", 3)
    monkeypatch.setattr(changelog_module, "BATCH_RECORDS_MAX", 2)
    store(target, 9)
    with pytest.raises(ChangelogEndless):
        drained(changelog, read)


def test_a_changelog_that_was_empty_is_read_from_its_first_record_on(target, changelog):
    """Nothing tells whether there was one before it, so that is the last gap."""
    if target.marks:
        return  # then it never is
    numbers, cursor, lost = drained(changelog, Cursor())
    assert (numbers, len(lost)) == ([], 1)
    cursor = changelog.clear(cursor)
    stored = store(target, 2)
    numbers, cursor, lost = drained(changelog, cursor)
    assert numbers == stored
    assert lost == [
        f"the changelog of {NAME} had no record before 1, so whether one is missing cannot be told"
    ]
    cursor = changelog.clear(cursor)
    stored = store(target, 2)
    assert drained(changelog, cursor)[::2] == (stored, [])


def test_a_changelog_that_stays_empty_is_a_gap_each_time(target, changelog):
    """It would be as silent if its consumer were gone: nothing is recorded then."""
    if target.marks:
        return
    cursor = changelog.clear(drained(changelog, Cursor())[1])
    for _ in range(2):
        numbers, cursor, lost = drained(changelog, cursor)
        assert (numbers, cursor.index) == ([], 0)
        assert lost == [
            f"the changelog of {NAME} has had no record yet, so whether cl1-backup still exists"
            " cannot be told; make one there: `lfs mkdir -i 0 DIR/x && rmdir DIR/x`"
        ]
        cursor = changelog.clear(cursor)
    late = store(target, 1)[0]  # between a reading that has said so, and clearing
    assert changelog.clear(cursor) == cursor
    assert target.purged()[0] == late
    stored = store(target, 2)
    numbers, cursor, lost = drained(changelog, cursor)
    assert (numbers, len(lost)) == (stored, 1)
    assert changelog.clear(cursor).cleared == stored[-1]


@pytest.mark.parametrize("is_begun", [False, True])
def test_the_consumer_of_a_changelog_without_any_record_is_checked(target, changelog, is_begun):
    if target.marks:
        return
    target.deregister("cl1")
    _, cursor, lost = drained(changelog, Cursor(is_begun=is_begun))
    assert lost
    with pytest.raises(ConsumerGone):
        changelog.clear(cursor)


@pytest.mark.parametrize("readings", [1, HOLE_TRIES_MAX])
def test_a_record_that_is_written_after_a_newer_one_is_waited_for(
    target, changelog, read, readings
):
    stored = store(target, 4)
    target.hide(stored[-2], readings)
    numbers, cursor, lost = drained(changelog, read)
    assert (numbers, lost) == (stored, [])
    assert cursor.index == stored[-1]


def test_a_hole_in_the_first_reading_is_waited_for_too(target, changelog):
    stored = store(target, 4)
    target.hide(stored[1], 2)
    numbers, _, lost = drained(changelog, Cursor())
    assert numbers[-4:] == stored
    assert len(lost) == 1


def test_a_hole_before_all_that_is_new_is_waited_for(target, changelog):
    """Behind a consumer's first clearing, which leaves no anchor."""
    store(target, 3)
    cursor = changelog.clear(drained(changelog, Cursor())[1])
    stored = store(target, 2 + target.marks)
    target.hide(cursor.index + 1, 2)
    numbers, _, lost = drained(changelog, cursor)
    assert numbers[-len(stored) :] == stored
    assert numbers[0] == cursor.index + 1
    assert lost == []


def test_a_hole_that_stays_is_a_gap(target, changelog, read):
    stored = store(target, 4)
    target.hide(stored[1], 1000)
    numbers, cursor, lost = drained(changelog, read)
    assert numbers == [stored[0], *stored[2:]]
    assert lost == [f"the changelog of {NAME} jumps from record {stored[0]} to {stored[2]}"]
    assert cursor.index == stored[-1]
    assert drained(changelog, changelog.clear(cursor))[::2] == ([], [])


def test_an_error_before_any_record_is_no_loss(target, changelog, read):
    with target.fault("recv", errno.EIO), pytest.raises(LustreFailed):
        drained(changelog, read)


def test_clearing_again_what_was_cleared_is_no_error(target, changelog, read):
    assert changelog.clear(read) == read


def test_a_missing_library_is_named():
    with pytest.raises(LibraryMissing, match=r"no-such\.so was not found"):
        Library("no-such.so")


def test_a_library_without_a_call_is_too_old(tmp_path):
    source = tmp_path / "old.c"
    source.write_text("int llapi_changelog_free(void **record) { return !record; }\n")
    path = tmp_path / "old.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)
    with pytest.raises(LibraryTooOld, match="llapi_path2fid"):
        Library(str(path)).path_to_fid(b"/")


def test_paths_of_a_fid(lustre):
    root = lustre.root
    lustre.tree.create(root + b"/a")
    lustre.tree.link(root + b"/a", root + b"/b\xff")
    lustre.tree.link(root + b"/a", lustre.outside + b"/c")
    what = lustre.tree.fid(root + b"/a")
    descriptor = os.open(root, os.O_RDONLY)
    try:
        paths = lustre.library.paths(descriptor, what)
        assert paths == [b"root/a", b"root/b\xff", b"outside/c"]
        assert lustre.library.paths(descriptor, what, links_max=1) == [b"root/a"]
        assert lustre.library.paths(descriptor, lustre.tree.fid(lustre.settings.mount)) == [b""]
        assert lustre.library.paths(descriptor, fid(99, 99)) == []
    finally:
        os.close(descriptor)
    assert lustre.library.path_to_fid(root + b"/a") == Fid.from_bytes(what)


def test_reading_leaves_no_descriptor_behind(target, changelog, read):
    before = len(os.listdir("/proc/self/fd"))
    store(target, 3)
    next(changelog.drain(read))
    drained(changelog, read)
    assert len(os.listdir("/proc/self/fd")) == before

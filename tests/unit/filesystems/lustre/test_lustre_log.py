"""The change log alone: blocks, folds, bounds; and a million records on their way into it."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from filesystems.lustre import log as log_module
from filesystems.lustre.changelog import Cursor
from filesystems.lustre.errors import LogUnusable
from filesystems.lustre.kernel.native import Places, Records
from filesystems.lustre.log import ChangeLog, locked
from filesystems.lustre.looks import Kind
from shards.changes import Gap
from tests.support.lustre.encoding import NO_FID, encode, fid
from tests.support.lustre.reference import Looks, decode

HERE = fid(0x200000402, 1)
ROW_BYTES = 29  # of a name of one byte


@pytest.fixture
def log(tmp_path):
    with locked(tmp_path / "log"), ChangeLog(tmp_path / "log", "test") as log:
        yield log


def made(*names):
    """Return the places of files that were made."""
    places = Places()
    places.add(Records.of([encode(1, 1, fid(500, 1), HERE, name) for name in names]))
    return places


def add(log, *names):
    log.add(made(*names), "scratch-MDT0000", Cursor(1, b"anchor"))


def names(log, since=0):
    return {row.name: row.sequence for row in log.places(since)}


def blocks(log):
    return log._db.execute("SELECT places, is_folded FROM blocks ORDER BY number").fetchall()


def test_a_place_has_its_newest_sequence(log):
    add(log, b"a", b"b")
    add(log, b"a")
    assert names(log) == {b"a": 1, b"b": 1}
    log.arrive()
    add(log, b"b", b"c")
    assert names(log) == {b"a": 1, b"b": 2, b"c": 2}
    assert names(log, since=1) == {b"b": 2, b"c": 2}
    assert names(log, since=2) == {}


def test_a_fold_has_each_place_once(log, monkeypatch):
    monkeypatch.setattr(log_module, "FOLD_BYTES", 5 * ROW_BYTES)
    for _ in range(5):
        add(log, b"a")
    assert blocks(log) == [(1, 0)] * 5
    log.arrive()
    add(log, b"b")
    assert blocks(log) == [(2, 1)]
    assert names(log) == {b"a": 1, b"b": 2}
    assert names(log, since=1) == {b"b": 2}
    add(log, b"a")
    assert blocks(log) == [(2, 1), (1, 0)]
    assert names(log, since=1) == {b"a": 2, b"b": 2}


def test_what_was_forgotten_is_left_out_by_the_next_fold(log, monkeypatch):
    monkeypatch.setattr(log_module, "FOLD_BYTES", 2 * ROW_BYTES)
    add(log, b"a")
    log.arrive()
    add(log, b"b", b"c")
    assert blocks(log) == [(3, 1)]
    log.forget(1)
    assert names(log, since=1) == {b"b": 2, b"c": 2}
    log.arrive()
    add(log, b"d", b"e", b"f")
    assert blocks(log) == [(5, 1)]


def test_a_fold_that_fails_changes_nothing(log, monkeypatch):
    monkeypatch.setattr(log_module, "CHANGES_MAX", 2)
    monkeypatch.setattr(log_module, "FOLD_BYTES", 3 * ROW_BYTES)
    add(log, b"a", b"b")
    log.arrive()

    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(log, "_raise_oldest", fail)
    with pytest.raises(LogUnusable, match="disk I/O error"):
        add(log, b"c", b"d")
    assert names(log) == {b"a": 1, b"b": 1, b"c": 2, b"d": 2}
    assert log.oldest[0] == 0


def test_positions_with_more_changes_than_there_may_be_are_given_up(log, monkeypatch):
    monkeypatch.setattr(log_module, "CHANGES_MAX", 2)
    monkeypatch.setattr(log_module, "FOLD_BYTES", 3 * ROW_BYTES)
    add(log, b"a")
    log.arrive()
    add(log, b"b")
    log.arrive()
    add(log, b"c", b"d")
    assert log.oldest == (2, "more than 2 names changed: a scan costs less")
    assert names(log, since=2) == {b"c": 3, b"d": 3}
    assert blocks(log) == [(2, 1)]


def test_the_log_is_bounded_however_much_changes(log, monkeypatch):
    monkeypatch.setattr(log_module, "CHANGES_MAX", 100)
    monkeypatch.setattr(log_module, "FOLD_BYTES", 100 * 32)
    for turn in range(60):
        add(log, *(b"%02d.%d" % (turn, number) for number in range(10)))
        assert sum(places for places, _ in blocks(log)) <= 100 + 110
        if turn % 7 == 0:
            log.arrive()
    newest = log.sequence
    assert log.oldest[0] < newest
    assert set(names(log, since=newest)) == {
        b"%02d.%d" % (turn, number) for turn in range(57, 60) for number in range(10)
    }


def test_nothing_is_kept_that_no_position_can_be_answered_with(log):
    add(log, b"a")
    log.lose("lost")
    add(log, b"b")
    assert blocks(log) == []
    assert log.cursor("scratch-MDT0000").index == 1
    after = log.arrive()
    add(log, b"c")
    assert names(log, since=after) == {b"c": 2}


def test_what_is_found_is_on_disk_for_another_process(log, tmp_path):
    add(log, b"a")
    with closing(sqlite3.connect(tmp_path / "log" / "lustre.sqlite")) as other:
        assert other.execute("SELECT sum(places) FROM blocks").fetchone() == (1,)


FILES, FOLDERS, MILLION = 4_000, 40, 1_000_000


def templates(target):
    """Return what happens to the files of a target, in an order in which nothing follows."""
    choice = random.Random(target)
    folders = [fid(0x200000500 + target, number + 1) for number in range(FOLDERS)]
    other = fid(0x200000500 + 1 - target, 1)  # of the other target
    found = []
    for number in range(FILES):
        what, folder, name = (
            fid(0x300000000 + target, number),
            choice.choice(folders),
            b"f%d" % number,
        )
        temporary = fid(0x400000000 + target, number)
        found += [
            encode(11, 0, what, job=b"dd.0", extra={1: bytes(16), 2: bytes(24)}),
            encode(choice.choice([13, 14, 15, 17]), 0, what),
            encode(1, 0, temporary, folder, name + b"~"),
            encode(11, 0, temporary),
            encode(6, 0, temporary, folder, name + b"~", flags=1),
        ]
        if number % 10 == 0:  # on both targets, as it may be
            moved = (fid(0x600000000, number), other if target else folders[0], name)
            found.append(encode(8, 0, NO_FID, folders[0] if target else other, name, moved=moved))
        if number % 100 == 0:
            found.append(encode(77, 0, what, folder, b"unknown"))
    return found


def store_all(target, records, count):
    """Store them again and again, so many in all."""
    data = np.frombuffer(bytearray(b"".join(records)), np.uint8)
    starts = np.cumsum([0, *map(len, records)])
    fields = starts[:-1, None] + 8 + np.arange(8)
    first = target.newest + 1
    with target.records.open("ab") as stream:
        for begin in range(0, count, len(records)):
            part = min(len(records), count - begin)
            numbers = np.arange(first + begin, first + begin + part, dtype="<u8")
            data[fields[:part]] = numbers.view(np.uint8).reshape(-1, 8)
            stream.write(data[: starts[part]].data)
    target._newest, target._size = first + count - 1, target.records.stat().st_size


def test_a_million_records_of_two_targets_are_taken_in(two_targets):
    """With repeats, renames between the targets, unknown types; then one of them has a gap."""
    lustre, expected = two_targets, Looks()
    before = lustre.source.position()
    for number, target in enumerate(lustre.tree.targets):
        records = templates(number)
        expected.add_all([decode(data) for data in records])
        store_all(target, records, MILLION // 2)
    position = lustre.source.position()
    assert [target.users()["cl1"] for target in lustre.tree.targets] == [
        target.newest - 1 for target in lustre.tree.targets
    ]
    with closing(sqlite3.connect(lustre.base / "log" / "lustre.sqlite")) as db:
        stored = db.execute("SELECT data, places FROM blocks WHERE newest = 2").fetchall()
    found = Places()
    for data, count in stored:
        found.load(data, count, before.sequence)
    rows = {(row.fid, row.name, row.kind): row.about for row in found}
    inodes = {row[0] for row in rows if row[2] == Kind.INODE}
    assert {key: about for key, about in rows.items() if key[2] != Kind.INODE} == expected.places
    assert len(expected.gone) == 2 * FILES
    # Of those that came and went, the ones that a batch has only a part of.
    assert expected.inodes <= inodes <= expected.inodes | expected.gone
    assert len(inodes - expected.inodes) < 100

    lustre.tree.targets[0].append(11, HERE)
    lustre.tree.targets[1]._newest += 1  # a record that nobody ever sees
    lustre.tree.targets[1].append(11, HERE)
    with pytest.raises(Gap, match="scratch-MDT0001 jumps from record"):
        lustre.source.changes(position)
    after = lustre.source.position()
    lustre.tree.create(lustre.root + b"/x")
    assert lustre.source.changes(after).names == [b"", b"x"]

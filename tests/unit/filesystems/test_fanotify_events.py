"""The kernel's event buffers, and where an event makes us look."""

from __future__ import annotations

import random
import struct

import pytest

from filesystems.fanotify.errors import EventsDamaged
from filesystems.fanotify.events import (
    INFO_DFID_NAME,
    INFO_FID,
    INFO_NEW_DFID_NAME,
    INFO_OLD_DFID_NAME,
    Event,
    Place,
    parse,
)
from filesystems.fanotify.libc import (
    FAN_ATTRIB,
    FAN_CLOSE_WRITE,
    FAN_CREATE,
    FAN_DELETE,
    FAN_DELETE_SELF,
    FAN_MODIFY,
    FAN_ONDIR,
    FAN_Q_OVERFLOW,
    FAN_RENAME,
)
from filesystems.fanotify.looks import Batch, EventIncomplete, Kind, Look, looks


def record(kind, handle=b"", name=None, handle_type=1, size=None):
    body = struct.pack("<qIi", 7, len(handle) if size is None else size, handle_type) + handle
    body += b"" if name is None else name + b"\0"
    body += bytes(-(4 + len(body)) % 4)
    return struct.pack("<BBH", kind, 0, 4 + len(body)) + body


def event(mask, *records, version=3, descriptor=-1, length=None):
    body = b"".join(records)
    size = 24 + len(body) if length is None else length
    return struct.pack("<IBBHQii", size, version, 0, 24, mask, descriptor, 1) + body


def handle(value, handle_type=1):
    return struct.pack("<i", handle_type) + value


RENAME = event(
    FAN_RENAME,
    record(INFO_OLD_DFID_NAME, b"olddir!!", b"x"),
    record(INFO_NEW_DFID_NAME, b"newdir!!", b"a-long-name\xff"),
    record(INFO_FID, b"file"),
)
WRITE = event(FAN_MODIFY, record(INFO_DFID_NAME, b"dir", b"x"), record(INFO_FID, b"file"))


def test_a_rename_has_both_places_and_the_inode():
    assert list(parse(RENAME + WRITE)) == [
        Event(
            FAN_RENAME,
            None,
            Place(handle(b"olddir!!"), b"x"),
            Place(handle(b"newdir!!"), b"a-long-name\xff"),
            handle(b"file"),
        ),
        Event(FAN_MODIFY, Place(handle(b"dir"), b"x"), None, None, handle(b"file")),
    ]


def test_handles_of_different_types_differ():
    one, two = (
        next(parse(event(FAN_ATTRIB, record(INFO_FID, b"same", None, handle_type))))
        for handle_type in (1, 0x81)
    )
    assert one.inode != two.inode


def test_an_overflow_has_a_handle_of_no_bytes():
    assert list(parse(event(FAN_Q_OVERFLOW, record(INFO_FID, b"")))) == [Event(FAN_Q_OVERFLOW)]


def test_records_of_unknown_types_are_skipped():
    unknown = struct.pack("<BBHi", 4, 0, 8, 99)
    (found,) = parse(event(FAN_ATTRIB, unknown, record(INFO_FID, b"file"), unknown))
    assert found == Event(FAN_ATTRIB, inode=handle(b"file"))


def test_every_truncation_is_refused():
    whole = RENAME + WRITE
    for length in range(1, len(whole)):
        if length == len(RENAME):
            continue
        with pytest.raises(EventsDamaged):
            list(parse(whole[:length]))


@pytest.mark.parametrize(
    ("buffer", "told"),
    [
        (event(1, version=2), "version is 2"),
        (event(1, descriptor=5), "file descriptor"),
        (event(1, length=23), "length is 23"),
        (event(1, length=0), "length is 0"),
        (event(1, length=1 << 31), "length is"),
        (event(1, struct.pack("<BBH", INFO_FID, 0, 3) + bytes(8)), "record's length is 3"),
        (event(1, struct.pack("<BBH", INFO_FID, 0, 0) + bytes(8)), "record's length is 0"),
        (event(1, struct.pack("<BBH", INFO_FID, 0, 99) + bytes(8)), "record's length is 99"),
        (event(1, struct.pack("<BBH", INFO_FID, 0, 12) + bytes(8)), "cut off"),
        (event(1, record(INFO_FID, b"file", size=129)), "has 129 bytes"),
        (event(1, record(INFO_FID, b"file", size=5)), "has 5 bytes"),
        (event(1, record(INFO_FID, b"file", size=(1 << 32) - 1)), "file handle has"),
        (event(1, record(INFO_DFID_NAME, b"file")), "a name is"),
        (event(1, record(INFO_DFID_NAME, b"file", b"")), "a name is"),
        (event(1, record(INFO_DFID_NAME, b"file", b"..")), "a name is"),
        (event(1, record(INFO_DFID_NAME, b"file", b"a/b")), "a name is"),
    ],
)
def test_what_makes_no_sense_is_refused(buffer, told):
    with pytest.raises(EventsDamaged, match=told):
        list(parse(buffer))


def test_a_name_without_its_end_is_refused():
    raw = record(INFO_DFID_NAME, b"handle88", b"name")
    cut = raw[:2] + struct.pack("<H", 4 + 16 + 8 + 4) + raw[4 : 4 + 16 + 8 + 4]
    with pytest.raises(EventsDamaged, match="a name is"):
        list(parse(event(1, cut)))


def test_random_damage_is_refused_or_read_but_never_breaks_anything():
    chosen = random.Random(1)
    for _ in range(20_000):
        buffer = bytearray(RENAME + WRITE)
        for _ in range(chosen.randrange(1, 4)):
            buffer[chosen.randrange(len(buffer))] = chosen.randrange(256)
        try:
            for found in parse(bytes(buffer)):
                Batch().add(found, 1)
        except (EventsDamaged, EventIncomplete):
            pass


DIRECTORY, OTHER, INODE = b"directory", b"other", b"inode"
PLACE, NEW = Place(DIRECTORY, b"x"), Place(OTHER, b"y")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Event(FAN_CREATE, PLACE, inode=INODE), [Look(*PLACE, Kind.ENTRY)]),
        (Event(FAN_CREATE | FAN_ONDIR, PLACE, inode=INODE), [Look(*PLACE, Kind.TREE)]),
        (Event(FAN_DELETE | FAN_ONDIR, PLACE, inode=INODE), [Look(*PLACE, Kind.TREE)]),
        (
            Event(FAN_CREATE | FAN_MODIFY | FAN_CLOSE_WRITE, PLACE, inode=INODE),
            [
                Look(*PLACE, Kind.ENTRY),
                Look(*PLACE, Kind.LOOK),
                Look(INODE, b"", Kind.INODE, PLACE),
            ],
        ),
        (
            Event(FAN_RENAME, None, PLACE, NEW, INODE),
            [
                Look(*PLACE, Kind.ENTRY),
                Look(*NEW, Kind.ENTRY),
                Look(INODE, b"", Kind.INODE, NEW),
            ],
        ),
        (
            Event(FAN_RENAME | FAN_ONDIR, None, PLACE, NEW, INODE),
            [Look(*PLACE, Kind.TREE), Look(*NEW, Kind.TREE)],
        ),
        (Event(FAN_ATTRIB, inode=INODE), [Look(INODE, b"", Kind.INODE)]),
        (
            Event(FAN_ATTRIB | FAN_ONDIR, Place(DIRECTORY, b".")),
            [Look(DIRECTORY, b"", Kind.LOOK)],
        ),
    ],
)
def test_where_an_event_makes_us_look(found, expected):
    assert list(looks(found)) == expected


@pytest.mark.parametrize(
    "found",
    [
        Event(FAN_CREATE, inode=INODE),
        Event(FAN_DELETE | FAN_ONDIR),
        Event(FAN_RENAME, None, PLACE, None, INODE),
        Event(FAN_RENAME, None, None, NEW, INODE),
        Event(FAN_RENAME, None, PLACE, NEW, None),
        Event(FAN_MODIFY),
        Event(FAN_DELETE_SELF),
        Event(FAN_DELETE_SELF | FAN_ONDIR, inode=INODE),
    ],
)
def test_an_event_that_does_not_say_where_is_not_passed_over(found):
    with pytest.raises(EventIncomplete):
        Batch().add(found, 1)


def test_a_batch_keeps_each_place_once_with_its_newest_sequence():
    batch = Batch()
    for sequence in (1, 2, 3):
        batch.add(Event(FAN_MODIFY, PLACE, inode=INODE), sequence)
    assert batch.found == {
        DIRECTORY: {(b"x", Kind.LOOK): (3, None)},
        INODE: {(b"", Kind.INODE): (3, PLACE)},
    }


def test_what_is_destroyed_takes_what_hung_on_it_along():
    batch = Batch()
    batch.add(Event(FAN_MODIFY, PLACE, inode=INODE), 1)
    batch.add(Event(FAN_ATTRIB | FAN_DELETE_SELF, inode=INODE), 2)
    batch.add(Event(FAN_DELETE_SELF | FAN_ONDIR, Place(DIRECTORY, b".")), 3)
    assert (batch.found, batch.gone) == ({}, {INODE, DIRECTORY})

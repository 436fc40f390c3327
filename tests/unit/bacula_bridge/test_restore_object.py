"""Restore objects as they are in the catalog, and what they say."""

import base64
import sqlite3
import zlib

import pytest

from bacula_bridge.catalog import Catalog
from bacula_bridge.errors import CatalogUnavailable
from bacula_bridge.restore_object import (
    NAME,
    LayoutCount,
    RestoreObject,
    RestoreObjectDamaged,
    parse,
)
from filesystems.cephfs import layout as ceph
from filesystems.lustre import layout as lustre
from tests.plugin import layout_examples as examples
from tests.plugin.layout_support import FOREIGN, plain

FSID = "6f1c0f3e-4a3b-4c4e-9b1e-5a0e5e2d7c11"


def text(*lines, head=b"forebay-layouts 1"):
    body = b"".join(line + b"\n" for line in (head, *lines))
    return body + b"end %08x\n" % zlib.crc32(body)


GOOD = text(
    b"filesystem ceph " + FSID.encode(),
    b"directories 2",
    b"layout 80 5242880 " + b"a=1".hex().encode(),
    b"layout 1 0 00ff",
    b"others 3 4",
)


def test_an_object_is_read(tmp_path):
    layouts = (LayoutCount(b"a=1", 80, 5242880), LayoutCount(b"\0\xff", 1, 0))
    assert parse(7, GOOD) == RestoreObject("ceph", FSID, 2, layouts, 3, 4)
    assert parse(7, GOOD + b"\0") == parse(7, GOOD)
    none = text(b"filesystem lustre -", b"directories 1", b"others 0 0")
    assert parse(7, none) == RestoreObject("lustre", "", 1, (), 0, 0)


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b"", "version"),
        (text(b"filesystem ceph -", head=b"forebay-layouts 2"), "version"),
        (GOOD[:-1], "checksum"),
        (GOOD.replace(b"80", b"81"), "checksum"),
        (text(b"filesystem zfs -", b"directories 1", b"others 0 0"), "form"),
        (text(b"filesystem ceph -", b"directories 1"), "form"),
        (text(b"filesystem ceph -", b"directories x", b"others 0 0"), "form"),
    ],
)
def test_one_that_is_damaged_or_of_a_later_release_is_told_by_its_job(damaged, why):
    with pytest.raises(RestoreObjectDamaged, match=f"JobId 7 cannot be read.*{why}"):
        parse(7, damaged)


@pytest.fixture
def catalog(tmp_path):
    path = tmp_path / "bacula.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE RestoreObject (RestoreObjectId INTEGER PRIMARY KEY, ObjectName TEXT,"
            " RestoreObject TEXT, ObjectCompression INTEGER, JobId INTEGER)"
        )
        for number, (name, data, compression, job) in enumerate(
            [
                (NAME, GOOD, 0, 1),
                (NAME, zlib.compress(GOOD), 1, 2),
                ("job_metadata.xml", b"x", 0, 2),
                (NAME, b"not deflated", 1, 3),
            ]
        ):
            packed = base64.b64encode(data).rstrip(b"=").decode()
            database.execute(
                "INSERT INTO RestoreObject VALUES (?, ?, ?, ?, ?)",
                (number, name, packed, compression, job),
            )
    database.close()
    return Catalog(path)


def test_the_catalog_gives_objects_as_they_were_sent(catalog):
    assert catalog.restore_objects(1, NAME) == [GOOD]
    assert catalog.restore_objects(2, NAME) == [GOOD]
    assert catalog.restore_objects(4, NAME) == []


def test_one_that_cannot_be_unpacked_is_told(catalog):
    with pytest.raises(CatalogUnavailable, match="JobId 3"):
        catalog.restore_objects(3, NAME)


def test_layouts_of_cephfs_in_words():
    assert ceph.describe(examples.CEPH_STRIPED + b" pool=p") == {
        "stripe_unit": 65536,
        "stripe_count": 2,
        "object_size": 131072,
        "pool": "p",
    }


def test_layouts_of_lustre_in_words():
    assert lustre.describe(plain(4, magic=0x0BD30BD0, pool=b"fast")) == {
        "kind": "plain",
        "pattern": ["raid0"],
        "stripe_size": 1 << 20,
        "stripe_count": 4,
        "pool": "fast",
    }
    found = lustre.describe(examples.FLR)
    assert (found["kind"], found["mirrors"]) == ("composite", 2)
    assert [part["mirror"] for part in found["components"]] == [1, 2, 2]
    assert found["components"][1]["flags"] == ["stale", "init", "nosync"]
    assert found["components"][2]["end"] is None
    assert lustre.describe(examples.DOM)["components"][0]["pattern"] == ["mdt"]


@pytest.mark.parametrize("lov", [b"", b"\0" * 3, plain(1)[:-1], b"\0" * 32, examples.PFL[:150]])
def test_what_is_no_layout_of_lustre_is_given_as_it_is(lov):
    assert lustre.describe(lov) == {"unknown": lov.hex()}


def test_a_foreign_layout_is_called_so():
    assert lustre.describe(plain(1, magic=FOREIGN)) == {"kind": "foreign"}

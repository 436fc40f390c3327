"""The restore object: counted as a job's files go, told before a restore.

Covers: backup and restore over the stand-in for CephFS and Lustre, bounds, damaged objects.
Does not cover: a real File Daemon (test_layouts.py), the catalog (tests/unit/bacula_bridge).
"""

import os
import re
import zlib

import pytest

from bacula_bridge.restore_object import NAME, LayoutCount, parse
from tests.plugin.layout_support import mounted, plain, restore, save, saved
from tests.plugin.restore_support import FT_REGE, M_INFO, M_WARNING, Script, assert_quiet
from tests.plugin.test_layouts import AS_LUSTRE, give, make_ceph_tree, standin  # noqa: F401

FSID = b"6f1c0f3e-4a3b-4c4e-9b1e-5a0e5e2d7c11"
LAYOUTS_MAX = 1024


@pytest.fixture
def ceph(standin, tmp_path):  # noqa: F811
    with mounted(standin, "ceph", tmp_path) as (mount, _):
        yield mount


def object_of(dump):
    ((name, text),) = dump.objects
    assert name.decode() == NAME
    return parse(1, text)


def saved_ceph(ceph, backup_harness, tmp_path):
    layouts = make_ceph_tree(ceph / "source")
    dump, _ = save(backup_harness, tmp_path / "out", ceph / "source")
    return dump, layouts


def test_a_job_says_once_what_its_layouts_are(ceph, backup_harness, tmp_path):
    dump, layouts = saved_ceph(ceph, backup_harness, tmp_path)
    found = object_of(dump)
    assert (found.filesystem, found.identity) == ("ceph", "")
    assert found.directories == 3
    assert (found.other_files, found.other_bytes) == (0, 0)
    names = {name for name in layouts if name != "plain/again"}  # a link: its first name counts
    expected = {
        layout: (
            sum(layouts[name] == layout for name in names),
            sum(
                (ceph / "source" / name).stat().st_size for name in names if layouts[name] == layout
            ),
        )
        for layout in set(layouts.values())
    }
    assert {each.layout: (each.files, each.bytes) for each in found.layouts} == expected


def test_a_job_without_layouts_has_none(tmp_path, backup_harness):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(b"x")
    dump, _ = save(backup_harness, tmp_path / "out", tmp_path / "source")
    assert dump.end == "T"
    assert dump.objects == []


def test_layouts_of_lustre_are_counted_without_what_is_one_files_own(
    standin,  # noqa: F811
    backup_harness,
    tmp_path,
):
    with mounted(standin, "lustre", tmp_path) as (mount, behind):
        source = mount / "source"
        (source / "dir").mkdir(parents=True)
        for number in range(3):
            (source / f"f{number}").write_bytes(b"12345")
            give(behind, f"source/f{number}", saved(2, object_id=b"%d" % number * 16))
        give(behind, "source/dir", plain(2, generation=0))
        dump, _ = save(backup_harness, tmp_path / "out", source)
    found = object_of(dump)
    assert (found.filesystem, found.identity, found.directories) == ("lustre", "", 1)
    assert found.layouts == (LayoutCount(plain(2), 3, 15),)


def test_what_finds_no_room_is_counted_together(standin, backup_harness, tmp_path):  # noqa: F811
    with mounted(standin, "ceph", tmp_path) as (mount, behind):
        (mount / "source").mkdir()
        for number in range(LAYOUTS_MAX + 3):
            path = mount / "source" / f"f{number}"
            path.write_bytes(b"1")
            text = b"shape=%d" % number
            os.setxattr(behind / "source" / path.name, "user.standin.ceph.file.layout", text)
        dump, _ = save(backup_harness, tmp_path / "out", mount / "source")
    found = object_of(dump)
    assert len(found.layouts) == LAYOUTS_MAX
    assert (found.other_files, found.other_bytes) == (3, 3)


def test_a_restore_says_first_what_comes_and_what_the_place_has_not(
    ceph, backup_harness, harness, tmp_path
):
    dump, layouts = saved_ceph(ceph, backup_harness, tmp_path)
    ((_, text),) = dump.objects
    told = f"object {text.hex()}"
    count = len(layouts) - 1
    same = restore(harness, dump, ceph / "source", ceph / "target", tmp_path / "w1", told)
    (first,) = same.texts(M_INFO)
    assert re.match(rf"forebay: the jobs saved {count} files with a layout .* on CephFS$", first)
    other = restore(harness, dump, ceph / "source", tmp_path / "target", tmp_path / "w2", told)
    assert other.texts(M_INFO)[0].endswith(
        "on CephFS; the restore place is on no CephFS, so that files get its own layout"
    )
    assert not same.texts(M_WARNING)


def restored_with(harness, tmp_path, *objects, before=()):
    script = Script(bytes(tmp_path / "place"), bytes(tmp_path))
    script.lines += [*before, *(f"object {each.hex() or '-'}" for each in objects)]
    script.file(FT_REGE, b"file")
    return script.run(harness)


def an_object(files=1, directories=2, identity=b"-", kind=b"lustre", layouts=1):
    body = b"forebay-layouts 1\nfilesystem %s %s\ndirectories %d\n" % (kind, identity, directories)
    body += b"layout %d 10 00ff\n" % files * layouts + b"others 0 0\n"
    return body + b"end %08x\n" % zlib.crc32(body)


def test_the_objects_of_all_jobs_are_added_up(harness, tmp_path):
    one, two = an_object(files=3, layouts=2), an_object(files=4) + b"\0"
    outcome = restored_with(harness, tmp_path, one, two, before=[AS_LUSTRE])
    (said,) = outcome.texts(M_INFO)
    assert said == (
        "forebay: the jobs saved 10 files with a layout (of 2 kinds or more) and 4 directories"
        " with a default layout, quota or pin of their own on Lustre"
    )


def test_a_cluster_is_named(harness, tmp_path):
    outcome = restored_with(harness, tmp_path, an_object(kind=b"ceph", identity=FSID))
    assert f"on CephFS {FSID.decode()}; the restore place" in outcome.texts(M_INFO)[0]


GOOD = an_object()
HUGE = b"forebay-layouts 1\n" + b"x" * 900_000


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"end 00000000\n",
        HUGE,
        an_object(kind=b"zfs"),
        an_object(identity=b"0" * 64),
        an_object(identity=b"Z"),
        an_object(files=2**64),
        an_object(files=2**63, layouts=2),
        an_object(directories=10**30),
        GOOD.replace(b"layouts 1", b"layouts 2"),
        GOOD.replace(b"00ff", b"00fe"),
        GOOD + b"x",
    ],
)
def test_a_damaged_object_is_said_and_changes_nothing(harness, tmp_path, damaged):
    outcome = restored_with(harness, tmp_path, damaged)
    assert outcome.texts(M_INFO) == [
        "forebay: 1 summaries of layouts are damaged or of a later release; nothing that is"
        " restored depends on them"
    ]
    assert (tmp_path / "place/file").exists()


def test_objects_cut_anywhere_are_damaged(harness, tmp_path):
    cut = [GOOD[:size] for size in range(len(GOOD))]
    outcome = restored_with(harness, tmp_path, *cut)
    assert outcome.texts(M_INFO)[0].startswith(f"forebay: {len(cut)} summaries of layouts")


def test_without_objects_nothing_is_said(harness, tmp_path):
    assert_quiet(restored_with(harness, tmp_path))

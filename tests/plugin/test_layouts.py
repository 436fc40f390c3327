"""Layouts: taken from a file, given to the new one before its data.

Covers: backup and restore over a FUSE stand-in with the rules of layouts (standin_layouts.c), also
in a real File Daemon; check_layouts_on_ceph() for a real CephFS, called by its tests.
Does not cover: what reads and writes layouts (test_layout_formats.py); a live Lustre, and that its
kernel takes what is built here.
"""

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.backup_support import FT_DIREND, FT_REG, back_up
from tests.plugin.layout_examples import (
    BAD,
    CEPH_DEFAULT,
    CEPH_STRIPED,
    GOOD,
    INO,
)
from tests.plugin.layout_support import (
    ANY,
    LUSTRE_MAGIC,
    MIB,
    OVERSTRIPED,
    RAID0,
    V3,
    Component,
    build_standin,
    command,
    composite,
    mounted,
    plain,
    restore,
    same_file,
    save,
    saved,
    value,
    why_no_standin,
)
from tests.plugin.restore_support import (
    CF_EXTRACT,
    FT_REGE,
    ITEM_XATTR,
    M_ERROR,
    M_INFO,
    M_WARNING,
    PLUGIN,
    Script,
    assert_quiet,
    make_stat,
    parse,
    stream_of,
)
from tests.plugin.test_plugin_in_bacula import SHARDS, Bacula
from tests.support.stream_bridge import CHANGED, SAVED, Limits, entries_of_tree, split

AS_LUSTRE = f"statfs {LUSTRE_MAGIC}"


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := why_no_standin():
        pytest.skip(f"no stand-in for CephFS and Lustre: {missing}")
    return build_standin(tmp_path_factory.mktemp("standin") / "standin")


@pytest.fixture
def ceph(standin: Path, tmp_path: Path) -> Iterator[Path]:
    with mounted(standin, "ceph", tmp_path) as (mount, _):
        yield mount


@pytest.fixture
def lustre(standin: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    with mounted(standin, "lustre", tmp_path) as places:
        yield places


# -- CephFS, end to end


def make_ceph_tree(root: Path) -> dict[str, bytes]:
    """Make a tree with every attribute that is saved; return each file's layout."""
    for name in ("plain", "limited", "striped", "pinned"):
        (root / name).mkdir(parents=True)
    (root / "plain/file").write_bytes(b"d" * 100_000)
    pool = os.getxattr(root / "plain/file", "ceph.file.layout").split(b" pool=")[1].split(b" ")[0]
    layout = CEPH_STRIPED + b" pool=" + pool
    (root / "plain/empty").touch()
    (root / "plain/striped").touch()
    os.setxattr(root / "plain/striped", "ceph.file.layout", layout)
    (root / "plain/striped").write_bytes(os.urandom(300_000))
    os.setxattr(root / "plain/striped", "user.note", b"kept")
    (root / "plain/hollow").touch()
    os.setxattr(root / "plain/hollow", "ceph.file.layout", layout)
    os.link(root / "plain/striped", root / "plain/again")
    os.symlink("striped", root / "plain/symlink")
    (root / "limited/file").write_bytes(b"l")
    os.setxattr(root / "striped", "ceph.dir.layout", layout)
    os.setxattr(root / "pinned", "ceph.dir.pin", b"0")
    os.setxattr(root / "limited", "ceph.quota.max_bytes", b"100000000")
    os.setxattr(root / "limited", "ceph.quota.max_files", b"1000")
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(f.relative_to(root)): os.getxattr(f, "ceph.file.layout") for f in files}


def check_layouts_on_ceph(mount: Path, backup_harness: Path, harness: Path, work: Path) -> None:
    """Save a tree of a CephFS with all that the plugin knows of layouts, and restore it beside.

    mount: a directory on a mounted CephFS that root may write to; work: one elsewhere;
    the harnesses are those of tests/plugin/conftest.py.
    """
    source, target = mount / "source", mount / "target"
    layouts = make_ceph_tree(source)
    dump, _ = save(backup_harness, work / "out", source)
    for one in dump.files:
        has_layout = one.type in (FT_REG, FT_REGE)
        assert one.cmd.startswith(b"forebay:layout=1:c:") == has_layout
    outcome = restore(harness, dump, source, target, work / "work")
    assert_quiet(outcome)
    for name, layout in layouts.items():
        assert os.getxattr(target / name, "ceph.file.layout") == layout
        same_file(source / name, target / name)
    for name in ("plain", "limited", "striped", "pinned"):
        for attribute in (
            *("ceph.dir.layout", "ceph.dir.pin"),
            *("ceph.quota.max_bytes", "ceph.quota.max_files"),
        ):
            assert value(target / name, attribute) == value(source / name, attribute)
        same_file(source / name, target / name)
    assert os.getxattr(target / "plain/striped", "user.note") == b"kept"
    (mount / "poor").mkdir()
    check_missing_pool_on_ceph(mount / "poor", harness, work / "poor", 2)
    assert (target / "plain/striped").stat().st_ino == (target / "plain/again").stat().st_ino


def check_missing_pool_on_ceph(mount: Path, harness: Path, work: Path, count: int) -> None:
    """Restore files and a directory whose pool this CephFS does not have."""
    work.mkdir(parents=True)
    (mount / "new").touch()
    pool = os.getxattr(mount / "new", "ceph.file.layout").split(b" pool=")[1]
    script = Script(bytes(mount), bytes(work))
    layout = CEPH_STRIPED + b" pool=gone"
    for number in range(count):
        script.file(
            *(FT_REG, b"file%d" % number),
            data=[(0, b"content")],
            command=command("c", INO, layout),
        )
    st = make_stat(0o40755)
    script.file(FT_DIREND, b"dir", st, blob=stream_of(st, {b"ceph.dir.layout": layout}))
    outcome = script.run(harness)
    first, total = outcome.texts(M_WARNING)
    reasons = "|".join(os.strerror(number) for number in (errno.ENOENT, errno.EINVAL))
    assert re.fullmatch(
        rf"{mount}/file0: its layout was adapted \(without its pool, .*: ({reasons})\. The data is "
        "restored. Further files like it are counted at the end of the job.",
        first,
    )
    assert total.startswith(f"{count + 1} files or directories in all: its layout was adapted")
    expected = CEPH_STRIPED + b" pool=" + pool
    for number in range(count):
        assert value(mount / f"file{number}", "ceph.file.layout") == expected
        assert (mount / f"file{number}").read_bytes() == b"content"
    assert value(mount / "dir", "ceph.dir.layout") == expected


def test_what_cephfs_has_is_saved_and_comes_back_before_the_data(
    ceph, backup_harness, harness, tmp_path
):
    check_layouts_on_ceph(ceph, backup_harness, harness, tmp_path)


def test_only_what_is_set_makes_a_directory_of_cephfs_have_a_stream(ceph, backup_harness, tmp_path):
    make_ceph_tree(ceph / "source")
    # The kernel's client answers these where nothing is set.
    os.setxattr(ceph / "source/plain", "ceph.quota.max_bytes", b"0")
    os.setxattr(ceph / "source/plain", "ceph.dir.pin", b"-1")
    dump, _ = save(backup_harness, tmp_path / "out", ceph / "source")
    named = {
        os.path.basename(one.fname.rstrip(b"/")): sorted(
            name for tag, name, _ in parse(one.blob) if tag == ITEM_XATTR
        )
        for one in dump.files
        if one.type == FT_DIREND and one.blob
    }
    assert named == {
        b"limited": [b"ceph.quota.max_bytes", b"ceph.quota.max_files"],
        b"striped": [b"ceph.dir.layout"],
        b"pinned": [b"ceph.dir.pin"],
    }
    assert [one.fname for one in dump.files if one.type == FT_REGE and one.blob] == []


def test_a_layout_that_cannot_be_read_keeps_the_file_due_and_a_strange_one_is_saved(
    standin, backup_harness, harness, tmp_path
):
    with mounted(standin, "ceph", tmp_path) as (mount, behind):
        (mount / "source").mkdir()
        for name, kept in (("broken", b"EIO"), ("strange", b"shape=round")):
            (mount / "source" / name).write_bytes(b"data")
            os.setxattr(behind / "source" / name, "user.standin.ceph.file.layout", kept)
        dump, stream = save(backup_harness, tmp_path / "out", mount / "source")
        (text,) = dump.said(M_WARNING) + dump.said(M_ERROR)
        assert f"{mount}/source/broken" in text
        assert os.strerror(errno.EIO) in text
        status = {r.file_index: (r.status, r.error) for r in stream.receipts}
        for one in dump.files:
            broke = one.fname.endswith(b"/broken")
            assert status[one.file_index] == ((CHANGED, errno.EIO) if broke else (SAVED, 0))
        outcome = restore(harness, dump, mount / "source", mount / "target", tmp_path / "work")
        (text,) = outcome.texts(M_WARNING)
        assert text.startswith(f"{mount}/target/strange: its layout is damaged")
        for name in ("broken", "strange"):
            assert value(mount / "target" / name, "ceph.file.layout") == CEPH_DEFAULT
            same_file(mount / "source" / name, mount / "target" / name)


def test_elsewhere_the_layouts_of_cephfs_are_left_out_and_counted(
    ceph, backup_harness, harness, tmp_path
):
    layouts = make_ceph_tree(ceph / "source")
    dump, _ = save(backup_harness, tmp_path / "out", ceph / "source")
    target = tmp_path / "target"
    outcome = restore(harness, dump, ceph / "source", target, tmp_path / "work")
    assert [kind for kind, _ in outcome.messages] == [M_INFO]
    (text,) = outcome.texts(M_INFO)
    assert text.startswith(f"{len(layouts) - 1 + 3} files or directories were saved with a layout")
    for name in layouts:
        same_file(ceph / "source" / name, target / name)


@pytest.mark.parametrize("count", [1, 3])
def test_a_pool_that_is_not_there_is_left_out_of_the_layout(ceph, harness, tmp_path, count):
    check_missing_pool_on_ceph(ceph, harness, tmp_path / "work", count)


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(command("c", INO, CEPH_STRIPED)[:-2], id="cut off"),
        pytest.param(command("c", INO + 1, CEPH_STRIPED), id="of another file"),
        pytest.param(command("c", INO, b"stripe_unit=1 stripe_count=1 object_size=1"), id="absurd"),
    ],
)
def test_a_file_whose_layout_broke_is_restored_without_it(ceph, harness, tmp_path, of):
    (tmp_path / "work").mkdir()
    script = Script(bytes(ceph), bytes(tmp_path / "work"))
    script.file(FT_REG, b"file", data=[(0, b"content")], command=of)
    script.file(FT_REG, b"next", data=[(0, b"content")], command=command("c", INO, CEPH_STRIPED))
    outcome = script.run(harness)
    (text,) = outcome.texts(M_WARNING)
    assert text.startswith(f"{ceph}/file: its layout is damaged, foreign or of a later release")
    assert outcome.texts(M_ERROR) == []
    assert value(ceph / "file", "ceph.file.layout") == CEPH_DEFAULT
    assert value(ceph / "next", "ceph.file.layout").startswith(CEPH_STRIPED)
    assert (ceph / "file").read_bytes() == b"content"


def test_a_quota_is_set_when_all_files_are_there_and_an_absurd_one_is_not(ceph, harness, tmp_path):
    (tmp_path / "work").mkdir()
    script = Script(bytes(ceph), bytes(tmp_path / "work"))
    st = make_stat(0o40750)
    for name, quota in ((b"good", b"10"), (b"bad", b"ten")):
        xattrs = {b"ceph.quota.max_files": quota, b"user.u": b"1"}
        script.file(FT_DIREND, name, st, blob=stream_of(st, xattrs))
        script.file(FT_REGE, name + b"/file")
    outcome = script.run(harness)
    (text,) = outcome.texts(M_WARNING)
    assert text.startswith(f"{ceph}/bad: its layout is damaged")
    assert outcome.created == [4, CF_EXTRACT] * 2
    assert value(ceph / "good", "ceph.quota.max_files") == b"10"
    assert value(ceph / "bad", "ceph.quota.max_files") is None
    for name in ("good", "bad"):
        assert os.getxattr(ceph / name, "user.u") == b"1"
        assert (ceph / name).stat().st_mtime_ns == st.st_mtime_ns


def test_a_large_file_of_cephfs_is_read_along_its_stripes(ceph, backup_harness, tmp_path):
    (ceph / "source").mkdir()
    path = ceph / "source/file"
    path.touch()
    stripe = 3 * 65_536 * 4
    layout = f"stripe_unit={stripe} stripe_count=2 object_size={stripe}"
    os.setxattr(path, "ceph.file.layout", layout.encode())
    path.write_bytes(os.urandom(5 * MIB))
    out = tmp_path / "out"
    out.mkdir()
    entries = list(entries_of_tree(ceph / "source"))
    limits = Limits(large_file_bytes=MIB)
    (dump,), _ = back_up(backup_harness, out, ceph / "source", [entries], limits=limits, record=1)
    made = [line.split() for line in (out / "preads").read_text().splitlines()]
    starts = {int(offset) for _, offset, _ in made}
    assert starts == set(range(0, 5 * MIB, stripe))
    assert [one.size for one in dump.files if one.type == FT_REG] == [5 * MIB]


# -- Lustre, end to end, on the stand-in


def give(behind: Path, name: str, lov: bytes) -> None:
    """Make a file of the stand-in have been made with this layout."""
    os.setxattr(behind / name, "user.standin.lustre.lov", lov)


def test_layouts_of_lustre_are_saved_and_come_back_before_the_data(
    lustre, backup_harness, harness, tmp_path
):
    mount, behind = lustre
    source, target = mount / "source", mount / "target"
    source.mkdir()
    cases = {name: pair for name, pair in GOOD.items() if "overstriped" not in name}
    del cases["of a directory"]
    for name, (lov, _) in cases.items():
        (source / name).write_bytes(os.urandom(5000))
        give(behind, f"source/{name}", lov)
    (source / "dir").mkdir()
    give(behind, "source/dir", plain(2, magic=V3, pool=b"fast", generation=0))
    dump, _ = save(backup_harness, tmp_path / "out", source)
    outcome = restore(harness, dump, source, target, tmp_path / "work", AS_LUSTRE)
    assert [kind for kind, _ in outcome.messages] == [M_INFO]
    assert outcome.texts(M_INFO)[0].startswith("1 files have several mirrors")
    for name, (_, expected) in cases.items():
        assert os.getxattr(target / name, "lustre.lov") == expected
        same_file(source / name, target / name)
    expected = plain(2, magic=V3, pool=b"fast")
    assert os.getxattr(target / "dir", "lustre.lov") == expected


ADAPTED, DEFAULTED = "its layout was adapted", "the target refused its layout"


@pytest.mark.parametrize(
    ("lov", "expected", "said"),
    [
        (plain(2, magic=V3, pool=b"gone"), plain(2), ADAPTED),
        (plain(9), plain(ANY), ADAPTED),
        (plain(9, magic=V3, pool=b"gone"), plain(ANY), ADAPTED),
        (plain(1, size=4096), None, DEFAULTED),
        (plain(1, magic=V3, pool=b"gone", size=4096), None, DEFAULTED),
        (plain(9, pattern=RAID0 | OVERSTRIPED), plain(ANY), ADAPTED),
    ],
)
def test_a_layout_that_lustre_refuses_is_adapted_step_by_step(
    lustre, harness, tmp_path, lov, expected, said
):
    mount, _ = lustre
    (tmp_path / "work").mkdir()
    script = Script(bytes(mount), bytes(tmp_path / "work"))
    script.lines.append(AS_LUSTRE)
    content = os.urandom(10_000)
    script.file(FT_REG, b"file", data=[(0, content)], command=command("l", INO, lov))
    script.file(FT_REG, b"none", data=[(0, content)])
    outcome = script.run(harness)
    (text,) = outcome.texts(M_WARNING)
    assert said in text
    assert outcome.texts(M_ERROR) == []
    default = os.getxattr(mount / "none", "lustre.lov")
    assert os.getxattr(mount / "file", "lustre.lov") == (expected or default)
    assert (mount / "file").read_bytes() == content
    assert (mount / "file").stat().st_mtime_ns == make_stat(0o100644).st_mtime_ns


def test_each_directory_is_asked_of_what_kind_it_is(lustre, harness, tmp_path):
    """A restore place may have other filesystems mounted in it."""
    mount, _ = lustre
    (tmp_path / "work").mkdir()
    script = Script(bytes(mount), bytes(tmp_path / "work"))
    layout = command("l", INO, plain(3))
    for name in (b"one/first", b"two/second", b"one/third"):
        script.lines.append(AS_LUSTRE if name.startswith(b"two") else "statfs 0")
        script.file(FT_REG, name, data=[(0, b"content")], command=layout)
    outcome = script.run(harness)
    (text,) = outcome.texts(M_INFO)
    assert text.startswith("2 files or directories were saved with a layout")
    kept = [os.getxattr(mount / name, "lustre.lov") for name in ("one/first", "two/second")]
    assert (kept[0] == plain(3), kept[1] == plain(3)) == (False, True)
    assert outcome.texts(M_WARNING) == outcome.texts(M_ERROR) == []


@pytest.mark.parametrize(
    ("lov", "said"),
    [
        (saved(2), "its layout came behind its data"),
        (BAD["foreign"][0], "its layout is damaged, foreign or of a later release"),
        (BAD["one entry more"][0], "its layout is damaged, foreign or of a later release"),
    ],
)
def test_a_layout_behind_the_data_is_said_and_not_set(lustre, harness, tmp_path, lov, said):
    """Streams of before there was a command, and what could not be made one."""
    mount, _ = lustre
    (tmp_path / "work").mkdir()
    script = Script(bytes(mount), bytes(tmp_path / "work"))
    script.lines.append(AS_LUSTRE)
    for name in (b"first", b"second"):
        st = make_stat(0o100640, size=4)
        blob = stream_of(st, {b"lustre.lov": lov, b"trusted.lov": lov, b"user.u": b"1"})
        script.file(FT_REG, name, st, data=[(0, b"data")], blob=blob)
    outcome = script.run(harness)
    first, count = outcome.texts(M_WARNING)
    assert first.startswith(f"{mount}/first: {said}")
    assert count.startswith(f"2 files or directories in all: {said}")
    for name in ("first", "second"):
        assert os.getxattr(mount / name, "lustre.lov") != lov
        assert os.getxattr(mount / name, "user.u") == b"1"
        assert "trusted.lov" not in os.listxattr(mount / name)
        assert (mount / name).stat().st_mtime_ns == make_stat(0o100640).st_mtime_ns


def test_elsewhere_layouts_of_lustre_are_left_out_in_silence_but_for_a_count(
    harness, script, place
):
    lov = command("l", INO, plain(2))
    for number in range(3):
        st = make_stat(0o100640, size=4)
        blob = stream_of(st, {b"lustre.lov": saved(2), b"trusted.lov": saved(2)})
        script.file(FT_REG, b"f%d" % number, st, data=[(0, b"data")], blob=blob, command=lov)
    st = make_stat(0o40755)
    script.file(FT_DIREND, b"dir", st, blob=stream_of(st, {b"lustre.lov": plain(2)}))
    outcome = script.run(harness)
    assert [kind for kind, _ in outcome.messages] == [M_INFO]
    assert outcome.texts(M_INFO)[0].startswith("4 files or directories were saved with a layout")
    assert [os.listxattr(place / f"f{number}") for number in range(3)] == [[]] * 3


def test_without_privilege_layouts_come_back_all_the_same(ceph, harness, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "work").mkdir()
    (tmp_path / "work").chmod(0o777)
    (ceph / "place").mkdir()
    (ceph / "place").chmod(0o777)
    for above in tmp_path.parents:
        if above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    script = Script(bytes(ceph / "place"), bytes(tmp_path / "work"), uid=65534)
    st = make_stat(0o100400, uid=65534, gid=65534, size=4)
    script.file(
        *(FT_REG, b"file", st), data=[(0, b"data")], command=command("c", INO, CEPH_STRIPED)
    )
    assert_quiet(script.run(harness))
    assert value(ceph / "place/file", "ceph.file.layout").startswith(CEPH_STRIPED)


# -- In a real File Daemon


@pytest.fixture(scope="module")
def bacula(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bacula]:
    subprocess.run(["make", "-s", "-C", str(PLUGIN)], check=True)
    one = Bacula(tmp_path_factory.mktemp("bacula"))
    yield one
    one.lab.down()


def through_bacula(bacula: Bacula, root: Path, target: Path) -> tuple[Path, str]:
    """Back a tree up and restore it; return where it is and the restore's log."""
    jobs, _ = bacula.run(root, split(entries_of_tree(root), SHARDS))
    assert [(job.status, job.errors) for job in jobs] == [("T", 0)] * SHARDS
    done = bacula.restore([job.jobid for job in jobs], target)
    assert (done.status, done.errors) == ("T", 0), done.log
    return target / root.relative_to("/"), done.log


@pytest.mark.bacula
def test_layouts_go_through_a_real_bacula(bacula, ceph):
    layouts = make_ceph_tree(ceph / "source")
    restored, log = through_bacula(bacula, ceph / "source", ceph / "target")
    lines = [line for line in log.splitlines() if " layout" in line]
    (told,) = lines  # by the restore objects, which came before the files
    assert f"the jobs saved {len(layouts) - 1} files with a layout" in told
    assert "the restore place" not in told
    for name, layout in layouts.items():
        assert os.getxattr(restored / name, "ceph.file.layout") == layout
        same_file(ceph / "source" / name, restored / name)
    for name in ("ceph.quota.max_files", "ceph.quota.max_bytes"):
        assert value(restored / "limited", name) == value(ceph / "source/limited", name)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A place whose xattrs may be as long as Linux has any."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no tmpfs at /dev/shm, where xattrs may be long")
    path = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="forebay-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.bacula
def test_the_longest_layout_goes_through_a_real_bacula(bacula, standin, memory, tmp_path):
    """64 KiB of components, and twice that in the command."""
    count = (65_536 - 32) // (48 + 32)
    parts = [Component(n * MIB, (n + 1) * MIB, plain(4), 0, n + 1) for n in range(count)]
    with mounted(standin, "lustre", memory) as (mount, behind):
        root = mount / "source"
        root.mkdir()
        (root / "file").write_bytes(b"data" * 1000)
        (root / "other").write_bytes(b"other")
        give(behind, "source/file", composite(*parts))
        restored, log = through_bacula(bacula, root, tmp_path / "elsewhere")
    # It was understood, and the place it came to is no Lustre.
    assert "2 files or directories were saved with a layout" in log
    assert "damaged" not in log
    assert (restored / "file").read_bytes() == b"data" * 1000
    assert (restored / "other").read_bytes() == b"other"

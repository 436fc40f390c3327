"""Files that Lustre's HSM has released: never recalled by a backup that was not asked to.

Covers: skip, stub and recall on the harness's stand-in for a Lustre client (harness_lustre.h); what
a restore makes of a stub; all of it in a real File Daemon, with the stand-in in the plugin.
Does not cover: other filesystems, which are asked nothing (test_plugin_looks.py); a live Lustre.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.ledger_schema import HsmPolicy
from tests.plugin.backup_support import (
    FT_LNKSAVED,
    FT_REGE,
    M_ERROR,
    M_WARNING,
    back_up,
    check_saved,
    entry_of,
    statuses,
    write,
)
from tests.plugin.layout_examples import BAD, patched
from tests.plugin.layout_support import (
    EOF,
    INIT,
    MIB,
    RAID0,
    V3,
    Component,
    composite,
    plain,
    restore,
    saved,
)
from tests.plugin.layout_support import (
    RELEASED as RELEASED_PATTERN,
)
from tests.plugin.restore_support import (
    CF_EXTRACT,
    CF_SKIP,
    CFLAGS,
    FT_REG,
    HERE,
    M_SKIPPED,
    PLUGIN,
)
from tests.plugin.test_plugin_in_bacula import SHARDS, Bacula
from tests.support.stream_bridge import (
    LINK,
    RELEASED,
    SAVED,
    STUB,
    UNREADABLE,
    Limits,
    entries_of_tree,
)

AS_LUSTRE = {"lustre": 1}
AWAY = saved(2, pattern=RAID0 | RELEASED_PATTERN, objects=0)
# Of a file that a client would recall.
RELEASED_LAYOUTS = {
    "plain": AWAY,
    "with objects": saved(2, pattern=RAID0 | RELEASED_PATTERN),
    "pool": plain(2, magic=V3, pool=b"fast", pattern=RAID0 | RELEASED_PATTERN),
    "all components": composite(
        Component(0, MIB, plain(1, pattern=RAID0 | RELEASED_PATTERN), INIT, 1),
        Component(MIB, EOF, plain(2, pattern=RAID0 | RELEASED_PATTERN), INIT, 2),
    ),
    "last component": composite(
        Component(0, MIB, saved(1), INIT, 1),
        Component(MIB, EOF, plain(2, pattern=RAID0 | RELEASED_PATTERN), INIT, 2),
    ),
    "beside an unknown one": composite(
        Component(0, MIB, patched(plain(1), 0, "I", 0x0BD90BD0), INIT, 1),
        Component(MIB, EOF, plain(2, pattern=RAID0 | RELEASED_PATTERN), INIT, 2),
    ),
    "long": composite(
        *(Component(n * MIB, (n + 1) * MIB, plain(1), INIT, n + 1) for n in range(30)),
        Component(30 * MIB, EOF, plain(1, pattern=RAID0 | RELEASED_PATTERN), INIT, 31),
    ),
}


def give(path: Path, lov: bytes, *, released: bool = True) -> Path:
    """Let a file have this layout; reading it recalls it if it is released."""
    try:
        os.setxattr(path, "user.lov12", lov)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ERANGE):
            raise
        pytest.skip("xattrs are short on this filesystem")
    if released:
        os.setxattr(path, "user.released", b"1")
    return path


def recalled(out: Path) -> list[int]:
    path = out / "recalled"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(params=[100, 3_000_000], ids=["small", "large"])
def tree(request, root):
    """A released file between two that are not."""
    for name in ("before", "released", "then"):
        give(write(root / name, request.param), saved(1), released=False)
    with open(root / "then", "r+b") as file:
        file.truncate(2 * request.param)  # a hole at its end
    give(root / "released", AWAY)
    return [entry_of(root, name) for name in ("before", "released", "then")]


LIMITS = Limits(large_file_bytes=MIB)


def test_unless_asked_nothing_is_read_and_the_job_says_how_many(backup_harness, out, root, tree):
    (dump,), (stream,) = back_up(backup_harness, out, root, [tree], limits=LIMITS, **AS_LUSTRE)
    assert recalled(out) == []
    assert statuses(stream) == [SAVED, RELEASED, SAVED]
    assert [os.path.basename(one.fname) for one in dump.files] == [b"before", b"then"]
    receipt = stream.receipts[1]
    assert (receipt.file_index, receipt.data_bytes, receipt.read_ns) == (0, 0, 0)
    (text,) = dump.said(M_ERROR)  # so that the job ends with warnings
    assert "not saved, 1 names of files that HSM has released" in text
    assert dump.end == "T"


@pytest.mark.parametrize("known", [{}, {"mtime_ns": 0, "ctime_ns": 0}], ids=["one look", "two"])
@pytest.mark.parametrize("lov", RELEASED_LAYOUTS.values(), ids=RELEASED_LAYOUTS)
def test_whatever_the_layout_a_released_file_is_not_read(backup_harness, out, root, lov, known):
    give(write(root / "file", 4096), lov)
    entries = [entry_of(root, "file", **known)]
    _, (stream,) = back_up(backup_harness, out, root, [entries], **AS_LUSTRE)
    assert (statuses(stream), recalled(out)) == ([RELEASED], [])


@pytest.mark.parametrize("policy", ["skip", "stub"])
@pytest.mark.parametrize(
    ("lov", "state", "expected"),
    [
        pytest.param(BAD["three bytes"][0], b"13", None, id="damaged"),
        pytest.param(BAD["unknown magic"][0], b"13", None, id="unknown"),
        pytest.param(BAD["foreign"][0], b"13", None, id="foreign"),
        pytest.param(BAD["unknown magic"][0], b"9", SAVED, id="archived, not released"),
        pytest.param(BAD["unknown magic"][0], b"EIO", UNREADABLE, id="nobody knows"),
    ],
)
def test_where_the_layout_does_not_tell_the_state_does(
    backup_harness, out, root, lov, state, expected, policy
):
    give(write(root / "file", 4096), lov, released=expected != SAVED)
    os.setxattr(root / "file", "user.hsm", state)
    entries = [entry_of(root, "file")]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], hsm=policy, **AS_LUSTRE)
    assert statuses(stream) == [expected or {"skip": RELEASED, "stub": STUB}[policy]]
    assert recalled(out) == []
    if expected == UNREADABLE:
        assert os.strerror(errno.EIO) in dump.said(M_ERROR)[0]


def test_recall_reads_it_as_any_other(backup_harness, out, root, tree):
    (dump,), (stream,) = back_up(
        backup_harness, out, root, [tree], limits=LIMITS, hsm="recall", **AS_LUSTRE
    )
    assert statuses(stream) == [SAVED] * 3
    assert set(recalled(out)) == {tree[1].ino}
    assert dump.said(M_ERROR) + dump.said(M_WARNING) == []
    assert dump.files[1].size == sum(size for _, size in dump.files[1].extents)


def test_on_other_filesystems_nobody_asks(backup_harness, out, root):
    give(write(root / "file", 4096), AWAY)
    entries = [entry_of(root, "file")]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries])
    check_saved(root, entries, dump, stream)
    assert statuses(stream) == [SAVED]


def test_a_stub_has_all_but_its_data(backup_harness, out, root, tree):
    (dump,), (stream,) = back_up(
        backup_harness, out, root, [tree], limits=LIMITS, hsm="stub", **AS_LUSTRE
    )
    assert recalled(out) == []
    assert statuses(stream) == [SAVED, STUB, SAVED]
    stub, receipt = dump.files[1], stream.receipts[1]
    assert (stub.type, stub.size, stub.extents) == (FT_REGE, tree[1].size, [])
    assert stub.cmd.startswith(b"forebay:layout=1:l:")
    assert b"lustre.lov" in b"".join(stub.blob)
    assert (receipt.file_index, receipt.size, receipt.data_bytes) == (2, tree[1].size, 0)
    assert receipt.hash == bytes(16)
    (text,) = dump.said(M_WARNING)
    assert "1 files that HSM has released are saved without their data (hsm=stub)" in text
    assert dump.said(M_ERROR) == []


@pytest.mark.parametrize(
    ("policy", "expected"), [("skip", [RELEASED] * 3), ("stub", [STUB, LINK, LINK])]
)
def test_no_name_of_a_released_file_recalls_it(backup_harness, out, root, policy, expected):
    give(write(root / "a", 5000), AWAY)
    for name in ("b", "c"):
        os.link(root / "a", root / name)
    entries = [entry_of(root, name) for name in ("a", "b", "c")]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], hsm=policy, **AS_LUSTRE)
    assert (statuses(stream), recalled(out)) == (expected, [])
    types = [one.type for one in dump.files]
    assert types == ([FT_REGE, FT_LNKSAVED, FT_LNKSAVED] if policy == "stub" else [])


# -- Restore


def stub_of(backup_harness, out, root):
    """Save a stub of 5,000 bytes with a second name, and an empty file."""
    give(write(root / "file", 5000), AWAY)
    os.setxattr(root / "file", "user.note", b"kept")
    os.chmod(root / "file", 0o640)
    os.link(root / "file", root / "again")
    (root / "hollow").touch()
    entries = [entry_of(root, name) for name in ("hollow", "file", "again")]
    (dump,), _ = back_up(backup_harness, out, root, [entries], hsm="stub", **AS_LUSTRE)
    return dump


def test_a_stub_is_restored_empty_and_marked_and_never_passes_for_the_file(
    backup_harness, harness, out, root, tmp_path
):
    dump = stub_of(backup_harness, out, root)
    target = tmp_path / "target"
    outcome = restore(harness, dump, root, target, tmp_path / "work")
    assert outcome.created[:2] == [CF_EXTRACT] * 2
    (text,) = outcome.texts(M_ERROR)
    assert text.startswith(f"{target}/file: HSM had released this file, and it was saved without")
    there = (target / "file").stat()
    assert (there.st_size, there.st_mode & 0o7777) == (0, 0o640)
    assert there.st_mtime_ns == (root / "file").stat().st_mtime_ns
    assert os.getxattr(target / "file", "user.forebay.no_data") == b"5000"
    assert os.getxattr(target / "file", "user.note") == b"kept"
    assert (target / "again").samefile(target / "file")
    assert os.listxattr(target / "hollow") == []


def test_stubs_are_counted(backup_harness, harness, out, root, tmp_path):
    names = [f"file{number}" for number in range(4)]
    for name in names:
        give(write(root / name, 10), AWAY)
    entries = [entry_of(root, name) for name in names]
    (dump,), _ = back_up(backup_harness, out, root, [entries], hsm="stub", **AS_LUSTRE)
    assert "4 files that HSM has released" in dump.said(M_WARNING)[0]
    outcome = restore(harness, dump, root, tmp_path / "target", tmp_path / "work")
    (text,) = outcome.texts(M_WARNING)
    assert text.startswith("4 files in all were saved without their data and are restored empty")
    assert len(outcome.texts(M_ERROR)) == 1


def test_a_stub_never_takes_the_place_of_data(backup_harness, harness, out, root, tmp_path):
    dump = stub_of(backup_harness, out, root)
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").write_bytes(b"what is left of it")
    outcome = restore(harness, dump, root, target, tmp_path / "work")
    assert CF_SKIP in outcome.created
    assert (target / "file").read_bytes() == b"what is left of it"
    assert any("Saved without its data" in text for text in outcome.texts(M_SKIPPED))
    (text,) = outcome.texts(M_WARNING)
    assert text.startswith("1 files that were saved without their data were left as they are")


def test_a_file_whose_data_did_not_come_is_no_stub(harness, script, place):
    script.file(FT_REG, b"file", size=5000, data=[])
    outcome = script.run(harness)
    (text,) = outcome.texts(M_ERROR)
    assert "incomplete: 0 of 5000 bytes came" in text
    assert "user.forebay.no_data" not in os.listxattr(place / "file")


# -- In a real File Daemon


@pytest.fixture(scope="module")
def bacula(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bacula, Path]]:
    base = tmp_path_factory.mktemp("bacula")
    plugin, out = base / "forebay-fd.so", base / "out"
    out.mkdir()
    sources = [str(HERE / "plugin_on_lustre.c"), *(str(source) for source in PLUGIN.glob("*.c"))]
    wrapped = ["fstatfs64", "pread64", "fgetxattr", "flistxattr", "ioctl", "lseek64"]
    options = [f'-DOUT_DIR="{out}"', "-I", str(PLUGIN), *(f"-Wl,--wrap={name}" for name in wrapped)]
    command = ["cc", *CFLAGS, "-fvisibility=hidden", "-shared", *options, *sources]
    subprocess.run([*command, "-o", str(plugin)], check=True)
    one = Bacula(base, plugin)
    yield one, out
    one.lab.down()


@pytest.mark.bacula
def test_each_policy_ends_a_real_job_as_documented_and_stubs_come_back_as_such(
    bacula, root, tmp_path
):
    daemon, out = bacula
    (root / "dir").mkdir()
    for name in ("away", "dir/away", "here"):
        write(root / name, 5000)
    give(root / "away", AWAY)
    give(root / "dir/away", AWAY)
    shards = [list(entries_of_tree(root)), []]
    ends = {}
    for policy in HsmPolicy:
        daemon.lab.set_dataset("data", SHARDS, policy)
        (job, _), _ = daemon.run(root, shards)
        ends[policy] = (job.status, job.errors, "OK -- with warnings" in job.log)
        saved_names = {name for name in daemon.files(job.jobid) if name.endswith("away")}
        assert len(saved_names) == (0 if policy is HsmPolicy.SKIP else 2)
        if policy is HsmPolicy.SKIP:
            assert "not saved, 2 names of files that HSM has released" in job.log
        if policy is HsmPolicy.STUB:
            assert "2 files that HSM has released are saved without their data" in job.log
            done = daemon.restore([job.jobid], tmp_path / "restored")
        assert (recalled(out) == []) == (policy is not HsmPolicy.RECALL)
    good = ("T", 0, False)
    expected = {HsmPolicy.SKIP: ("T", 1, True), HsmPolicy.STUB: good, HsmPolicy.RECALL: good}
    assert ends == expected
    assert "HSM had released this file, and it was saved without its 5000 bytes" in done.log
    there = tmp_path / "restored" / root.relative_to("/")
    for name in ("away", "dir/away"):
        assert (there / name).stat().st_size == 0
        assert os.getxattr(there / name, "user.forebay.no_data") == b"5000"
    assert (there / "here").read_bytes() == (root / "here").read_bytes()

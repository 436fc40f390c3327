"""Whole backups with Lustre's changelogs as their change source, on the stand-in for a client.

Real Bacula and Ray, a real local tree; liblustreapi.so.1 is tests/support/lustre/standin.c, and the
records are those that metadata servers would have stored.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.support.lustre.history import History
from tests.support.lustre.targets import STATE_VARIABLE, library, standin_state
from tests.support.lustre.tree import OPEN, LustreTree
from tests.system.conftest import Installation
from tests.system.test_incremental import check_restore, levels

pytestmark = [
    pytest.mark.bacula,
    pytest.mark.skipif(os.geteuid() != 0, reason="a mount point of its own needs root"),
]

HISTORIES = int(os.environ.get("FOREBAY_LUSTRE_BACKUPS", "2"))
NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")


@contextmanager
def mounted_alone(folder):
    """Make a folder a mount point in a namespace of its own; yield what runs a command there."""
    script = f"mount --bind '{folder}' '{folder}' && echo up && cat"
    with subprocess.Popen(
        [*NAMESPACE, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as keeper:
        if keeper.stdout.readline() != b"up\n":
            pytest.skip("no mount namespace of its own can be had here")
        yield ["nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt", "--wd=/"]
        keeper.stdin.close()


class Site:
    """A stand-in filesystem with two metadata targets, and an installation that sees it."""

    def __init__(self, base, prefix, libraries):
        self.mount = base / "mount"
        self.tree = LustreTree(self.mount, base / "state", targets=2)
        self.root, self.outside = self.mount / "root", self.mount / "outside"
        for folder in (self.root, self.outside):
            self.tree.mkdir(bytes(folder))
        self.installation = Installation(
            base / "home",
            prefix,
            {"LD_LIBRARY_PATH": str(libraries), STATE_VARIABLE: str(base / "state")},
        )

    def consumers(self):
        """Register one on each target; return the words for the command line."""
        words = [f"{target.name}={target.register('backup')}" for target in self.tree.targets]
        for target in self.tree.targets:
            target.append(OPEN)  # one that never had a record is a gap
        return [word for each in words for word in ("--changelog", each)]

    def note(self, result):
        return self.installation.ok("show", result["run"], "--json").json["jobs"][0]["note"]

    def check(self, result, tmp_path):
        check_restore(self.installation, result["run"], self.root, tmp_path, ways=["forebay"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    base = tmp_path_factory.mktemp("lustre")
    if shutil.which("cc") is None or not 12 <= base.stat().st_ino < 1 << 32:
        pytest.skip("the stand-in needs a C compiler, and inode numbers of 32 bits")
    libraries = base / "lib"
    libraries.mkdir()
    shutil.copy(library(), libraries / "liblustreapi.so.1")
    (base / "mount").mkdir()
    with standin_state(base / "state"), mounted_alone(base / "mount") as prefix:
        site = Site(base, prefix, libraries)
        site.installation.ok("lab", "up", "--drives", "4", "-q")
        yield site
        site.installation.ok("lab", "down")


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_history_by_changelogs(site, tmp_path, seed):
    root, outside = site.root / f"{seed}", site.outside / f"{seed}"
    for folder in (root, outside):
        site.tree.mkdir(bytes(folder))
    history = History(site.tree, bytes(root), bytes(outside), seed)
    name = f"lustre{seed}"
    watched = site.installation.ok("watch", root, "--name", name, *site.consumers(), "--json").json
    assert watched["readers"][0]["changelogs"]
    history.play(40)
    site_root, site.root = site.root, root
    try:
        first = site.installation.backup(root, "--name", name, "--shards", "3")
        assert levels(site.installation, first) == ["F"] * 3
        site.check(first, tmp_path)
        for steps in (5, 40, 15):
            history.play(steps)
            history.close()  # a write is recorded when the file is closed
            last = site.installation.backup(root, "--name", name)
            assert "only what lustre reports since" in site.note(last), history.log
            site.check(last, tmp_path)
        assert all(min(target.users().values()) > 0 for target in site.tree.targets)
        if seed == 0:
            check_restore_by_bacula(site, last, tmp_path)
    finally:
        site.root = site_root


def check_restore_by_bacula(site, result, tmp_path):
    check_restore(site.installation, result["run"], site.root, tmp_path)


def test_a_gap_scans_and_says_why(site, tmp_path):
    root = site.root / "gap"
    site.tree.mkdir(bytes(root))
    site.tree.create(bytes(root / "one"), b"1")
    words = site.consumers()
    site.installation.ok("watch", root, "--name", "gap", *words)
    site.installation.backup(root, "--name", "gap", "--shards", "2")
    site.tree.create(bytes(root / "two"), b"2")
    for target, word in zip(site.tree.targets, words[1::2], strict=True):  # idle for too long
        target.deregister(word.partition("=")[2])
        target.purge(target.newest)
    result = site.installation.backup(root, "--name", "gap")
    assert "the whole tree is looked at: consumer cl" in site.note(result)
    assert "is not registered on scratch-MDT0000 any more" in site.note(result)
    site_root, site.root = site.root, root
    site.check(result, tmp_path)
    site.root = site_root
    said = site.installation.ok("watch", "--stop", "gap").out
    assert "lctl --device scratch-MDT0000 changelog_deregister" in said
    assert "gap" not in {
        reader["dataset"]
        for reader in site.installation.ok("watch", "--status", "--json").json["readers"]
        if reader["watching"]
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["scratch-MDT0000"], "names no changelog; give MDT=CONSUMER"),
        (["scratch-MDT0000=cl0"], "is no consumer such as cl1"),
        (["scratch=cl1"], "is no target such as scratch-MDT0000"),
        (["scratch-MDT0000=cl99", "scratch-MDT0001=cl99"], "consumer cl99 is not registered"),
    ],
)
def test_changelogs_that_cannot_be_read_are_named(site, words, says):
    root = site.root / "wrong"
    if not root.exists():
        site.tree.mkdir(bytes(root))
        site.tree.create(bytes(root / "file"), b"1")
    options = [word for each in words for word in ("--changelog", each)]
    done = site.installation.run("watch", root, "--name", "wrong", *options)
    assert done.code in (1, 2), done
    assert says in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert not (site.installation.home / "state" / "changes" / "wrong").exists()


def test_a_node_without_the_library_says_so(site, tmp_path):
    bare = Installation(tmp_path / "home")
    done = bare.run("watch", site.root, "--changelog", "scratch-MDT0000=cl1")
    assert done.code == 1
    assert "liblustreapi.so.1 was not found" in done.err
    assert "install lustre-client" in done.err

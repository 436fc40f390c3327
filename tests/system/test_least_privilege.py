"""What a user without root can do with CAP_DAC_READ_SEARCH alone (docs/operate/security.md).

Covers: a walk and the plugin on files of mode 0000 of somebody else, what is not seen, what is not
possible, and the sentences; who may talk to the bridge.
Does not cover: parallel filesystems.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.plugin.backup_support import check_saved, entry_of, finish, statuses, write
from tests.plugin.conftest import backup_harness  # noqa: F401
from tests.support.bridge_site import Site
from tests.support.privileges import NOBODY, as_nobody
from tests.support.stream_bridge import SAVED, UNREADABLE, StreamBridge

FOREBAY = Path(sys.executable).with_name("forebay")
COMMAND_S = 60.0
STRANGER = 1234
ANSWER_S = 3.0  # for whom the bridge waits; it hangs up at once on others
NAMES = ["file", "big", "link", "below/in", "below"]


@pytest.fixture
def root(tmp_path):
    """A tree in which nobody may read anything, all of it another user's."""
    path = tmp_path / "tree"
    (path / "below").mkdir(parents=True)
    for name, size in (("file", 100), ("big", 3 << 20), ("below/in", 5000)):
        write(path / name, size)
        os.setxattr(path / name, "user.note", b"kept")
    (path / "link").symlink_to("file")
    for name in NAMES:
        os.chown(path / name, STRANGER, STRANGER, follow_symlinks=False)
        if name != "link":
            (path / name).chmod(0)
    os.chown(path, STRANGER, STRANGER)
    path.chmod(0)
    yield path
    path.chmod(0o700)
    (path / "below").chmod(0o700)


@pytest.fixture
def out(tmp_path):
    for above in (tmp_path, *tmp_path.parents):  # so that a user without a capability gets here
        if os.stat(above).st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    path = tmp_path / "out"
    path.mkdir()
    path.chmod(0o777)
    return path


def run(prefix, *arguments, home):
    return subprocess.run(
        [*prefix, FOREBAY, *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "FOREBAY_HOME": str(home / "forebay")},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        cwd="/",
    )


def rows_of(path):
    return {row["path"]: row for row in pq.read_table(path).to_pylist()}


def test_a_walk_sees_all_that_root_sees(root, out):
    nobody = as_nobody("dac_read_search")
    done = run([], "scan", root, "--out", out / "root.parquet", home=out)
    assert done.returncode == 0, done.stderr
    done = run(nobody, "scan", root, "--out", out / "nobody.parquet", home=out)
    assert done.returncode == 0, done.stderr
    assert (out / "nobody.parquet").stat().st_uid == NOBODY
    ours, roots = rows_of(out / "nobody.parquet"), rows_of(out / "root.parquet")
    assert len(ours) == 1 + len(NAMES)
    # Without CAP_FOWNER listing a directory of somebody else moves its access time.
    for rows in (ours, roots):
        for row in rows.values():
            assert row.pop("atime")
    assert ours == roots


def test_without_it_a_walk_says_that_it_may_not(root, out):
    done = run(as_nobody(), "scan", root, home=out)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def back_up_as(prefix, harness, out, root):
    entries = [entry_of(root, name) for name in NAMES]
    with StreamBridge(out / "socket", root, [entries]) as bridge:
        (out / "socket").chmod(0o777)
        process = subprocess.Popen(
            [*prefix, harness, f"out={out}", f"socket={out}/socket"],
            stderr=subprocess.PIPE,
            text=True,
        )
        result = finish(process, out, 1)
        stream = bridge.stream(0)
    assert (result.returncode, result.stderr) == (0, "")
    return entries, result.dumps[0], stream


def test_the_plugin_saves_contents_and_attributes_of_all(backup_harness, root, out):  # noqa: F811
    nobody = as_nobody("dac_read_search")
    entries, dump, stream = back_up_as(nobody, backup_harness, out, root)
    assert statuses(stream) == [SAVED] * len(NAMES)
    assert dump.end == "T"
    check_saved(root, entries, dump, stream)


def test_without_it_the_plugin_reads_nothing(backup_harness, root, out):  # noqa: F811
    _, dump, stream = back_up_as(as_nobody(), backup_harness, out, root)
    assert SAVED not in statuses(stream)
    assert dump.end == "f" or UNREADABLE in statuses(stream)


def test_trusted_xattrs_are_not_seen_without_cap_sys_admin(backup_harness, root, out):  # noqa: F811
    """The kernel lists them for CAP_SYS_ADMIN alone: nothing says that they are missing."""
    os.setxattr(root / "file", "trusted.note", b"t")
    nobody = as_nobody("dac_read_search")
    _, dump, stream = back_up_as(nobody, backup_harness, out, root)
    assert statuses(stream) == [SAVED] * len(NAMES)
    (saved,) = [file for file in dump.files if file.fname.endswith(b"/file")]
    assert b"user.note" in b"".join(saved.blob)
    assert b"trusted.note" not in b"".join(saved.blob)
    for name in ("0.dump", "0.files"):
        (out / name).unlink()
    (out / "socket").unlink(missing_ok=True)
    admin = as_nobody("dac_read_search", "sys_admin")
    _, dump, _ = back_up_as(admin, backup_harness, out, root)
    (saved,) = [file for file in dump.files if file.fname.endswith(b"/file")]
    assert b"trusted.note" in b"".join(saved.blob)


def test_watching_needs_more_and_says_what(root, out):
    done = run(as_nobody("dac_read_search"), "watch", root, home=out)
    assert done.returncode == 2
    assert "it needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH" in done.stderr


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        ((), f"may read: user {NOBODY} has no CAP_DAC_READ_SEARCH"),
        (("dac_read_search",), "may read: every file"),
    ],
)
def test_doctor_names_the_capability(out, capabilities, said):
    assert said in run(as_nobody(*capabilities), "doctor", home=out).stdout


CONNECT = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(float(sys.argv[2]))
try:
    peer.connect(sys.argv[1])
except PermissionError:
    print("no way in")
else:
    # Nothing is sent: whoever may talk is waited for, a stranger is hung up on at once.
    try:
        print("turned away" if not peer.recv(1) else "answered")
    except TimeoutError:
        print("listened to")
"""


def connect_as(prefix, socket):
    done = subprocess.run(
        [*prefix, sys.executable, "-c", CONNECT, str(socket), str(ANSWER_S)],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def test_another_user_does_not_get_to_the_bridge(tmp_path):
    """Neither by the socket's mode, nor, should somebody open that, by who is connected."""
    stranger = as_nobody("dac_read_search")
    site = Site(tmp_path)
    try:
        assert stat.S_IMODE(site.socket.stat().st_mode) == 0o600
        assert connect_as(stranger, site.socket) == "no way in"
        site.socket.chmod(0o666)
        assert connect_as(stranger, site.socket) == "turned away"
        assert connect_as([], site.socket) == "listened to"
    finally:
        site.close()

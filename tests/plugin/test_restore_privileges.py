"""Which capabilities a restore needs: what is missing without each (docs/operate/security.md).

Does not cover: what a restore without any of them does (test_plugin_restore.py).
"""

import os
import shlex
import stat

import pytest

from tests.plugin.restore_support import make_stat, read_xattrs, stream_of
from tests.plugin.test_plugin_restore import CAPABILITY, FT_DIREND, FT_REG, FT_SPEC
from tests.support.privileges import as_nobody

# What is missing without each.
NEEDED = {
    "chown": {"owner", "mode"},  # setuid and setgid are for the owner that was saved
    "fowner": {"mode"},
    "dac_override": {"everything"},
    "fsetid": {"mode"},
    "mknod": {"device"},
    "setfcap": {"security.capability"},
    "sys_admin": {"trusted.t"},
}
SILENT = {"fsetid"}  # the kernel drops setgid of a group that is not ours, and says nothing
OWNER = 1000


@pytest.fixture
def restored(harness, script, place):
    """Restore a tree into another user's folder; return what of it is not as it was saved."""

    def restore(*capabilities):
        prefix = as_nobody(*capabilities)
        wrapper = place.parent / "restore"
        wrapper.write_text(f"#!/bin/sh\nexec {shlex.join([*prefix, str(harness)])}\n")
        wrapper.chmod(0o755)
        os.chown(place, OWNER, OWNER)
        st = make_stat(0o106755, uid=OWNER, gid=OWNER + 1)
        xattrs = {b"trusted.t": b"1", b"security.capability": CAPABILITY, b"user.u": b"1"}
        script.file(FT_REG, b"d/file", st, blob=stream_of(st, xattrs))
        device = make_stat(stat.S_IFCHR | 0o640, uid=OWNER, gid=OWNER, rdev=os.makedev(1, 3))
        script.file(FT_SPEC, b"d/null", device, blob=stream_of(device))
        folder = make_stat(0o040500, uid=OWNER, gid=OWNER)
        script.file(FT_DIREND, b"d", folder, blob=stream_of(folder))
        outcome = script.run(wrapper)
        return differences(place, xattrs), outcome

    return restore


def differences(place, xattrs):
    file, device, folder = place / "d" / "file", place / "d" / "null", place / "d"
    if not file.exists():
        return {"everything"}
    found = set()
    info = file.stat()
    if (info.st_uid, info.st_gid, folder.stat().st_uid) != (OWNER, OWNER + 1, OWNER):
        found.add("owner")
    if stat.S_IMODE(info.st_mode) != 0o6755 or stat.S_IMODE(folder.stat().st_mode) != 0o500:
        found.add("mode")
    kept = read_xattrs(bytes(file))
    found |= {os.fsdecode(name) for name, value in xattrs.items() if kept.get(name) != value}
    if not device.exists() or device.stat().st_rdev != os.makedev(1, 3):
        found.add("device")
    return found


def test_with_all_of_them_nothing_is_missing(restored):
    wrong, outcome = restored(*NEEDED)
    assert wrong == set()
    assert outcome.messages == []


@pytest.mark.parametrize("lacking", NEEDED)
def test_without_one_of_them_that_is_missing_and_said(restored, lacking):
    wrong, outcome = restored(*(name for name in NEEDED if name != lacking))
    assert wrong == NEEDED[lacking]
    assert bool(outcome.messages) == (lacking not in SILENT)

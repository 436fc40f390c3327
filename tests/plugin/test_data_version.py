"""Lustre's data version, before and after a file is read.

Covers: a change that no time and no size shows, in small, sparse and large files, on the harness's
stand-in for a Lustre client (harness_lustre.h).
Does not cover: changes that show in the attributes (test_plugin_receipts.py); a live Lustre.
"""

import os

import pytest

from tests.plugin.backup_support import (
    M_ERROR,
    M_WARNING,
    back_up,
    check_saved,
    entry_of,
    statuses,
    write,
)
from tests.plugin.test_hsm import AS_LUSTRE, AWAY, LIMITS, give
from tests.plugin.test_plugin_looks import UNKNOWN, calls
from tests.support.stream_bridge import CHANGED, SAVED

SIZES = [pytest.param(5000, id="small"), pytest.param(3_000_000, id="large")]
BEFORE, AFTER = b"7", 8


def save_one(backup_harness, out, root, size, *, after=None, version=None, **changes):
    """Save a file whose data version becomes another one at its first read."""
    path = root / "file"
    if not path.exists():
        write(path, size)
    if version is not None:
        os.setxattr(path, "user.version", version)
    entries = [entry_of(root, "file", **changes)]
    settings = {} if after is None else {"fault": f"version:{entries[0].ino}:{after}"}
    (dump,), (stream,) = back_up(
        backup_harness, out, root, [entries], limits=LIMITS, **AS_LUSTRE, **settings
    )
    return dump, stream, entries


@pytest.mark.parametrize("size", SIZES)
def test_another_version_after_the_read_is_a_change(backup_harness, out, root, size):
    dump, stream, _ = save_one(backup_harness, out, root, size, after=AFTER, **UNKNOWN)
    assert statuses(stream) == [CHANGED]
    (text,) = dump.said(M_ERROR) + dump.said(M_WARNING)
    assert f"changed while it was read, saved as it was read: {root}/file" in text


def test_so_it_is_of_a_sparse_file(backup_harness, out, root):
    with open(root / "file", "wb") as file:
        file.write(b"x" * 100_000)
        file.truncate(900_000)
    _, stream, _ = save_one(backup_harness, out, root, 0, after=AFTER, **UNKNOWN)
    assert statuses(stream) == [CHANGED]


@pytest.mark.parametrize("size", SIZES)
def test_the_same_version_is_no_change_and_is_asked_for_twice(backup_harness, out, root, size):
    dump, stream, entries = save_one(backup_harness, out, root, size)
    assert calls(out)["ioctl"] == 2
    check_saved(root, entries, dump, stream)


def test_a_small_file_whose_version_moved_under_its_only_look_is_read_again(
    backup_harness, out, root
):
    dump, stream, entries = save_one(backup_harness, out, root, 5000, after=AFTER)
    assert calls(out)["ioctl"] == 4
    check_saved(root, entries, dump, stream)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("version", [b"EIO", b"0"])
def test_where_there_is_no_version_the_attributes_decide(backup_harness, out, root, size, version):
    _, stream, _ = save_one(
        backup_harness, out, root, size, after=AFTER, version=version, **UNKNOWN
    )
    assert statuses(stream) == [SAVED]


def test_a_released_file_that_is_recalled_is_not_taken_for_changed(backup_harness, out, root):
    give(write(root / "file", 5000), AWAY)
    os.setxattr(root / "file", "user.version", b"0")  # it has no objects
    entries = [entry_of(root, "file", **UNKNOWN)]
    fault = f"version:{entries[0].ino}:{AFTER}"
    _, (stream,) = back_up(
        backup_harness, out, root, [entries], hsm="recall", fault=fault, **AS_LUSTRE
    )
    assert statuses(stream) == [SAVED]


def test_empty_files_have_no_version_to_ask_for(backup_harness, out, root):
    _, stream, _ = save_one(backup_harness, out, root, 0)
    assert (statuses(stream), calls(out)["ioctl"]) == ([SAVED], 0)


def test_on_other_filesystems_large_files_are_not_asked_either(backup_harness, out, root):
    write(root / "file", 3_000_000)
    entries = [entry_of(root, "file")]
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=LIMITS)
    check_saved(root, entries, dump, stream)
    assert calls(out)["ioctl"] == 0

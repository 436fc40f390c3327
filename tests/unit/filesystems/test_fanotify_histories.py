"""Random histories on real filesystems: whatever differs is in the change set.

FOREBAY_CHANGE_HISTORIES plays more of them than these few.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HISTORIES = int(os.environ.get("FOREBAY_CHANGE_HISTORIES", "3"))
CHECKOUT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="fanotify marks filesystems for root")


def run(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs", "btrfs"])
def test_what_differs_is_in_the_change_set(kind, tmp_path):
    if kind != "tmpfs" and shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    run("tests.support.change_histories", kind, tmp_path, "--seeds", HISTORIES)


SCENARIOS = ["unmounted", "remounted", "mounted_below", "fuse_like", "bound_elsewhere"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_mounts(scenario, tmp_path):
    run("tests.support.change_mounts", scenario, tmp_path)


def test_a_btrfs_subvolume_is_refused_with_a_reason(tmp_path):
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is not installed")
    run("tests.support.change_mounts", "subvolume", tmp_path)

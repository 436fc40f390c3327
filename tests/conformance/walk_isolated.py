"""Run a part of a test in a child process: other user, other limits, own mounts."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLONE_NEWNS = 0x20000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def in_child(function: Callable[[], Any]) -> Any:
    """Return what the function returns in a forked child; fail with its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        # BaseException: whatever happens, the child must not go on as a second pytest.
        try:
            answer = (True, function())
        except BaseException:  # noqa: BLE001
            answer = (False, traceback.format_exc())
        with open(writer, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        raw = stream.read()
    os.waitpid(child, 0)
    assert raw, "the child died without an answer"
    good, answer = pickle.loads(raw)
    if not good:
        pytest.fail(answer)
    return answer


def mount_tmpfs(folder: Path) -> None:
    """Mount a tmpfs that only this process and its children see."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)

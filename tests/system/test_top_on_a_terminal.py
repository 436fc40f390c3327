"""`forebay top` on a real terminal: it stays up to date, and Ctrl-C is how one leaves it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from tests.support.report_world import ReportWorld
from tests.system.conftest import FOREBAY

DEADLINE_S = 60.0
LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"


@pytest.fixture
def terminal():
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    yield outer, inner
    os.close(outer)


def read_until(outer, words, seen=b""):
    deadline = time.monotonic() + DEADLINE_S
    while words not in seen:
        assert select.select([outer], [], [], max(0.0, deadline - time.monotonic()))[0], seen
        try:
            seen += os.read(outer, 1 << 16)
        except OSError as error:  # Linux says so when the other side has closed
            raise AssertionError(seen) from error
    return seen


def test_it_shows_what_changes_until_it_is_interrupted(tmp_path, monkeypatch, terminal):
    outer, inner = terminal
    with ReportWorld(tmp_path, monkeypatch) as world:
        process = subprocess.Popen(
            [FOREBAY, "top", "--interval", "0.2"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "FOREBAY_HOME": str(tmp_path), "TERM": "xterm"},
        )
        os.close(inner)
        try:
            read_until(outer, b"0 open runs")
            world.open_run()
            world.join(0, 4711)
            read_until(outer, b"4711")
            process.send_signal(signal.SIGINT)
            read_until(outer, LEAVE_ALTERNATE_SCREEN)
            assert process.wait(DEADLINE_S) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

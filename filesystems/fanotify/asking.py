"""Questions to a reader, through its Unix socket.

Covers: one question and one answer per connection, each a JSON message; who may ask.
Does not cover: what is asked (reader, source).

The socket is beside the log, so that whoever finds the one finds the other. In a runtime folder it
would be somewhere else for a service than for a login, and be removed at the logout. It is reached
through /proc/self/fd, because a socket's path has room for 107 bytes only (unix(7)).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shards.changes import Gap

SOCKET_NAME = "socket"
MESSAGE_BYTES_MAX = 65_536
ASK_TIMEOUT_S = 120.0  # the reader first takes in all that is queued
ANSWER_TIMEOUT_S = 2.0  # for a peer that connects and does not ask
_BACKLOG = 16
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _address(folder: int) -> str:
    return f"/proc/self/fd/{folder}/{SOCKET_NAME}"


def ask(folder: Path, question: dict[str, Any], timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any]:
    """Ask the reader that keeps its log in a folder; Gap if there is none or it does not answer."""
    try:
        with (
            _opened(folder) as descriptor,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
        ):
            peer.settimeout(timeout_s)
            peer.connect(_address(descriptor))
            peer.send(json.dumps(question).encode())
            raw = peer.recv(MESSAGE_BYTES_MAX)
    except (FileNotFoundError, ConnectionError) as error:
        raise Gap("no change reader is running (`forebay watch`)") from error
    except TimeoutError as error:
        raise Gap(f"the change reader does not answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise Gap(f"the change reader cannot be asked in {folder}: {error.strerror}") from error
    try:
        answer = json.loads(raw)
    except ValueError as error:  # nothing at all: it ended while it was asked
        raise Gap("the change reader ended when it was asked") from error
    if not isinstance(answer, dict):
        raise Gap("the change reader gave an answer that makes no sense")
    if "error" in answer:
        raise Gap(str(answer["error"]))
    return answer


class Listener:
    """The reader's end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET_NAME
        # The dataset's lock is held: whatever is there was left by a reader that was killed.
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _opened(folder) as descriptor:
                self._socket.bind(_address(descriptor))
            self._path.chmod(0o600)  # nobody can connect before listen()
            self._socket.listen(_BACKLOG)
        except BaseException:
            self._socket.close()
            raise
        self._uids = {0, os.geteuid()}

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> tuple[socket.socket, dict[str, Any]] | None:
        """Take one question; None if it went away, may not ask, or asks nothing."""
        peer, _ = self._socket.accept()
        peer.settimeout(ANSWER_TIMEOUT_S)
        try:
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            uid = _CREDENTIALS.unpack(raw)[1]
            question = json.loads(peer.recv(MESSAGE_BYTES_MAX))
            if uid not in self._uids:
                answer(peer, {"error": f"user {uid} may not ask the change reader; be root"})
                return None
            if isinstance(question, dict):
                return peer, question
        except (OSError, ValueError):
            pass
        peer.close()
        return None

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


def answer(peer: socket.socket, value: dict[str, Any]) -> None:
    """Answer and hang up; whoever asked may be gone."""
    with peer:
        try:
            peer.send(json.dumps(value).encode())
        except OSError:
            return

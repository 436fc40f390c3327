"""Questions to a reader, through its Unix socket.

Covers: one question and one answer per connection, each a JSON message; who may ask.
Does not cover: what is asked (reader, source).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from shards.changes import Gap

MESSAGE_BYTES_MAX = 65_536
ASK_TIMEOUT_S = 120.0  # the reader first takes in all that is queued
ANSWER_TIMEOUT_S = 2.0  # for a peer that connects and does not ask
_BACKLOG = 16
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid


def socket_path(runtime: Path, dataset: str) -> Path:
    """Return where a dataset's reader listens: short, whatever the dataset's name."""
    name = hashlib.sha256(dataset.encode()).hexdigest()[:12]
    return runtime / f"watch-{name}.sock"


def ask(path: Path, question: dict[str, Any], timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any]:
    """Ask a reader; Gap if there is none or it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(timeout_s)
            peer.connect(str(path))
            peer.send(json.dumps(question).encode())
            raw = peer.recv(MESSAGE_BYTES_MAX)
    except (FileNotFoundError, ConnectionError) as error:
        raise Gap("no change reader is running (`forebay watch`)") from error
    except TimeoutError as error:
        raise Gap(f"the change reader does not answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise Gap(f"the change reader cannot be asked at {path}: {error.strerror}") from error
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

    def __init__(self, path: Path) -> None:
        self._path = path
        # The dataset's lock is held: whatever is there was left by a reader that was killed.
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen()
        self._socket.listen(_BACKLOG)
        self._uids = {0, os.geteuid()}

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> tuple[socket.socket, dict[str, Any]] | None:
        """Take one question; None if it went away, may not ask, or asks nothing."""
        peer, _ = self._socket.accept()
        peer.settimeout(ANSWER_TIMEOUT_S)
        try:
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(raw)[1] in self._uids:
                question = json.loads(peer.recv(MESSAGE_BYTES_MAX))
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

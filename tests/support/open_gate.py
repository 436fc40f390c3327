"""A gate before files: whoever opens one waits until it is opened (fanotify(7), FAN_OPEN_PERM).

Needs root. The gate opens by itself when the process that made it ends.
"""

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

FAN_CLASS_CONTENT, FAN_CLOEXEC = 0x4, 0x1
FAN_MARK_ADD = 0x1
FAN_OPEN_PERM = 0x10000
FAN_ALLOW = 0x1
AT_FDCWD = -100
EVENT = struct.Struct("=IBBHQii")  # fanotify_event_metadata: length, .., mask, fd, pid
EVENTS_BYTES = 4096
POLL_S = 0.2


class OpenGate:
    """Holds those who open these files, while it is entered."""

    def __init__(self, files: Iterable[Path]) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "fanotify_init")
        self._pid = os.getpid()
        for path in files:
            mask = ctypes.c_uint64(FAN_OPEN_PERM)
            name = os.fsencode(path)
            if library.fanotify_mark(self._descriptor, FAN_MARK_ADD, mask, AT_FDCWD, name) < 0:
                raise OSError(ctypes.get_errno(), f"fanotify_mark {path}")
        self._waiting: list[int] = []
        self._lock = threading.Lock()
        self._is_open = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __enter__(self) -> "OpenGate":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._ended.set()
        self._thread.join()
        os.close(self._descriptor)  # which lets pass who came at the last moment

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return len(self._waiting)

    def open(self) -> None:
        """Let all pass, from now on."""
        with self._lock:
            self._is_open = True
            waiting, self._waiting = self._waiting, []
        for descriptor in waiting:
            self._allow(descriptor)

    def _watch(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._descriptor], [], [], POLL_S)[0]:
                continue
            data = os.read(self._descriptor, EVENTS_BYTES)
            while data:
                length, _, _, _, _, descriptor, _ = EVENT.unpack_from(data)
                data = data[length:]
                with self._lock:
                    is_open = self._is_open
                    if not is_open:
                        self._waiting.append(descriptor)
                if is_open:
                    self._allow(descriptor)

    def _allow(self, descriptor: int) -> None:
        os.write(self._descriptor, struct.pack("=iI", descriptor, FAN_ALLOW))
        os.close(descriptor)

"""Build, mount and unmount the latency filesystem, and read its counters.

Covers: shapes of its namespace, a mount as a context manager, delays that change while it is
mounted, what its files contain.
Does not cover: how it works (latency_fs/, in C).

Needs root, /dev/fuse, a C compiler and the headers of libfuse 3.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.compiling import COMPILER, compiled
from benchmarks.runner import BenchmarkFailed, say

SOURCE = Path(__file__).with_name("latency_fs")
ANSWER_TIMEOUT_S = 30.0
UNMOUNT_TIMEOUT_S = 10.0
RETRY_INTERVAL_S = 0.02
DELAYED = (
    "lookup",
    "getattr",
    "opendir",
    "readdir",
    "readdirplus",
    "open",
    "read",
    "listxattr",
    "getxattr",
    "readlink",
    "other",
)
CONTENT_PERIOD = 4_194_301  # latency_fs/namespace.h


@dataclass(frozen=True, slots=True)
class Shape:
    """A tree of `fanout` directories a directory, `depth` levels deep, `files` files in each.

    With `targets` there are so many of these trees, below t0, t1, ... in the root, and each is
    served by a metadata target of its own. All files have `size_bytes`.
    """

    fanout: int = 0
    depth: int = 0
    files: int = 0
    targets: int = 0
    size_bytes: int = 0

    @property
    def directories(self) -> int:
        """Of one tree."""
        return sum(self.fanout**level for level in range(self.depth + 1))

    @property
    def inodes(self) -> int:
        """Of all of it, the root included."""
        tree = self.directories * (1 + self.files)
        return 1 + self.targets * tree if self.targets else tree


def flat(files: int, size_bytes: int = 0) -> Shape:
    """Return the shape of one directory with so many files."""
    return Shape(files=files, size_bytes=size_bytes)


@dataclass(frozen=True, slots=True)
class Operations:
    """What the filesystem was asked since it was mounted, and what it took."""

    by_kind: dict[str, int]
    by_target: list[int]  # metadata operations; the last is the root above the targets
    bytes_read: int
    in_flight_high: int
    cpu_s: float
    peak_rss_bytes: int

    @property
    def delayed(self) -> int:
        """All that took the delay, reads included."""
        return sum(self.by_kind[kind] for kind in DELAYED)


def why_not() -> str | None:
    """Return what is missing here for a latency filesystem, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse that can be opened"
    for program in (COMPILER, "pkg-config", "umount"):
        if shutil.which(program) is None:
            return f"no program `{program}` on this machine"
    command = ["pkg-config", "--atleast-version=3.14", "fuse3"]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0:
        return "no headers of libfuse 3.14 or later (apt install libfuse3-dev)"
    return None


@functools.cache
def _content_pool() -> bytes:
    """Return the splitmix64 sequence of seed 0, twice, so that a period can begin anywhere."""
    with np.errstate(over="ignore"):
        numbers = np.arange(1, CONTENT_PERIOD // 8 + 2, dtype=np.uint64)
        mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed.astype("<u8").tobytes()[:CONTENT_PERIOD] * 2


def content(inode: int, offset: int, length: int) -> bytes:
    """Return what `length` bytes of a file at an offset must be, its size not considered."""
    pool, found = _content_pool(), bytearray()
    while len(found) < length:
        begin = (inode * 7919 + offset + len(found)) % CONTENT_PERIOD
        found += pool[begin : begin + min(CONTENT_PERIOD, length - len(found))]
    return bytes(found)


def build(flags: Sequence[str] = ()) -> Path:
    """Build the server; return the program."""
    if missing := why_not():
        raise BenchmarkFailed(f"no latency filesystem: {missing}")
    command = ["pkg-config", "--cflags", "--libs", "fuse3"]
    library = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return compiled("latency-fs", tuple(sorted(SOURCE.glob("*.[ch]"))), (*flags, *library))


def drop_cached_inodes() -> None:
    """Make Linux forget the names and inodes of all filesystems that nobody uses.

    Its hash of inodes has as many buckets as it got at boot. Millions of cached inodes of other
    trees in a small one make every new inode cost the client several times as much.
    """
    Path("/proc/sys/vm/drop_caches").write_text("2")


class LatencyMount:
    """A mounted latency filesystem; leaving the context unmounts it.

    Its server ends, and unmounts, when this process ends, however that happens.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        delay_us: int = 500,
        read_us: int | None = None,
        read_mib_us: int = 0,
        timeout_s: float = 0.0,
        readdirplus: bool = False,
        page_cache: bool = False,
        concurrency: int = 0,
        overload_percent: int = 0,
        flags: Sequence[str] = (),
    ) -> None:
        """Describe a mount; entering the context makes it.

        delay_us: of LOOKUP, GETATTR, OPENDIR, READDIR, OPEN, LISTXATTR, GETXATTR.
        read_us: of one READ of up to 1 MiB (None: as delay_us), and read_mib_us more per MiB.
        timeout_s: for how long Linux keeps names and attributes (0: asks each time).
        page_cache: without it every read() is a READ.
        concurrency: operations that a metadata target serves at once, the others wait in its queue
        (0: any number, always at delay_us); each that waits adds overload_percent to delay_us.
        flags: of the compiler, for tests.
        """
        self.shape = shape
        self._flags = tuple(flags)
        self._options = {
            "targets": shape.targets,
            "fanout": shape.fanout,
            "depth": shape.depth,
            "files": shape.files,
            "size-bytes": shape.size_bytes,
            "metadata-us": delay_us,
            "read-us": delay_us if read_us is None else read_us,
            "read-mib-us": read_mib_us,
            "timeout-ms": round(timeout_s * 1000),
            "readdirplus": int(readdirplus),
            "page-cache": int(page_cache),
            "concurrency": concurrency,
            "overload-percent": overload_percent,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._mounted: Path | None = None

    @property
    def path(self) -> Path:
        """Where it is mounted."""
        assert self._mounted is not None, "not mounted"
        return self._mounted

    def operations(self) -> Operations:
        """Return what it was asked until now."""
        counts = self._ask("counts")
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        peak_kib = int(status.split("VmHWM:")[1].split()[0])  # ru_maxrss begins at this process's
        return Operations(
            by_kind=counts["operations"],
            by_target=counts["by_target"],
            bytes_read=counts["bytes_read"],
            in_flight_high=counts["in_flight_high"],
            cpu_s=counts["cpu_s"],
            peak_rss_bytes=peak_kib * 1024,
        )

    def set_delay(self, delay_us: int) -> None:
        """Change the delay of metadata operations that arrive from now on."""
        self._ask(f"metadata-us {delay_us}")

    def set_read_delay(self, read_us: int, read_mib_us: int = 0) -> None:
        """Change the delay of reads that arrive from now on."""
        self._ask(f"read-us {read_us}")
        self._ask(f"read-mib-us {read_mib_us}")

    def __enter__(self) -> Self:
        program = build(self._flags)
        self._mounted = Path(tempfile.mkdtemp(prefix="forebay-latency-"))
        options = [f"--{name}={value}" for name, value in self._options.items()]
        self._process = subprocess.Popen(
            [program, *options, self._mounted],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process; the server ends after it
        )
        try:
            started = self._answer()
            assert started["inodes"] == self.shape.inodes, (started, self.shape)
            if not started["preferred"]:
                say("no real-time priority here: the latency filesystem slows down under load")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        try:
            _unmount(self.path)
        finally:
            try:
                self._process.communicate(timeout=ANSWER_TIMEOUT_S)  # the end of stdin ends it
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
            self.path.rmdir()
            self._process = self._mounted = None

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process is not None, "not mounted"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; why is said where its answer is missed
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._process.kill()
            assert self._process.stderr is not None
            said = self._process.stderr.read().decode(errors="replace").strip()
            raise BenchmarkFailed(f"the latency filesystem does not answer: {said or 'no reason'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _unmount(path: Path) -> None:
    """Unmount what is mounted there, if anything is; a file still open is waited for, briefly."""
    deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
    while _is_mounted(path):
        done = subprocess.run(["umount", path], check=False, capture_output=True, text=True)
        if done.returncode != 0 and time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", path], check=True)
            raise BenchmarkFailed(f"{path} was still in use: {done.stderr.strip()}")
        time.sleep(RETRY_INTERVAL_S if done.returncode != 0 else 0)


def _is_mounted(path: Path) -> bool:
    mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    spelled = os.fsencode(path).replace(b" ", rb"\040")
    return any(line.split()[4] == spelled for line in mounts)

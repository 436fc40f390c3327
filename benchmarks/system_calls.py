"""Metadata system calls of a process and of all below it, by strace.

Covers: running a program under strace, counting calls between marks by kind, program and place.
Does not cover: what is run, and what the counts mean (incremental_calls).

A log of every call, not strace's own -c: that has no marks, and does not tell a call on the tree
from one on a Python module.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import CHECKOUT, PROCESS_TIMEOUT_S, STDERR_SHOWN_BYTES, BenchmarkFailed
from benchmarks.traced_backups import MARK

KINDS = {
    "stat": ("stat", "lstat", "fstat", "newfstatat", "statx"),
    "open": ("open", "openat", "openat2", "creat"),
    "getdents64": ("getdents", "getdents64"),
    "readlink": ("readlink", "readlinkat"),
    "xattr": (
        *("getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"),
        *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    ),
    "handle": ("name_to_handle_at", "open_by_handle_at"),
}
ELSEWHERE = "elsewhere"
_KIND_OF = {call: kind for kind, calls in KINDS.items() for call in calls}
_LINE = re.compile(r"(\d+)<(.*?)> (.*)")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. \S+ resumed>(.*)")


@dataclass(frozen=True, slots=True)
class Call:
    """What calls are counted by."""

    place: str
    program: str  # the thread's name, as the kernel cuts it
    kind: str


def why_untraceable() -> str | None:
    """Say why nothing can be traced here; None if it can."""
    return None if shutil.which("strace") else "no program `strace` on this machine"


def trace(module: str, arguments: Sequence[object], log: Path) -> None:
    """Run a module under strace. Only the calls in question stop it (seccomp)."""
    argv = [
        *("strace", "--follow-forks", "--seccomp-bpf", "--decode-fds=path", "--decode-pids=comm"),
        *("--quiet=all", "--signal=none", "--string-limit=4096"),
        *(f"--trace={','.join(_KIND_OF)}", f"--output={log}"),
        *(sys.executable, "-m", module, *map(str, arguments)),
    ]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=CHECKOUT,
        timeout=PROCESS_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr[-STDERR_SHOWN_BYTES:].decode(errors="replace").strip()
        raise BenchmarkFailed(f"`{module}` under strace ended with {done.returncode}: {said}")


def count(log: Path, places: Mapping[str, str]) -> list[Counter[Call]]:
    """Return what was called between each two marks, without whoever left the marks.

    places has how paths begin; a call is at the first one that a path in it, a descriptor's path
    or what it returned begins with.
    """
    windows: list[Counter[Call]] = []
    is_open = False
    unfinished: dict[str, str] = {}
    opened: set[str] = set()  # threads that have opened a handle; strace does not say of what
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            pid, program, call = _parsed(line)
            if call.endswith(_UNFINISHED):
                unfinished[pid] = call.removesuffix(_UNFINISHED)
                continue
            if resumed := _RESUMED.match(call):
                call = unfinished.pop(pid, "") + resumed.group(1)
            if MARK in call:
                marker = pid
                is_open = not is_open
                if is_open:
                    windows.append(Counter())
            if not is_open or pid == marker:
                continue
            kind = _KIND_OF.get(call.partition("(")[0])
            if kind is None:
                continue  # "???": the process was killed before strace could see what it called
            place = next((name for name, begin in places.items() if begin in call), ELSEWHERE)
            if pid in opened:
                opened.remove(pid)
                windows[-1][Call(place, program, "handle")] += 1  # it asks next what that is
            if call.startswith("open_by_handle_at("):
                if " = -1 " not in call:
                    opened.add(pid)
                    continue
                place = ELSEWHERE
            windows[-1][Call(place, program, kind)] += 1
    return windows


def _parsed(line: str) -> tuple[str, str, str]:
    found = _LINE.match(line)
    if found is None:
        raise BenchmarkFailed(f"strace wrote what cannot be understood: {line!r}")
    pid, program, call = found.groups()
    return pid, program, call

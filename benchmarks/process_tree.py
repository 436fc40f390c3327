"""CPU time and peak memory of this process and all below it, by what they are.

Covers: reading /proc, naming Ray's processes and the actors of a run.
Does not cover: processes that ended meanwhile; what they used is not counted.
"""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DRIVER, OTHER = "driver", "Ray's own"
ACTORS = {"ray::CoordinatorActor": "coordinator", "ray::WalkerActor": "walker"}
ACTORS["ray::BridgeActor"] = "bridge"


@dataclass(frozen=True, slots=True)
class Process:
    """One process as it stands."""

    pid: int
    role: str  # one of ACTORS, DRIVER or OTHER
    cpu_s: float  # user and system, since its start
    peak_bytes: int  # VmHWM


def processes() -> dict[int, Process]:
    """Return this process and all its descendants that live."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (fields := _stat(int(entry))):
            parents[int(entry)] = int(fields[1])
            seconds[int(entry)] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    found: dict[int, Process] = {}
    own = os.getpid()
    for pid, cpu_s in seconds.items():
        above = pid
        while above not in (own, 0):
            above = parents.get(above, 0)
        if above == own:
            found[pid] = Process(pid, DRIVER if pid == own else _role(pid), cpu_s, _peak_bytes(pid))
    return found


def spent(before: dict[int, Process], after: dict[int, Process]) -> dict[str, float]:
    """Return the CPU seconds of each role in between; a process that is new counts from 0."""
    found: dict[str, float] = {}
    for pid, process in after.items():
        base = before[pid].cpu_s if pid in before else 0.0
        found[process.role] = found.get(process.role, 0.0) + process.cpu_s - base
    return found


def peaks(of: dict[int, Process]) -> dict[str, int]:
    """Return the greatest peak of each role."""
    found: dict[str, int] = {}
    for process in of.values():
        found[process.role] = max(found.get(process.role, 0), process.peak_bytes)
    return found


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields after the name: state, parent, ..."""
    return _read(pid, "stat").rpartition(")")[2].split()


def _role(pid: int) -> str:
    title = _read(pid, "cmdline").partition("\0")[0]
    return next((role for name, role in ACTORS.items() if title.startswith(name)), OTHER)


def _peak_bytes(pid: int) -> int:
    fields = _read(pid, "status").partition("VmHWM:")[2].split(maxsplit=1)
    return int(fields[0]) * 1024 if fields else 0

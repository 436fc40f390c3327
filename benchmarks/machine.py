"""Describe the machine that a figure was measured on.

Covers: the line printed above each table.
Does not cover: measuring (runner).
"""

import os
import platform
from pathlib import Path


def describe(folder: Path) -> dict[str, str]:
    """Return processor, cores, memory, kernel, load, and the filesystem that holds `folder`."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{pages * page_bytes / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "filesystem": filesystem_of(folder),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
    }


def describe_line(machine: dict[str, str]) -> str:
    """Return the description as one line for people."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
        f"Linux {machine['kernel']}, {machine['filesystem']}, load {machine['load']} at the start"
    )


def filesystem_of(folder: Path) -> str:
    """Return the type of the filesystem that holds `folder`, found by its device number."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "unknown filesystem"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return " ".join(value.split())
    return platform.machine()

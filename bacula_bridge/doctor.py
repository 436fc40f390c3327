"""Tell what this machine lacks for a backup with Forebay, and how to mend it.

Covers: build tools, the kernel, Bacula's programs or the means to fetch them, the plugin, space,
loopback ports.
Does not cover: printing (the command line), the filesystems that are to be saved, a
site's Director.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge import debian, processes, programs
from bacula_bridge.lab import PLUGIN_SOURCE
from shards.capabilities import cannot_read_all
from shards.errors import ForebayError

KERNEL_MIN = (5, 6)
SPACE_MIN_BYTES = 1 << 30
_SYS_OPENAT2 = 437


@dataclass(frozen=True, slots=True)
class Check:
    """One look at the machine: fix says what to do when it is not ok."""

    name: str
    ok: bool
    detail: str
    fix: str


def examine(
    cache: Path | None = None, data: Path | None = None, plugin: Path = PLUGIN_SOURCE
) -> list[Check]:
    """Look at everything; changes nothing, fetches nothing, starts no daemon."""
    folder = cache or programs.default_cache()
    return [
        _compiler(),
        _make(),
        _headers(),
        _kernel(),
        _reading(),
        *_bacula(folder),
        _plugin(plugin),
        _space("space for Bacula's programs", folder),
        _space("space for the lab's volumes", data or Path.home()),
        _ports(),
    ]


def _compiler() -> Check:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    fix = "install a C compiler (Debian: apt install gcc)"
    return Check("C compiler", found is not None, found or "none in PATH", fix)


def _make() -> Check:
    found = shutil.which("make")
    return Check("make", found is not None, found or "not in PATH", "apt install make")


def _headers() -> Check:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    fix = "install Python's headers (Debian: apt install python3-dev)"
    return Check("Python headers", header.is_file(), str(header), fix)


def kernel_version(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel release; zeros if it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def _kernel() -> Check:
    """Ask the kernel itself too: a sandbox may filter openat2 out of a new one."""
    release = platform.release()
    ok = kernel_version(release) >= KERNEL_MIN and _has_openat2()
    detail = f"{release}, openat2 {'works' if _has_openat2() else 'does not work'}"
    return Check("kernel", ok, detail, "run Linux 5.6 or later, without a filter on openat2")


def _reading() -> Check:
    """No fault: whoever backs up what is their own needs nothing more."""
    lacking = cannot_read_all()
    said = f"{lacking}: what others keep to themselves is not saved" if lacking else "every file"
    return Check("may read", True, said, "")


def _has_openat2() -> bool:
    library = ctypes.CDLL(None)
    library.syscall.restype = ctypes.c_long
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, 0)
    arguments = (ctypes.c_long(-100), ctypes.c_char_p(b"/"), how, ctypes.c_size_t(24))
    descriptor = library.syscall(ctypes.c_long(_SYS_OPENAT2), *arguments)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def _bacula(cache: Path) -> list[Check]:
    found = programs.installed() or programs.cached(cache)
    if found is not None:
        where = f"private copy in {cache}" if found.private else found.file_daemon[-1]
        return [Check("Bacula 15", True, f"{found.version}, {where}", "")]
    install = "install Bacula 15, or run this on Debian 12 or 13"
    missing = Check("Bacula 15", True, "not installed; it will be fetched without root", install)
    means = [
        _means("apt-get", _tools, install),
        _means("Debian mirror", debian.configured_mirror, "set FOREBAY_DEBIAN_MIRROR"),
        _means(
            "Debian's keys",
            lambda: str(debian.archive_keyring()),
            "apt install debian-archive-keyring",
        ),
    ]
    return [missing, *means]


def _tools() -> str:
    debian.require_tools()
    return f"{shutil.which('apt-get')}, {debian.architecture()[0]}"


def _means(name: str, look: Callable[[], str], fix: str) -> Check:
    try:
        return Check(name, True, look(), fix)
    except ForebayError as error:
        return Check(name, False, str(error), fix)


def _plugin(path: Path) -> Check:
    ok = path.is_file()
    return Check("File Daemon plugin", ok, str(path) if ok else f"{path} is not built", "make")


def _space(name: str, folder: Path) -> Check:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    fix = f"free {SPACE_MIN_BYTES >> 30} GiB there, or choose another folder"
    detail = f"{free >> 20} MiB free in {existing}"
    return Check(name, free >= SPACE_MIN_BYTES and os.access(existing, os.W_OK), detail, fix)


def _ports() -> Check:
    fix = "bring the loopback interface up (ip link set lo up), or end what takes its ports"
    try:
        ports = processes.free_ports(3)
    except OSError as error:
        return Check("loopback ports", False, error.strerror or str(error), fix)
    return Check("loopback ports", True, f"such as {', '.join(map(str, ports))}", fix)

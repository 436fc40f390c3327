"""What `forebay init` finds on a machine: filesystems, Bacula's files, a running Ray.

Covers: looking. Nothing is started, no password is kept, Ray is not imported.
Does not cover: what comes of it (site_template).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.plugin_file import FD_FILES, directive
from filesystems.mounted import MountedTree, parallel_trees

CONSOLE_FILES = (
    Path("/etc/bacula/bconsole.conf"),
    Path("/opt/bacula/etc/bconsole.conf"),
    Path("/usr/local/etc/bconsole.conf"),
)
CONSOLE_PROGRAMS = (Path("/usr/sbin/bconsole"), Path("/opt/bacula/bin/bconsole"))
FILE_BYTES_MAX = 1 << 20
_GCS_PORT = re.compile(rb"--gcs_server_port=(\d{1,5})")
_GCS_ADDRESS = re.compile(rb"--gcs-address=([0-9A-Za-z.\-]+:\d{1,5})")


@dataclass(frozen=True, slots=True)
class Machine:
    """What is here; None or empty: it was not found."""

    host: str
    cores: int
    trees: tuple[MountedTree, ...] = ()
    bconsole: Path | None = None
    bconsole_config: Path | None = None
    director: str = ""
    director_address: str = ""
    file_daemon: str = ""
    file_daemon_config: Path | None = None
    plugin_folder: str = ""
    ray_address: str = ""  # of a Ray that runs here


def look_at_machine(
    console_files: tuple[Path, ...] = CONSOLE_FILES, daemon_files: tuple[Path, ...] = FD_FILES
) -> Machine:
    """Look at this machine."""
    console = next((path for path in console_files if os.access(path, os.R_OK)), None)
    daemon = next((path for path in daemon_files if os.access(path, os.R_OK)), None)
    director = _resource(console, "Director")
    file_daemon = _resource(daemon, "FileDaemon")
    return Machine(
        host=socket.gethostname(),
        cores=os.cpu_count() or 1,
        trees=tuple(parallel_trees()),
        bconsole=_bconsole(),
        bconsole_config=console,
        director=directive(director, "Name") or "",
        director_address=directive(director, "Address") or "",
        file_daemon=directive(file_daemon, "Name") or "",
        file_daemon_config=daemon,
        plugin_folder=directive(file_daemon, "PluginDirectory") or "",
        ray_address=running_ray(),
    )


def _bconsole() -> Path | None:
    there = [path for path in CONSOLE_PROGRAMS if os.access(path, os.X_OK)]
    found = shutil.which("bconsole")
    return there[0] if there else Path(found) if found else None


def _resource(path: Path | None, kind: str) -> str:
    """Return the directives of a file's first resource of a kind; empty if it has none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    name = r"[ \t]*".join(kind)  # Bacula ignores blanks and case in names
    body = r"((?:\"(?:[^\"\\]|\\.)*\"|[^\"{}])*)"
    match = re.search(rf"(?:^|[}};\s]){name}\s*\{{{body}", text, re.IGNORECASE)
    return match[1] if match else ""


def running_ray(processes: Path = Path("/proc")) -> str:
    """Return the address of a Ray cluster that this machine is a node of; empty if it is none.

    By the command lines of its processes: what listens on port 6379 may as well be Redis.
    """
    address = ""
    for folder in processes.glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        program = os.path.basename(command.split(b"\0", 1)[0])
        if program == b"gcs_server" and (found := _GCS_PORT.search(command)):
            return f"127.0.0.1:{found[1].decode()}"
        if program == b"raylet" and (found := _GCS_ADDRESS.search(command)):
            address = found[1].decode()
    return address

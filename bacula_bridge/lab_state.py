"""What a lab remembers between two commands, and what it tells about itself.

Covers: the settings file (ports, passwords, drives, socket), private files, the status as data.
Does not cover: whether the daemons run (processes), starting and stopping (lab).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from bacula_bridge.render import LOOPBACK, LabSettings, Passwords, Ports

SETTINGS_VERSION = 1


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """One daemon: pid is 0 while it does not run; ready means that it answers on its port."""

    name: str
    pid: int
    port: int
    ready: bool


@dataclass(frozen=True, slots=True)
class LabStatus:
    """The state of a lab and where its parts lie."""

    base: str
    running: bool
    daemons: tuple[DaemonStatus, ...]
    devices: int
    socket: str
    catalog: str
    volumes: str
    logs: str
    plugin: str
    configuration: dict[str, str]
    bconsole: tuple[str, ...]
    programs_version: str

    def to_json(self) -> dict[str, object]:
        """Return the status as plain data, ready for json.dumps."""
        data = asdict(self)
        data["pids"] = {daemon.name: daemon.pid for daemon in self.daemons}
        data["ports"] = {daemon.name: daemon.port for daemon in self.daemons}
        return data


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str | None:
    """Return a configuration file's text as write_private wrote it; None if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def save_settings(path: Path, settings: LabSettings) -> None:
    """Write the settings of a lab; the folder that they lie in is not part of them."""
    data = asdict(settings)
    del data["base"]
    write_private(path, json.dumps({"version": SETTINGS_VERSION, **data}, indent=1) + "\n")


def load_settings(path: Path, base: Path) -> LabSettings | None:
    """Return the settings of a lab; None if it never was up or its file is of no use."""
    try:
        data = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if data["version"] != SETTINGS_VERSION:
            return None
        return LabSettings(
            base=base,
            ports=Ports(**data["ports"]),
            passwords=Passwords(**data["passwords"]),
            devices=int(data["devices"]),
            socket=str(data["socket"]),
            address=str(data.get("address", LOOPBACK)),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None

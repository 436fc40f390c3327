"""Start, find and end daemons that outlive the process that started them.

Covers: detached start, finding a daemon by its command line, ending it without hitting another
process, free loopback ports and who listens on them.
Does not cover: what the daemons are and how they are configured (lab).

Daemons are found by their command lines in /proc and not by pid files: those survive a crash, are
missing after another, and name a stranger after a reboot.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.errors import DaemonFailed

TERM_WAIT_S = 15.0
KILL_WAIT_S = 5.0
_TCP_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of our daemons: the file name of its program, and its configuration file."""

    name: str
    program: str
    configuration: Path


def command_line(pid: int) -> list[str]:
    """Return a process's arguments; empty if it is gone, a zombie or a kernel thread."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0")[:-1]]


def is_daemon(pid: int, daemon: Daemon) -> bool:
    """Tell whether the process is this daemon, running with this very configuration file."""
    return _matches(command_line(pid), daemon)


def _matches(arguments: list[str], daemon: Daemon) -> bool:
    if arguments[-3:] != ["-f", "-c", str(daemon.configuration)]:
        return False
    return any(os.path.basename(part) == daemon.program for part in arguments[:-3])


def find(daemon: Daemon) -> list[int]:
    """Return the processes that are this daemon: none, one, or several after a mishap."""
    return find_all({"": daemon}).get("", [])


def find_all(daemons: dict[str, Daemon]) -> dict[str, list[int]]:
    """Return the processes of each daemon that runs."""
    found: dict[str, list[int]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        arguments = command_line(pid)
        for name, daemon in daemons.items():
            if _matches(arguments, daemon):
                found.setdefault(name, []).append(pid)
    return found


def start(argv: list[str], log: Path, folder: Path, umask: int = 0o077) -> int:
    """Start a daemon in the background, in a session of its own, and return its process id.

    A shell in between starts it and ends at once, so that init, not the caller, inherits it: it
    survives the caller and leaves it no zombie.
    """
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    script = 'log=$1; umask "$2"; shift 2; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(log), f"{umask:03o}", *argv],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip().isdigit():
        raise DaemonFailed(os.path.basename(argv[-4]), "the shell could not start it", str(log))
    return int(done.stdout)


def end_all(targets: list[tuple[Daemon, int]]) -> list[tuple[Daemon, int]]:
    """End processes, together, if they still are these daemons; return those that did not end.

    Each is held by a descriptor before it is checked: its number cannot pass to another process.
    """
    handles: dict[int, tuple[Daemon, int]] = {}
    try:
        for daemon, pid in targets:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            handles[handle] = (daemon, pid)
        waiting = {handle for handle, (daemon, pid) in handles.items() if is_daemon(pid, daemon)}
        for number, wait_s in ((signal.SIGTERM, TERM_WAIT_S), (signal.SIGKILL, KILL_WAIT_S)):
            waiting = _signal_and_wait(waiting, number, wait_s)
        return [handles[handle] for handle in sorted(waiting)]
    finally:
        for handle in handles:
            os.close(handle)


def _signal_and_wait(handles: set[int], number: signal.Signals, wait_s: float) -> set[int]:
    """Send the signal to each process; return the handles of those that outlived the wait."""
    waiting = set(handles)
    poller = select.poll()
    for handle in handles:
        try:
            signal.pidfd_send_signal(handle, number)
            poller.register(handle, select.POLLIN)
        except ProcessLookupError:
            waiting.discard(handle)
    deadline = time.monotonic() + wait_s
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for handle, _ in poller.poll(left_s * 1000):
            poller.unregister(handle)
            waiting.discard(handle)
    return waiting


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on at this moment."""
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            held.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            held[-1].bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def listeners(port: int, network: str = "self") -> set[int]:
    """Return the inodes of the sockets that listen on this IPv4 or IPv6 port.

    network: the process whose network is looked at; it may be in a namespace of its own.
    """
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            text = Path(f"/proc/{network}/net/{table}").read_text(encoding="ascii")
        except OSError:  # no such protocol, or the process has ended
            continue
        lines = text.splitlines()[1:]
        for line in lines:
            fields = line.split()
            if fields[3] == _TCP_LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(int(fields[9]))
    return inodes


def listens(pid: int, port: int) -> bool:
    """Tell whether this very process listens on the port."""
    wanted = {f"socket:[{inode}]" for inode in listeners(port, str(pid))}
    if not wanted:
        return False
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}") in wanted:
                return True
        except OSError:
            continue
    return False

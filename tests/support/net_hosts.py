"""Hosts with a network of their own on this machine: a hub, and others that reach it by a link.

Covers: namespaces of network, processes and mounts; veth pairs into a bridge device of the hub;
cutting a link; running programs there. Nothing is changed in the namespaces that the tests run in.
Does not cover: filesystems: all hosts see this machine's, sockets with a path included.

A host lasts as long as its holder, a shell that waits for the end of its standard input: it ends
with whoever made it, and all that runs on the host with it (pid_namespaces(7)).
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

CLONE_NEWNET = 0x40000000
NETWORK = "198.51.100"  # TEST-NET-2 of RFC 5737: nobody's
PREFIX_BITS = 24
START_S = 30.0
_UNSHARE = ("unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child")
# An init that ignores SIGCHLD has no zombies.
_HOLDER = "trap '' CHLD; echo there; exec cat"


def why_not() -> str:
    """Say why there can be no such hosts here; empty: there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is missing"
    devices = ("ip link add br0 type bridge", "ip link add v0 type veth peer name v1")
    tried = subprocess.run(
        [*_UNSHARE, "sh", "-c", " && ".join(devices)], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip()


class Host:
    """One of them."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout.readline() == b"there\n"
        self.pid = within(self._holder).pid

    @property
    def prefix(self) -> list[str]:
        """What a command begins with to run there."""
        return ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount", "--"]

    def run(self, command: str) -> None:
        subprocess.run([*self.prefix, *command.split()], check=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, and what it starts, use the host's network while the block runs."""
        with open("/proc/thread-self/ns/net") as before, open(f"/proc/{self.pid}/ns/net") as there:
            _set_network(there.fileno())
            try:
                yield
            finally:
                _set_network(before.fileno())

    def close(self) -> None:
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()


class NetHosts:
    """The hub, and hosts that reach it and each other through it; close() ends all of them."""

    def __init__(self, names: list[str]) -> None:
        self.hub = Host("hub", f"{NETWORK}.1")
        self.others: dict[str, Host] = {}
        try:
            self._bring_up(self.hub, "br0", ["ip link add br0 type bridge"])
            for number, name in enumerate(names, start=11):
                host = self.others[name] = Host(name, f"{NETWORK}.{number}")
                pair = f"ip link add {name} type veth peer name eth0 netns {host.pid}"
                with self.hub.entered():  # but among our processes, where that pid is known
                    subprocess.run(pair.split(), check=True)
                self.hub.run(f"ip link set {name} master br0 up")
                self._bring_up(host, "eth0", [])
        except BaseException:
            self.close()
            raise

    def _bring_up(self, host: Host, device: str, first: list[str]) -> None:
        for command in (
            "mount --bind /dev/null /etc/resolv.conf",  # no name server: no waiting for one
            *first,
            "ip link set lo up",
            f"ip addr add {host.address}/{PREFIX_BITS} dev {device}",
            f"ip link set {device} up",
            f"ip route add default dev {device}",  # programs look for their address by it
        ):
            host.run(command)

    def cut(self, name: str) -> None:
        """Pull a host's cable: neither side is told anything."""
        self.hub.run(f"ip link set {name} down")

    def mend(self, name: str) -> None:
        self.hub.run(f"ip link set {name} up")

    def close(self) -> None:
        for host in (*self.others.values(), self.hub):
            host.close()


def within(process: subprocess.Popen) -> psutil.Process:
    """Return what runs behind unshare or nsenter: signals are for it."""
    deadline = time.monotonic() + START_S
    while not (children := psutil.Process(process.pid).children()):
        assert process.poll() is None, process.args
        assert time.monotonic() < deadline, process.args
        time.sleep(0.01)
    (child,) = children
    return child


def _set_network(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")

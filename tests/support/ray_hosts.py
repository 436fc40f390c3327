"""A Ray cluster whose nodes are hosts with networks of their own: the head on the hub.

Covers: `ray start` on each host, as an administrator would; starting one again.
Does not cover: the hosts and their links (net_hosts), nodes on one network (ray_nodes).
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support.net_hosts import Host, NetHosts
from tests.support.ray_nodes import HEALTH, OBJECT_STORE_BYTES, START_S, ray_environment

RAY = Path(sys.executable).with_name("ray")
STARTED = b"Ray runtime started"


class RayHosts:
    """The cluster; it ends with its hosts, and what ends before them is noticed by its process."""

    def __init__(self, folder: Path, token: str, hosts: NetHosts, **environment: str) -> None:
        self._folder = folder
        self._hosts = hosts
        self._environment = ray_environment(folder, token) | environment
        self._nodes: dict[str, subprocess.Popen] = {}
        hub = hosts.hub.address
        self.address = f"{hub}:6379"
        self.dashboard = f"http://{hub}:8265"
        self._start(
            hosts.hub,
            *("--head", "--port=6379", "--num-cpus=0", "--include-dashboard=true"),
            *(f"--dashboard-host={hub}", f"--system-config={json.dumps(HEALTH)}"),
        )
        self._await(hosts.hub.name)
        for name in hosts.others:
            self._start_mover(name)
        for name in hosts.others:
            self._await(name)

    def add(self, name: str) -> None:
        """Start Ray again on a host where it has ended."""
        self._nodes[name].wait(START_S)
        self._start_mover(name)
        self._await(name)

    def _start_mover(self, name: str) -> None:
        self._start(
            self._hosts.others[name],
            *(f"--address={self.address}", "--num-cpus=2", f"--labels=forebay-mover={name}"),
        )

    def _start(self, host: Host, *options: str) -> None:
        place = self._folder / f"ray-{host.name}"
        place.mkdir(mode=0o700, exist_ok=True)
        command = [*host.prefix, RAY, "start", "--block", "--disable-usage-stats", *options]
        command += [f"--node-ip-address={host.address}", f"--temp-dir={place}"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        with self._log(host.name).open("wb") as log:
            self._nodes[host.name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                umask=0o077,
            )

    def _await(self, name: str) -> None:
        """Wait until Ray has started there. A busy machine may be too slow for it at first."""
        deadline = time.monotonic() + START_S
        has_failed = False
        while STARTED not in (said := self._log(name).read_bytes()):
            assert time.monotonic() < deadline, said.decode()
            if self._nodes[name].poll() is not None:
                assert not has_failed, said.decode()
                has_failed = True
                self._start_mover(name)
            time.sleep(0.1)

    def _log(self, name: str) -> Path:
        return self._folder / f"ray-{name}.log"

    def __exit__(self, *_: object) -> None:
        self._hosts.close()
        for process in self._nodes.values():
            process.wait(START_S)

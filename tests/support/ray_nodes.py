"""A Ray cluster of several nodes on this machine, in a process of its own.

Covers: nodes with labels, killing one or its raylet alone, killing and restarting the GCS; a
token; ended with its owner. Run as a program it takes a line of JSON for each command, and answers
with one.
Does not cover: several machines: all nodes see one filesystem and one network (ray_hosts).
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

START_S = 120.0
OBJECT_STORE_BYTES = 80 << 20
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


def ray_environment(folder: Path, token: str) -> dict[str, str]:
    """Return what Ray's processes are told, whose files are in this folder."""
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}
    env.pop("FOREBAY_RAY_PREPARED", None)
    return env


class RayNodes:
    """The process that has the cluster; a context manager."""

    def __init__(self, folder: Path, token: str, movers: list[str], **environment: str) -> None:
        command = [sys.executable, "-m", "tests.support.ray_nodes", *movers]
        # Ray's own files and those of its users are not for others.
        env = ray_environment(folder, token) | environment
        log = (folder / "nodes.log").open("wb")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, umask=0o077
        )
        log.close()
        self.folder = folder
        self.about = self._read()

    @property
    def address(self) -> str:
        return self.about["address"]

    @property
    def dashboard(self) -> str:
        return self.about["dashboard"]

    def ask(self, what: str, who: str = "") -> dict:
        self._process.stdin.write(json.dumps([what, who]).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict:
        for line in self._process.stdout:
            if line.startswith(b"{"):
                return json.loads(line)
        raise AssertionError((self.folder / "nodes.log").read_text()[-2000:])

    def __enter__(self) -> "RayNodes":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(START_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def main() -> None:
    """Have the cluster until standard input ends."""
    movers = sys.argv[1:]
    # A busy machine may be too slow for Ray at first.
    try:
        serve(movers)
    except Exception as error:
        if type(error) is not Exception:
            raise
        serve(movers)


def serve(movers: list[str]) -> None:
    from ray.cluster_utils import Cluster

    dashboard = free_port()
    common = {"object_store_memory": OBJECT_STORE_BYTES, "num_cpus": 2}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": dashboard,
            "dashboard_agent_listen_port": free_port(),  # two clusters would fight for the default
            "object_store_memory": OBJECT_STORE_BYTES,
            "_system_config": HEALTH,
        },
    )
    nodes = {name: cluster.add_node(labels={"forebay-mover": name}, **common) for name in movers}
    answers = {"address": cluster.address, "dashboard": f"http://127.0.0.1:{dashboard}"}
    print(json.dumps(answers), flush=True)
    for line in sys.stdin:
        what, who = json.loads(line)
        if what == "kill":
            cluster.remove_node(nodes.pop(who), allow_graceful=False)
        elif what == "kill-raylet":  # add takes away what is left of the node
            for each in nodes[who].all_processes["raylet"]:
                each.process.kill()
                each.process.wait()  # a zombie would keep its workers alive
        elif what == "add":
            if who in nodes:
                cluster.remove_node(nodes.pop(who), allow_graceful=False)
            nodes[who] = cluster.add_node(labels={"forebay-mover": who}, **common)
        elif what == "add-as":  # another node of that name
            nodes["again"] = cluster.add_node(labels={"forebay-mover": who}, **common)
        elif what == "kill-gcs":
            cluster.head_node.kill_gcs_server(False)
        elif what == "start-gcs":
            cluster.head_node.start_gcs_server()
        print(json.dumps({"done": what}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()

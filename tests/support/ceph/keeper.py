"""Run a one-node CephFS inside namespaces of its own until standard input ends.

Covers: monitor, manager, one OSD in memory, two active MDS ranks, mounts by ceph-fuse.
Run as a program in new mount, network and PID namespaces (cluster.py does): nothing is seen
outside, ports are its own, and everything ends with it. It prints one line of JSON when the
filesystem is mounted, then obeys one command a line: see _serve.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

STEP_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.1
RANKS = 2
MON = "[v2:127.0.0.1:13300,v1:127.0.0.1:16789]"

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h

_CONF = """\
[global]
fsid = {fsid}
mon host = {mon}
mon initial members = a
public network = 127.0.0.0/8
public addr = 127.0.0.1
ms bind ipv4 = true
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 500
mon data avail crit = 1
mon data avail warn = 1
run dir = {base}/run
admin socket = {base}/run/$cluster-$name.$pid.asok
log file = {base}/log/$name.log
pid file =
mgr modules =
mgr initial modules =
osd objectstore = memstore
memstore device bytes = 4294967296
osd memory target = 939524096
osd op num shards = 2
client mount timeout = 30
[mon.a]
host = {host}
mon data = {base}/mon.a
mon addr = {mon}
[mgr.x]
mgr data = {base}/mgr.x
[osd.0]
osd data = {base}/osd.0
[mds]
mds cache memory limit = 1073741824
[mds.a]
mds data = {base}/mds.a
[mds.b]
mds data = {base}/mds.b
"""


class Keeper:
    """The cluster's processes, by pid."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self._root = root
        self._base = Path("/forebay")  # inside the chroot
        self._scratch = scratch
        self._processes: list[subprocess.Popen[bytes]] = []
        self._mounts: dict[str, subprocess.Popen[bytes]] = {}

    # Preparing

    def prepare(self) -> None:
        _loopback_up()
        for name in ("log", "run", "mon.a", "mgr.x", "osd.0", "mds.a", "mds.b", "mnt"):
            (self._scratch / name).mkdir(parents=True)
        inside = self._root / "forebay"
        inside.mkdir(exist_ok=True)
        _run("mount", "-t", "proc", "proc", self._root / "proc")
        _run("mount", "--rbind", "/dev", self._root / "dev")
        _run("mount", "--bind", self._scratch, inside)
        self._fsid = str(uuid.uuid4())
        conf = _CONF.format(fsid=self._fsid, mon=MON, base=self._base, host=socket.gethostname())
        (self._scratch / "ceph.conf").write_text(conf)

    def start(self) -> None:
        monmap = f"{self._base}/monmap"
        self.call("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", MON, monmap)
        self.call("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemon("ceph-mon", "-f", "-i", "a")
        self._wait("the monitor", lambda: self._asked("-s"))
        self._daemon("ceph-mgr", "-f", "-i", "x")
        osd = str(uuid.uuid4())
        self.ceph("osd", "new", osd)
        self.call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._daemon("ceph-osd", "-f", "-i", "0")
        for pool in ("cephfs_meta", "cephfs_data", "cephfs_other"):
            self.ceph("osd", "pool", "create", pool, "8")
        self.ceph("fs", "new", "cephfs", "cephfs_meta", "cephfs_data")
        self.ceph("fs", "add_data_pool", "cephfs", "cephfs_other")
        self.ceph("fs", "set", "cephfs", "max_mds", str(RANKS))
        self.ceph("fs", "set", "cephfs", "max_file_size", str(1 << 44))  # sparse files of the tests
        for name in ("a", "b"):
            self._daemon("ceph-mds", "-f", "-i", name)
        self._wait("two active MDS ranks", self._both_active)
        self.mount("one")

    def _both_active(self) -> bool:
        return self.ceph("mds", "stat").count(b"up:active") == RANKS

    # Doing

    def call(self, *command: str) -> bytes:
        done = subprocess.run(
            ["chroot", self._root, *command],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command}: {done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout

    def ceph(self, *arguments: str) -> bytes:
        return self.call("ceph", *arguments)

    def mount(self, name: str) -> None:
        """Mount the filesystem as one more client."""
        (self._scratch / "mnt" / name).mkdir(exist_ok=True)
        where = f"{self._base}/mnt/{name}"
        self._mounts[name] = self._daemon("ceph-fuse", "-f", "--client_mountpoint=/", where)
        self._wait(f"the mount {name}", (self._root / "forebay" / "mnt" / name).is_mount)
        # Also where the way to it is open to other users.
        _run("mount", "--bind", self._root / "forebay/mnt" / name, self._scratch / "mnt" / name)

    def unmount(self, name: str) -> None:
        for base in (self._scratch, self._root / "forebay"):
            _run("umount", "-l", base / "mnt" / name)
        process = self._mounts.pop(name)
        self._processes.remove(process)  # its end is expected
        process.terminate()
        process.wait(COMMAND_TIMEOUT_S)

    def close(self) -> None:
        for name in list(self._mounts):
            self.unmount(name)
        for process in reversed(self._processes):
            process.kill()
            process.wait(COMMAND_TIMEOUT_S)

    def _asked(self, *arguments: str) -> bool:
        command = ["timeout", "5", "chroot", self._root, "ceph", *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, check=False)
        return done.returncode == 0

    def _daemon(self, *command: str) -> "subprocess.Popen[bytes]":
        with open(self._scratch / "log" / f"{command[0]}.out", "ab") as log:
            process = subprocess.Popen(
                ["chroot", self._root, *command],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "CEPH_CONF": f"{self._base}/ceph.conf", "LC_ALL": "C.UTF-8"}

    def _wait(self, what: str, condition) -> None:
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while not condition():
            for process in self._processes:
                if process.poll() is not None:
                    raise SystemExit(f"{process.args} ended with {process.returncode}")
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} did not come within {STEP_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _serve(keeper: Keeper) -> None:
    """Obey `["ceph", ...]`, `["mount", NAME]`, `["unmount", NAME]`, one a line, until the end."""
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer = getattr(keeper, what)(*arguments)
        print(json.dumps((answer or b"").decode()), flush=True)


def main() -> None:
    root, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    keeper = Keeper(root, scratch)
    try:
        keeper.prepare()
        keeper.start()
        print(json.dumps("up"), flush=True)
        _serve(keeper)
    finally:
        keeper.close()
        os.chdir("/")
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()

"""A real CephFS for tests: started once, entered through its mount namespace.

Covers: why it cannot run here, starting and ending it, mounts of several clients, ceph's commands.
Does not cover: its daemons (keeper), its programs (packages).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import ForebayError
from tests.support.ceph.packages import ceph_root, host_library

END_TIMEOUT_S = 60.0
CHECKOUT = Path(__file__).resolve().parents[3]


class Unavailable(Exception):
    """Ceph cannot run here; the text says why."""


class CephCluster:
    """A running cluster. Paths below `mnt` exist in its mount namespace only: see `prefix`."""

    def __init__(self, process: "subprocess.Popen[str]", scratch: Path) -> None:
        self._process = process
        self._scratch = scratch
        self.log = scratch / "log"

    @property
    def prefix(self) -> list[str]:
        """Return the words before a command that make it see the mounts."""
        return ["nsenter", f"--mount=/proc/{self._pid()}/ns/mnt", f"--wd={CHECKOUT}"]

    @property
    def library_prefix(self) -> list[str]:
        """Return the same for a command that is a client itself: it sees the network, too."""
        return [*self.prefix[:1], f"--net=/proc/{self._pid()}/ns/net", *self.prefix[1:]]

    def library_environment(self) -> dict[str, str]:
        """Return what such a command needs. Unavailable if libcephfs cannot be had."""
        try:
            found = host_library()
        except (ForebayError, OSError) as error:
            raise Unavailable(f"libcephfs cannot be had: {error}") from error
        return {**found, "CEPH_CONF": str(self._scratch / "ceph.conf")}

    def mnt(self, client: str = "one") -> Path:
        """Return where a client's mount is, in the mount namespace."""
        return self._scratch / "mnt" / client

    def ceph(self, *arguments: str) -> str:
        return self._do("ceph", *arguments)

    def mount(self, client: str) -> Path:
        self._do("mount", client)
        return self.mnt(client)

    def unmount(self, client: str) -> None:
        self._do("unmount", client)

    def _do(self, *words: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable("the cluster ended")
        return json.loads(line)

    def _pid(self) -> int:
        """Return the pid of the keeper, which is unshare's child."""
        children = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        return int(Path(children).read_text().split()[0])


def why_not() -> str | None:
    """Return why no Ceph can run here, as far as that is known before it is tried."""
    if os.geteuid() != 0:
        return "a private CephFS needs root (namespaces, chroot, FUSE)"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "unshare or nsenter is missing (util-linux)"
    return None


@contextmanager
def ceph_cluster() -> Iterator[CephCluster]:
    """Start a cluster and end it; Unavailable if it cannot be had."""
    if (reason := why_not()) is not None:
        raise Unavailable(reason)
    try:
        root = ceph_root()
    except (ForebayError, OSError) as error:
        raise Unavailable(f"Ceph's packages cannot be had: {error}") from error
    scratch = Path(tempfile.mkdtemp(prefix="forebay-ceph-"))
    scratch.chmod(0o755)
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork"),
            *("--kill-child=KILL", sys.executable, "-m", "tests.support.ceph.keeper"),
            *(str(root), str(scratch)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    cluster = CephCluster(process, scratch)
    try:
        cluster.answer()
        yield cluster
    finally:
        process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            shutil.rmtree(scratch, ignore_errors=True)

"""Ceph's programs from Debian's archive, unpacked into the cache folder and kept there.

Covers: the packages with all that they need, down to the C library; a tree that chroot can enter;
libcephfs for programs of this machine, in the version of its own release.
Does not cover: running them (keeper).
"""

import ctypes
import fcntl
import platform
import shutil
from pathlib import Path

from bacula_bridge import debian
from bacula_bridge.errors import ProgramsMissing
from bacula_bridge.programs import default_cache
from filesystems.kernel.cephfs_mount import LIBRARY

PACKAGES = (
    *("ceph-mon", "ceph-mgr", "ceph-osd", "ceph-mds", "ceph-fuse", "ceph-common"),
    *("python3-cephfs", "attr", "bash", "coreutils", "mount"),
)
FOLDER = "ceph-trixie"
_LINKS = ("bin", "sbin", "lib", "lib64")  # of merged /usr; base-files' maintainer script makes them


def ceph_root() -> Path:
    """Return the folder with Ceph's programs; the first call downloads 135 MB."""
    folder = default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / FOLDER
    with open(folder / f"{FOLDER}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers may ask at once
        if not root.is_dir():
            _provide(folder / f"{FOLDER}.partial", root)
    return root


def host_library() -> dict[str, str]:
    """Return what the environment needs for libcephfs to be found; the first call downloads 5 MB.

    Raises ForebayError or OSError if it cannot be had.
    """
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        pass
    else:
        return {}
    release = platform.freedesktop_os_release()
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        raise ProgramsMissing(f"there is no {LIBRARY}; install libcephfs2")
    root = default_cache() / f"libcephfs-{codename}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            _provide_library(root.with_suffix(".partial"), root, codename)
    triplet = debian.architecture()[1]
    folders = [
        root / f"usr/lib/{triplet}",
        root / f"usr/lib/{triplet}/ceph",
        root / f"lib/{triplet}",
    ]
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders))}


def _provide_library(partial: Path, root: Path, codename: str) -> None:
    """Unpack the library and what of it this machine does not have."""
    shutil.rmtree(partial, ignore_errors=True)
    scratch, unpacked = partial / "scratch", partial / "root"
    scratch.mkdir(parents=True)
    unpacked.mkdir()
    debian.require_tools()
    configuration = debian.prepare(scratch, debian.configured_mirror(), debian.archive_keyring())
    sources = scratch / "apt" / "sources.list"
    sources.write_text(sources.read_text().replace(f" {debian.SUITE} ", f" {codename} "))
    shutil.copy("/var/lib/dpkg/status", scratch / "apt" / "status")
    debian.run_apt(configuration, ["update"], scratch, "the package lists")
    arguments = ["install", "--yes", "--download-only", "--no-install-recommends", "libcephfs2"]
    debian.run_apt(configuration, arguments, scratch, "libcephfs")
    for archive in sorted((scratch / "apt" / "cache" / "archives").glob("*.deb")):
        debian.unpack(archive, unpacked)
    unpacked.rename(root)
    shutil.rmtree(partial)


def _provide(partial: Path, root: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    scratch, unpacked = partial / "scratch", partial / "root"
    scratch.mkdir(parents=True)
    unpacked.mkdir()
    debian.require_tools()
    configuration = debian.prepare(scratch, debian.configured_mirror(), debian.archive_keyring())
    debian.run_apt(configuration, ["update"], scratch, "the package lists")
    debian.run_apt(
        configuration,
        ["install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES],
        scratch,
        "Ceph's packages",
    )
    for archive in sorted((scratch / "apt" / "cache" / "archives").glob("*.deb")):
        debian.unpack(archive, unpacked)
    for name in _LINKS:
        if not (unpacked / name).exists():
            (unpacked / name).symlink_to(f"usr/{name}")
    if not (unpacked / "bin" / "sh").exists():
        (unpacked / "bin" / "sh").symlink_to("bash")  # ceph-fuse remounts itself through a shell
    for name in ("dev", "proc", "sys", "tmp", "run", "etc"):
        (unpacked / name).mkdir(exist_ok=True)
    (unpacked / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (unpacked / "etc" / "group").write_text("root:x:0:\n")
    (unpacked / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    unpacked.rename(root)
    shutil.rmtree(partial)

"""Find Bacula's programs, or fetch them without root.

Covers: an installed Bacula 15 with the SQLite catalog, the private copy in the cache folder, how
to start each program of either.
Does not cover: what is fetched and how (debian), running the daemons (lab).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge import debian
from bacula_bridge.errors import BadValue, ProvisioningFailed
from bacula_bridge.locks import locked

MAJOR_MIN = 15
PRIVATE_NAME = "bacula-15.0.3"
MARKER = "forebay.json"
LOCK_WAIT_S = 1800.0
PROBE_TIMEOUT_S = 20.0

_FOLDERS = (
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/opt/bacula/bin",
    "/opt/bacula/sbin",
    "/usr/local/bacula/sbin",
    "/usr/local/bacula/bin",
)
_SCRIPT_FOLDERS = (
    "/usr/share/bacula-director",
    "/opt/bacula/scripts",
    "/usr/libexec/bacula",
    "/usr/lib/bacula",
    "/usr/lib/bacula/scripts",
    "/etc/bacula/scripts",
    "/etc/bacula",
    "/usr/local/bacula/scripts",
)
_TABLES_SCRIPT = "make_sqlite3_tables"


@dataclass(frozen=True, slots=True)
class Programs:
    """How to start the programs of one Bacula installation; each field is the head of an argv."""

    version: str
    private: bool
    director: tuple[str, ...]
    storage_daemon: tuple[str, ...]
    file_daemon: tuple[str, ...]
    console: tuple[str, ...]
    sqlite3: tuple[str, ...]
    tables_script: Path

    def catalog_sql(self) -> str:
        """Return the statements that create an empty SQLite catalog."""
        return here_document(self.tables_script.read_text(encoding="utf-8", errors="replace"))


def here_document(script: str) -> str:
    """Return the one here-document of Bacula's table-creation script.

    The script itself is not run: it changes into the packager's folder.
    """
    match = re.search(r"<<\s*['\"]?(END[-_A-Z]*)['\"]?[^\n]*\n(.*?)\n\1\s*\n", script, re.DOTALL)
    if match is None:
        raise ProvisioningFailed("the catalog's tables", f"no SQL in {_TABLES_SCRIPT}")
    return match.group(2) + "\n"


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the version numbers in what `bacula-fd -?` prints."""
    match = re.search(r"^Version:\s*(\d+(?:\.\d+)+)", text, re.MULTILINE)
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def default_cache() -> Path:
    """Return the user's cache folder for Forebay."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "forebay"


def ensure(
    cache: Path | None = None,
    *,
    mirror: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Programs:
    """Return an installed Bacula, else the private copy, which is fetched when it is not there."""
    return installed() or provision(cache or default_cache(), mirror=mirror, progress=progress)


def installed() -> Programs | None:
    """Return the installed Bacula if it is new enough, complete and has the SQLite catalog."""
    found = {name: _which(name) for name in ("bacula-dir", "bacula-sd", "bacula-fd", "bconsole")}
    script = next(
        (path for folder in _SCRIPT_FOLDERS if (path := Path(folder, _TABLES_SCRIPT)).is_file()),
        None,
    )
    if script is None or not all(found.values()):
        return None
    versions = [_probe((program,)) for program in found.values() if program]
    if any(version is None or version[0] < MAJOR_MIN for version in versions):
        return None
    director = found["bacula-dir"] or ""
    if not _uses_sqlite(director):
        return None
    sqlite3 = _which("sqlite3")
    return Programs(
        version=".".join(map(str, versions[0] or ())),
        private=False,
        director=(director,),
        storage_daemon=(found["bacula-sd"] or "",),
        file_daemon=(found["bacula-fd"] or "",),
        console=(found["bconsole"] or "",),
        sqlite3=(sqlite3,) if sqlite3 else (),
        tables_script=script,
    )


def cached(cache: Path) -> Programs | None:
    """Return the private copy if it is complete; no network, no waiting."""
    root = cache / PRIVATE_NAME
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
        version, sizes = str(marker["version"]), dict(marker["sizes"])
        if marker["architecture"] != debian.architecture()[0]:
            return None
        if any((root / name).stat().st_size != size for name, size in sizes.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _private(root, version)


def provision(
    cache: Path,
    *,
    mirror: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Programs:
    """Return the private copy, fetching it first if need be.

    The copy appears under its name by one rename, complete; two processes fetch it once.
    """
    if re.search(r'[":;\x00-\x1f]', str(cache)):
        rule = "apt and the loader take no quotes, colons or control characters in it"
        raise BadValue("cache folder", str(cache), rule)
    programs = cached(cache)
    if programs is not None:
        return programs
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(cache / f"{PRIVATE_NAME}.lock", LOCK_WAIT_S):
            return cached(cache) or _provision_locked(cache, mirror, progress)
    except OSError as error:
        raise ProvisioningFailed(str(cache), error.strerror or str(error)) from error


def _provision_locked(cache: Path, mirror: str | None, progress: Callable[[str], None]) -> Programs:
    for leftover in cache.glob(f".{PRIVATE_NAME}.*"):
        shutil.rmtree(leftover)
    scratch = Path(tempfile.mkdtemp(prefix=f".{PRIVATE_NAME}.", dir=cache))
    try:
        _provision_into(scratch, cache / PRIVATE_NAME, mirror, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    programs = cached(cache)
    if programs is None:
        raise ProvisioningFailed(str(cache / PRIVATE_NAME), "the copy is not complete")
    return programs


def _provision_into(
    scratch: Path, target: Path, mirror: str | None, progress: Callable[[str], None]
) -> None:
    root = scratch / "root"
    root.mkdir(mode=0o755)
    debian.fetch(scratch, root, mirror, progress)
    draft = _private(root, "")
    version = _probe(draft.file_daemon)
    if version is None or version[0] < MAJOR_MIN:
        raise ProvisioningFailed("the first start of bacula-fd", "it does not run here")
    draft.catalog_sql()
    names = [
        *(Path(argv[-1]) for argv in (draft.director, draft.storage_daemon, draft.file_daemon)),
        *(Path(argv[-1]) for argv in (draft.console, draft.sqlite3)),
        draft.tables_script,
        *(root / "usr/lib/bacula").glob("libbac*-*.so"),
    ]
    marker = {
        "architecture": debian.architecture()[0],
        "version": ".".join(map(str, version)),
        "sizes": {str(name.relative_to(root)): name.stat().st_size for name in names},
    }
    (root / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    if target.exists():
        target.rename(scratch / "broken")
    root.rename(target)


def _private(root: Path, version: str) -> Programs:
    triplet = debian.architecture()[1]
    libraries = root / "usr/lib" / triplet
    loader = next(iter(sorted(libraries.glob("ld-linux*.so.*"))), libraries / "ld-linux.so")
    # Its own loader and C library: the host's may be older than what the programs were built for.
    head = (str(loader), "--library-path", f"{root}/usr/lib/bacula:{libraries}")
    return Programs(
        version=version,
        private=True,
        director=(*head, f"{root}/usr/sbin/bacula-dir"),
        storage_daemon=(*head, f"{root}/usr/sbin/bacula-sd"),
        file_daemon=(*head, f"{root}/usr/sbin/bacula-fd"),
        console=(*head, f"{root}/usr/sbin/bconsole"),
        sqlite3=(*head, f"{root}/usr/bin/sqlite3"),
        tables_script=root / "usr/share/bacula-director" / _TABLES_SCRIPT,
    )


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS))


def _run(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", errors="replace")


def _probe(argv: tuple[str, ...]) -> tuple[int, ...] | None:
    return parse_version(_run((*argv, "-?")))


def _uses_sqlite(director: str) -> bool:
    """Tell whether the Director's catalog library, as the loader finds it, is the SQLite one."""
    match = re.search(r"libbaccats\S*\s*=>\s*(/\S+)", _run(("ldd", director)))
    return match is not None and "libsqlite3" in _run(("ldd", match.group(1)))

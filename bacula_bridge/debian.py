"""Fetch Bacula 15.0.3 from Debian's archive without root, into a folder of our own.

Covers: reading the machine's apt sources, an isolated apt state, verified download, unpacking.
Does not cover: installed Bacula (programs), other distributions' packages, a PostgreSQL catalog.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.errors import (
    BadValue,
    DownloadFailed,
    NoKeyring,
    NoMirror,
    ProgramsMissing,
    ProvisioningFailed,
)

SUITE = "trixie"
# Every shared object that the daemons need, down to the C library: nothing of the host is used.
PACKAGES = (
    *("bacula-director", "bacula-director-sqlite3", "bacula-common", "bacula-common-sqlite3"),
    *("bacula-fd", "bacula-sd", "bacula-console", "libc6", "libstdc++6", "libgcc-s1"),
    *("libsqlite3-0", "sqlite3", "libssl3t64", "zlib1g", "libzstd1", "liblzo2-2", "libacl1"),
    *("libattr1", "libcap2", "libreadline8t64", "libtinfo6", "libwrap0", "libnsl2"),
    "libtirpc3t64",
)

APT_FOLDER = Path("/etc/apt")
KEYRING_FOLDER = Path("/usr/share/keyrings")
KEYRINGS = (
    "debian-archive-keyring.gpg",
    "debian-archive-keyring.pgp",
    "debian-archive-trixie-stable.gpg",
)
APT_TIMEOUT_S = 900.0
UNPACK_TIMEOUT_S = 120.0

_DEBIAN_SUITE = re.compile(
    r"(bullseye|bookworm|trixie|forky|sid|unstable|testing|stable|oldstable)(-updates|-backports)?"
)
_MIRROR = re.compile(r"(https?|ftp|file|mirror(\+(https?|file))?):[^\s\[\]\"]+")

_APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Default-Release "";
APT::Sandbox::User "root";
APT::Get::List-Cleanup "0";
APT::Get::AllowUnauthenticated "0";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "0";
Acquire::AllowDowngradeToInsecureRepositories "0";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::Etc::sourcelist "{apt}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::Lists "{apt}/lists";
Dir::State::status "{apt}/status";
Dir::State::extended_states "{apt}/extended_states";
Dir::Cache "{apt}/cache";
"""


@dataclass(frozen=True, slots=True)
class Source:
    """One enabled binary entry of an apt sources file."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


def parse_one_line(text: str) -> Iterator[Source]:
    """Read the classic format: `deb [options] URI suite component...`."""
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        match = re.fullmatch(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)*)", line)
        if match is None:
            continue
        options, uri, suite, components = match.groups()
        signed = re.search(r"signed-by=(\S+)", options or "", re.IGNORECASE)
        yield Source(uri, suite, tuple(components.split()), signed.group(1) if signed else "")


def parse_deb822(text: str) -> Iterator[Source]:
    """Read the paragraph format of *.sources files, comments and folded lines included."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                if name:
                    fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off", "disable"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, components, fields.get("signed-by", ""))


def choose_mirror(sources: Iterable[Source]) -> str | None:
    """Return the first entry of a Debian archive; entries that surely are one go first.

    Other vendors name their suites after Debian's releases too, so that the suite alone is only
    the second-best sign. The security archive does not hold the packages.
    """
    likely = [
        source
        for source in sources
        if _DEBIAN_SUITE.fullmatch(source.suite)
        and "main" in source.components
        and "security" not in source.uri
        and _MIRROR.fullmatch(source.uri)
    ]
    for source in likely:
        path = source.uri.split("://", 1)[-1].partition("/")[2].rstrip("/")
        named = re.fullmatch(r"debian(\.list)?", path.rsplit("/", 1)[-1]) is not None
        if named or "debian-archive" in source.signed_by:
            return source.uri
    return likely[0].uri if likely else None


def machine_mirror(folder: Path = APT_FOLDER) -> str:
    """Return the Debian archive that this machine's own apt uses."""
    sources: list[Source] = []
    parts = folder / "sources.list.d"
    for path in [folder / "sources.list", *sorted(parts.glob("*.list"))]:
        if path.is_file():
            sources += parse_one_line(path.read_text(encoding="utf-8", errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        sources += parse_deb822(path.read_text(encoding="utf-8", errors="replace"))
    mirror = choose_mirror(sources)
    if mirror is None:
        raise NoMirror(f"{folder}/sources.list or {parts}")
    return mirror


def configured_mirror() -> str:
    """Return the mirror that the environment names, else the machine's own."""
    return os.environ.get("FOREBAY_DEBIAN_MIRROR") or machine_mirror()


def archive_keyring(folder: Path = KEYRING_FOLDER) -> Path:
    """Return the keyring that apt is to check the archive's signature with."""
    for name in KEYRINGS:
        if (folder / name).is_file():
            return folder / name
    raise NoKeyring(f"no {KEYRINGS[0]} in {folder}")


def architecture() -> tuple[str, str]:
    """Return Debian's name of this machine's architecture and its multiarch triplet."""
    known = {"x86_64": ("amd64", "x86_64-linux-gnu"), "aarch64": ("arm64", "aarch64-linux-gnu")}
    try:
        return known[platform.machine()]
    except KeyError:
        raise ProgramsMissing(f"Debian's packages are not used on {platform.machine()}") from None


def require_tools() -> None:
    """Raise unless apt-get and dpkg-deb are there."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ProgramsMissing(f"there is no {tool} on this machine")


def fetch(scratch: Path, root: Path, mirror: str | None, progress: Callable[[str], None]) -> None:
    """Download the packages and unpack them into root; scratch holds apt's state meanwhile.

    Both folders are the caller's; what an interruption leaves in them is the caller's to remove.
    """
    require_tools()
    source = mirror or configured_mirror()
    if not _MIRROR.fullmatch(source):
        raise BadValue("Debian mirror", source, "an http, https, ftp, file or mirror address")
    configuration = prepare(scratch, source, archive_keyring())
    progress("fetching the package lists of Debian trixie (10 MB)")
    run_apt(configuration, ["update"], scratch, "the package lists")
    packages = scratch / "packages"
    packages.mkdir()
    progress(f"fetching Bacula 15.0.3 ({len(PACKAGES)} packages, 11 MB)")
    run_apt(configuration, ["download", *PACKAGES], packages, "the packages")
    archives = sorted(packages.glob("*.deb"))
    if len(archives) != len(PACKAGES):
        raise DownloadFailed("the packages", f"{len(archives)} of {len(PACKAGES)} came")
    progress("unpacking")
    for archive in archives:
        unpack(archive, root)


def prepare(scratch: Path, mirror: str, keyring: Path) -> Path:
    apt = scratch / "apt"
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {SUITE} main\n")
    configuration = apt / "apt.conf"
    configuration.write_text(_APT_CONF.format(architecture=architecture()[0], apt=apt))
    return configuration


def run_apt(configuration: Path, arguments: list[str], folder: Path, step: str) -> None:
    command = ["apt-get", "-c", str(configuration), "-q", *arguments]
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=APT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DownloadFailed(step, f"apt-get did not end within {APT_TIMEOUT_S:.0f} s") from None
    if done.returncode == 0:
        return
    text = done.stdout.decode("utf-8", errors="replace")
    if "NO_PUBKEY" in text or "Missing key" in text:
        raise NoKeyring(f"{archive_keyring()} is too old")
    raise DownloadFailed(step, last_words(text))


def last_words(apt_output: str) -> str:
    """Return the line of apt's output that says best why it failed."""
    lines = [line.strip() for line in apt_output.splitlines() if line.strip()]
    for prefix in ("E: Failed to fetch", "W: Failed to fetch", "Err:", "E:"):
        wanted = [line for line in lines if line.startswith(prefix)]
        if wanted:
            return wanted[-1]
    return lines[-1] if lines else "apt-get said nothing"


def unpack(archive: Path, root: Path) -> None:
    done = subprocess.run(
        ["dpkg-deb", "-x", str(archive), str(root)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=UNPACK_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", errors="replace").strip()
        raise ProvisioningFailed(f"unpacking {archive.name}", words)

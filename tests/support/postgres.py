"""A PostgreSQL server for tests: sockets in a folder of its own, nothing listens on the network.

Covers: an installed server, else one from Debian's archive in the cache folder; databases with the
tables of Bacula's own script; Bacula's PostgreSQL driver for a Director.
Does not cover: the Director (lab).
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from bacula_bridge import debian
from bacula_bridge.programs import default_cache, here_document

USER = "bacula"
PASSWORD = "a 'secret' \\ of tests"
TEMPLATE = "bacula_template"
DRIVER_FOLDER = "bacula-15.0.3-pgsql"
SERVER_FOLDER = "postgresql-server"
PORT = 5432  # a part of the socket's name, no more
START_S = 60.0
STOP_S = 30.0

_DRIVER = (
    *("bacula-common-pgsql", "bacula-director-pgsql", "libpq5", "libldap2", "libgssapi-krb5-2"),
    *("libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1"),
    "libsasl2-2",
)


def secret() -> str:
    """Return the password, as a source asks for it."""
    return PASSWORD


def driver_root() -> Path:
    """Return a folder with Bacula's PostgreSQL driver; the first call downloads 2 MB."""

    def fill(scratch: Path, root: Path) -> None:
        mirror, keyring = debian.configured_mirror(), debian.archive_keyring()
        configuration = debian.prepare(scratch, mirror, keyring)
        debian.run_apt(configuration, ["update"], scratch, "the package lists")
        packages = scratch / "packages"
        packages.mkdir()
        debian.run_apt(configuration, ["download", *_DRIVER], packages, "Bacula's driver")
        for archive in packages.glob("*.deb"):
            debian.unpack(archive, root)
        # SQLite's driver has the same name: this one must be found first, by this name.
        libraries = root / "usr/lib/bacula"
        target = libraries / "libbaccats-15.0.3.so"
        target.unlink(missing_ok=True)
        target.symlink_to("libbaccats-postgresql-15.0.3.so")

    return _cached(DRIVER_FOLDER, fill)


def driver_libraries() -> str:
    """Return what goes first in the library path of a Director with a PostgreSQL catalog."""
    root = driver_root()
    return f"{root}/usr/lib/bacula:{root}/usr/lib/{debian.architecture()[1]}"


def tables_sql() -> str:
    """Return the statements that make an empty catalog."""
    script = driver_root() / "usr/share/bacula-director/make_postgresql_tables"
    return here_document(script.read_text())


def server_programs() -> tuple[Path, dict[str, str]]:
    """Return the folder with initdb and postgres, and what their environment needs."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder, {}
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent, {}
    root = _cached(SERVER_FOLDER, _fetch_server)
    [folder] = root.glob("usr/lib/postgresql/*/bin")
    triplet = debian.architecture()[1]
    return folder, {"LD_LIBRARY_PATH": f"{root}/usr/lib/{triplet}:{root}/lib/{triplet}"}


def _fetch_server(scratch: Path, root: Path) -> None:
    """Unpack the server of this machine's own release and what of it this machine lacks."""
    configuration = debian.prepare(scratch, debian.configured_mirror(), debian.archive_keyring())
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    sources = scratch / "apt" / "sources.list"
    sources.write_text(sources.read_text().replace(f" {debian.SUITE} ", f" {codename} "))
    shutil.copy("/var/lib/dpkg/status", scratch / "apt" / "status")
    debian.run_apt(configuration, ["update"], scratch, "the package lists")
    arguments = ["install", "--yes", "--download-only", "--no-install-recommends", "postgresql"]
    debian.run_apt(configuration, arguments, scratch, "PostgreSQL")
    for archive in (scratch / "apt" / "cache" / "archives").glob("*.deb"):
        debian.unpack(archive, root)


def _cached(name: str, fill) -> Path:
    folder = default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / name
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers may ask at once
        if not root.is_dir():
            partial = folder / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "scratch").mkdir(parents=True)
            (partial / "root").mkdir()
            fill(partial / "scratch", partial / "root")
            (partial / "root").rename(root)
            shutil.rmtree(partial)
    return root


@dataclass
class Server:
    """A running server."""

    sockets: Path
    process: subprocess.Popen
    databases: int = 0

    def url(self, database: str, user: str = USER) -> str:
        return f"postgresql://{user}@/{database}?host={self.sockets}&port={PORT}"

    def connect(self, database: str, user: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            self.url(database, user),
            password=PASSWORD,
            autocommit=True,
            connect_timeout=10,
            client_encoding="SQL_ASCII",
        )

    def create(self, statement: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(statement)

    def new_catalog(self) -> str:
        """Make an empty catalog and return its database's name."""
        self.databases += 1
        name = f"catalog{self.databases}"
        self.create(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {USER}")
        return name


@contextmanager
def running_server() -> Iterator[Server]:
    """Run a server whose only way in is a socket and a password."""
    programs, environment = server_programs()
    home = Path(tempfile.mkdtemp(prefix="fb-pg-"))
    try:
        password = home / "password"
        password.write_text(PASSWORD)
        _run_initdb(programs, environment, home, password)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(home),
            "port": str(PORT),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "40",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with open(home / "log", "wb") as log:
            process = subprocess.Popen(
                [*_not_as_root(), str(programs / "postgres"), "-D", str(home / "data"), *options],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            server = Server(home, process)
            _wait_ready(server, home / "log")
            server.create(f"CREATE ROLE {USER} LOGIN PASSWORD {_literal(PASSWORD)}")
            server.create(
                f"CREATE DATABASE {TEMPLATE} TEMPLATE template0 ENCODING 'SQL_ASCII'"
                f" LC_COLLATE 'C' LC_CTYPE 'C' OWNER {USER}"
            )
            with server.connect(TEMPLATE, USER) as connection:
                connection.execute(tables_sql())
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nobody needs what is in it
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run_initdb(programs, environment, home, password) -> None:
    command = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "postgres", "--no-sync"]
    command += ["-A", "scram-sha-256", f"--pwfile={password}", "-E", "SQL_ASCII", "--locale=C"]
    done = subprocess.run(
        [*_not_as_root(), *command],
        env={**os.environ, **environment, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _not_as_root() -> list[str]:
    """PostgreSQL refuses to run as root; in a user namespace root may be somebody else."""
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if not os.geteuid() else []


def _wait_ready(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.connect("postgres").close()
            return
        except psycopg.OperationalError:
            assert server.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)


def _literal(value: str) -> str:
    return " E'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests of a session."""
    with running_server() as server:
        yield server

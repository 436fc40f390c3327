"""Write Bacula's configuration as text.

Covers: the four programs of the lab; for any Director the FileSets and Jobs of a dataset, a pool
that gives each job its own volume, and the restore job.
Does not cover: writing files, reloading daemons (lab), schedules and retention of a site.

Pure functions: values in, text out. TLS with pre-shared keys is on by default and stays on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.errors import BadValue
from shards.ledger_schema import HsmPolicy

LOOPBACK = "127.0.0.1"
DIRECTOR_NAME = "forebay-dir"
CLIENT_NAME = "forebay-fd"
STORAGE_NAME = "forebay-sd"
POOL_NAME = "forebay"
MESSAGES_NAME = "forebay"
CATALOG_NAME = "forebay"
CHANGER_NAME = "forebay-changer"
RESTORE_JOB = "forebay-restore"
MEDIA_TYPE = "ForebayFile"
DATABASE_NAME = "bacula"

SHARDS_MAX = 256
DRIVES_MAX = 2 * SHARDS_MAX
CONCURRENT_JOBS = 2 * SHARDS_MAX + 64
"""Backups and restores of all shards at once; status and cancel calls count in the daemons too."""

CONNECT_TIMEOUT_S = 30
"""A job fails when a daemon on the same machine has not answered for so long."""

VOLUME_FILE_SIZE = "64M"
"""The SD records a position in the catalog this often: what a restore of one file has to read."""

SOCKET_PATH_BYTES_MAX = 107
_DATASET_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Ports:
    """The TCP ports of the three daemons."""

    director: int
    storage: int
    file: int


@dataclass(frozen=True, slots=True)
class Passwords:
    """The shared secrets: console with Director, Director with SD, Director with FD."""

    console: str
    storage: str
    file: str


@dataclass(frozen=True, slots=True)
class LabSettings:
    """All that the configuration of one lab depends on."""

    base: Path
    ports: Ports
    passwords: Passwords
    devices: int
    socket: str
    address: str = LOOPBACK  # where the daemons listen and are reached


@dataclass(frozen=True, slots=True)
class Targets:
    """The resources of a Director that a dataset's jobs use."""

    client: str = CLIENT_NAME
    storage: str = STORAGE_NAME
    pool: str = POOL_NAME
    messages: str = MESSAGES_NAME
    level: str = "Full"  # of a job that is run without one
    directives: str = ""  # more lines of the JobDefs
    shard_directives: tuple[str, ...] = ()  # more lines of each shard's Job


def quote(value: str) -> str:
    """Return the value as a quoted string of Bacula's configuration language."""
    if _CONTROL.search(value):
        raise BadValue("value", value, "Bacula's configuration takes no control characters")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_dataset_name(name: str) -> str:
    """Return the name if it can be part of resource names, file names and plugin commands."""
    if not _DATASET_NAME.fullmatch(name):
        rule = "1 to 64 letters, digits, dots, underscores and hyphens"
        raise BadValue("dataset name", name, rule)
    return name


def check_shards(shards: int) -> int:
    """Return the number of shards if Bacula's limits, as rendered here, allow it."""
    if not 1 <= shards <= SHARDS_MAX:
        raise BadValue("number of shards", shards, f"1 to {SHARDS_MAX}")
    return shards


def check_socket(path: str) -> str:
    """Return the bridge's socket path if the kernel and the plugin's options can carry it."""
    if not path.startswith("/"):
        raise BadValue("socket path", path, "an absolute path")
    if len(path.encode("utf-8", "surrogateescape")) > SOCKET_PATH_BYTES_MAX:
        raise BadValue("socket path", path, f"at most {SOCKET_PATH_BYTES_MAX} bytes")
    if ":" in path or _CONTROL.search(path):
        raise BadValue("socket path", path, "no colons or control characters")
    return path


def job_name(dataset: str, shard: int) -> str:
    """Return the name of the Bacula Job, and of the FileSet, of one shard."""
    return f"forebay-{dataset}-{shard}"


def plain_job_name(name: str) -> str:
    """Return the name of the Job that saves a directory by stock means."""
    return f"plain-{name}"


def plugin_command(dataset: str, shard: int, shards: int, hsm: HsmPolicy = HsmPolicy.SKIP) -> str:
    """Return the plugin command of one shard."""
    policy = "" if hsm is HsmPolicy.SKIP else f":hsm={hsm.value}"
    return f"forebay:dataset={dataset}:shard={shard}/{shards}{policy}"


def plugin_options(socket: str) -> str:
    """Return what the FileDaemon resource tells the plugin of each job."""
    return f"forebay:socket={check_socket(socket)}"


def dataset_config(
    name: str,
    shards: int,
    targets: Targets | None = None,
    hsm: HsmPolicy = HsmPolicy.SKIP,
) -> str:
    """Return the FileSets and Jobs of a dataset.

    A FileSet that differs makes Bacula start with a Full, which is what another number of shards
    needs, and another policy for released files gets; therefore `Ignore FileSet Changes` stays at
    its default, no.
    """
    check_dataset_name(name)
    check_shards(shards)
    use = targets or Targets()
    own = use.shard_directives or ("",) * shards
    assert len(own) == shards
    parts = [_job_defaults(f"forebay-{name}", use, f"forebay-{name}-0")]
    for shard in range(shards):
        command = quote(plugin_command(name, shard, shards, hsm))
        job = job_name(name, shard)
        parts.append(_file_set(job, f"    Plugin = {command}\n"))
        parts.append(_job(job, f"forebay-{name}", job, own[shard]))
    return "\n".join(parts)


def plain_job_config(name: str, directory: str, targets: Targets | None = None) -> str:
    """Return a Job that saves a directory with the File Daemon's own walk, for comparison."""
    check_dataset_name(name)
    if not directory.startswith("/"):
        raise BadValue("directory", directory, "an absolute path")
    job = plain_job_name(name)
    file_set = _file_set(job, f"    File = {quote(directory)}\n")
    return "\n".join([_job_defaults(job, targets or Targets(), job), file_set, _job(job, job, job)])


def pool_config(name: str = POOL_NAME) -> str:
    """Return a pool in which each job writes a volume of its own, labelled on demand."""
    return f"""\
Pool {{
  Name = {quote(name)}
  Pool Type = Backup
  Label Format = {quote(name + "-")}
  Maximum Volume Jobs = 1
  Volume Retention = 1 year
  Recycle = yes
  AutoPrune = no
}}
"""


def restore_job_config(where: str, targets: Targets | None = None, name: str = RESTORE_JOB) -> str:
    """Return the Job that all restores run as, several at once, with a bootstrap file or not."""
    use = targets or Targets()
    empty = _file_set(name, "    File = /nonexistent\n")
    return f"""\
{empty}
Job {{
  Name = {quote(name)}
  Type = Restore
  FileSet = {quote(name)}
  Client = {quote(use.client)}
  Storage = {quote(use.storage)}
  Pool = {quote(use.pool)}
  Messages = {quote(use.messages)}
  Where = {quote(where)}
  Allow Duplicate Jobs = yes
  Maximum Concurrent Jobs = {CONCURRENT_JOBS}
}}
"""


def director_config(lab: LabSettings, jobs: list[Path]) -> str:
    """Return the Director's configuration; jobs are the files with the datasets' resources."""
    base, ports, passwords = lab.base, lab.ports, lab.passwords
    log = quote(str(base / "log" / "messages.log"))
    includes = "".join(f"@{quote(str(path))}\n" for path in jobs)
    return f"""\
Director {{
  Name = {quote(DIRECTOR_NAME)}
  DirAddress = {lab.address}
  DIRport = {ports.director}
  Password = {quote(passwords.console)}
  Messages = {quote(MESSAGES_NAME)}
  QueryFile = "/dev/null"
  FD Connect Timeout = {CONNECT_TIMEOUT_S}
  SD Connect Timeout = {CONNECT_TIMEOUT_S}
{_daemon_lines(base, "director")}}}
Client {{
  Name = {quote(CLIENT_NAME)}
  Address = {lab.address}
  FDPort = {ports.file}
  Password = {quote(passwords.file)}
  Catalog = {quote(CATALOG_NAME)}
  AutoPrune = no
  Maximum Concurrent Jobs = {CONCURRENT_JOBS}
}}
Autochanger {{
  Name = {quote(STORAGE_NAME)}
  Address = {lab.address}
  SDPort = {ports.storage}
  Password = {quote(passwords.storage)}
  Device = {quote(CHANGER_NAME)}
  Media Type = {quote(MEDIA_TYPE)}
  Autochanger = {quote(STORAGE_NAME)}
  Maximum Concurrent Jobs = {CONCURRENT_JOBS}
}}
Catalog {{
  Name = {quote(CATALOG_NAME)}
  dbname = {quote(DATABASE_NAME)}
  dbuser = ""
  dbpassword = ""
}}
Messages {{
  Name = {quote(MESSAGES_NAME)}
  append = {log} = all, !skipped
  catalog = all, !skipped, !saved
}}
{pool_config()}
{restore_job_config(str(base / "restore"))}
{includes}"""


def changer_config(drives: int, folder: str) -> str:
    """Return the Storage Daemon's devices: drives of one job each in a changer."""
    names = [f"forebay-drive-{index}" for index in range(drives)]
    devices = "".join(
        f"""\
Device {{
  Name = {quote(name)}
  Media Type = {quote(MEDIA_TYPE)}
  Archive Device = {quote(folder)}
  Autochanger = yes
  Drive Index = {index}
  LabelMedia = yes
  Random Access = yes
  AutomaticMount = yes
  RemovableMedia = no
  AlwaysOpen = no
  Maximum Concurrent Jobs = 1
  Maximum File Size = {VOLUME_FILE_SIZE}
}}
"""
        for index, name in enumerate(names)
    )
    return f"""\
Autochanger {{
  Name = {quote(CHANGER_NAME)}
  Device = {", ".join(map(quote, names))}
  Changer Command = ""
  Changer Device = /dev/null
}}
{devices}"""


def storage_config(lab: LabSettings) -> str:
    """Return the Storage Daemon's configuration."""
    return f"""\
Storage {{
  Name = {quote(STORAGE_NAME)}
  SDAddress = {lab.address}
  SDPort = {lab.ports.storage}
{_daemon_lines(lab.base, "storage")}}}
Director {{
  Name = {quote(DIRECTOR_NAME)}
  Password = {quote(lab.passwords.storage)}
}}
Messages {{
  Name = {quote(MESSAGES_NAME)}
  director = {quote(DIRECTOR_NAME)} = all
}}
{changer_config(lab.devices, str(lab.base / "volumes"))}"""


def file_daemon_config(lab: LabSettings) -> str:
    """Return the File Daemon's configuration, with the plugin and the bridge's socket."""
    return f"""\
FileDaemon {{
  Name = {quote(CLIENT_NAME)}
  FDAddress = {lab.address}
  FDport = {lab.ports.file}
  Plugin Directory = {quote(str(lab.base / "plugins"))}
  Plugin Options = {quote(plugin_options(lab.socket))}
{_daemon_lines(lab.base, "file")}}}
Director {{
  Name = {quote(DIRECTOR_NAME)}
  Password = {quote(lab.passwords.file)}
}}
Messages {{
  Name = {quote(MESSAGES_NAME)}
  director = {quote(DIRECTOR_NAME)} = all, !skipped, !restored
}}
"""


def console_config(lab: LabSettings) -> str:
    """Return bconsole's configuration."""
    return f"""\
Director {{
  Name = {quote(DIRECTOR_NAME)}
  Address = {lab.address}
  DIRport = {lab.ports.director}
  Password = {quote(lab.passwords.console)}
}}
"""


def _daemon_lines(base: Path, daemon: str) -> str:
    return (
        f"  WorkingDirectory = {quote(str(base / 'work' / daemon))}\n"
        f"  Pid Directory = {quote(str(base / 'run'))}\n"
        f"  Maximum Concurrent Jobs = {CONCURRENT_JOBS}\n"
    )


def _job_defaults(name: str, targets: Targets, file_set: str) -> str:
    return f"""\
JobDefs {{
  Name = {quote(name)}
  Type = Backup
  Level = {targets.level}
  Client = {quote(targets.client)}
  FileSet = {quote(file_set)}
  Storage = {quote(targets.storage)}
  Pool = {quote(targets.pool)}
  Messages = {quote(targets.messages)}
  Prefer Mounted Volumes = no
  Spool Attributes = yes
  Accurate = no
  Allow Duplicate Jobs = yes
  Allow Incomplete Jobs = no
  Maximum Concurrent Jobs = {CONCURRENT_JOBS}
{targets.directives}}}
"""


def _file_set(name: str, include: str) -> str:
    return f"""\
FileSet {{
  Name = {quote(name)}
  Include {{
    Options {{ }}
{include}  }}
}}
"""


def _job(name: str, defaults: str, file_set: str, directives: str = "") -> str:
    return f"""\
Job {{
  Name = {quote(name)}
  JobDefs = {quote(defaults)}
  FileSet = {quote(file_set)}
{directives}}}
"""

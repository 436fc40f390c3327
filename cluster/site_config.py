"""A site's configuration file: one TOML file, the same on all nodes.

Covers: its keys, what they accept, errors that name file and key, secrets in files of their own.
Does not cover: what is done with it (serving, commands), one machine without a file (settings).
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from bacula_bridge.render import SHARDS_MAX, check_dataset_name
from shards.errors import ForebayError, UsageError
from shards.ledger_schema import HsmPolicy

DEFAULT_PATH = Path("/etc/forebay/forebay.toml")
MOVERS_MAX = 256
THREADS_MAX = 1024
FILE_BYTES_MAX = 1 << 20
SECRET_BYTES_MAX = 4096


class ConfigurationWrong(UsageError):
    """The file says something that cannot be: (file, one line each)."""

    template = "{0}: {1}"


class SecretUnsafe(ForebayError):
    """A secret that others may read is none: (file, what is wrong)."""

    template = "{0}: {1}; it must be a file of this user with mode 0600 or 0400"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path is needed")
    if any(ord(character) < 0x20 or character == ":" for character in str(path)):
        raise ValueError("no colons or control characters can be in it")
    return Path(os.path.normpath(path))


def _without_password(url: str) -> str:
    if urlsplit(url).password is not None:
        raise ValueError("no password goes here; name a file with the ..._file key")
    return url


def _http(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError("http://HOST:PORT or https://HOST:PORT is needed")
    return _without_password(url).rstrip("/")


def _catalog(value: str) -> str:
    if value.startswith("/"):
        return str(_absolute(Path(value)))
    if urlsplit(value).scheme not in ("postgresql", "postgres"):
        raise ValueError("postgresql://USER@HOST/DATABASE, or the path of a SQLite catalog")
    return _without_password(value)


def _dataset_name(value: str) -> str:
    try:
        return check_dataset_name(value)
    except ForebayError as error:
        raise ValueError(str(error)) from error


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
ResourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._:-]{1,127}$")]
# Both a label's value of Ray and a part of names.
MoverName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class CoordinatorTable(_Table):
    """Where the run ledger is kept."""

    mover: MoverName | None = None  # the node; None: the first mover
    ledger: AbsolutePath = Path("/var/lib/forebay")  # a folder on that node's own disk


class RayTable(_Table):
    """The Ray cluster that the service lives in."""

    address: str = Field("127.0.0.1:6379", pattern=r"^[^\s/:]+:\d{1,5}$")
    dashboard: Annotated[str, AfterValidator(_http)] = "http://127.0.0.1:8265"
    token_file: AbsolutePath | None = Path("/etc/forebay/ray.token")


class BaculaTable(_Table):
    """The Director, and the names of what is its site's own."""

    catalog: Annotated[str, AfterValidator(_catalog)]
    catalog_password_file: AbsolutePath | None = None
    bconsole: AbsolutePath = Path("/usr/sbin/bconsole")
    bconsole_config: AbsolutePath = Path("/etc/bacula/bconsole.conf")
    storage: ResourceName = "forebay-sd"
    pool: ResourceName = "forebay"
    messages: ResourceName = "Standard"
    schedule: ResourceName | None = None
    restore_job: ResourceName = "forebay-restore"
    bootstraps: AbsolutePath | None = None  # the Director's host sees it too; None: below state


class ArchiveTable(_Table):
    """Where manifests and receipts of runs are copied to."""

    url: Annotated[str, AfterValidator(_without_password)]
    options_file: AbsolutePath | None = None  # JSON for fsspec: keys, endpoint
    keep_days: int = Field(400, ge=1, le=36_500)


class GrafanaTable(_Table):
    """Where the dashboards go."""

    url: Annotated[str, AfterValidator(_http)]
    token_file: AbsolutePath
    folder: str = Field("Forebay", min_length=1, max_length=100)


class LogTable(_Table):
    """How the service writes its log."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class LimitsTable(_Table):
    """How long what waits may wait, in seconds."""

    join_wait_s: float = Field(6 * 3600.0, ge=1, le=7 * 86_400)  # a job, for its place in a run
    run_idle_s: float = Field(300.0, ge=1, le=7 * 86_400)  # a run, for the jobs that it lacks
    walker_idle_s: float = Field(300.0, ge=1, le=86_400)  # a walker, for another scan


class MoverTable(_Table):
    """A data mover: a node of the Ray cluster with a File Daemon."""

    name: MoverName  # the value of its label forebay-mover
    client: ResourceName  # its Client resource in the Director


class DatasetTable(_Table):
    """A tree to back up."""

    name: Annotated[str, AfterValidator(_dataset_name)]
    root: AbsolutePath
    shards: int = Field(ge=1, le=SHARDS_MAX)
    movers: tuple[MoverName, ...] = ()  # those that read it; none: all
    threads: int = Field(0, ge=0, le=THREADS_MAX)
    latency_target_ms: float = Field(0.0, ge=0, le=60_000)
    hsm: HsmPolicy = HsmPolicy.SKIP
    snapshot: bool = False
    storage: ResourceName | None = None  # instead of the one for all
    pool: ResourceName | None = None
    schedule: ResourceName | None = None


class SiteConfig(_Table):
    """The whole file."""

    state: AbsolutePath  # a directory that all movers see at this path
    # Of each mover, for the bridge's socket; {mover} in it is the mover's name, which is needed
    # only where several share a machine.
    runtime: AbsolutePath = Path("/run/forebay")
    coordinator: CoordinatorTable = CoordinatorTable()
    ray: RayTable = RayTable()
    bacula: BaculaTable
    archive: ArchiveTable | None = None
    grafana: GrafanaTable | None = None
    log: LogTable = LogTable()
    limits: LimitsTable = LimitsTable()
    mover: tuple[MoverTable, ...]
    dataset: tuple[DatasetTable, ...]

    @model_validator(mode="after")
    def _names_agree(self) -> SiteConfig:
        if not 1 <= len(self.mover) <= MOVERS_MAX or not self.dataset:
            raise ValueError(f"1 to {MOVERS_MAX} [[mover]] and at least one [[dataset]] are needed")
        movers = [mover.name for mover in self.mover]
        _unique("mover", movers)
        _unique("mover client", [mover.client for mover in self.mover])
        _unique("dataset", [dataset.name for dataset in self.dataset])
        named = [("coordinator.mover", name) for name in (self.coordinator.mover,) if name]
        named += [(f"dataset {d.name}: movers", name) for d in self.dataset for name in d.movers]
        for where, name in named:
            if name not in movers:
                raise ValueError(
                    f"{where}: there is no mover {name}; there are {', '.join(movers)}"
                )
        if not self.walker_movers:
            raise ValueError("no mover reads all datasets; one that does is needed for the walkers")
        if self.coordinator_mover not in self.walker_movers:
            raise ValueError(
                f"coordinator.mover: {self.coordinator_mover} does not read all datasets; choose"
                f" one of {', '.join(self.walker_movers)}"
            )
        return self

    def runtime_of(self, mover: str) -> Path:
        """A mover's folder for what lives as long as its processes."""
        return Path(str(self.runtime).replace("{mover}", mover))

    def socket_of(self, mover: str) -> Path:
        """Where the bridge of a mover listens."""
        return self.runtime_of(mover) / "bridge.sock"

    @property
    def walker_movers(self) -> tuple[str, ...]:
        """The movers that see every dataset: walkers may run there."""
        return tuple(
            mover.name
            for mover in self.mover
            if all(mover in self.movers_of(dataset) for dataset in self.dataset)
        )

    @property
    def coordinator_mover(self) -> str:
        return self.coordinator.mover or self.mover[0].name

    def dataset_named(self, name: str) -> DatasetTable:
        for dataset in self.dataset:
            if dataset.name == name:
                return dataset
        known = ", ".join(dataset.name for dataset in self.dataset)
        raise UsageError(f"there is no dataset {name} in the configuration; there are: {known}")

    def movers_of(self, dataset: DatasetTable) -> tuple[MoverTable, ...]:
        """The movers that read a dataset, in the order in which shards are dealt to them."""
        return tuple(m for m in self.mover if not dataset.movers or m.name in dataset.movers)

    def mover_of(self, dataset: DatasetTable, shard: int) -> MoverTable:
        """The mover whose File Daemon saves a shard."""
        movers = self.movers_of(dataset)
        return movers[shard % len(movers)]


def _unique(what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} {', '.join(twice)}: each name may be there once")


def configured_path(named: Path | None = None) -> Path | None:
    """The file that holds: the one named, FOREBAY_CONFIG's, or the usual one if it is there."""
    if named is not None:
        return named.absolute()
    if variable := os.environ.get("FOREBAY_CONFIG"):
        return Path(variable).absolute()
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def load(path: Path) -> SiteConfig:
    """Read and check the file; ConfigurationWrong names each key and what it accepts."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}; `forebay init` writes one"
        raise ConfigurationWrong(str(path), reason) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationWrong(str(path), f"it has more than {FILE_BYTES_MAX} bytes")
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationWrong(str(path), f"it is not TOML: {error}") from error
    return check(values, str(path))


def check(values: dict[str, object], where: str) -> SiteConfig:
    """Check what a file says."""
    try:
        return SiteConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigurationWrong(where, "; ".join(map(_sentence, error.errors()))) from None


def _sentence(error: object) -> str:
    assert isinstance(error, dict)
    key = ""
    for part in error["loc"]:
        key += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if key else str(part)
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key}: there is no such key"
    if error["type"] == "missing":
        return f"{key}: it must be given"
    if not key:
        return message
    if isinstance(error.get("ctx", {}).get("error"), ValueError):  # ours: it says enough
        return f"{key}: {message}"
    value = error.get("input")
    shown = f", not {value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}"


def read_private(path: Path, bytes_max: int) -> bytes:
    """Return what is in a file that nobody but its owner and root may read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise SecretUnsafe(str(path), f"it cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise SecretUnsafe(str(path), "it belongs to somebody else")
    if status.st_mode & 0o077:
        raise SecretUnsafe(str(path), f"its mode {stat.S_IMODE(status.st_mode):04o} lets others in")
    if len(data) > bytes_max:
        raise SecretUnsafe(str(path), f"it has more than {bytes_max} bytes")
    return data


def read_secret(path: Path) -> str:
    """Return a secret of one line from such a file."""
    text = read_private(path, SECRET_BYTES_MAX).decode("utf-8", "replace").strip()
    if not text or not text.isprintable():
        raise SecretUnsafe(str(path), "it does not hold one line with a secret")
    return text


def secret_files(config: SiteConfig) -> list[Path]:
    """The files with secrets that a configuration names."""
    named = [config.ray.token_file, config.bacula.catalog_password_file]
    named += [config.archive.options_file] if config.archive else []
    named += [config.grafana.token_file] if config.grafana else []
    return [path for path in named if path is not None]


def shown(values: Mapping[str, Any]) -> str:
    """Return values as TOML; what is not set is left out."""
    lines: list[str] = []
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    arrays = {key: value for key, value in values.items() if key in ("mover", "dataset")}
    for key, value in values.items():
        if key not in tables and key not in arrays and value is not None:
            lines.append(f"{key} = {_toml(value)}")
    heads = [(f"[{key}]", value) for key, value in tables.items()]
    heads += [(f"[[{key}]]", each) for key, value in arrays.items() for each in value]
    for head, table in heads:
        lines += ["", head]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """One value; TOML writes strings, numbers and lists of them as JSON does."""
    return json.dumps(value, ensure_ascii=False)

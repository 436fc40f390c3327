"""What a live Director says of its resources, read out of bconsole's text.

Covers: `show` of jobs, clients, storages and pools; the headers of `status`; the rest of a Job's
directives from bdirjson, since `show` leaves them out.
Does not cover: asking (console), what it should be (site_check).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

QUESTIONS = "show jobs\nshow clients\nshow storages\nshow pools\n.status dir header"

_RESOURCE = re.compile(r"^(?:Job|FileSet|Client|Storage|Autochanger|Pool): [Nn]ame=", re.MULTILINE)
_JOB = re.compile(r"Job: name=(.*) JobType=(\d+) level=(.*?) Priority=\S+ Enabled=(\d)")
_CLIENT = re.compile(r"Client: Name=(.*) Enabled=(\d) Address=(.*) FDport=\d+ MaxJobs=(\d+)")
_STORAGE = re.compile(r"(?:Storage|Autochanger): name=(.*) address=(.*) SDport=\d+ MaxJobs=(\d+)")
_POOL = re.compile(r"Pool: name=(.*) PoolType=")
_FILE_SET = re.compile(r"FileSet: name=(.*) IgnoreFileSetChanges=(\d)")
_SCRIPT = re.compile(
    r" --> RunScript\n  --> Command=(.*)\n  --> Target=(.*)\n  --> RunOnSuccess=(\d)\n"
    r"  --> RunOnFailure=(\d)\n  --> FailJobOnError=(\d)\n  --> RunWhen=(\d+)"
)
RUN_AFTER, RUN_BEFORE = 1, 2


@dataclass(frozen=True, slots=True)
class Script:
    """One RunScript; when is Bacula's number."""

    command: str
    on_client: bool
    on_failure: bool
    fails_job: bool
    when: int


@dataclass(frozen=True, slots=True)
class JobView:
    """One Job with what it refers to. options are the letters of its FileSet's Options."""

    name: str
    backup: bool
    restore: bool
    enabled: bool
    max_jobs: int
    accurate: bool
    client: str
    file_set: str
    ignores_changes: bool
    options: tuple[str, ...]
    plugins: tuple[str, ...]
    schedule: str
    storages: tuple[str, ...]
    pool: str
    messages: str
    scripts: tuple[Script, ...]


@dataclass(frozen=True, slots=True)
class StorageView:
    max_jobs: int
    device: str


@dataclass(frozen=True, slots=True)
class DirectorView:
    """The Director's resources by name."""

    version: str
    max_jobs: int
    jobs: dict[str, JobView]
    clients: dict[str, int]  # its number of jobs at once
    storages: dict[str, StorageView]
    pools: dict[str, int]  # its Maximum Volume Jobs


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What a File Daemon says of itself; reached is False if the Director cannot connect to it."""

    reached: bool
    version: str = ""
    max_jobs: int = 0
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """What a Storage Daemon says of itself: the devices of each autochanger, and all by name."""

    reached: bool
    max_jobs: int = 0
    changers: dict[str, int] = field(default_factory=dict)
    devices: tuple[str, ...] = ()


def parse_director(answer: str) -> DirectorView:
    """Read the answers to QUESTIONS."""
    starts = [match.start() for match in _RESOURCE.finditer(answer)]
    parts = [answer[a:b] for a, b in zip(starts, [*starts[1:], len(answer)], strict=True)]
    jobs, clients, storages, pools = {}, {}, {}, {}
    for part in parts:
        if match := _JOB.match(part):
            jobs[match[1]] = _job(match, part)
        elif match := _CLIENT.match(part):
            clients[match[1]] = int(match[4])
        elif match := _STORAGE.match(part):
            storages[match[1]] = StorageView(int(match[3]), _first(r"DeviceName=(.*) Media", part))
        elif match := _POOL.match(part):
            pools[match[1]] = int(_first(r"MaxVolJobs=(\d+)", part) or 0)
    return DirectorView(
        version=_first(r"Version: (\S+)", answer),
        max_jobs=int(_first(r"^ Jobs: run=\d+, running=\d+ max=(\d+)", answer) or 0),
        jobs=jobs,
        clients=clients,
        storages=storages,
        pools=pools,
    )


def parse_client(answer: str) -> ClientStatus:
    """Read the answer to `status client=NAME`."""
    found = re.search(r"^Daemon started .* Jobs: run=\d+,? running=\d+ max=(\d+)", answer, re.M)
    if found is None:
        return ClientStatus(False)
    plugins = re.findall(r"([^\s(]+)\([^)]*\)", _first(r"^ Plugin: (.*)$", answer))
    version = _first(r" Version: (\S+) .*\n.*Daemon started", answer[: found.end()])
    return ClientStatus(True, version, int(found[1]), tuple(plugins))


def parse_storage(answer: str) -> StorageStatus:
    """Read the answer to `status storage=NAME`."""
    found = re.search(r"^Daemon started .* Jobs: run=\d+,? running=\d+ max=(\d+)", answer, re.M)
    if found is None:
        return StorageStatus(False)
    changers = {
        match[1]: len(re.findall(r'^   "', match[2], re.M))
        for match in re.finditer(r'^Autochanger "(.*)" with devices:\n((?:   .*\n)*)', answer, re.M)
    }
    devices = re.findall(r'^Device [^:\n]*: "(.*?)" \(', answer, re.M)
    return StorageStatus(True, int(found[1]), changers, tuple(devices))


def parse_jobs_file(text: str) -> dict[str, dict[str, object]]:
    """Read what `bdirjson -r Job -D` prints: by Job what differs from Bacula's defaults."""
    found = json.loads(text[text.index("[") :])
    return {str(job["Name"]): job for job in found if isinstance(job, dict) and "Name" in job}


def _job(match: re.Match[str], part: str) -> JobView:
    file_set = _FILE_SET.search(part)
    client = _CLIENT.search(part)
    return JobView(
        name=match[1],
        backup=match[2] == "66",
        restore=match[2] == "82",
        enabled=match[4] == "1",
        max_jobs=int(_first(r"^     MaxJobs=(\d+)", part) or 0),
        accurate=_first(r"^     Accurate=(\d)", part) == "1",
        client=client[1] if client else "",
        file_set=file_set[1] if file_set else "",
        ignores_changes=bool(file_set) and file_set[2] == "1",
        options=tuple(re.findall(r"^      O (\S+)\s*$", part, re.M)),
        plugins=tuple(re.findall(r"^      P (.*)$", part, re.M)),
        schedule=_first(r"--> Schedule: Name=(.*) Enabled=", part),
        storages=tuple(each[1] for each in _STORAGE.finditer(part)),
        pool=_first(r"--> Pool: name=(.*) PoolType=", part),
        messages=_first(r"--> Messages: name=(.*)$", part),
        scripts=tuple(
            Script(each[1], each[2] != "", each[4] == "1", each[5] == "1", int(each[6]))
            for each in _SCRIPT.finditer(part)
        ),
    )


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""

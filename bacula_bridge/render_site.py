"""Write a site's part of Bacula's configuration as text.

Covers: for a Director the Jobs of datasets over several Clients, with the hooks that tell Forebay
when a job begins and how it ended, pools and the restore job; as hints what belongs into the
resources that a site has already: Client, Storage, FileDaemon, devices.
Does not cover: the resources themselves (render), which mover reads what (cluster), writing files.

Pure functions: values in, text out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge import render
from bacula_bridge.errors import BadValue
from bacula_bridge.render import Targets, quote
from shards.ledger_schema import HsmPolicy

CONCURRENT_JOBS_MIN = 20
"""Bacula's own default for its daemons; what is rendered here is never less."""

SPARE_JOBS = 16
"""Status and cancel calls count as jobs in a File Daemon."""

RESTORE_WHERE = "/tmp/bacula-restores"
FILE_DAEMON_PORT = 9102
STORAGE_PORT = 9103
_WORD = re.compile(r"[^\"'`\\$%\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class SiteMover:
    """A data mover: its Client resource, its bridge's socket, what its hooks are to be told."""

    name: str
    client: str
    socket: str
    hook_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteDataset:
    """A dataset with the resources of the Director that it uses; a mover for each shard."""

    name: str
    movers: tuple[SiteMover, ...]
    storage: str
    pool: str
    schedule: str | None = None
    hsm: HsmPolicy = HsmPolicy.SKIP

    @property
    def shards(self) -> int:
        return len(self.movers)

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(mover.client for mover in self.movers)


@dataclass(frozen=True, slots=True)
class Site:
    """What is rendered, and what the Director is compared with."""

    movers: tuple[SiteMover, ...]
    datasets: tuple[SiteDataset, ...]
    messages: str
    restore_job: str
    program: str  # of the hooks
    catalog: str = "MyCatalog"  # the Catalog resource

    def shards_of_client(self, client: str) -> int:
        """How many jobs may run on a Client at once, if all datasets run."""
        return sum(dataset.clients.count(client) for dataset in self.datasets)

    def shards_of_storage(self, storage: str) -> int:
        """How many jobs may write to a Storage at once, if all datasets run."""
        return sum(dataset.shards for dataset in self.datasets if dataset.storage == storage)

    @property
    def storages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(dataset.storage for dataset in self.datasets))

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(dataset.pool for dataset in self.datasets))

    @property
    def shards_max(self) -> int:
        """The shards of the largest dataset: restores run in as many jobs."""
        return max(dataset.shards for dataset in self.datasets)


def hook_commands(program: str, options: tuple[str, ...] = ()) -> tuple[str, str]:
    """Return what a Client runs before and after each job.

    The Client expands %i JobId, %n Job, %l level, %e how it ended; level and end hold spaces.
    """
    if not program.startswith("/"):
        raise BadValue("program of the hooks", program, "an absolute path")
    head = _word(program)
    tail = "".join(f" {_word(option)}" for option in options)
    return (
        f'{head} hook before --jobid %i --job %n --level "%l"{tail}',
        f'{head} hook after --jobid %i --job %n --status "%e"{tail}',
    )


def _word(text: str) -> str:
    """Return a word of a command that Bacula expands and splits; it knows no escape for all."""
    if not _WORD.fullmatch(text):
        rule = "no quotes, backslashes, dollar or percent signs, for Bacula reads them otherwise"
        raise BadValue("word of the hooks' command", text, rule)
    return f'"{text}"' if " " in text else text


def hooks(program: str, options: tuple[str, ...] = ()) -> str:
    """Return the RunScripts. After is a hint: what counts is the catalog, so it fails no job."""
    before, after = hook_commands(program, options)
    return f"""\
  RunScript {{
    RunsWhen = Before
    RunsOnClient = yes
    FailJobOnError = yes
    Command = {quote(before)}
  }}
  RunScript {{
    RunsWhen = After
    RunsOnClient = yes
    RunsOnFailure = yes
    FailJobOnError = no
    Command = {quote(after)}
  }}
"""


def dataset_config(site: Site, dataset: SiteDataset) -> str:
    """Return the JobDefs, FileSets and Jobs of a dataset."""
    schedule = f"  Schedule = {quote(dataset.schedule)}\n" if dataset.schedule else ""
    targets = Targets(
        client=dataset.clients[0],
        storage=dataset.storage,
        pool=dataset.pool,
        messages=site.messages,
        level="Incremental",  # Bacula makes it a Full where there is none yet
        directives=schedule,
        shard_directives=tuple(
            f"  Client = {quote(mover.client)}\n" + hooks(site.program, mover.hook_options)
            for mover in dataset.movers
        ),
    )
    return render.dataset_config(dataset.name, dataset.shards, targets, dataset.hsm)


def common_config(site: Site, *, pools: bool, clients: bool) -> str:
    """Return what the datasets share, and hints for what the site has already."""
    use = Targets(
        client=site.movers[0].client,
        storage=site.storages[0],
        pool=site.pools[0],
        messages=site.messages,
    )
    parts = [render.pool_config(name) for name in site.pools] if pools else []
    parts.append(render.restore_job_config(RESTORE_WHERE, use, site.restore_job))
    for mover in site.movers:
        if clients:
            parts.append(client_config(site, mover))
        else:
            head = f"# Your Client {mover.client} needs this ({mover.name}):\n"
            parts.append(head + as_comment(client_config(site, mover)))
    for storage in site.storages:
        head = f"# Your Storage {storage} needs this, above all the number of jobs:\n"
        parts.append(head + as_comment(storage_config(site, storage)))
    return "\n".join(parts)


def client_config(site: Site, mover: SiteMover) -> str:
    """Return a Client resource; the password is its File Daemon's."""
    return f"""\
Client {{
  Name = {quote(mover.client)}
  Address = {quote(mover.name)}
  FDPort = {FILE_DAEMON_PORT}
  Catalog = {quote(site.catalog)}
  Password = "that of its bacula-fd.conf"
  Maximum Concurrent Jobs = {concurrent_jobs(site.shards_of_client(mover.client))}
}}
"""


def storage_config(site: Site, storage: str) -> str:
    """Return an Autochanger resource; the password is its Storage Daemon's."""
    return f"""\
Autochanger {{
  Name = {quote(storage)}
  Address = "the Storage Daemon's"
  SDPort = {STORAGE_PORT}
  Password = "that of its bacula-sd.conf"
  Device = {quote(render.CHANGER_NAME)}
  Media Type = {quote(render.MEDIA_TYPE)}
  Autochanger = {quote(storage)}
  Maximum Concurrent Jobs = {concurrent_jobs(site.shards_of_storage(storage))}
}}
"""


def file_daemon_hint(site: Site, mover: SiteMover, plugins: Path) -> str:
    """Return what the FileDaemon resource of a mover needs, as comments."""
    lines = f"""\
FileDaemon {{
  Plugin Directory = {quote(str(plugins))}
  Plugin Options = {quote(render.plugin_options(mover.socket))}
  Maximum Concurrent Jobs = {concurrent_jobs(site.shards_of_client(mover.client))}
}}
"""
    return (
        f"# bacula-fd.conf of {mover.name} (Client {mover.client}): its FileDaemon needs this.\n"
        "# Then `forebay bacula install-plugin` there, and a restart of bacula-fd.\n"
        + as_comment(lines)
    )


def storage_daemon_hint(site: Site, storage: str) -> str:
    """Return an autochanger of files with a drive for each job, as comments."""
    drives = site.shards_of_storage(storage)
    return (
        f"# bacula-sd.conf behind the Storage {storage}: a device for each job that may run at\n"
        f"# once, {drives} for all datasets, of one job each. Its Storage resource needs\n"
        f"# Maximum Concurrent Jobs = {concurrent_jobs(drives)} as well.\n"
        + as_comment(render.changer_config(drives, "/srv/bacula/volumes"))
    )


def concurrent_jobs(shards: int) -> int:
    """Return how many jobs a daemon or resource with so many shards should take."""
    return max(CONCURRENT_JOBS_MIN, 2 * shards + SPARE_JOBS)


def as_comment(text: str) -> str:
    """Return the text so that Bacula does not read it."""
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())

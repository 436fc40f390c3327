"""Compare a Director's resources with what Forebay's jobs need.

Covers: what must change and what could be better, one finding each, with resource, directive and
both values. Does not cover: asking the Director (cluster), the text of its answers (director_view).

Pure: views in, findings out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bacula_bridge.director_view import (
    RUN_AFTER,
    RUN_BEFORE,
    ClientStatus,
    DirectorView,
    JobView,
    Script,
    StorageStatus,
)
from bacula_bridge.render import job_name, plugin_command
from bacula_bridge.render_site import SPARE_JOBS, Site, SiteDataset, hook_commands

_COSTLY = {
    "M": "Signature = MD5",
    "S": "Signature = SHA1",
    "S2": "Signature = SHA256",
    "S3": "Signature = SHA512",
}
_SIGNATURE = re.compile(r"M|S[2-7]?")
_ARGUMENTS = re.compile(r"[CJPV][^:]*:")  # of accurate, base job, strip path and verify
PLUGIN = "forebay"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: change, or the jobs fail, wait or lose something; hint, it could be better."""

    severity: Literal["change", "hint"]
    resource: str
    directive: str
    found: str
    wanted: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.severity}: {self.resource}: {self.directive} is {self.found or 'not there'},"
            f" {'must' if self.severity == 'change' else 'should'} be {self.wanted} ({self.why})"
        )


def compare(site: Site, director: DirectorView) -> list[Finding]:
    """Compare what the Director has loaded."""
    findings = list(_director(site, director))
    for dataset in site.datasets:
        for shard in range(dataset.shards):
            findings += _job(site, dataset, shard, director)
    findings += _shared(site, director)
    return findings


def compare_client(site: Site, client: str, status: ClientStatus) -> Iterator[Finding]:
    """Compare what a File Daemon says."""
    where = f"File Daemon of Client {client}"
    if not status.reached:
        yield _change(
            where,
            "Address, Password",
            "no connection from the Director",
            "one that bacula-dir reaches",
            "see `status client` in bconsole",
        )
        return
    if PLUGIN not in status.plugins:
        found = ", ".join(status.plugins) or "no plugin"
        yield _change(
            where,
            "Plugin Directory",
            found,
            f"a folder with {PLUGIN}-fd.so",
            "run `forebay bacula install-plugin` there and restart bacula-fd",
        )
    if not status.version.startswith("15."):
        yield _change(where, "version", status.version, "15.0", "the plugin is built for it")
    yield from _concurrency(where, status.max_jobs, site.shards_of_client(client), SPARE_JOBS)


def compare_storage(
    site: Site, storage: str, device: str, status: StorageStatus
) -> Iterator[Finding]:
    """Compare what a Storage Daemon says; device is what the Director's resource names."""
    where = f"Storage Daemon of Storage {storage}"
    if not status.reached:
        yield _change(
            where,
            "Address, Password",
            "no connection from the Director",
            "one that bacula-dir reaches",
            "see `status storage` in bconsole",
        )
        return
    largest = max(d.shards for d in site.datasets if d.storage == storage)
    everything = site.shards_of_storage(storage)
    yield from _concurrency(where, status.max_jobs, everything)
    if device in status.changers:
        drives = status.changers[device]
    elif device in status.devices:
        drives = 1
    else:
        yield _change(where, "Device", "", device, "the Director's Storage names it")
        return
    if drives < largest:
        why = "each job of a run writes to a device of its own"
        yield _change(where, f"Devices of {device}", str(drives), f"{largest} or more", why)
    elif drives < everything:
        why = "all datasets can run at once then"
        yield _hint(where, f"Devices of {device}", str(drives), f"{everything} or more", why)


def compare_file(site: Site, jobs: dict[str, dict[str, object]]) -> Iterator[Finding]:
    """Compare the directives of the Director's file that its console does not show."""
    wanted = (
        ("SpoolAttributes", "Spool Attributes", True, "the catalog is written after the data"),
        (
            "PreferMountedVolumes",
            "Prefer Mounted Volumes",
            False,
            "else the jobs of a run queue for one volume",
        ),
        (
            "AllowIncompleteJobs",
            "Allow Incomplete Jobs",
            False,
            "a part of a shard is no backup of it",
        ),
    )
    for name in _names(site):
        for key, directive, value, why in wanted:
            found = bool(jobs[name].get(key, True)) if name in jobs else value
            if found is not value:
                yield _change(f"Job {name}", directive, _yes(found), _yes(value), why)


def _names(site: Site) -> Iterator[str]:
    for dataset in site.datasets:
        yield from (job_name(dataset.name, shard) for shard in range(dataset.shards))


def _director(site: Site, director: DirectorView) -> Iterator[Finding]:
    if not director.version.startswith("15."):
        yield _change("Director", "version", director.version, "15.0", "Forebay needs Bacula 15")
    shards = sum(dataset.shards for dataset in site.datasets)
    yield from _concurrency("Director", director.max_jobs, shards)


def _job(site: Site, dataset: SiteDataset, shard: int, director: DirectorView) -> Iterator[Finding]:
    name = job_name(dataset.name, shard)
    where = f"Job {name}"
    job = director.jobs.get(name)
    if job is None:
        why = "its shard is not saved; see `forebay bacula config`, then reload"
        yield _change(where, "Job", "", f"a Job of shard {shard}/{dataset.shards}", why)
        return
    why = "its shard is not saved else"
    if not job.backup:
        yield _change(where, "Type", "another", "Backup", why)
    if not job.enabled:
        yield _change(where, "Enabled", "no", "yes", why)
    if job.accurate:
        why = "it deletes names that went from one shard to another"
        yield _change(where, "Accurate", "yes", "no", why)
    client = dataset.clients[shard]
    if job.client != client:
        yield _change(where, "Client", job.client, client, "shards are dealt to the movers in turn")
    yield from _file_set(dataset, shard, job)
    yield from _hooks(where, hook_commands(site.program, dataset.movers[shard].hook_options), job)
    for directive, found, wanted in (
        ("Storage", ", ".join(job.storages), dataset.storage),
        ("Pool", job.pool, dataset.pool),
    ):
        if found != wanted:
            yield _change(where, directive, found, wanted, "by Forebay's configuration")
    for directive, found, wanted in (
        ("Messages", job.messages, site.messages),
        ("Schedule", job.schedule, dataset.schedule or ""),
    ):
        if wanted and found != wanted:
            yield _hint(where, directive, found, wanted, "by Forebay's configuration")


def _file_set(dataset: SiteDataset, shard: int, job: JobView) -> Iterator[Finding]:
    where = f"FileSet {job.file_set}"
    wanted = plugin_command(dataset.name, shard, dataset.shards, dataset.hsm)
    if job.plugins != (wanted,):
        why = f"else Job {job.name} saves something else than its shard"
        yield _change(where, "Plugin", ", ".join(job.plugins), wanted, why)
    if job.ignores_changes:
        why = "another number of shards needs a Full, which Bacula makes when the FileSet differs"
        yield _change(where, "Ignore FileSet Changes", "yes", "no", why)
    for options in job.options:
        letters = _ARGUMENTS.sub("", options)
        signature = _SIGNATURE.search(letters)
        if signature and signature[0] in _COSTLY:
            why = "it costs the CPU of a core; the receipts have a hash of their own"
            yield _hint(where, "Options", _COSTLY[signature[0]], "no signature, or Xxh3_128", why)
        if "Z" in letters:
            why = "it costs CPU for each byte, in the job's one thread"
            yield _hint(where, "Options", "Compression", "no compression", why)


def _hooks(where: str, commands: tuple[str, str], job: JobView) -> Iterator[Finding]:
    before, after = commands
    if (script := _script(job, RUN_BEFORE, "hook before")) is None:
        why = "the service is not told when a job begins"
        yield _change(where, "RunScript before", "", before, why)
    else:
        if not (script.on_client and script.fails_job):
            found = f"on client {_yes(script.on_client)}, fails job {_yes(script.fails_job)}"
            why = "a job that cannot run should say so at once"
            yield _change(where, "RunScript before", found, "on client yes, fails job yes", why)
        if script.command != before:
            yield _hint(where, "RunScript before", script.command, before, "as rendered")
    if (script := _script(job, RUN_AFTER, "hook after")) is None:
        why = "the service learns of ends from the catalog only, later"
        yield _change(where, "RunScript after", "", after, why)
    else:
        if not (script.on_client and script.on_failure) or script.fails_job:
            found = (
                f"on client {_yes(script.on_client)}, on failure {_yes(script.on_failure)},"
                f" fails job {_yes(script.fails_job)}"
            )
            wanted = "on client yes, on failure yes, fails job no"
            why = "it is a hint, also of an end that is not good"
            yield _change(where, "RunScript after", found, wanted, why)
        if script.command != after:
            yield _hint(where, "RunScript after", script.command, after, "as rendered")


def _script(job: JobView, when: int, words: str) -> Script | None:
    return next((s for s in job.scripts if s.when == when and f" {words} " in s.command), None)


def _shared(site: Site, director: DirectorView) -> Iterator[Finding]:
    """Compare Clients, Storages, Pools and the restore job, each once."""
    for mover in site.movers:
        where, shards = f"Client {mover.client}", site.shards_of_client(mover.client)
        if mover.client not in director.clients:
            yield _change(where, "Client", "", "the resource of a mover", f"of {mover.name}")
        else:
            yield from _concurrency(where, director.clients[mover.client], shards)
    for storage in site.storages:
        where, shards = f"Storage {storage}", site.shards_of_storage(storage)
        if storage not in director.storages:
            yield _change(where, "Storage", "", "a resource", "jobs write to it")
        else:
            yield from _concurrency(where, director.storages[storage].max_jobs, shards)
    for pool in site.pools:
        if pool not in director.pools:
            yield _change(f"Pool {pool}", "Pool", "", "a resource", "jobs write to it")
        elif director.pools[pool] != 1:
            why = "restores of several shards then read several volumes at once"
            found = str(director.pools[pool])
            yield _hint(f"Pool {pool}", "Maximum Volume Jobs", found, "1", why)
    where, job = f"Job {site.restore_job}", director.jobs.get(site.restore_job)
    if job is None or not job.restore:
        yield _change(where, "Type", "" if job is None else "another", "Restore", "restores use it")
    else:
        yield from _concurrency(where, job.max_jobs, site.shards_max)


def _concurrency(where: str, found: int, shards: int, spare: int = 0) -> Iterator[Finding]:
    directive = "Maximum Concurrent Jobs"
    if found < shards:
        why = f"{shards} jobs of Forebay may run there at once"
        yield _change(where, directive, str(found), f"{shards + spare} or more", why)
    elif found < shards + spare:
        why = "status and cancel calls count as well"
        yield _hint(where, directive, str(found), f"{shards + spare} or more", why)


def _change(resource: str, directive: str, found: str, wanted: str, why: str) -> Finding:
    return Finding("change", resource, directive, found, wanted, why)


def _hint(resource: str, directive: str, found: str, wanted: str, why: str) -> Finding:
    return Finding("hint", resource, directive, found, wanted, why)


def _yes(value: bool) -> str:
    return "yes" if value else "no"

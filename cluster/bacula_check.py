"""Ask a site's Director, its daemons and its catalog whether they are as Forebay needs them.

Covers: the questions, what cannot be asked, the catalog.
Does not cover: the comparison (bacula_bridge.site_check).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge import console, site_check
from bacula_bridge.director_view import (
    QUESTIONS,
    DirectorView,
    parse_client,
    parse_director,
    parse_jobs_file,
    parse_storage,
)
from bacula_bridge.errors import CatalogUnavailable, ConsoleFailed, ConsoleTimeout
from bacula_bridge.render import quote
from bacula_bridge.render_site import Site
from bacula_bridge.site_check import Finding
from cluster.catalogs import catalog_of
from cluster.site_config import BaculaTable
from shards.errors import ForebayError

ASK_TIMEOUT_S = 120.0
DAEMON_TIMEOUT_S = 60.0
"""A daemon that is down keeps the Director waiting for FD Connect Timeout, 3 minutes if unset."""

FILE_TIMEOUT_S = 60.0
CONSOLES_MAX = 8
"""Consoles are jobs to the Director too."""

DIRECTOR_FILE = Path("/etc/bacula/bacula-dir.conf")


class DirectorUnreachable(ForebayError):
    """The console gets no answer: (bconsole, its configuration, reason)."""

    template = (
        "the Director cannot be asked with `{0} -c {1}`: {2}; start bacula-dir, or correct "
        "[bacula] bconsole and bconsole_config"
    )


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and what could not be looked at."""

    findings: list[Finding]
    unseen: list[str]

    @property
    def exit_code(self) -> int:
        if any(finding.severity == "change" for finding in self.findings):
            return 1
        return 3 if self.findings else 0


def check(bacula: BaculaTable, site: Site, director_file: Path | None = None) -> Report:
    """Compare everything; DirectorUnreachable if there is nothing to compare with."""
    director = parse_director(_ask(bacula, QUESTIONS, ASK_TIMEOUT_S))
    findings = [*_catalog(bacula), *site_check.compare(site, director)]
    findings += _daemons(bacula, site, director)
    unseen = []
    jobs = _jobs_of_file(bacula, director_file or DIRECTOR_FILE)
    if isinstance(jobs, str):
        unseen.append(
            "Spool Attributes, Prefer Mounted Volumes and Allow Incomplete Jobs are not shown by"
            f" the console, and {jobs}; run this on the Director's host as a user who may read its"
            " file (--director-config)"
        )
    else:
        findings += site_check.compare_file(site, jobs)
    return Report(findings, unseen)


def _catalog(bacula: BaculaTable) -> list[Finding]:
    try:
        catalog_of(bacula).check()
    except CatalogUnavailable as error:
        why = "what counts is the catalog"
        return [
            Finding("change", f"Catalog {bacula.catalog}", "catalog", str(error), "readable", why)
        ]
    return []


def _daemons(bacula: BaculaTable, site: Site, director: DirectorView) -> list[Finding]:
    """Ask all daemons, several at once: each that is down takes a while to be given up."""
    clients = [mover.client for mover in site.movers if mover.client in director.clients]
    storages = [storage for storage in site.storages if storage in director.storages]
    questions = [f"status client={quote(client)}" for client in clients]
    questions += [f"status storage={quote(storage)}" for storage in storages]
    with ThreadPoolExecutor(CONSOLES_MAX) as pool:
        answers = list(pool.map(lambda question: _ask_daemon(bacula, question), questions))
    findings: list[Finding] = []
    for client, answer in zip(clients, answers, strict=False):
        findings += site_check.compare_client(site, client, parse_client(answer))
    for storage, answer in zip(storages, answers[len(clients) :], strict=True):
        device = director.storages[storage].device
        findings += site_check.compare_storage(site, storage, device, parse_storage(answer))
    return findings


def _ask_daemon(bacula: BaculaTable, question: str) -> str:
    """Return the answer; empty if the Director still tries to connect."""
    try:
        return _ask(bacula, question, DAEMON_TIMEOUT_S)
    except DirectorUnreachable as error:
        if isinstance(error.__cause__, ConsoleTimeout):
            return ""
        raise


def _ask(bacula: BaculaTable, questions: str, timeout_s: float) -> str:
    argv = [str(bacula.bconsole), "-c", str(bacula.bconsole_config)]
    try:
        with tempfile.TemporaryDirectory(prefix="forebay-bconsole-") as home:
            return console.run(argv, questions, home=Path(home), timeout_s=timeout_s)
    except ConsoleFailed as error:
        raise DirectorUnreachable(argv[0], argv[2], error.args[0]) from error
    except ConsoleTimeout as error:
        raise DirectorUnreachable(
            argv[0], argv[2], f"no answer within {timeout_s:.0f} s"
        ) from error


def _jobs_of_file(bacula: BaculaTable, file: Path) -> dict[str, dict[str, object]] | str:
    """Return the Jobs of the Director's file, or why they cannot be had."""
    program = bacula.bconsole.with_name("bdirjson")
    if not program.exists():
        return f"there is no {program} here"
    try:
        done = subprocess.run(
            [str(program), "-c", str(file), "-r", "Job", "-D"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0:
            return parse_jobs_file(done.stdout.decode("utf-8", "surrogateescape"))
    except (OSError, subprocess.TimeoutExpired, ValueError, json.JSONDecodeError):
        pass
    return f"{program} cannot read {file}"

"""What each key of a site's configuration says, for the file that `forebay init` writes.

Covers: a sentence, an example where there is no default, what is accepted.
Does not cover: checking (site_config).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Key:
    """What a key is for; accepts: where the model alone does not say it."""

    what: str
    accepts: str = ""
    example: Any = None


_NAME = "a resource's name, 1 to 127 of letters, digits, blanks and . _ : -"
_MOVER = "letters, digits and . _ -, at most 63"
_SECONDS = "seconds"

TABLES = {
    "coordinator": "Where the run ledger is kept.",
    "ray": "The Ray cluster that the service lives in.",
    "bacula": "The Director, its catalog, and the names of its own resources.",
    "archive": "Copies of manifests and receipts, away from this site's disks.",
    "grafana": "Where `forebay dashboards install` puts the dashboards.",
    "log": "The service's own log.",
    "limits": "How long what waits may wait.",
    "mover": "A data mover: a node of the Ray cluster with a File Daemon. One such table for each.",
    "dataset": "A tree to back up. One such table for each.",
}

ABOUT = {
    "state": Key(
        "The state directory: what was scanned and saved. All movers see it at this path, and it"
        " belongs to the user that Ray runs as."
    ),
    "runtime": Key(
        "A folder for the bridge's socket on each mover. {mover} in it is the mover's name, needed"
        " only where several share a machine."
    ),
    "coordinator.mover": Key(
        "The mover that keeps the ledger; the first one if not given.", _MOVER, "mover-1"
    ),
    "coordinator.ledger": Key("A folder on that mover's own disk, for the ledger."),
    "ray.address": Key(
        "Where the head listens. With several movers the head's name, not 127.0.0.1.", "HOST:PORT"
    ),
    "ray.dashboard": Key(
        "Ray's dashboard, for submissions.", "http://HOST:PORT or https://HOST:PORT"
    ),
    "ray.token_file": Key(
        "A file of mode 0600 with Ray's token: who has it can run code on all nodes of the cluster."
    ),
    "bacula.catalog": Key(
        "The Director's catalog, read only. No password goes here.",
        "postgresql://USER@HOST/DATABASE, or the path of a SQLite catalog",
        "postgresql://forebay@127.0.0.1/bacula",
    ),
    "bacula.catalog_password_file": Key(
        "A file of mode 0600 with the password of the catalog's user.",
        example="/etc/forebay/catalog.password",
    ),
    "bacula.bconsole": Key("The console's program."),
    "bacula.bconsole_config": Key("The console's configuration."),
    "bacula.storage": Key("The Storage resource that jobs write to.", _NAME),
    "bacula.pool": Key("The Pool resource that jobs write to.", _NAME),
    "bacula.messages": Key("The Messages resource of the jobs.", _NAME),
    "bacula.schedule": Key("The Schedule resource of the jobs.", _NAME, "WeeklyCycle"),
    "bacula.restore_job": Key("The Job resource that `forebay restore` uses.", _NAME),
    "bacula.bootstraps": Key(
        "A folder for bootstrap files that the Director's host sees as well; below state if not"
        " given.",
        example="/shared/bootstraps",
    ),
    "archive.url": Key(
        "Where copies go. No password goes here.", "any URL of fsspec", "s3://bucket/forebay"
    ),
    "archive.options_file": Key(
        "A file of mode 0600 with JSON for fsspec: keys, endpoint.",
        example="/etc/forebay/archive.json",
    ),
    "archive.keep_days": Key("How long copies are kept."),
    "grafana.url": Key(
        "Grafana.", "http://HOST:PORT or https://HOST:PORT", "https://grafana.example.org"
    ),
    "grafana.token_file": Key(
        "A file of mode 0600 with a service account's token.", example="/etc/forebay/grafana.token"
    ),
    "grafana.folder": Key("The folder in Grafana.", "1 to 100 characters"),
    "log.format": Key("A line of text for each event, or a line of JSON."),
    "log.level": Key("The least important events that are written."),
    "limits.join_wait_s": Key("A job, for its place in a run.", _SECONDS),
    "limits.run_idle_s": Key("A run, for the jobs that it lacks.", _SECONDS),
    "limits.walker_idle_s": Key("A walker, for another scan.", _SECONDS),
    "mover.name": Key("The value of its node's label forebay-mover in Ray.", _MOVER, "mover-1"),
    "mover.client": Key("Its Client resource in the Director.", _NAME, "mover-1-fd"),
    "dataset.name": Key(
        "Its name, for ever.", "letters, digits and . _ -, at most 64 (not . or ..)", "data"
    ),
    "dataset.root": Key("The directory, at the same path on all movers.", example="/data"),
    "dataset.shards": Key(
        "How many jobs save it side by side. Another number makes Bacula begin with a Full.",
        example=4,
    ),
    "dataset.movers": Key("The movers that read it; all if the list is empty.", "a list of names"),
    "dataset.threads": Key("Threads of a scan; 0: as many as help."),
    "dataset.latency_target_ms": Key(
        "Fewer threads while the metadata server answers slower than this; 0: no target.",
        "milliseconds",
    ),
    "dataset.hsm": Key("What becomes of files that Lustre's HSM has released."),
    "dataset.snapshot": Key("Whether each run reads a snapshot that is taken for it (CephFS)."),
    "dataset.storage": Key("A Storage resource of its own.", _NAME, "forebay-sd"),
    "dataset.pool": Key("A Pool resource of its own.", _NAME, "forebay"),
    "dataset.schedule": Key("A Schedule resource of its own.", _NAME, "WeeklyCycle"),
}


def accepts(key: str, about: FieldInfo) -> str:
    """Return in words what a key accepts."""
    known = ABOUT.get(key)
    words = [known.accepts] if known and known.accepts else []
    parts = list(_parts(about.annotation))
    if not words:
        words += [word for part in parts if (word := _word(part))]
    limits = {
        name: value
        for each in about.metadata
        for name in ("ge", "le")
        if (value := getattr(each, name, None)) is not None
    }
    if "ge" in limits and "le" in limits:
        words.append(f"{limits['ge']:g} to {limits['le']:g}")
    return ", ".join(words) or "text"


def _word(part: Any) -> str:
    if get_origin(part) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(part))
    if isinstance(part, type) and issubclass(part, enum.Enum):
        return " or ".join(f'"{value.value}"' for value in part)
    return {bool: "true or false", Path: "an absolute path without colons"}.get(part, "")


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation's parts, those of Annotated and of unions taken apart."""
    if get_origin(annotation) is Literal or not get_args(annotation):
        yield annotation
        return
    for each in get_args(annotation):
        yield from _parts(each)

"""Which state directory and which archive a command means.

Covers: the site's file, or FOREBAY_HOME and --url; the options file with keys.
Does not cover: other keys of the site's file (site_config).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.archive.errors import ArchiveUrlWrong, NoArchive
from cluster.archive.store import ArchiveStore
from cluster.settings import Settings
from cluster.site_config import SecretUnsafe, SiteConfig, configured_path, load, read_private
from shards.state import StateDirectory

OPTIONS_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class ArchiveSetup:
    """Where runs are, and where copies of them go."""

    state: StateDirectory
    url: str | None = None
    options_file: Path | None = None
    keep_days: int | None = None

    def store(self) -> ArchiveStore:
        """Open the archive; NoArchive if none is set up."""
        if self.url is None:
            raise NoArchive
        return ArchiveStore(self.url, read_options(self.options_file))


def site_setup(site: SiteConfig) -> ArchiveSetup:
    """Return what a site's file says."""
    state = StateDirectory(site.state, site.coordinator.ledger)
    if site.archive is None:
        return ArchiveSetup(state)
    return ArchiveSetup(state, site.archive.url, site.archive.options_file, site.archive.keep_days)


def find_setup(
    config: Path | None = None, url: str | None = None, options_file: Path | None = None
) -> ArchiveSetup:
    """Return what the command line, the site's file or the environment say, in this order.

    FOREBAY_HOME goes before the site's file in its usual place.
    """
    chosen = config or os.environ.get("FOREBAY_CONFIG")
    path = configured_path(config) if chosen or not os.environ.get("FOREBAY_HOME") else None
    found = (
        ArchiveSetup(Settings.from_environment().state) if path is None else site_setup(load(path))
    )
    if url is None:
        if options_file is None:
            return found
        return ArchiveSetup(found.state, found.url, options_file, found.keep_days)
    if urlsplit(url).password is not None:
        where = urlsplit(url)
        shown = where._replace(netloc=where.netloc.rpartition("@")[2]).geturl()
        raise ArchiveUrlWrong(shown, "no password goes into it; use --options-file")
    return ArchiveSetup(found.state, _absolute(url), options_file, found.keep_days)


def read_options(path: Path | None) -> dict[str, Any]:
    """Read fsspec's options, keys among them, from a file that only its owner may read."""
    if path is None:
        return {}
    data = read_private(path, OPTIONS_BYTES_MAX)
    try:
        value = json.loads(data)
    except ValueError:
        value = None  # what json says would repeat a part of the file
    if not isinstance(value, dict):
        raise SecretUnsafe(str(path), "it does not hold one JSON object")
    return value


def _absolute(url: str) -> str:
    return url if "://" in url else f"file://{Path(url).absolute()}"

"""Bacula's configuration for a site, out of Forebay's.

Covers: which Client saves which shard, the files and their names, writing them.
Does not cover: the text (bacula_bridge.render_site), the comparison with a Director (bacula_check).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bacula_bridge import render_site
from bacula_bridge.errors import BadValue
from bacula_bridge.render import quote
from bacula_bridge.render_site import Site, SiteDataset, SiteMover
from cluster.site_config import DEFAULT_PATH, SiteConfig
from shards.errors import ForebayError

PLUGIN_FOLDER = Path("/usr/lib/bacula")
DIRECTOR_FILE = "director.conf"
FILE_MODE = 0o640


class OutputUnwritable(ForebayError):
    """A file cannot be written: (path, reason)."""

    template = "{0} cannot be written: {1}; choose another folder with --out"


def default_program() -> str:
    """The forebay that is running."""
    return str(Path(sys.executable).with_name("forebay"))


def site_of(config: SiteConfig, file: Path, program: str, catalog: str = "MyCatalog") -> Site:
    """Return what of the configuration Bacula is to know; file is where the movers have it."""
    bacula = config.bacula
    named = () if file == DEFAULT_PATH else ("--config", str(file))
    several = "{mover}" in str(config.runtime)  # the bridge's socket depends on the mover then
    movers = {
        mover.name: SiteMover(
            mover.name,
            mover.client,
            str(config.socket_of(mover.name)),
            (*named, *(("--mover", mover.name) if several else ())),
        )
        for mover in config.mover
    }
    datasets = tuple(
        SiteDataset(
            name=dataset.name,
            movers=tuple(movers[config.mover_of(dataset, k).name] for k in range(dataset.shards)),
            storage=dataset.storage or bacula.storage,
            pool=dataset.pool or bacula.pool,
            schedule=dataset.schedule or bacula.schedule,
            hsm=dataset.hsm,
        )
        for dataset in config.dataset
    )
    return Site(
        movers=tuple(movers.values()),
        datasets=datasets,
        messages=bacula.messages,
        restore_job=bacula.restore_job,
        program=program,
        catalog=catalog,
    )


def files(
    site: Site,
    out: Path | None,
    *,
    dataset: str | None = None,
    pools: bool = True,
    clients: bool = False,
) -> dict[str, str]:
    """Return the files by name; of one dataset its file alone.

    With a folder, the Director's file includes those of the datasets.
    """
    texts = {
        f"director-{each.name}.conf": render_site.dataset_config(site, each)
        for each in site.datasets
        if dataset in (None, each.name)
    }
    if dataset is not None:
        return texts
    common = render_site.common_config(site, pools=pools, clients=clients)
    if out is not None:
        common += "\n" + "".join(f"@{_included(out / name)}\n" for name in texts)
    hints = {
        f"file-daemon-{mover.name}.conf": render_site.file_daemon_hint(site, mover, PLUGIN_FOLDER)
        for mover in site.movers
    }
    hints |= {
        f"storage-daemon-{_file_name(storage)}.conf": render_site.storage_daemon_hint(site, storage)
        for storage in site.storages
    }
    return {DIRECTOR_FILE: common, **texts, **hints}


def write(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write the files, each whole or not at all; folder and files are not for everybody."""
    written: list[Path] = []
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for name, text in texts.items():
            path = folder / name
            _replace(path, text)
            written.append(path)
    except OSError as error:
        raise OutputUnwritable(str(path), error.strerror or str(error)) from error
    return written


def in_one(texts: dict[str, str]) -> str:
    """Return all files as one text, each below its name."""
    return "\n".join(f"# ---- {name}\n{text}" for name, text in texts.items())


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchmod(descriptor, FILE_MODE)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _included(path: Path) -> str:
    """Bacula reads an @ line up to its end; it takes quotes round a path with spaces."""
    text = str(path.absolute())
    if any(character in text for character in "\"'\\|"):
        raise BadValue("folder", text, "Bacula cannot include a path with quotes or bars")
    return quote(text)


def _file_name(resource: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in resource)

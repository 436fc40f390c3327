"""The Bacula that commands talk to: a site's, or the private one of this machine.

Covers: its catalog, its Director, where bootstrap files go, giving it back.
Does not cover: bringing the private one up (labs), what is asked of it (restore, verify, backup).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.catalog import Catalog
from bacula_bridge.director import Director
from bacula_bridge.lab import catalog_path
from bacula_bridge.render import RESTORE_JOB
from cluster.labs import borrow_lab, the_lab
from cluster.settings import Settings
from cluster.sites import site_catalog, site_director

BOOTSTRAP_FOLDER_MODE = 0o755  # a site's Director, which runs as another user, reads them


@dataclass(frozen=True, slots=True)
class Bacula:
    """A Director that is up, with its catalog."""

    director: Director
    catalog: Catalog
    restore_job: str
    bootstrap_base: Path  # the Director's host has it at this path too
    is_private: bool

    @contextmanager
    def bootstraps(self) -> Iterator[Path]:
        """Yield a folder for bootstrap files, which the Director may read."""
        self.bootstrap_base.mkdir(exist_ok=True, parents=True)
        with tempfile.TemporaryDirectory(prefix="bsr-", dir=self.bootstrap_base) as folder:
            if not self.is_private:
                Path(folder).chmod(BOOTSTRAP_FOLDER_MODE)
            yield Path(folder)


def the_catalog(settings: Settings, say: Callable[[str], None]) -> Catalog:
    """Return the catalog; nothing is brought up for it."""
    if settings.site is not None:
        return site_catalog(settings.site)
    return Catalog(the_lab(settings, say).catalog)


def known_catalog(settings: Settings) -> Catalog:
    """Return the catalog without even looking for Bacula's programs."""
    if settings.site is not None:
        return site_catalog(settings.site)
    return Catalog(catalog_path(settings.lab))


@contextmanager
def borrow_bacula(settings: Settings, drives: int, say: Callable[[str], None]) -> Iterator[Bacula]:
    """Yield the Bacula to use; the private one is up meanwhile, with so many drives."""
    if (site := settings.site) is not None:
        yield Bacula(
            site_director(site),
            site_catalog(site),
            site.bacula.restore_job,
            site.bacula.bootstraps or site.state / "bootstraps",
            is_private=False,
        )
        return
    borrowed = borrow_lab(settings, drives, say)
    try:
        catalog = Catalog(borrowed.lab.catalog)
        director = Director(borrowed.lab.console, catalog)
        yield Bacula(director, catalog, RESTORE_JOB, settings.home, is_private=True)
    finally:
        borrowed.give_back()

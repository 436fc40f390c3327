"""What a site's configuration comes to: its state directory, its catalog, its Director.

Covers: making the objects that the rest works with from the file.
Does not cover: the file's keys (site_config).
"""

from __future__ import annotations

from pathlib import Path

from bacula_bridge import console
from bacula_bridge.catalog import Catalog
from bacula_bridge.director import Director
from cluster.catalogs import catalog_of
from cluster.site_config import SiteConfig
from shards.state import StateDirectory


def site_state(config: SiteConfig) -> StateDirectory:
    """The state directory that all movers see, with the ledger on the coordinator's own disk."""
    return StateDirectory(config.state, config.coordinator.ledger)


def site_catalog(config: SiteConfig) -> Catalog:
    """The Director's catalog."""
    return catalog_of(config.bacula)


def site_director(config: SiteConfig) -> Director:
    """The Director, asked through bconsole as the configuration says."""

    def ask(commands: str, timeout_s: float) -> str:
        argv = [str(config.bacula.bconsole), "-n", "-c", str(config.bacula.bconsole_config)]
        return console.run(argv, commands, home=Path("/"), timeout_s=timeout_s)

    client = next(m.client for m in config.mover if m.name == config.coordinator_mover)
    return Director(ask, site_catalog(config), client, config.bacula.storage)

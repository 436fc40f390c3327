"""The Director's catalog of a site, from its configuration.

Covers: which kind it is, and its password, read here and nowhere else.
Does not cover: asking it anything (bacula_bridge.catalog), the private lab's catalog (labs).
"""

from __future__ import annotations

from pathlib import Path

from bacula_bridge.catalog import Catalog
from cluster.site_config import BaculaTable, read_secret


def catalog_of(bacula: BaculaTable) -> Catalog:
    """Return the catalog; nothing is connected to yet.

    The password travels with the object: make it in the process that asks, rather than sending it.
    """
    if bacula.catalog.startswith("/"):
        return Catalog(Path(bacula.catalog))
    from bacula_bridge.catalog_postgres import PostgresSource

    file = bacula.catalog_password_file
    return Catalog(PostgresSource(bacula.catalog, read_secret(file) if file else ""))

"""The Director's catalog of a site, from its configuration.

Covers: which kind it is, and its password, read here and nowhere else.
Does not cover: asking it anything (bacula_bridge.catalog), the private lab's catalog (labs).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bacula_bridge.catalog import Catalog
from cluster.site_config import BaculaTable, read_secret


def catalog_of(bacula: BaculaTable) -> Catalog:
    """Return the catalog; nothing is connected to yet. SecretUnsafe if its password is not safe.

    The object has the name of the password's file, not the password: whoever asks reads it, on its
    own node. Ray keeps the arguments of actors, in memory and in its store.
    """
    if bacula.catalog.startswith("/"):
        return Catalog(Path(bacula.catalog))
    from bacula_bridge.catalog_postgres import PostgresSource

    file = bacula.catalog_password_file
    if file is None:
        return Catalog(PostgresSource(bacula.catalog))
    read_secret(file)
    return Catalog(PostgresSource(bacula.catalog, partial(read_secret, file)))

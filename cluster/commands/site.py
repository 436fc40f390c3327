"""What the commands of a site have in common: which file, and a Ray of its own token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards.errors import UsageError

if TYPE_CHECKING:
    from cluster.site_config import SiteConfig

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration of the site; FOREBAY_CONFIG or /etc/forebay/forebay.toml if not given.",
        show_default=False,
    ),
]


class NoConfiguration(UsageError):
    """Nothing says what the site is."""

    template = (
        "there is no {0}: name a configuration with --config, or write one with `forebay init`"
    )


def site_config(config: Path | None) -> SiteConfig:
    """Read the configuration that holds."""
    from cluster.site_config import DEFAULT_PATH, configured_path, load

    path = configured_path(config)
    if path is None:
        raise NoConfiguration(str(DEFAULT_PATH))
    return load(path)

"""Becoming a driver of a site's Ray cluster.

Covers: the token, which Ray reads when it is imported: nothing here imports it before.
Does not cover: what is asked there (service).
"""

from __future__ import annotations

from cluster.ray_token import prepare_site_ray
from cluster.site_config import SiteConfig, read_secret


def connected(site: SiteConfig) -> None:
    """Connect this process; SecretUnsafe and RayUnreachable say why it cannot be."""
    token = site.ray.token_file
    prepare_site_ray(read_secret(token) if token is not None else None)
    from cluster.service import connect

    connect(site)

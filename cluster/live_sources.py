"""Where `forebay top` asks for live streams.

Covers: choosing whom to ask, and asking a site's bridges.
Does not cover: what is asked (live).
"""

from __future__ import annotations

from bacula_bridge.server import StreamProgress
from cluster.live import LiveSource, NoLiveSource
from cluster.settings import Settings
from cluster.site_config import SiteConfig
from cluster.site_ray import connected


class ServiceSource:
    """The bridges of a site's service."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._is_connected = False

    def streams(self) -> list[StreamProgress]:
        """Ask all bridges; RayUnreachable if there is no cluster."""
        if not self._is_connected:
            connected(self._site)
            self._is_connected = True
        from cluster.service import bridges

        return [stream for bridge in bridges(self._site) for stream in bridge.streams]


def live_source(settings: Settings) -> LiveSource:
    """Return whom to ask; a `forebay backup` has a Ray of its own, which nobody else can reach."""
    return ServiceSource(settings.site) if settings.site is not None else NoLiveSource()

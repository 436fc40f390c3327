"""Where `forebay top` asks for live streams.

Covers: choosing whom to ask.
Does not cover: what is asked (live).
"""

from __future__ import annotations

from cluster.live import LiveSource, NoLiveSource
from cluster.settings import Settings


def live_source(settings: Settings) -> LiveSource:
    """Return whom to ask; a `forebay backup` has a Ray of its own, which nobody else can reach."""
    return NoLiveSource()

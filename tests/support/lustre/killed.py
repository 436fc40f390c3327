"""Read changelogs in a process that ends between two steps: STEP, then the settings as JSON.

Covers: ending as by a power failure just before, or just after, the records are cleared.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from filesystems.lustre.changelog import Changelog
from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import LustreSource

ENDED = 77


def main() -> None:
    """Take a position, but never return it."""
    step, text = sys.argv[1:]
    given = json.loads(text)
    consumers = tuple((target, consumer) for target, consumer in given["consumers"])
    settings = LustreChangelogs(os.fsencode(given["root"]), os.fsencode(given["mount"]), consumers)
    clear = Changelog.clear

    def end(changelog: Changelog, cursor: object) -> None:
        if step == "after":
            clear(changelog, cursor)
        os._exit(ENDED)

    Changelog.clear = end
    LustreSource("set", settings, Path(given["folder"]), given["library"]).position()


if __name__ == "__main__":
    main()

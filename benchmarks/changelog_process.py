"""Take changelog records in through the stand-in of Lustre's client library, as JSON says what for.

Covers: a reading as each run makes one (records, log, clearing), and the same without the log.
Does not cover: making the records, what the figures mean (changelog).
"""

import argparse
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from filesystems.lustre.api import Library
from filesystems.lustre.changelog import Changelog
from filesystems.lustre.kernel.native import Places
from filesystems.lustre.log import LOG_NAME, ChangeLog, locked
from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import GATHERED_BYTES_MAX, LustreSource


def main() -> None:
    """Read what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["first", "decode", "whole"])
    parser.add_argument("given", help="root, mount, consumers, folder of the log, library")
    arguments = parser.parse_args()
    given = json.loads(arguments.given)
    ((target, consumer),) = given["consumers"]
    settings = LustreChangelogs(
        os.fsencode(given["root"]), os.fsencode(given["mount"]), ((target, consumer),)
    )
    folder = Path(given["folder"])
    wall, cpu = time.perf_counter(), time.process_time()
    if arguments.what == "decode":
        _decode(folder, Changelog(Library(given["library"]), target, consumer))
    else:
        LustreSource("benchmark", settings, folder, given["library"]).position()
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**figures, **_log_figures(folder)}))


def _decode(folder: Path, changelog: Changelog) -> None:
    """Read on from where the log stands; nothing is kept."""
    path = folder / LOG_NAME
    with closing(sqlite3.connect(path)) as db:
        identity = db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()[0]
    with locked(folder), ChangeLog(folder, identity) as log:
        cursor = log.cursor(changelog.target)
    places = Places()
    for part in changelog.drain(cursor):
        places.add(part.records)
        if places.memory_bytes > GATHERED_BYTES_MAX:
            places = Places()


def _log_figures(folder: Path) -> dict[str, int]:
    with closing(sqlite3.connect(folder / LOG_NAME)) as db:
        places, size = db.execute("SELECT sum(places), sum(length(data)) FROM blocks").fetchone()
    return {"places": places or 0, "log_bytes": size or 0}


if __name__ == "__main__":
    main()

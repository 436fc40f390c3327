"""What a dataset says about its changelogs.

Covers: the settings, checked; the file beside the change log that holds them; trying them out.
Does not cover: asking for them (cluster.watching).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from filesystems.lustre.errors import ConsumerTaken, SettingsWrong

FILE_NAME, FILE_VERSION = "lustre.json", 1

_MDT = re.compile(r"([A-Za-z0-9_.-]{1,8})-MDT[0-9a-f]{4}")
_CONSUMER = re.compile(r"cl[1-9][0-9]*(-[A-Za-z][A-Za-z0-9_-]{0,14})?")


@dataclass(frozen=True, slots=True)
class LustreChangelogs:
    """A tree on a Lustre filesystem, and who reads which changelog for it.

    Each consumer id is for this dataset alone: clearing is by id.
    """

    root: bytes
    mount: bytes  # the mount point that the root is at or below
    consumers: tuple[tuple[str, str], ...]  # ("scratch-MDT0000", "cl1") of every metadata target

    def __post_init__(self) -> None:
        where = os.fsdecode(self.root)
        if not self.consumers:
            raise SettingsWrong(where, "no metadata target is named")
        if not (self.root + b"/").startswith(self.mount.rstrip(b"/") + b"/"):
            raise SettingsWrong(where, f"it is not below {os.fsdecode(self.mount)}")
        targets = [target for target, _ in self.consumers]
        for target, consumer in self.consumers:
            if _MDT.fullmatch(target) is None:
                raise SettingsWrong(where, f"{target!r} is no target such as scratch-MDT0000")
            if _CONSUMER.fullmatch(consumer) is None:
                raise SettingsWrong(where, f"{consumer!r} is no consumer such as cl1 or cl1-backup")
        if len(set(targets)) != len(targets):
            raise SettingsWrong(where, "a metadata target is named twice")
        if len({_name(target) for target in targets}) != 1:
            raise SettingsWrong(where, "the metadata targets are of several filesystems")

    @property
    def filesystem(self) -> str:
        """Return the filesystem's name, as Lustre has it."""
        return _name(self.consumers[0][0])

    def save(self, folder: Path) -> None:
        """Write them into the folder of the dataset's change log."""
        text = json.dumps(
            {
                "version": FILE_VERSION,
                "root": os.fsdecode(self.root),
                "mount": os.fsdecode(self.mount),
                "consumers": dict(self.consumers),
            },
            indent=1,
        )
        partial = folder / f"{FILE_NAME}.partial"
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read them; None if there are none. SettingsWrong if they cannot be understood."""
        path = folder / FILE_NAME
        try:
            found = json.loads(path.read_text())
            if found["version"] != FILE_VERSION:
                raise SettingsWrong(str(path), f"version {found['version']} is not known here")
            return cls(
                os.fsencode(found["root"]),
                os.fsencode(found["mount"]),
                tuple((str(mdt), str(consumer)) for mdt, consumer in found["consumers"].items()),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsWrong(
                str(path), f"{error!r}; set them up again with `forebay watch DIR --changelog`"
            ) from error

    def check_free(self, folder: Path) -> None:
        """Raise if a dataset other than the one of this folder has one of these consumers."""
        mine = {(target, _number(consumer)): consumer for target, consumer in self.consumers}
        others = sorted(folder.parent.iterdir()) if folder.parent.is_dir() else []
        for other in others:
            found = type(self).load(other) if other != folder and other.is_dir() else None
            for target, consumer in found.consumers if found else ():
                if taken := mine.get((target, _number(consumer))):
                    raise ConsumerTaken(taken, target, other.name)

    def identity(self) -> str:
        """Return what a position depends on, in an order that does not matter."""
        return ",".join(f"{target}={consumer}" for target, consumer in sorted(self.consumers))


@contextmanager
def tried(folder: Path) -> Iterator[None]:
    """Make the folder of a change log; if what is done in it fails, remove what is new."""
    before = set(folder.iterdir()) if folder.is_dir() else None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in set(folder.iterdir()) - (before or set()):
            if path.name.startswith("lustre."):
                path.unlink(missing_ok=True)
        if before is None:
            with suppress(OSError):
                folder.rmdir()
        raise


def _number(consumer: str) -> str:
    """Return the id without the name that newer servers add to it."""
    return consumer.partition("-")[0]


def _name(target: str) -> str:
    match = _MDT.fullmatch(target)
    assert match is not None
    return match.group(1)

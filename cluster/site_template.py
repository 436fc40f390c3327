"""The commented configuration that `forebay init` writes.

Covers: every key of the models with its default and what it accepts, what was found filled in,
which places somebody has to decide.
Does not cover: looking (machine), what each key says (site_keys), reading the file (site_config).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.machine import Machine
from cluster.site_config import DatasetTable, MoverTable, SiteConfig
from cluster.site_keys import ABOUT, TABLES, accepts
from filesystems.mounted import MountedTree

SHARDS_LEAST, SHARDS_MOST = 4, 32
CHANGE = "CHANGE THIS: "
WIDTH = 100

_HEAD = """\
Forebay's configuration of this site, the same on all data movers. `forebay config check` checks
it, `forebay config show` shows what holds. Written by `forebay init` on {host}.

A line that begins with #KEY is a key with its default, or with an example where it has none.
{change} marks what only you can know."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A value that init fills in; note: where it comes from; is_open: somebody has to decide."""

    value: Any
    note: str = ""
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """The text, and the keys that are marked in it."""

    text: str
    open_keys: tuple[str, ...]


@dataclass(slots=True)
class _Lines:
    lines: list[str] = field(default_factory=list)
    open_keys: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a comment, a line for each line, broken at blanks."""
        for paragraph in text.split("\n"):
            line = "#"
            for word in paragraph.split(" "):
                if len(line) + 1 + len(word) > WIDTH and line != "#":
                    self.lines.append(line)
                    line = "#"
                line += f" {word}" if word else ""
            self.lines.append(line)

    def table(self, head: str, model: type[BaseModel], key: str, filled: dict[str, Filled]) -> None:
        """Add a table; one that nothing needs and nothing fills is commented as a whole."""
        is_optional = head.startswith("#")
        self.lines += ["", ""]
        self.say(TABLES.get(key, ""))
        self.lines.append(head)
        self.keys(model, f"{key}.", filled, is_optional)

    def keys(
        self, model: type[BaseModel], above: str, filled: dict[str, Filled], is_optional: bool
    ) -> None:
        for name, about in model.model_fields.items():
            if table_of(about) is None:
                self.lines.append("")
                self._key(f"{above}{name}", name, about, filled.get(name), is_optional)

    def _key(
        self, key: str, name: str, about: FieldInfo, filled: Filled | None, is_optional: bool
    ) -> None:
        known = ABOUT.get(key)
        what = f"{known.what} " if known else ""
        if about.is_required():
            default = ""
        elif about.default is None:
            default = "; not set if not given"
        else:
            default = f"; {_toml(about.default)} if not given"
        self.say(f"{what}Accepts {accepts(key, about)}{default}.")
        if filled is not None and not is_optional:
            if filled.note:
                self.say((CHANGE if filled.is_open else "Found: ") + filled.note)
            if filled.is_open:
                self.open_keys.append(key)
            self.lines.append(f"{name} = {_toml(filled.value)}")
            return
        value = about.default
        if (about.is_required() or value is None) and known is not None:
            value = known.example
        self.lines.append(f"#{name} = {_toml(value)}")


def table_of(about: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a key that is a table, or a list of tables; None for a value."""
    for each in _leaves(about.annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _leaves(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType, tuple):
        for each in get_args(annotation):
            yield from _leaves(each)
    else:
        yield annotation


def _toml(value: Any) -> str:
    """One value as TOML, which writes these as JSON does."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return json.dumps(value, ensure_ascii=False)


def template(machine: Machine) -> Template:
    """Return the file for a machine."""
    lines = _Lines()
    lines.say(_HEAD.format(host=machine.host, change=CHANGE.strip()))
    tops = {"state": _state(machine)}
    lines.keys(SiteConfig, "", tops, is_optional=False)
    filled = _filled(machine)
    for key, about in SiteConfig.model_fields.items():
        model = table_of(about)
        if model in (None, MoverTable, DatasetTable):
            continue
        head = f"#[{key}]" if about.default is None and not about.is_required() else f"[{key}]"
        lines.table(head, model, key, filled.get(key, {}))
    lines.table("[[mover]]", MoverTable, "mover", _mover(machine))
    for number, dataset in enumerate(_datasets(machine)):
        if number:
            lines.lines += ["", "[[dataset]]"]
            lines.lines += [f"{name} = {_toml(each.value)}" for name, each in dataset.items()]
        else:
            lines.table("[[dataset]]", DatasetTable, "dataset", dataset)
    return Template("\n".join(lines.lines) + "\n", tuple(lines.open_keys))


def _filled(machine: Machine) -> dict[str, dict[str, Filled]]:
    database = machine.director_address or "127.0.0.1"
    if not re.fullmatch(r"[A-Za-z0-9.-]+", database):
        database = "127.0.0.1"
    bacula = {
        "catalog": Filled(
            f"postgresql://forebay@{database}/bacula",
            "user, host and name of the catalog's database.",
            is_open=True,
        )
    }
    if machine.bconsole is not None:
        bacula["bconsole"] = Filled(str(machine.bconsole), "it is here.")
    if machine.bconsole_config is not None:
        who = f"Director {machine.director} at {machine.director_address}"
        bacula["bconsole_config"] = Filled(
            str(machine.bconsole_config), f"{who if machine.director else 'it'} is in it."
        )
    ray = {}
    if machine.ray_address:
        ray["address"] = Filled(machine.ray_address, "a Ray runs here.")
    return {"bacula": bacula, "ray": ray}


def _state(machine: Machine) -> Filled:
    roots = [root for tree in machine.trees if (root := _root(tree)) is not None]
    if roots:
        note = "a directory on a filesystem that all data movers have."
        return Filled(os.path.join(roots[0], ".forebay"), note, is_open=True)
    note = "as soon as there is a second data mover: both must see it."
    return Filled("/var/lib/forebay/state", note, is_open=True)


def _mover(machine: Machine) -> dict[str, Filled]:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", machine.host.split(".")[0])[:63].strip("-._") or "mover"
    client = Filled(f"{name}-fd", "the name of its Client resource.", is_open=True)
    if re.fullmatch(r"[A-Za-z0-9 ._:-]{1,127}", machine.file_daemon):
        where = f"its File Daemon's name in {machine.file_daemon_config}"
        plugins = f", plugins in {machine.plugin_folder}" if machine.plugin_folder else ""
        client = Filled(machine.file_daemon, f"{where}{plugins}.")
    return {"name": Filled(name, "this machine."), "client": client}


def _datasets(machine: Machine) -> list[dict[str, Filled]]:
    shards = max(SHARDS_LEAST, min(machine.cores, SHARDS_MOST))
    cores = f"{machine.cores} cores here."
    found: list[dict[str, Filled]] = []
    names: set[str] = set()
    for tree in machine.trees:
        root = _root(tree)
        if root is None:
            continue
        name = _unused(re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(root))[:60], names)
        said = tree.trouble or f"{tree.targets} metadata targets"
        found.append(
            {
                "name": Filled(name),
                "root": Filled(root, f"{tree.type_name}, {said}.", is_open=bool(tree.trouble)),
                "shards": Filled(shards, cores),
            }
        )
    if found:
        return found
    what = "the directory to back up; no parallel filesystem is mounted here."
    return [
        {
            "name": Filled("data"),
            "root": Filled("/change/this", what, is_open=True),
            "shards": Filled(shards, cores),
        }
    ]


def _root(tree: MountedTree) -> str | None:
    """A mount point as the configuration takes it; None: it cannot be in one."""
    root = os.fsdecode(tree.root)
    fits = root.isprintable() and ":" not in root and root.isascii()
    return root if fits and root.startswith("/") else None


def _unused(name: str, names: set[str]) -> str:
    name = name or "root"
    number = 2
    chosen = name
    while chosen in names:
        chosen = f"{name}-{number}"
        number += 1
    names.add(chosen)
    return chosen

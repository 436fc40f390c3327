"""`forebay init`: a configuration, and systemd units, for this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.site import ConfigOption, site_config
from shards.errors import ForebayError, UsageError

FILE_MODE = 0o640  # secrets are in files of their own
FOLDER_MODE = 0o755


class ThereAlready(UsageError):
    """What init would write is there."""

    template = "{0} is there already; look at it first, or overwrite it with --force"


class NotWritable(ForebayError):
    """The file cannot be written."""

    template = "{0} cannot be written: {1}"


def init(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write it; - is standard output. /etc/forebay/forebay.toml if not given.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    systemd: Annotated[
        Path | None,
        typer.Option(
            "--systemd",
            metavar="DIR",
            help="Write systemd units for the configuration that there is, and nothing else.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str, typer.Option("--user", help="Of the units: the user that Ray runs as.")
    ] = "forebay",
    config: ConfigOption = None,
) -> None:
    """Write a commented configuration after looking at this machine; or its systemd units.

    The file has every key, with what was found filled in; what only you can know is marked.
    """
    if systemd is not None:
        _write_units(systemd, config, user, force)
        return
    from cluster.machine import look_at_machine
    from cluster.site_config import DEFAULT_PATH
    from cluster.site_template import template

    path = out if out is not None else DEFAULT_PATH
    if str(path) != "-":
        _check_free(path, force)
    made = template(look_at_machine())
    if str(path) == "-":
        print(made.text, end="")
    else:
        write_file(path, made.text, force)
        print(path)
    marked = ", ".join(made.open_keys)
    print(f"forebay: look at {marked}; then `forebay config check`", file=sys.stderr)


def _write_units(folder: Path, config: Path | None, user: str, force: bool) -> None:
    from cluster.site_config import DEFAULT_PATH, configured_path
    from cluster.systemd_units import units

    site = site_config(config)
    made = units(site, configured_path(config) or DEFAULT_PATH, user)
    for name in made:
        _check_free(folder / name, force)
    for name, text in made.items():
        write_file(folder / name, text, force, 0o644)  # systemd's own; no secret is in them
        print(folder / name)
    print("forebay: read the comments in them; then `systemctl daemon-reload`", file=sys.stderr)


def _check_free(path: Path, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise ThereAlready(str(path))


def write_file(path: Path, text: str, force: bool, mode: int = FILE_MODE) -> None:
    """Write a whole file or none; without force never over another one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(draft, flags, mode)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, mode)  # whatever the umask is
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            if force:
                os.replace(draft, path)
            else:
                os.link(draft, path)  # fails if somebody was faster
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ThereAlready(str(path)) from error
    except OSError as error:
        raise NotWritable(str(path), error.strerror or str(error)) from error

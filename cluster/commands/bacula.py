"""`forebay bacula`: Bacula's side of a site."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.site import ConfigOption, site_config
from cluster.output import JsonOption, print_json

if TYPE_CHECKING:
    from cluster.site_config import SiteConfig

app = typer.Typer(help="Bacula's side of a site.", no_args_is_help=True)

ProgramOption = Annotated[
    str | None,
    typer.Option("--program", help="The hooks' forebay on the movers; this one if not said."),
]


@app.command("config")
def config_(
    config: ConfigOption = None,
    dataset: Annotated[str | None, typer.Option(help="This dataset's Jobs alone.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write files into this folder.")] = None,
    program: ProgramOption = None,
    clients: Annotated[
        bool, typer.Option("--clients", help="Client resources, not hints in comments.")
    ] = False,
    pools: Annotated[
        bool, typer.Option("--pools/--no-pools", help="Pool resources as well.")
    ] = True,
    catalog: Annotated[
        str, typer.Option("--catalog-resource", help="The Catalog resource that Clients name.")
    ] = "MyCatalog",
    json: JsonOption = False,
) -> None:
    """Print the Director's resources for the datasets, ready to be included."""
    from cluster import bacula_files

    configured, path = _load(config)
    if dataset is not None:
        configured.dataset_named(dataset)
    site = bacula_files.site_of(configured, path, _program(program), catalog)
    folder = out.absolute() if out else None
    texts = bacula_files.files(site, folder, dataset=dataset, pools=pools, clients=clients)
    written = bacula_files.write(folder, texts) if folder else []
    if json:
        listed = [{"name": name, "text": text} for name, text in texts.items()]
        print_json({"files": [str(path) for path in written] if folder else listed})
    elif folder:
        for path in written:
            print(path)
        if dataset is None:
            first = folder / bacula_files.DIRECTOR_FILE
            print(f'include it in bacula-dir.conf: @"{first}"', file=sys.stderr)
    else:
        print(bacula_files.in_one(texts), end="")


@app.command("check")
def check(
    config: ConfigOption = None,
    program: ProgramOption = None,
    director_config: Annotated[
        Path | None,
        typer.Option("--director-config", help="The Director's file; bacula-dir.conf if not said."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare the live Director with what Forebay needs (1: change something, 3: only hints)."""
    from cluster import bacula_check
    from cluster.bacula_files import site_of

    configured, path = _load(config)
    site = site_of(configured, path, _program(program))
    report = bacula_check.check(configured.bacula, site, director_config)
    if json:
        print_json(
            {
                "findings": [asdict(finding) for finding in report.findings],
                "unseen": report.unseen,
                "exit_code": report.exit_code,
            }
        )
    else:
        for finding in report.findings:
            print(finding)
        for text in report.unseen:
            print(f"not looked at: {text}", file=sys.stderr)
        if not report.findings:
            print("the Director is as Forebay needs it")
    raise typer.Exit(report.exit_code)


@app.command("install-plugin")
def install_plugin(
    to: Annotated[
        Path | None, typer.Option("--to", help="The File Daemon's Plugin Directory.")
    ] = None,
    fd_config: Annotated[
        Path | None, typer.Option("--fd-config", help="The bacula-fd.conf that names it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    json: JsonOption = False,
) -> None:
    """Copy the plugin to where the File Daemon of this machine looks for it."""
    from bacula_bridge import plugin_file
    from cluster.settings import Settings

    folder = to.absolute() if to else plugin_file.plugin_folder(fd_config)
    plugin = Settings.from_environment().plugin()
    changed = plugin_file.install(plugin, folder, dry_run=dry_run)
    target = folder / plugin_file.NAME
    if json:
        print_json({"plugin": str(target), "changed": changed, "dry_run": dry_run})
    elif not changed:
        print(f"{target} is this plugin already")
    else:
        print(f"{target}: {'would be replaced' if dry_run else 'installed'}")
        print("restart bacula-fd: it loads plugins when it starts, no reload does", file=sys.stderr)


def _load(named: Path | None) -> tuple[SiteConfig, Path]:
    from cluster.site_config import configured_path

    config = site_config(named)
    path = configured_path(named)
    assert path is not None
    return config, path


def _program(named: str | None) -> str:
    from bacula_bridge.render_site import hook_commands
    from cluster.bacula_files import default_program

    program = named or default_program()
    hook_commands(program)
    return program

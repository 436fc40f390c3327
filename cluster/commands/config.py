"""`forebay config check|show`: the configuration of a site."""

from __future__ import annotations

import typer

from cluster.commands.site import ConfigOption, site_config
from cluster.output import JsonOption, plural, print_json

app = typer.Typer(help="The configuration of a site.", no_args_is_help=True)


@app.command("check")
def check(config: ConfigOption = None) -> None:
    """Check the file, and the modes of the secrets that it names."""
    from cluster.site_config import read_secret, secret_files

    site = site_config(config)
    for path in secret_files(site):
        read_secret(path)
    print(
        f"good: {plural(len(site.dataset), 'dataset')} on {plural(len(site.mover), 'data mover')}"
    )


@app.command("show")
def show(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show all keys with the values that hold, defaults included; secrets stay in their files."""
    from cluster.site_config import shown

    values = site_config(config).model_dump(mode="json")
    if json:
        print_json(values)
    else:
        print(shown(values), end="")

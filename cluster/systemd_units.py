"""The systemd units of a site, from its configuration.

Covers: their names, and what of them depends on the site.
Does not cover: writing them (commands.init), starting them (systemd).
"""

from __future__ import annotations

import re
import socket
import sys
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from cluster.site_config import SiteConfig
from shards.errors import UsageError

NAMES = (
    "forebay-ray-head.service",
    "forebay-ray-worker@.service",
    "forebay-serve.service",
    "forebay-stop.service",
)
SANDBOX = "sandbox.conf"
_STATE_BASE, _RUNTIME_BASE = Path("/var/lib"), Path("/run")
_LOOPBACK = re.compile(r"127\.[0-9.]+|localhost")


class UnitsUnfit(UsageError):
    """A unit cannot say this: (key, why)."""

    template = "{0} does not fit into a systemd unit: {1}"


def units(config: SiteConfig, path: Path, user: str) -> dict[str, str]:
    """Return the units' texts by file name; path: the configuration's file."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", user):
        raise UnitsUnfit("--user", "a user name is small letters, digits, _ and -")
    if config.ray.token_file is None:
        raise UnitsUnfit("ray.token_file", "the units let nobody in without a token; name a file")
    host, _, port = config.ray.address.rpartition(":")
    head = socket.getfqdn() if _LOOPBACK.fullmatch(host) else host
    dashboard = urlsplit(config.ray.dashboard).hostname or "127.0.0.1"
    ledger = config.coordinator.ledger
    roots = [dataset.root for dataset in config.dataset]
    # The rest of the system is read only; a snapshot is made in the tree.
    writable = [config.state, *(d.root for d in config.dataset if d.snapshot)]
    writable += [] if _below(ledger, _STATE_BASE) else [ledger]
    programs = Path(sys.executable).parent
    words = {
        "USER": user,
        "MOVER": config.coordinator_mover,
        "HEAD": f"{head}:{port}",
        "PORT": port,
        # Movers other than the head's ask it too, if the configuration names it by its network.
        "DASHBOARD_HOST": "127.0.0.1" if _LOOPBACK.fullmatch(dashboard) else dashboard,
        "DASHBOARD_PORT": str(urlsplit(config.ray.dashboard).port or 8265),
        "TOKEN": _path("ray.token_file", config.ray.token_file),
        "STATE": _path("state", config.state),
        "LEDGER": _path("coordinator.ledger", ledger),
        "CONFIG": _path("--config", path),
        "RAY": _path("the folder of Forebay's programs", programs / "ray"),
        "FOREBAY": _path("the folder of Forebay's programs", programs / "forebay"),
        "MOUNTS": " ".join(
            [_path("state", config.state), *(_path("dataset.root", root) for root in roots)]
        ),
        "WRITABLE": " ".join(f"-{_path('state', each)}" for each in writable),
        "RUNTIME": _base("runtime", config.runtime, _RUNTIME_BASE),
        "STATE_NAME": _base("", ledger, _STATE_BASE) if _below(ledger, _STATE_BASE) else "forebay",
    }
    folder = files("cluster") / "systemd"
    sandbox = (folder / SANDBOX).read_text(encoding="utf-8")
    made = {}
    for name in NAMES:
        text = (folder / name).read_text(encoding="utf-8").replace("@SANDBOX@\n", sandbox)
        made[name] = re.sub(r"@([A-Z_]+)@", lambda found: words[found[1]], text)
    return made


def _below(path: Path, base: Path) -> bool:
    return path.is_relative_to(base) and path != base


def _base(key: str, path: Path, base: Path) -> str:
    if not _below(path, base):
        raise UnitsUnfit(key, f"{path} is not below {base}")
    return _path(key, path.relative_to(base))


def _path(key: str, path: Path) -> str:
    """A path as it stands in lists of them and in commands: nothing in it may need quoting."""
    text = str(path)
    if not re.fullmatch(r"[A-Za-z0-9/._+,=@-]+", text):
        raise UnitsUnfit(
            key, f"{text} has other characters than letters, digits and / . _ + , = @ -"
        )
    return text

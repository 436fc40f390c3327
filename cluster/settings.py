"""Where things are on this machine.

Covers: the data folder (FOREBAY_HOME), the runtime folder with its short socket paths, the plugin.
Does not cover: a site's configuration file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cluster.site_config import SiteConfig, configured_path, load
from cluster.sites import site_state
from shards.errors import ForebayError
from shards.state import StateDirectory


class RuntimeFolderUnsafe(ForebayError):
    """Somebody else owns the folder that sockets would go to."""

    template = "{0} is not a folder of yours with mode 0700; remove it or set XDG_RUNTIME_DIR"


class PluginMissing(ForebayError):
    """The File Daemon plugin has not been built."""

    template = "{0} is missing; build it with `make plugin` (needs a C compiler and make)"


def default_dataset_name(root: Path) -> str:
    """Return the name of a dataset that was given none: its directory's own."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", root.name)[:64] or "root"


@dataclass(frozen=True, slots=True)
class Settings:
    """Folders of one installation; of a site's, if there is a configuration."""

    home: Path
    site: SiteConfig | None = None

    @staticmethod
    def from_environment() -> Settings:
        """FOREBAY_HOME, else the site's configuration, else the user's data folder."""
        if named := os.environ.get("FOREBAY_HOME"):
            return Settings(Path(named).absolute())
        if configured := configured_path():
            return Settings.of_site(load(configured))
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return Settings(Path(data) / "forebay")

    @staticmethod
    def of_site(site: SiteConfig) -> Settings:
        """A site's: what is this node's own goes beside the ledger."""
        return Settings(site.coordinator.ledger, site)

    @property
    def state(self) -> StateDirectory:
        if self.site is not None:
            return site_state(self.site)
        return StateDirectory(self.home / "state")

    @property
    def lab(self) -> Path:
        return self.home / "lab"

    @property
    def lab_kept(self) -> Path:
        """Exists while `lab up` wants the lab up beyond the commands that use it."""
        return self.home / "lab.kept"

    @property
    def runtime(self) -> Path:
        """A short path, the same for the same home: Unix sockets have room for 107 bytes."""
        name = hashlib.sha256(os.fsencode(self.home.absolute())).hexdigest()[:8]
        base = os.environ.get("XDG_RUNTIME_DIR")
        if base and os.path.isdir(base):
            return Path(base) / f"forebay-{name}"
        return Path("/tmp") / f"forebay-{os.geteuid()}-{name}"

    @property
    def socket(self) -> Path:
        return self.runtime / "bridge.sock"

    def make_runtime(self) -> Path:
        """Make the runtime folder; refuse one that somebody else could have prepared."""
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(self.runtime)
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.geteuid()
            or status.st_mode & 0o077
        ):
            raise RuntimeFolderUnsafe(str(self.runtime))
        return self.runtime

    def plugin(self) -> Path:
        """The built File Daemon plugin."""
        import bacula_bridge

        path = Path(bacula_bridge.__file__).parent / "plugin" / "forebay-fd.so"
        if not path.is_file():
            raise PluginMissing(str(path))
        return path

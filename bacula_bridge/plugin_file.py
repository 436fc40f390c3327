"""The plugin as a file: which interface it has, where a File Daemon looks for it, putting it there.

Covers: loading it as Bacula's loader does, the Plugin Directory of a bacula-fd.conf, a replacement
that a running File Daemon survives.
Does not cover: where the built plugin is (cluster.settings), restarting the File Daemon.
"""

from __future__ import annotations

import ctypes
import filecmp
import os
import re
import shutil
from pathlib import Path

from shards.errors import ForebayError

INTERFACE_VERSION = 23
"""Of Bacula 15.0; its loader refuses others."""

NAME = "forebay-fd.so"
MODE = 0o755
_FUNCTIONS_BYTES = 168
_MAGIC = b"*FDPluginData*"
FD_FILES = (
    Path("/etc/bacula/bacula-fd.conf"),
    Path("/opt/bacula/etc/bacula-fd.conf"),
    Path("/usr/local/etc/bacula-fd.conf"),
)


class PluginForeign(ForebayError):
    """A file is not the plugin that this File Daemon takes: (file, reason)."""

    template = "{0} is no plugin for Bacula 15.0 (interface {2}): {1}; build it with `make plugin`"


class PluginFolderUnknown(ForebayError):
    """Nothing says where the plugin goes: (file, reason)."""

    template = "{0}: {1}; name the File Daemon's Plugin Directory with --to"


class PluginFolderUnusable(ForebayError):
    """The plugin cannot be put there: (folder, reason)."""

    template = "the plugin cannot be put into {0}: {1}"


class _Info(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint32), ("version", ctypes.c_uint32))


class _PluginInfo(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint32), ("version", ctypes.c_uint32), ("magic", ctypes.c_char_p))


class _Functions(ctypes.Structure):
    """What the File Daemon offers; at load the plugin looks at its size, and no further."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("pointers", ctypes.c_void_p * 20),
    )


def check_interface(plugin: Path) -> None:
    """Raise PluginForeign unless the File Daemon of Bacula 15.0 would load it."""
    assert ctypes.sizeof(_Functions) == _FUNCTIONS_BYTES
    info = _Info(ctypes.sizeof(_Info), INTERFACE_VERSION)
    functions = _Functions(_FUNCTIONS_BYTES, INTERFACE_VERSION)
    found, offered = ctypes.POINTER(_PluginInfo)(), ctypes.c_void_p()
    try:
        # Like the loader: it must be of this machine, and lack nothing.
        library = ctypes.CDLL(str(plugin.absolute()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        load = library.loadPlugin
    except (OSError, AttributeError) as error:
        raise _foreign(plugin, str(error)) from error
    code = load(
        ctypes.byref(info), ctypes.byref(functions), ctypes.byref(found), ctypes.byref(offered)
    )
    if code != 0 or not found:
        raise _foreign(plugin, "it refuses this interface")
    if found.contents.magic != _MAGIC or found.contents.version != INTERFACE_VERSION:
        raise _foreign(plugin, f"it has interface {found.contents.version}")


def plugin_folder(file: Path | None = None) -> Path:
    """Return the Plugin Directory that a bacula-fd.conf names; None: the one of this machine."""
    candidates = (file,) if file else FD_FILES
    path = next((each for each in candidates if each.exists()), None)
    if path is None:
        raise PluginFolderUnknown(" and ".join(map(str, candidates)), "no such file")
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise PluginFolderUnknown(str(path), error.strerror or str(error)) from error
    folder = directive(text, "PluginDirectory")
    if folder is None:
        raise PluginFolderUnknown(str(path), "it has no Plugin Directory")
    return Path(folder)


def directive(text: str, name: str) -> str | None:
    """Return a directive's value; in names Bacula ignores case and spaces."""
    for match in re.finditer(
        r"(?:^|[{;])[ \t]*([A-Za-z][A-Za-z \t]*?)[ \t]*=[ \t]*(\"(?:[^\"\\]|\\.)*\"|[^;#}\n]*)",
        re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE),
        re.MULTILINE,
    ):
        if re.sub(r"[ \t]", "", match[1]).lower() == name.lower():
            value = match[2].strip()
            return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return None


def install(plugin: Path, folder: Path, *, dry_run: bool = False) -> bool:
    """Put the plugin into a folder; False if it is there already.

    By rename: a running File Daemon keeps the old one, and crashes if it is overwritten.
    """
    check_interface(plugin)
    if not folder.is_dir():
        raise PluginFolderUnusable(str(folder), "there is no such folder; make it, owned by root")
    target = folder / NAME
    draft = folder / f".{NAME}.{os.getpid()}"
    try:
        if target.is_file() and filecmp.cmp(plugin, target, shallow=False):
            return False
        if dry_run:
            return True
        shutil.copyfile(plugin, draft)
        draft.chmod(MODE)
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        draft.rename(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise PluginFolderUnusable(str(folder), error.strerror or str(error)) from error
    return True


def _foreign(plugin: Path, reason: str) -> PluginForeign:
    return PluginForeign(str(plugin), reason, INTERFACE_VERSION)

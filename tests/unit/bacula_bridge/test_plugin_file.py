"""The plugin as a file."""

import subprocess
from pathlib import Path

import pytest

from bacula_bridge import plugin_file
from bacula_bridge.lab import PLUGIN_SOURCE
from bacula_bridge.plugin_file import (
    PluginFolderUnknown,
    PluginFolderUnusable,
    PluginForeign,
    directive,
)

SOURCE = """
struct info {{ unsigned size, version; const char *magic; }};
struct info the_info = {{56, {version}, "{magic}"}};
int loadPlugin(void *a, void *b, struct info **out, void **functions) {{
  *out = &the_info;
  return {code};
}}
"""


def build(folder: Path, code: int = 0, version: int = 23, magic: str = "*FDPluginData*") -> Path:
    source, built = folder / "plugin.c", folder / "plugin.so"
    source.write_text(SOURCE.format(code=code, version=version, magic=magic))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True, timeout=60)
    return built


def test_the_built_plugin_and_another_of_the_interface_are_taken(tmp_path):
    plugin_file.check_interface(PLUGIN_SOURCE)
    plugin_file.check_interface(build(tmp_path))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"version": 22}, "it has interface 22"),
        ({"code": 2}, "refuses this interface"),
        ({"magic": "*SDPluginData*"}, "interface"),
    ],
)
def test_a_plugin_of_another_interface_is_refused(tmp_path, wrong, why):
    folder = tmp_path / "plugins"
    folder.mkdir()
    with pytest.raises(PluginForeign, match=why):
        plugin_file.install(build(tmp_path, **wrong), folder)
    assert not list(folder.iterdir())


def test_what_is_no_shared_object_is_refused(tmp_path):
    garbage = tmp_path / "garbage.so"
    garbage.write_bytes(b"not one")
    with pytest.raises(PluginForeign):
        plugin_file.check_interface(garbage)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("Plugin Directory = /usr/lib/bacula", "/usr/lib/bacula"),
        ('  plugindirectory="/a b/c;d" # why', "/a b/c;d"),
        (r'PluginDirectory = "/a \"b\""', '/a "b"'),
        ("FileDaemon { Name = x; Plugin Directory = /p; FDport = 1 }", "/p"),
        ("# Plugin Directory = /wrong\nPlugin Directory = /right # really", "/right"),
        ("Plugin Options = /p\n", None),
    ],
)
def test_the_folder_is_found_as_bacula_reads_it(line, value):
    assert directive(line, "PluginDirectory") == value


def test_a_folder_that_cannot_be_found_or_written_is_told(tmp_path):
    with pytest.raises(PluginFolderUnknown, match="no such file"):
        plugin_file.plugin_folder(tmp_path / "none.conf")
    (tmp_path / "fd.conf").write_text("FileDaemon { Name = x }\n")
    with pytest.raises(PluginFolderUnknown, match="no Plugin Directory"):
        plugin_file.plugin_folder(tmp_path / "fd.conf")
    with pytest.raises(PluginFolderUnusable, match="no such folder"):
        plugin_file.install(PLUGIN_SOURCE, tmp_path / "none")

"""forebay(1): it has every command and option, and man takes it.

Does not cover: what the commands do.
"""

import re
import shutil
import stat
import subprocess
from importlib.resources import files

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cluster.cli import app
from cluster.manual import _text, commands, manual

COMMAND = get_command(app)
PAGE = manual(COMMAND)


def sections():
    """The page's sections by command, as plain words."""
    plain = PAGE.replace("\\-", "-").replace("\\&", "").replace("\\(ga", "`")
    plain = re.sub(r"\\f[BIR]", "", plain).split(".SH EXIT STATUS")[0]
    parts = re.split(r'^\.SS "(.*)"$', plain, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_is_there_with_its_options_and_their_help():
    found = sections()
    names = [name for name, _ in commands(COMMAND)]
    assert len(names) > 20
    for words, command in commands(COMMAND):
        (text,) = [t for head, t in found.items() if re.fullmatch(rf"{words}( [\[A-Z].*)?", head)]
        assert " ".join((command.help or "").split("\n\n")[0].split()) in text
        for option in command.params:
            for name in option.opts if option.param_type_name == "option" else ():
                assert re.search(rf"(^|, ){name}\b", text, re.MULTILINE), (words, name)
            assert " ".join((getattr(option, "help", "") or "").split()) in text


def test_every_command_of_the_source_is_in_the_tree():
    """A module of commands that nobody registered would be in no page."""
    modules = {path.name for path in (files("cluster") / "commands").iterdir()}
    known = {words.split()[1] for words, _ in commands(COMMAND)}
    helpers = {"__init__", "pacing", "site", "service"}  # service: serve, stop, status
    assert {name.removesuffix(".py") for name in modules if name.endswith(".py")} - helpers <= known


def test_the_hook_is_there_although_it_is_no_command_of_the_tree():
    assert "forebay hook before|after --jobid N" in sections()["forebay hook"]


@pytest.mark.parametrize("program", ["groff", "man"])
def test_man_takes_it_without_a_warning(program, tmp_path):
    if shutil.which(program) is None:
        pytest.skip(f"needs {program} (Debian: apt install man-db)")
    path = tmp_path / "forebay.1"
    path.write_text(PAGE)
    argv = {
        "groff": ["groff", "-man", "-Tutf8", "-ww", str(path)],
        "man": ["man", "--warnings=w", "-E", "UTF-8", "-l", str(path)],
    }
    done = subprocess.run(argv[program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "EXIT STATUS" in re.sub(r".\x08", "", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))


@pytest.mark.parametrize("text", [".x", "'x", "a\\fB-b", '"'])
def test_no_text_is_a_request(text, tmp_path):
    assert not _text(text).startswith((".", "'"))
    assert "\\f" not in _text(text)


def test_it_is_printed_or_installed(tmp_path):
    done = CliRunner().invoke(app, ["man"])
    assert done.stdout == PAGE
    folder = tmp_path / "man1"
    for _ in range(2):  # the next version overwrites it
        done = CliRunner().invoke(app, ["man", str(folder)])
        assert (done.exit_code, done.stdout) == (0, f"{folder}/forebay.1\n")
    assert stat.S_IMODE((folder / "forebay.1").stat().st_mode) == 0o644
    assert (folder / "forebay.1").read_text() == PAGE

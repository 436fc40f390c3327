"""The manual page forebay(1), from the command line itself.

Covers: every command and option with its help, as roff for man(7).
Does not cover: printing or writing it (commands.man).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from bacula_bridge.hook import USAGE as HOOK_USAGE

_KINDS = {int: "N", float: "N", Path: "PATH"}

# Exit codes and files are the same for all commands, and stand in no help text.
_TAIL = """\
.SH EXIT STATUS
.TP
.B 0
complete
.TP
.B 1
failed; one sentence on standard error says why and what to do
.TP
.B 2
usage, or a configuration that cannot be
.TP
.B 3
complete with warnings: files that were not saved as they are, each listed with its error
.TP
.B 130
interrupted
.SH FILES
.TP
.I /etc/forebay/forebay.toml
the configuration of a site, the same on all data movers
.TP
.I /etc/forebay/ray.token
Ray's token, mode 0600: who has it can run code on all nodes of the cluster
.TP
.I /run/forebay/bridge.sock
where the File Daemon's plugin finds its entries
.TP
.I /var/lib/forebay
the run ledger, on one data mover
.SH ENVIRONMENT
.TP
.B FOREBAY_CONFIG
the configuration's file, instead of the usual one
.TP
.B FOREBAY_HOME
the folder of a private Bacula and its backups, instead of a site
.SH SEE ALSO
.BR bconsole (8),
.BR bacula\\-fd (8)
"""


def manual(command: Any) -> str:
    """Return the page; command: the click command that the program runs."""
    lines = [
        f'.TH FOREBAY 1 "" "Forebay {_text(version("forebay"))}" "User Commands"',
        ".SH NAME",
        "forebay \\- parallel backups of huge filesystems through concurrent Bacula jobs",
        ".SH SYNOPSIS",
        ".B forebay",
        ".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        ".PP",
        "Progress goes to standard error, data to standard output.",
        ".SH COMMANDS",
    ]
    for words, each in commands(command):
        lines += list(_command(words, each))
    # It is no command of the tree: it must be there at once (main).
    lines += ['.SS "forebay hook"', "What Bacula runs on a data mover around each job."]
    lines += [".PP", _text(HOOK_USAGE.removeprefix("usage: "))]
    return "\n".join(lines) + "\n" + _TAIL


def commands(command: Any, words: tuple[str, ...] = ("forebay",)) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its words, by name."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(words), command
        return
    for name, each in sorted(inner.items()):
        if not each.hidden:
            yield from commands(each, (*words, name))


def _command(words: str, command: Any) -> Iterator[str]:
    options = [each for each in command.params if each.param_type_name == "option"]
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    yield f'.SS "{_text(words)}{"".join(f" {_text(_named(each))}" for each in arguments)}"'
    yield from _paragraphs(command.help or "")
    for each in arguments:
        if help_text := getattr(each, "help", None):
            yield from (".TP", f".I {_text(_name(each))}", _text(help_text))
    for each in options:
        if each.hidden:
            continue
        yield ".TP"
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in [*each.opts, *each.secondary_opts])
        yield names + (f" \\fI{_text(_value(each))}\\fR" if not each.is_flag else "")
        yield _text(" ".join((each.help or "").split())) or "\\&"
        default = each.default
        if getattr(each, "show_default", False) and not each.is_flag and default not in (None, ""):
            yield _text(f"(default: {getattr(default, 'value', default)})")


def _named(argument: Any) -> str:
    name = f"{_name(argument)} ..." if argument.nargs == -1 else _name(argument)
    return name if argument.required else f"[{name}]"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _value(option: Any) -> str:
    if option.metavar:
        return str(option.metavar)
    # Typer has its own click from 0.26 on, whose options know their Python type.
    kind = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    choices = getattr(getattr(option, "type", None), "choices", None) or get_args(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        choices = list(kind)
    if choices:
        return "|".join(str(getattr(each, "value", each)) for each in choices)
    return _KINDS.get(kind, "TEXT")


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Text as roff takes it: no request at the start of a line, dashes that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", "'")) else text

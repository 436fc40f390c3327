"""What README.md and docs say of the command line is what there is.

Covers: README's tables against the commands, every `forebay ...` that a page quotes: its command,
its options; the versions that upgrade.md names.
Does not cover: what the commands do; arguments; pages that are run (tests/system).
"""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from bacula_bridge.hook import USAGE as HOOK_USAGE
from bacula_bridge.protocol import PROTOCOL_VERSION
from cluster.cli import app
from cluster.manual import commands
from shards.ledger_schema import LEDGER_VERSION

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
NEXT = re.compile(r"\s(?:#|>|&&|\|\|)\s.*")  # what a line of a shell goes on with
COMMANDS = {
    words.removeprefix("forebay "): {
        name for each in command.params for name in (*each.opts, *each.secondary_opts)
    }
    for words, command in commands(get_command(app))
} | {"hook": set(OPTION.findall(HOOK_USAGE))}
GROUPS = {words.split()[0] for words in COMMANDS if " " in words}


def named(text):
    """Return the commands that a quotation names: `lab up|down` are two."""
    first, _, rest = NEXT.sub("", text.replace("\\|", "|")).removeprefix("forebay ").partition(" ")
    if first not in GROUPS:
        return {first}
    return {f"{first} {word}" for word in re.findall(r"(?:^|\|)([a-z][a-z-]*)", rest)}


def unknown(text):
    """Return the commands and options of a quotation that are not there."""
    found = named(text)
    options = set().union({"--help"}, *(COMMANDS.get(words, ()) for words in found))
    return (found - set(COMMANDS)) | (set(OPTION.findall(NEXT.sub("", text))) - options)


def in_tables():
    """Yield the quotations in the first cells of README's tables of commands."""
    for cell in re.findall(r"^\| (`forebay .*?`) \| ", PAGES[0].read_text(), re.M):
        yield from re.findall(r"`([^`]*)`", cell)


def quotations(page):
    text = page.read_text()
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [each for each in (*lines, *spans) if each.startswith("forebay ")]


def test_readmes_tables_have_every_command_and_no_other():
    assert set().union(*map(named, in_tables())) == set(COMMANDS)
    assert not set().union(*map(unknown, in_tables()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_quotes_are_there_with_their_options(page):
    wrong = {text: unknown(text) for text in quotations(page)}
    assert not {text: words for text, words in wrong.items() if words}


def test_the_upgrade_notes_name_the_versions_that_hold():
    text = (ROOT / "docs/operate/upgrade.md").read_text()
    assert f"stream-protocol.md), now {PROTOCOL_VERSION} |" in text
    assert f"ledger.md) | one version, now {LEDGER_VERSION}." in text

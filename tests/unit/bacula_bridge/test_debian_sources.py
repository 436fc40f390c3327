"""Reading a machine's apt sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from bacula_bridge.debian import (
    Source,
    choose_mirror,
    last_words,
    machine_mirror,
    parse_deb822,
    parse_one_line,
)
from bacula_bridge.errors import NoMirror

PARAGRAPHS = """\
# a comment
Types: deb deb-src
# another one, within
URIs: http://one.example/debian/
  http://two.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main
"""


def test_paragraphs_with_comments_folded_lines_and_disabled_entries_are_read():
    found = [(source.uri, source.suite) for source in parse_deb822(PARAGRAPHS)]
    assert found == [
        ("http://one.example/debian/", "bookworm"),
        ("http://one.example/debian/", "bookworm-updates"),
        ("http://two.example/debian", "bookworm"),
        ("http://two.example/debian", "bookworm-updates"),
    ]


def test_the_classic_format_is_read_with_options_and_comments():
    text = (
        "# deb http://no.example/debian trixie main\n"
        "deb-src http://src.example/debian trixie main\n"
        "deb [ arch=amd64 signed-by=/k/x.gpg ] https://a.example/debian trixie main non-free # x\n"
        "deb cdrom:[Debian]/ trixie main\n"
        "deb http://b.example/debian sid main\n"
    )
    sources = list(parse_one_line(text))
    assert sources[0] == Source(
        "https://a.example/debian", "trixie", ("main", "non-free"), "/k/x.gpg"
    )
    assert choose_mirror(sources) == "https://a.example/debian"


def test_other_vendors_and_the_security_archive_are_not_taken_for_debians():
    main = ("main",)
    debian = Source("http://d.example/debian", "bookworm", main)
    others = [
        Source("http://s.example/debian-security", "bookworm-security", main),
        Source("https://v.example/apt", "bookworm", main),
        Source("https://w.example/linux/debian", "bookworm", ("stable",)),
        Source("http://u.example/ubuntu", "noble", main),
    ]
    assert choose_mirror([*others, debian]) == "http://d.example/debian"
    assert choose_mirror(others) == "https://v.example/apt"
    assert choose_mirror([others[0], others[2], others[3]]) is None


@pytest.mark.parametrize(
    "uri", ["mirror+file:///etc/apt/mirrors/debian.list", "file:/srv/mirror/debian"]
)
def test_mirror_lists_and_local_mirrors_are_passed_on_to_apt(uri: str):
    assert choose_mirror([Source(uri, "bookworm", ("main",))]) == uri


def test_a_machine_without_a_debian_archive_is_told_what_to_set(tmp_path: Path):
    with pytest.raises(NoMirror, match="FOREBAY_DEBIAN_MIRROR"):
        machine_mirror(tmp_path)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "x.list").write_text("deb http://x.example/debian sid main\n")
    (tmp_path / "sources.list.d" / "a.sources.disabled").write_text(PARAGRAPHS)
    assert machine_mirror(tmp_path) == "http://x.example/debian"


def test_the_line_that_tells_why_apt_failed_is_found():
    output = (
        "Ign:1 http://x trixie InRelease\n"
        "Err:1 http://x trixie Release\n  404 Not Found\n"
        "Reading package lists...\n"
        "E: The repository 'http://x trixie Release' does not have a Release file.\n"
    )
    assert last_words("E: Failed to fetch http://x  404\nE: Some failed\n").endswith("404")
    assert last_words(output).startswith("Err:1")
    assert last_words("") == "apt-get said nothing"

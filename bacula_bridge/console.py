"""Talk to a Director through bconsole, as text.

Covers: one bounded bconsole call, the JSON answers of `.api 2`, what a refused reload says.
Does not cover: which commands make sense (director), where bconsole comes from (programs).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from bacula_bridge.errors import ConsoleFailed, ConsoleTimeout

TEST_TIMEOUT_S = 60.0
WORDS_MAX = 500
_REFUSED = ("Please correct", "Resetting previous configuration", "ERROR", "Reload failed")


def run(argv: list[str], commands: str, *, home: Path, timeout_s: float) -> str:
    """Pass the commands, then `quit`, and return what bconsole printed, its greeting included.

    home is where bconsole looks for its start-up and history files: not the user's.
    """
    try:
        done = subprocess.run(
            argv,
            input=(commands.rstrip("\n") + "\nquit\n").encode("utf-8", "surrogateescape"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(home), "LC_ALL": "C"},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConsoleTimeout(timeout_s, last_text(_text(error.stdout or b""))) from None
    except OSError as error:
        raise ConsoleFailed(error.strerror or str(error)) from error
    text = _text(done.stdout)
    if "1000 OK" not in text:
        raise ConsoleFailed(last_text(text))
    return text


def json_objects(answer: str) -> list[dict[str, Any]]:
    """Return the JSON objects among the lines of an answer; other lines are echo and chatter."""
    found = []
    for line in answer.splitlines():
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
    return found


def json_lists(answer: str, key: str) -> list[dict[str, Any]]:
    """Return the rows of all lists of that name, such as `running`, in an answer."""
    rows: list[dict[str, Any]] = []
    for value in json_objects(answer):
        items = value.get(key)
        if isinstance(items, list):
            rows += [item for item in items if isinstance(item, dict)]
    return rows


def reload_refusal(answer: str) -> str:
    """Return the Director's words if a `reload` was refused, else an empty string."""
    lines = [line for line in answer.splitlines() if any(word in line for word in _REFUSED)]
    return " ".join(lines)[:WORDS_MAX]


def check_configuration(argv: list[str]) -> str:
    """Run a daemon's own check of its configuration; return its complaint, empty if it has none."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TEST_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the check of the configuration did not end within {TEST_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return ""
    text = _text(done.stdout)
    match = re.search(r"Config error: (.*?)(?:\n\s*\n|\Z)", text, re.DOTALL)
    return " ".join((match.group(1) if match else text).split())[:WORDS_MAX]


def last_text(text: str) -> str:
    """Return the last line that says something, for an error's sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if line != "quit"]
    return lines[-1][-WORDS_MAX:] if lines else "nothing"


def last_line(log: Path) -> str:
    """Return the last line of a daemon's log; empty if it wrote nothing."""
    try:
        text = log.read_bytes()[-4096:].decode("utf-8", errors="replace")
    except OSError:
        return ""
    return last_text(text) if text.strip() else ""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")

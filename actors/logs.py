"""Logs: one line an event that an operator can act on, as text or as JSON.

Covers: setting the loggers of `forebay` up in a process, both formats, the fields of an event.
Does not cover: the events (whoever has them logs to logging.getLogger("forebay.PART")), rotation:
what supervises the process takes its lines.

A sentence is the same as in the Bacula job log or on stderr. Fields are given as
extra={"run": 7, "dataset": "home", "shard": 2, "jobid": 4711}; others are left out.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from shards.errors import UsageError

ROOT = "forebay"
TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
LEVELS = ("debug", "info", "warning", "error")
FIELDS = ("run", "dataset", "shard", "jobid")
LINE_CHARACTERS_MAX = 4_000  # of a sentence; journals cut lines, and names may be long


@dataclass(frozen=True, slots=True)
class LogSpec:
    """How an actor logs."""

    format: str = TEXT
    level: str = "info"


class LogFormatUnknown(UsageError):
    """There are two formats."""

    template = "log format {0} is unknown; use one of: {1}"


class LogLevelUnknown(UsageError):
    """There are four levels."""

    template = "log level {0} is unknown; use one of: {1}"


class TextFormatter(logging.Formatter):
    """For people: time, level, part, sentence, fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_printable(value)}" for name, value in _fields(record).items())
        part = record.name.removeprefix(f"{ROOT}.")
        line = f"{_time(record)} {record.levelname:<7} {part}: {_sentence(record)}"
        return f"{line} [{fields}]" if fields else line


class JsonFormatter(logging.Formatter):
    """For programs: one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _sentence(record),
            **_fields(record),
        }
        return json.dumps(event)


class _Handler(logging.StreamHandler[Any]):
    """Ours: set_up() replaces it and leaves those of others alone."""


def set_up(
    format: str = TEXT, level: str = "info", stream: IO[str] | None = None
) -> logging.Logger:
    """Let what `forebay` loggers of this process say go to a stream; stderr if none is given.

    A second call replaces what the first one did.
    """
    if format not in FORMATS:
        raise LogFormatUnknown(format, ", ".join(FORMATS))
    if level not in LEVELS:
        raise LogLevelUnknown(level, ", ".join(LEVELS))
    logger = logging.getLogger(ROOT)
    for handler in [one for one in logger.handlers if isinstance(one, _Handler)]:
        logger.removeHandler(handler)
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == JSON else TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False  # Ray's workers have handlers of their own on the root logger
    return logger


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found = ((name, getattr(record, name, None)) for name in FIELDS)
    return {name: value for name, value in found if value is not None}


def _sentence(record: logging.LogRecord) -> str:
    """Return what is said, on one line whatever names are in it, with an error's last line."""
    said = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        said += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    return _printable(said)[:LINE_CHARACTERS_MAX]


def _printable(value: object) -> str:
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)
    )

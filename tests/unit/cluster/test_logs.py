"""Log lines: one an event, as text or JSON, whatever is in a name."""

import io
import json
import logging
import re

import pytest

from actors.logs import LINE_CHARACTERS_MAX, LogFormatUnknown, LogLevelUnknown, set_up

FIELDS = {"run": 7, "dataset": "home", "shard": 2, "jobid": 4711}


@pytest.fixture(autouse=True)
def _as_before():
    logger = logging.getLogger("forebay")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logger.setLevel(before[1])


def lines(format="text", level="info", log=None):
    stream = io.StringIO()
    set_up(format, level, stream)
    (log or _log)(logging.getLogger("forebay.coordinator"))
    return stream.getvalue().splitlines()


def _log(logger):
    logger.info("run %d of %s opened", 7, "home", extra=FIELDS)


def test_a_line_of_text_has_time_level_part_sentence_and_fields():
    (line,) = lines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        stamp + r" INFO    coordinator: run 7 of home opened"
        r" \[run=7 dataset=home shard=2 jobid=4711\]",
        line,
    )


def test_a_line_of_json_has_the_same():
    (line,) = lines("json")
    event = json.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == FIELDS | {
        "level": "info",
        "logger": "forebay.coordinator",
        "message": "run 7 of home opened",
    }


def test_fields_that_an_event_has_not_are_left_out():
    (line,) = lines("json", log=lambda logger: logger.error("x", extra={"run": None, "shard": 0}))
    assert json.loads(line).keys() == {"time", "level", "logger", "message", "shard"}


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("name", ["a\nERROR forged", "\x1b[31m", "\u2028", "\udcff", "\r\n\0"])
def test_no_name_makes_a_second_line(format, name):
    (line,) = lines(format, log=lambda logger: logger.warning("%s", name, extra={"dataset": name}))
    assert line.isprintable()


def test_an_error_is_on_the_same_line():
    def log(logger):
        try:
            raise OSError(5, "no\ndisk")
        except OSError:
            logger.exception("it broke")

    (line,) = lines(log=log)
    assert line.endswith("it broke: OSError: [Errno 5] no\\ndisk")


def test_a_line_is_bounded():
    (line,) = lines(log=lambda logger: logger.info("x" * 100_000))
    assert len(line) < LINE_CHARACTERS_MAX + 100


def test_a_level_leaves_out_what_is_below_it():
    def log(logger):
        logger.info("small")
        logger.warning("large")

    assert [line.split(": ")[1] for line in lines(level="warning", log=log)] == ["large"]


def test_a_second_set_up_replaces_the_first_and_leaves_other_handlers():
    foreign = logging.NullHandler()
    logging.getLogger("forebay").addHandler(foreign)
    first = io.StringIO()
    set_up("text", "info", first)
    assert len(lines()) == 1
    assert first.getvalue() == ""
    assert foreign in logging.getLogger("forebay").handlers


def test_the_root_logger_gets_nothing(caplog):
    assert len(lines()) == 1
    assert caplog.records == []


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("xml", "info"), LogFormatUnknown, "log format xml is unknown; use one of: text, json"),
        (("text", "loud"), LogLevelUnknown, "debug, info, warning, error"),
    ],
)
def test_what_is_unknown_is_said(arguments, error, said):
    with pytest.raises(error, match=re.escape(said)) as raised:
        set_up(*arguments)
    assert raised.value.exit_code == 2

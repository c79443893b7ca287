"""The log is one line per event, whatever strangers put into what is logged."""

import logging
import sys

import pytest

from controlplane.core import logs

HOSTILE = "a\x1b[2J\r\tb\nc\x00\u202ed\x9be\u2028f\ud800"


def line(**fields: object) -> str:
    record = logging.makeLogRecord({"name": "test", "levelname": "INFO", "levelno": logging.INFO} | fields)
    return logs.formatter().format(record)


@pytest.mark.parametrize(
    "text",
    [HOSTILE, f"Not Found: /models/{HOSTILE}/", HOSTILE.replace("\n", "")],
    ids=["alone", "told", "one line"],
)
def test_a_message_of_a_stranger_stays_on_its_line_and_moves_no_terminal(text: str) -> None:
    shown = line(msg=text)
    assert shown.isprintable()
    assert "\\x1b[2J\\r\\tb" in shown


def test_an_exception_of_a_stranger_does_too_and_is_whole() -> None:
    try:
        raise ValueError(HOSTILE + "x" * 5000)
    except ValueError:
        shown = line(msg="failed", exc_info=sys.exc_info())
    assert shown.isprintable()
    assert "x" * 5000 in shown
    assert "\\n" in shown

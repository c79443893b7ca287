"""What a sandboxed child says, as its parent takes it: whatever it says, nothing else comes of it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.sandbox import Limits, isolation
from controlplane.core.sandbox.hearing import Hearing, Lines, printable
from controlplane.core.sandbox.outcome import Evidence

LIMITS = Limits(memory_bytes=1024**3, cpu_s=30, wall_s=30, file_bytes=50_000_000)


def hello(*namespaces: str, files: bool) -> bytes:
    return json.dumps({"kind": "hello", "namespaces": namespaces, "files": files}).encode() + b"\n"


def test_a_point_of_a_curve_is_heard_with_nothing_else_in_it():
    hearing = Hearing(Evidence(limits=LIMITS))
    said = {"curve": "a\x1b", "step": 3, "values": {"loss": 1}, "more": "x"}
    assert hearing.channel(json.dumps({"kind": "point"} | said).encode() + b"\n")
    (heard,) = hearing.heard
    assert heard == {"kind": "point", "curve": "a\\x1b", "step": 3, "values": {"loss": 1.0}}


@pytest.mark.parametrize(
    "broken",
    [
        {"step": -1},
        {"step": 2**31},
        {"step": float("inf")},
        {"values": {}},
        {"values": {"loss": float("nan")}},
        {"values": {"loss": 10**400}},
        {"values": {"loss": "high"}},
        {"values": dict.fromkeys("abcde", 1)},
        {"values": 5},
        {"values": None},
    ],
)
def test_what_is_no_point_breaks_the_protocol(broken):
    evidence = Evidence(limits=LIMITS)
    said = {"kind": "point", "curve": "a", "step": 3, "values": {"loss": 1.0}} | broken
    assert not Hearing(evidence).channel(json.dumps(said).encode() + b"\n")
    assert evidence.broken_rule


def test_what_a_child_lacks_is_said_once_with_what_to_do(caplog):
    isolation.warn_once.cache_clear()
    for said in (hello("ipc", files=False), hello("ipc", files=False), hello("pid", "network", files=True)):
        assert Hearing(Evidence(limits=LIMITS)).channel(said)
    assert Hearing(Evidence(limits=replace(LIMITS, network=True))).channel(hello("pid", files=True))
    (warning,) = [record.getMessage() for record in caplog.records if record.name == isolation.__name__]
    assert "every file that Slipway can; it can open connections" in warning
    assert "Landlock" in warning
    assert warning.count("user.max_user_namespaces") == 1


@given(data=st.lists(st.binary(max_size=30), max_size=20))
def test_lines_lose_no_byte_but_line_ends_and_hold_no_more_than_their_limit(data):
    lines = Lines(longest=16)
    heard = [line for chunk in data for line in lines.feed(chunk)] + lines.end()
    whole = b"".join(data)
    assert b"".join(heard) == whole.replace(b"\r", b"").replace(b"\n", b"")
    assert all(line and len(line) <= 16 + 30 for line in heard)


@given(st.text(st.characters()))
def test_what_is_printable_is_one_line_that_can_be_stored_and_shown(text):
    line = printable(text)
    line.encode()
    assert not set(line) & {chr(code) for code in (*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0))}

"""A tick arrives if and only if the change does, and says nothing but what to look at."""

import json
from collections.abc import Iterator

import psycopg
import pytest
from django.db import transaction
from pytest_django import DjangoAssertNumQueries

from controlplane.core import bus

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_S = 20.0


@pytest.fixture
def listener() -> Iterator[psycopg.Connection]:
    with psycopg.connect(bus.conninfo(), autocommit=True) as heard:
        heard.execute(f"LISTEN {bus.TICKS}")
        heard.execute(f"LISTEN {bus.OUTBOX}")
        yield heard


def heard(listener: psycopg.Connection, count: int = 1) -> list[tuple[str, str]]:
    found = [(one.channel, one.payload) for one in listener.notifies(timeout=PATIENCE_S, stop_after=count)]
    assert found, "nothing was heard"
    return found


def test_a_tick_names_the_team_and_what_changed(listener: psycopg.Connection) -> None:
    bus.publish("jobs", "job:12", "jobs", team_id=7)
    [(channel, payload)] = heard(listener)
    assert channel == bus.TICKS
    assert json.loads(payload) == {"team": 7, "topics": ["job:12", "jobs"]}


def test_what_was_rolled_back_was_never_said(listener: psycopg.Connection) -> None:
    with transaction.atomic():
        bus.publish("jobs", team_id=1)
        bus.wake_dispatcher(bus.Due.JOBS)
        transaction.set_rollback(True)
    bus.publish("models", team_id=2)
    [(_, payload)] = heard(listener)
    assert json.loads(payload)["topics"] == ["models"]


def test_saying_the_same_twice_in_one_change_is_heard_once(listener: psycopg.Connection) -> None:
    with transaction.atomic():
        for _ in range(3):
            bus.publish("jobs", team_id=1)
    bus.wake_dispatcher(bus.Due.JOBS)
    assert [channel for channel, _ in heard(listener, 2)] == [bus.TICKS, bus.OUTBOX]


def test_many_ticks_are_said_in_one_statement(
    listener: psycopg.Connection, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with transaction.atomic(), django_assert_num_queries(1):
        bus.publish_each((f"metrics:{key}", team) for key, team in ((1, 7), (2, 7), (3, None)))
    said = [json.loads(payload) for _, payload in heard(listener, 3)]
    assert said == [{"team": team, "topics": [f"metrics:{key}"]} for key, team in ((1, 7), (2, 7), (3, None))]

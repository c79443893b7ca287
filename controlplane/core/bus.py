"""Tells open pages and waiting processes that something changed, and nothing more.

A tick is a Postgres notification sent inside the transaction that made the change, so it arrives if and
only if the change does. The payload names topics; whoever hears it reads the truth from the tables.
Refused: Redis publish/subscribe, which would make every request depend on the broker.
"""

import json
from collections.abc import Iterable
from enum import StrEnum

from django.db import connection
from psycopg.conninfo import make_conninfo

from controlplane.settings.environment import SILENCE

TICKS = "slipway_ticks"
OUTBOX = "slipway_outbox"


class Due(StrEnum):
    """What may have become due for the dispatcher."""

    JOBS = "jobs"
    SEARCHES = "searches"
    RECONCILES = "reconciles"


def publish(*topics: str, team_id: int | None) -> None:
    """Sends one tick per topic on commit, to pages of the team; None is for what all teams share.

    Cost: one statement; equal payloads in a transaction are merged.
    """
    _notify(TICKS, [_tick(topics, team_id)])


def publish_each(ticks: Iterable[tuple[str, int | None]]) -> None:
    """As `publish` for each topic and its team; all of them cost one statement."""
    _notify(TICKS, [_tick((topic,), team_id) for topic, team_id in ticks])


def _tick(topics: Iterable[str], team_id: int | None) -> str:
    return json.dumps({"team": team_id, "topics": sorted(set(topics))}, separators=(",", ":"))


def wake_dispatcher(*due: Due) -> None:
    """Lets the dispatcher see to rows that became due in this transaction without waiting for its poll."""
    _notify(OUTBOX, list(due))


def _notify(channel: str, payloads: list[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", [channel, payloads]
        )


def conninfo() -> str:
    """How to connect a listener: a connection of its own to the same database, outside Django's."""
    parameters = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port", *SILENCE)
    return make_conninfo(**{name: parameters[name] for name in names if parameters.get(name)})

"""The event stream: one server-sent tick per topic that changed, never the change itself.

    GET /live/events?topics=job:12,jobs     text/event-stream, for a logged-in browser

A plain ASGI application, because Django's streaming response costs five times the memory per open page. What
waits for a client is a set of topics, so a client that stops reading costs a bounded amount and delays
nobody. A reconnecting client names the last id it saw and gets what it missed, or `resync` when that is
unknown. Refused: sending content, which would need a permission check per row and client.
"""

import asyncio
import os
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from random import randint
from typing import Any
from urllib.parse import parse_qs

import orjson
import psycopg
import structlog
from asgiref.sync import sync_to_async

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup()

from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError, close_old_connections, connection
from django.http import HttpRequest

from controlplane.accounts.access import actor_of
from controlplane.core.bus import TICKS
from controlplane.core.errors import SlipwayError

log = structlog.get_logger(__name__)

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REMEMBERED_TICKS = 10_000
STREAMS_PER_USER = 40
KEEP_ALIVE_S = 15.0
RECHECK_EVERY = 4
"""Keep-alives between two checks that the login still holds."""
MAX_TOPICS = 50
RESYNC = "resync"


@dataclass(frozen=True, kw_only=True)
class Viewer:
    user_id: int
    team_id: int


@dataclass(kw_only=True, eq=False)
class Stream:
    viewer: Viewer
    topics: frozenset[str]
    pending: set[str] = field(default_factory=set)
    last_id: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wants(self, team_id: int, topics: list[str]) -> set[str]:
        if team_id != self.viewer.team_id:
            return set()
        return set(topics) & self.topics if self.topics else set(topics)

    def offer(self, topics: set[str], tick_id: int) -> None:
        self.pending |= topics
        self.last_id = tick_id
        self.woken.set()


@dataclass(kw_only=True)
class Hub:
    """Hears Postgres and hands ticks to the open streams. `boot` makes ids of another process recognisable."""

    boot: str = field(default_factory=lambda: secrets.token_hex(4))
    streams: set[Stream] = field(default_factory=set)
    per_user: Counter[int] = field(default_factory=Counter)
    remembered: deque[tuple[int, int, list[str]]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_TICKS)
    )
    count: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def tick(self, payload: str) -> None:
        message = orjson.loads(payload)
        self.count += 1
        self.remembered.append((self.count, message["team"], message["topics"]))
        for stream in self.streams:
            wanted = stream.wants(message["team"], message["topics"])
            if wanted:
                stream.offer(wanted, self.count)

    def resync_all(self) -> None:
        """After a gap in what was heard, every page asks again."""
        self.count += 1
        for stream in self.streams:
            stream.offer({RESYNC}, self.count)

    def missed(self, stream: Stream, last_event_id: str) -> set[str]:
        """What a returning client did not see; `resync` if that cannot be known."""
        boot, _, number = last_event_id.partition("-")
        oldest = self.remembered[0][0] if self.remembered else self.count + 1
        if boot != self.boot or not number.isdecimal() or int(number) + 1 < oldest:
            return {RESYNC}
        found: set[str] = set()
        for tick_id, team_id, topics in self.remembered:
            if tick_id > int(number):
                found |= stream.wants(team_id, topics)
        return found

    async def listen(self) -> None:
        """Runs until cancelled; after a lost connection every page is told to ask again."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(_dsn(), autocommit=True) as heard:
                    await heard.execute(f"LISTEN {TICKS}")
                    self.resync_all()
                    async for notification in heard.notifies():
                        self.tick(notification.payload)
            except psycopg.OperationalError as error:
                log.warning("database_unavailable", cause=str(error).splitlines()[0])
                await asyncio.sleep(0.5)


hub = Hub()


def _dsn() -> str:
    parameters = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    return psycopg.conninfo.make_conninfo(
        **{name: parameters[name] for name in names if parameters.get(name)}
    )


@sync_to_async
def _viewer(cookie: str) -> Viewer | None:
    """Who is behind this session cookie; None for nobody. Two or three queries."""
    close_old_connections()
    jar = SimpleCookie(cookie)
    morsel = jar.get(settings.SESSION_COOKIE_NAME)
    if morsel is None:
        return None
    from django.contrib.sessions.backends.db import SessionStore

    request = HttpRequest()
    request.session = SessionStore(morsel.value)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        return None
    request.user = user  # type: ignore[assignment]
    try:
        return Viewer(user_id=user.pk, team_id=actor_of(request).team.pk)
    except SlipwayError:
        return None


def _header(scope: Scope, name: bytes) -> str:
    return b"; ".join(value for key, value in scope["headers"] if key == name).decode("latin-1")


async def _refuse(send: Send, status: int, title: str) -> None:
    headers = [(b"content-type", b"application/problem+json")]
    if status == 429:
        headers.append((b"retry-after", b"10"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": ""})
    await send({"type": "http.response.body", "body": body})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _http(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    listening: asyncio.Task[None] | None = None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            listening = asyncio.create_task(hub.listen())
            await send({"type": "lifespan.startup.complete"})
        else:
            if listening is not None:
                listening.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/live/health":
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": b"ok"})
        return
    if scope["path"] != "/live/events" or scope["method"] != "GET":
        await _refuse(send, 404, "There is nothing here.")
        return
    cookie = _header(scope, b"cookie")
    try:
        viewer = await _viewer(cookie)
    except DatabaseError:
        await _refuse(send, 503, "The database cannot be reached right now.")
        return
    if viewer is None:
        await _refuse(send, 401, "Log in first.")
    elif hub.per_user[viewer.user_id] >= STREAMS_PER_USER:
        await _refuse(send, 429, "Too many open pages.")
    else:
        await _stream(scope, receive, send, viewer=viewer, cookie=cookie)


async def _stream(scope: Scope, receive: Receive, send: Send, *, viewer: Viewer, cookie: str) -> None:
    query = parse_qs(scope["query_string"].decode("latin-1"))
    topics = frozenset(topic for topic in ",".join(query.get("topics", [])).split(",") if topic)
    stream = Stream(viewer=viewer, topics=frozenset(sorted(topics)[:MAX_TOPICS]), last_id=hub.count)
    last_seen = _header(scope, b"last-event-id")
    if last_seen:
        stream.pending = hub.missed(stream, last_seen)
    hub.streams.add(stream)
    hub.per_user[viewer.user_id] += 1
    gone = asyncio.create_task(_until_gone(receive))
    try:
        await _send_ticks(stream, send, gone=gone, cookie=cookie)
    finally:
        gone.cancel()
        hub.streams.discard(stream)
        hub.per_user[viewer.user_id] -= 1


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_ticks(stream: Stream, send: Send, *, gone: asyncio.Task[None], cookie: str) -> None:
    headers = [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    hello = f"retry: {randint(500, 2500)}\nid: {hub.boot}-{stream.last_id}\nevent: hello\ndata: \n\n"  # noqa: S311
    await send({"type": "http.response.body", "body": hello.encode(), "more_body": True})
    quiet = 0
    while not gone.done():
        waiting = asyncio.create_task(stream.woken.wait())
        await asyncio.wait(
            {waiting, gone}, timeout=0 if stream.pending else KEEP_ALIVE_S, return_when="FIRST_COMPLETED"
        )
        waiting.cancel()
        stream.woken.clear()
        topics, stream.pending = sorted(stream.pending), set()
        quiet = 0 if topics else quiet + 1
        if quiet >= RECHECK_EVERY:
            quiet = 0
            if await _viewer(cookie) != stream.viewer:
                return
        lines = "".join(f"id: {hub.boot}-{stream.last_id}\nevent: {topic}\ndata: \n\n" for topic in topics)
        await send({"type": "http.response.body", "body": (lines or ": \n\n").encode(), "more_body": True})

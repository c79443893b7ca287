"""The event stream: one server-sent tick per topic that changed, never the change itself.

    GET /live/events?topics=job:12,jobs&since=1764000000.250     text/event-stream, for a logged-in browser

A plain ASGI application, because Django's streaming response costs five times the memory per open page. What
waits for a client is a set of topics, so a client that stops reading costs a bounded amount and delays
nobody. A reconnecting client names the last id it saw, a new page when it was asked for (`since`): both get what
they missed, or `resync` when that is unknown. Refused: sending content, which would need a permission check per
row and client.
"""

import asyncio
import math
import os
import re
import secrets
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from random import randint
from types import FrameType
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
from django.db import DatabaseError, DataError, close_old_connections
from django.http import HttpRequest, parse_cookie

from controlplane.accounts.access import actor_of
from controlplane.core.bus import TICKS, conninfo
from controlplane.core.errors import SlipwayError

log = structlog.get_logger(__name__)

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REMEMBERED_TICKS = 10_000
STREAMS_PER_USER = 40
KEEP_ALIVE_S = 15.0
RECHECK_S = 60.0
"""Between two checks that the login still holds, however busy the stream is."""
MAX_TOPICS = 50
CLOCKS_DIFFER_S = 1.0
"""Between the host that made a page and this one. A tick too many costs one refresh, one too few a stale page."""
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

    def wants(self, team_id: int | None, topics: list[str]) -> set[str]:
        """None: of what all teams share."""
        if team_id not in (None, self.viewer.team_id):
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
    remembered: deque[tuple[int, int | None, list[str], float]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_TICKS)
    )
    count: int = 0
    heard_since: float = math.inf
    stopping: bool = False

    def stop(self) -> None:
        """Ends every stream, so that the server need not wait for browsers to leave."""
        self.stopping = True
        for stream in self.streams:
            stream.woken.set()

    def tick(self, payload: str) -> None:
        """A notification that is none of ours is noted and passed over: anybody may send one."""
        try:
            message = orjson.loads(payload)
            team, topics = message["team"], [str(topic) for topic in message["topics"]]
            team_id = None if team is None else int(team)
        except (ValueError, TypeError, KeyError):
            log.warning("unreadable_tick", payload=payload[:200])
            return
        self.count += 1
        self.remembered.append((self.count, team_id, topics, time.time()))
        for stream in self.streams:
            wanted = stream.wants(team_id, topics)
            if wanted:
                stream.offer(wanted, self.count)

    def resync_all(self) -> None:
        """After a gap in what was heard, every page asks again, and so does whoever reconnects from before it."""
        self.count += 1
        self.remembered.clear()
        self.heard_since = time.time()
        for stream in self.streams:
            stream.offer({RESYNC}, self.count)

    def missed(self, stream: Stream, last_event_id: str) -> set[str]:
        """What a returning client did not see; `resync` if that cannot be known."""
        boot, _, number = last_event_id.partition("-")
        oldest = self.remembered[0][0] if self.remembered else self.count + 1
        readable = number.isascii() and number.isdecimal() and len(number) < 19
        if boot != self.boot or not readable or int(number) + 1 < oldest:
            return {RESYNC}
        found: set[str] = set()
        for tick_id, team_id, topics, _ in self.remembered:
            if tick_id > int(number):
                found |= stream.wants(team_id, topics)
        return found

    def missed_since(self, stream: Stream, made_at: float) -> set[str]:
        """What changed between the making of a page and its first connection; `resync` if that cannot be known."""
        made_at -= CLOCKS_DIFFER_S
        full = len(self.remembered) == REMEMBERED_TICKS
        known_since = self.remembered[0][3] if full else self.heard_since
        if made_at < known_since:
            return {RESYNC}
        found: set[str] = set()
        for _, team_id, topics, heard_at in self.remembered:
            if heard_at >= made_at:
                found |= stream.wants(team_id, topics)
        return found

    async def listen(self) -> None:
        """Runs until cancelled; after a lost connection every page is told to ask again."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(conninfo(), autocommit=True) as heard:
                    await heard.execute(f"LISTEN {TICKS}")
                    self.resync_all()
                    async for notification in heard.notifies():
                        self.tick(notification.payload)
            except psycopg.Error as error:
                log.warning("database_unavailable", cause=str(error).partition("\n")[0])
                await asyncio.sleep(0.5)


hub = Hub()


@sync_to_async
def _viewer(cookie: str) -> Viewer | None:
    """Who is behind this session cookie; None for nobody. Two or three queries."""
    close_old_connections()
    session_key = parse_cookie(cookie).get(settings.SESSION_COOKIE_NAME)
    if session_key is None:
        return None
    from django.contrib.sessions.backends.db import SessionStore

    request = HttpRequest()
    request.session = SessionStore(session_key)
    try:
        user = get_user(request)
    except DataError:  # a key that no database can hold is nobody's
        return None
    if not user.is_authenticated or not user.is_active:
        return None
    request.user = user
    try:
        return Viewer(user_id=user.pk, team_id=actor_of(request).team.pk)
    except SlipwayError:
        return None


def _header(scope: Scope, name: bytes) -> str:
    return b"; ".join(value for key, value in scope["headers"] if key == name).decode("latin-1")


async def _refuse(send: Send, status: int, code: str, title: str) -> None:
    headers = [(b"content-type", b"application/problem+json")]
    if status in {429, 503}:
        headers.append((b"retry-after", b"10"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = orjson.dumps(
        {"type": f"/problems/{code}/", "title": title, "status": status, "detail": "", "code": code}
    )
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
            _stop_on_sigterm()
            await send({"type": "lifespan.startup.complete"})
        else:
            if listening is not None:
                listening.cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _stop_on_sigterm() -> None:
    """Hears the signal beside the server, which says nothing to the application until the last stream is closed."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop, servers = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(hub.stop)
        if callable(servers):
            servers(number, frame)

    signal.signal(signal.SIGTERM, heard)


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/live/health":
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": b"ok"})
        return
    if scope["path"] != "/live/events" or scope["method"] != "GET":
        await _refuse(send, 404, "not_found", "There is nothing here.")
        return
    cookie = _header(scope, b"cookie")
    try:
        viewer = await _viewer(cookie)
    except DatabaseError:
        await _refuse(send, 503, "database_unavailable", "The database cannot be reached right now.")
        return
    if viewer is None:
        await _refuse(send, 401, "not_authenticated", "Log in first.")
    elif hub.per_user[viewer.user_id] >= STREAMS_PER_USER:
        await _refuse(send, 429, "too_many_streams", "Too many open pages.")
    else:
        await _stream(scope, receive, send, viewer=viewer, cookie=cookie)


async def _stream(scope: Scope, receive: Receive, send: Send, *, viewer: Viewer, cookie: str) -> None:
    query = parse_qs(scope["query_string"].decode("latin-1"))
    topics = frozenset(topic for topic in ",".join(query.get("topics", [])).split(",") if topic)
    stream = Stream(viewer=viewer, topics=frozenset(sorted(topics)[:MAX_TOPICS]), last_id=hub.count)
    last_seen = _header(scope, b"last-event-id")
    if last_seen:
        stream.pending = hub.missed(stream, last_seen)
    elif made_at := _seconds(query.get("since", [""])[0]):
        stream.pending = hub.missed_since(stream, made_at)
    hub.streams.add(stream)
    hub.per_user[viewer.user_id] += 1
    gone = asyncio.create_task(_until_gone(receive))
    try:
        await _send_ticks(stream, send, gone=gone, cookie=cookie)
    finally:
        gone.cancel()
        hub.streams.discard(stream)
        hub.per_user[viewer.user_id] -= 1


def _seconds(text: str) -> float:
    """A moment as a page writes it; 0.0 for anything else."""
    return float(text) if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text, re.ASCII) else 0.0


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
    retry = f"retry: {randint(500, 2500)}\n"  # noqa: S311
    await _write(send, retry + ("" if stream.pending else _id(stream)) + "event: hello\ndata: \n\n")
    checked_at = time.monotonic()
    while not (gone.done() or hub.stopping):
        await _until_woken(stream, gone)
        topics, stream.pending = sorted(stream.pending), set()
        await _write(send, _events(topics, stream) or ": \n\n")
        if time.monotonic() - checked_at > RECHECK_S:
            checked_at = time.monotonic()
            if not await _still_logged_in(stream.viewer, cookie):
                break
    await send({"type": "http.response.body", "body": b""})


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def _id(stream: Stream) -> str:
    return f"id: {hub.boot}-{stream.last_id}\n"


def _events(topics: list[str], stream: Stream) -> str:
    """Only the last one carries the id: whoever is cut off in the middle gets all of them again."""
    if not topics:
        return ""
    *first, last = [f"event: {topic}\ndata: \n\n" for topic in topics]
    return "".join(first) + _id(stream) + last


async def _until_woken(stream: Stream, gone: asyncio.Task[None]) -> None:
    """Until there is something to send, the client is gone, or a keep-alive is due."""
    waiting = asyncio.create_task(stream.woken.wait())
    await asyncio.wait(
        {waiting, gone}, timeout=0 if stream.pending else KEEP_ALIVE_S, return_when="FIRST_COMPLETED"
    )
    waiting.cancel()
    stream.woken.clear()


async def _still_logged_in(viewer: Viewer, cookie: str) -> bool:
    """A database that cannot be asked logs nobody out."""
    try:
        return await _viewer(cookie) == viewer
    except DatabaseError:
        return True

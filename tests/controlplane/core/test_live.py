"""The event stream, through a real server: ticks for the own team, resuming, limits, and an end in time."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from pytest_django import DjangoDbBlocker

from controlplane.accounts.access import Actor
from controlplane.core import bus
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]

PATIENCE_S = 20.0
GRACE_S = 5.0
CAP = 40
CLOCKS_DIFFER_S = 1.0


def database_url() -> str:
    """The test's own database, for a process beside it."""
    name = connection.settings_dict["NAME"]
    head, _, query = os.environ["DATABASE_URL"].partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


@dataclass(kw_only=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]

    @contextmanager
    def asked(self, path: str, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        wire = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            wire.request("GET", path, headers=headers)
            with wire.getresponse() as response:
                yield response
        finally:
            wire.close()

    def status(self, path: str, headers: dict[str, str]) -> int:
        with self.asked(path, headers) as response:
            return response.status

    def healthy(self) -> bool:
        try:
            return self.status("/live/health", {}) == 200
        except OSError:
            return False


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("it never came to be")


@contextmanager
def serving() -> Iterator[Server]:
    """The live process as `up` starts it, on a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = database_time()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "controlplane.live:application"),
            *("--port", str(port), "--timeout-graceful-shutdown", str(int(GRACE_S)), "--no-access-log"),
        ],
        cwd=settings.BASE_DIR,
        env=os.environ | {"DATABASE_URL": database_url()},
    )
    server = Server(port=port, process=process)
    try:
        until(server.healthy)
        until(lambda: listening(began))
        yield server
    finally:
        process.kill()
        process.wait()


def database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone() or (None,)
    assert isinstance(now, datetime)
    return now


def listening(since: datetime) -> bool:
    """Whether somebody who came after that moment hears ticks: another test's listener may not have left yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE query = %s AND datname = current_database() AND backend_start >= %s",
            [f"LISTEN {bus.TICKS}", since],
        )
        row = cursor.fetchone()
    return row is not None and row[0] > 0


@pytest.fixture(scope="module")
def server(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """One for all tests: it keeps nothing about them but ticks that nobody asks for."""
    with django_db_blocker.unblock():
        started = ExitStack()
        server = started.enter_context(serving())
    with started:
        yield server


def cookie(actor: Actor) -> str:
    client = Client()
    assert actor.user is not None
    client.force_login(actor.user)
    return f"sessionid={client.cookies['sessionid'].value}"


@dataclass(kw_only=True)
class Page:
    """An open browser page: what it heard, in order, without keep-alives."""

    response: HTTPResponse
    last_id: str = ""
    heard: list[str] = field(default_factory=list)

    def next(self) -> str:
        """The next event's name. An event counts as seen when it carries an id."""
        name = ""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, f"nothing but keep-alives after {self.heard}"
            line = self.response.readline().decode().rstrip("\n")
            key, _, value = line.partition(": ")
            if not line and name:
                self.heard.append(name)
                return name
            if not line and self.response.closed:
                raise EOFError
            if key == "id":
                self.last_id = value
            elif key == "event":
                name = value

    def until(self, wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.next() != wanted:
            assert time.monotonic() < deadline, f"{wanted} was not among {self.heard}"

    def ended(self) -> bool:
        return self.response.read() is not None


@contextmanager
def opened(
    server: Server, actor: Actor, *, topics: str = "", last_id: str = "", session: str = "", since: str = ""
) -> Iterator[Page]:
    headers = {"Cookie": session or cookie(actor)} | ({"Last-Event-ID": last_id} if last_id else {})
    with server.asked(f"/live/events?topics={topics}&since={since}", headers) as response:
        assert response.status == 200, response.read()
        page = Page(response=response)
        assert page.next() == "hello"
        yield page


def refusal(server: Server, **headers: str) -> tuple[int, str]:

    with server.asked("/live/events", headers) as response:
        return response.status, json.loads(response.read())["code"]


def test_a_change_reaches_every_page_of_its_team_and_no_other(server: Server) -> None:
    team = factories.team()
    owner, viewer, stranger = factories.three_people(team)
    with (
        opened(server, owner) as first,
        opened(server, viewer, topics="jobs,models") as second,
        opened(server, stranger) as third,
    ):
        bus.publish("jobs", "job:1", team_id=team.pk)
        bus.publish("deployments", team_id=team.pk)
        bus.publish("models", team_id=team.pk)
        bus.publish("activity", team_id=stranger.team.pk)
        first.until("models")
        second.until("models")
        third.until("activity")
        assert set(first.heard) - {"resync"} == {"hello", "job:1", "jobs", "deployments", "models"}
        assert set(second.heard) - {"resync"} == {"hello", "jobs", "models"}
        assert set(third.heard) - {"resync"} == {"hello", "activity"}


def test_what_all_teams_share_reaches_the_pages_of_all(server: Server) -> None:
    owner, stranger = factories.member(factories.team()), factories.member(factories.team())
    with opened(server, owner, topics="workers") as own, opened(server, stranger) as other:
        bus.publish("workers", team_id=None)
        own.until("workers")
        other.until("workers")


def test_a_tick_says_what_to_look_at_and_nothing_else(server: Server) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner) as page:
        bus.publish("job:1", team_id=owner.team.pk)
        lines = []
        while "event: job:1" not in lines:
            lines.append(page.response.readline().decode().rstrip("\n"))
        assert page.response.readline() == b"data: \n"


def test_a_page_that_comes_back_hears_what_it_missed_and_not_what_it_knew(server: Server) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner) as page:
        bus.publish("jobs", team_id=owner.team.pk)
        page.until("jobs")
        seen = page.last_id
    bus.publish("models", team_id=owner.team.pk)
    bus.publish("activity", team_id=factories.team().pk)
    with opened(server, owner) as watcher:  # so that the server has heard it before the page returns
        bus.publish("workers", team_id=owner.team.pk)
        watcher.until("workers")
        with opened(server, owner, last_id=seen) as page:
            page.until("workers")
            assert page.heard == ["hello", "models", "workers"]


def test_a_new_page_hears_what_changed_since_it_was_made(server: Server) -> None:
    """It was read before the change and connects after it; nobody would tell it again."""
    owner = factories.member(factories.team())
    made_at = f"{time.time() + CLOCKS_DIFFER_S:.3f}"  # as by a host whose clock is ahead
    with opened(server, owner, topics="job:1,jobs") as watcher:
        bus.publish("job:1", team_id=owner.team.pk)
        watcher.until("job:1")
        with opened(server, owner, topics="job:1,models", since=made_at) as page:
            bus.publish("models", team_id=owner.team.pk)
            page.until("models")
            assert page.heard == ["hello", "job:1", "models"]


def test_a_page_made_before_anything_was_heard_asks_for_everything_again(server: Server) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner, since="1.5") as page:
        assert page.next() == "resync"


@pytest.mark.parametrize("since", ["x", "-1", "1e9", "nan", "9" * 400, "٣", "1.", ""])
def test_a_moment_that_is_none_is_passed_over(server: Server, since: str) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner, since=quote(since)) as page:
        bus.publish("jobs", team_id=owner.team.pk)
        page.until("jobs")
        assert page.heard == ["hello", "jobs"]


@pytest.mark.parametrize(
    "last_id", ["deadbeef-1", "deadbeef", "-", "1", "x" * 5000, "{boot}-" + "9" * 5000, "{boot}-٣", "{boot}-"]
)
def test_a_page_from_another_life_asks_for_everything_again(server: Server, last_id: str) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner) as page:
        boot = page.last_id.partition("-")[0]
    known = last_id.format(boot=boot).encode().decode("latin-1")
    with opened(server, owner, last_id=known) as page:
        assert page.next() == "resync"


def test_what_was_missed_while_the_database_was_gone_is_asked_for_again(server: Server) -> None:
    """By pages that stayed, and by those that return with an id from before the gap."""
    owner = factories.member(factories.team())
    with opened(server, owner) as page:
        bus.publish("jobs", team_id=owner.team.pk)
        page.until("jobs")
        before = page.last_id
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query = %s AND datname = current_database()",
                [f"LISTEN {bus.TICKS}"],
            )
        page.until("resync")
    with opened(server, owner, last_id=before) as page:
        assert page.next() == "resync"


def test_nobody_listens_without_a_login(server: Server) -> None:
    owner = factories.member(factories.team())
    assert refusal(server) == (401, "not_authenticated")
    for forged in (
        "sessionid=x",
        "sessionid=" + "a" * 32,
        'sessionid="aaaaaaaaaaaa\\000"',
        "a@b=1; x",
        "=;;",
    ):
        assert refusal(server, Cookie=forged) == (401, "not_authenticated")
    token = factories.token(owner)
    assert refusal(server, Authorization=f"Bearer {token}") == (401, "not_authenticated")
    loner = Client()
    loner.force_login(factories.user())
    assert refusal(server, Cookie=f"sessionid={loner.cookies['sessionid'].value}")[0] == 401


def test_a_cookie_that_others_wrote_does_not_hide_the_session(server: Server) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner, session=f"a@b=1; odd; {cookie(owner)}; z={{}}"):
        pass


def test_a_disabled_person_is_nobody(server: Server) -> None:
    owner = factories.member(factories.team())
    session = cookie(owner)
    assert owner.user is not None
    owner.user.is_active = False
    owner.user.save()
    assert refusal(server, Cookie=session) == (401, "not_authenticated")


def test_one_person_holds_a_bounded_number_of_streams(server: Server) -> None:
    owner, viewer, _ = factories.three_people(factories.team())
    session = cookie(owner)
    with ExitStack() as pages:
        for _ in range(CAP):
            pages.enter_context(opened(server, owner, session=session))
        with server.asked("/live/events", {"Cookie": session}) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) > 0
        with opened(server, viewer):
            pass
    until(lambda: server.status("/live/events", {"Cookie": session}) == 200)


def test_a_message_that_is_none_of_ours_stops_nothing(server: Server) -> None:
    owner = factories.member(factories.team())
    with opened(server, owner) as page:
        with connection.cursor() as cursor:
            for payload in ("", "x", "[]", "{}", '{"team": "x", "topics": 1}', "null"):
                cursor.execute("SELECT pg_notify(%s, %s)", [bus.TICKS, payload])
        bus.publish("jobs", team_id=owner.team.pk)
        page.until("jobs")


def test_the_process_stops_within_its_grace_while_pages_are_open() -> None:
    owner = factories.member(factories.team())
    with serving() as server, opened(server, owner) as page:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=GRACE_S)
        assert page.ended()


@pytest.mark.parametrize(("path", "status"), [("/live/", 404), ("/live/other", 404), ("/live/health", 200)])
def test_there_is_nothing_else_here(server: Server, path: str, status: int) -> None:
    assert server.status(path, {}) == status

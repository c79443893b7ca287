"""Postgres goes away in the middle of everything and comes back: nobody has to be restarted, nothing is half done."""

import http.client
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from django.test import Client

from controlplane.core.clock import database_now
from controlplane.embedded.demo.client import Api
from optimizer import services
from optimizer.domain.jobs import JobState
from optimizer.models import Worker
from tests import factories
from tests.faults import workshop as jobs
from tests.faults.crew import assert_gone, builders_of
from tests.faults.load import Ask, OpenLoop
from tests.faults.programs import Program
from tests.faults.stage import LEASE_S, Stage
from tests.faults.techniques import SLOW
from tests.faults.waiting import until
from tests.faults.workshop import Workshop

WELL_AFTER_S = 5
PER_S = 20


@pytest.fixture(scope="module")
def processes(stands: Stage) -> dict[str, Program]:
    """Everything that lives long and speaks to the database."""
    started = {name: stands.start(name) for name in ("dispatcher", "collector", "live", "load", "web")}
    started["worker"] = stands.begin_worker("only")
    stands.until_ready(started["worker"])
    return started


@pytest.fixture
def api(stands: Stage, processes: dict[str, Program], workshop: Workshop) -> Api:
    """Answering."""
    api = Api(url=stands.web_url, token=factories.token(workshop.actor))
    until(lambda: answers(api), within_s=30, what="the web process answering")
    return api


def answers(api: Api) -> bool:
    try:
        return bool(api.get("models/"))
    except OSError:
        return False


@pytest.fixture(scope="module")
def session_cookie(workshop: Workshop) -> str:
    client = Client()
    assert workshop.actor.user is not None
    client.force_login(workshop.actor.user)
    return f"sessionid={client.cookies['sessionid'].value}"


@contextmanager
def listening(address: str, cookie: str) -> Iterator[list[str]]:
    """An open page's event stream; the block sees its lines come."""
    heard: list[str] = []
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("GET", "/live/events", headers={"Cookie": cookie})
    response = connection.getresponse()
    assert response.status == 200, response.read()

    def listen() -> None:
        while line := response.fp.readline() if response.fp else b"":
            heard.append(line.decode().strip())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        until(lambda: "event: hello" in heard, within_s=10, what="the stream's first line")
        yield heard
    finally:
        if connection.sock is not None:
            connection.sock.shutdown(2)
        thread.join(10)
        connection.close()


def test_F15_a_restarted_postgres_is_answered_with_503_and_everybody_recovers(
    stands: Stage, processes: dict[str, Program], workshop: Workshop, session_cookie: str, api: Api
) -> None:
    asks = [
        Ask(url=f"{stands.web_url}/api/v1/models/", headers={"Authorization": f"Bearer {api.token}"}),
        Ask(url=f"{stands.web_url}/models/", headers={"Cookie": session_cookie}),
        Ask(url=f"{stands.web_url}/jobs/", headers={"Cookie": session_cookie}),
    ]
    running = workshop.queue(SLOW, lines=60)
    jobs.says(running, "line 1")
    with listening(stands.live_url, session_cookie) as heard, OpenLoop(asks=asks, per_s=PER_S) as load:
        load.more(PER_S)
        assert load.failed() == []
        stopped_at = time.monotonic()
        stands.postgres.stop(signal.SIGQUIT)
        until(
            lambda: any(one.status == 503 for one in list(load.answers)),
            within_s=10,
            what="a request meeting the outage",
        )
        stands.postgres.start()
        well_at = time.monotonic() + WELL_AFTER_S
        back_at = database_now()
        until(lambda: time.monotonic() > well_at, within_s=WELL_AFTER_S + 1, what="the time to be well again")
        load.more(2 * PER_S)
        until(lambda: "event: resync" in heard[3:], within_s=10, what="open pages being told to ask again")
    unwell = load.failed()
    assert {one.status for one in unwell} == {503}, unwell
    assert all(one.retry_after for one in unwell)
    assert [one for one in unwell if one.done < stopped_at] == []
    assert load.failed(since=well_at) == []

    jobs.when(running, JobState.SUCCEEDED)
    jobs.assert_one_effect(running)
    following = workshop.queue(SLOW)
    jobs.when(following, JobState.SUCCEEDED)
    jobs.assert_one_effect(following)
    until(
        lambda: Worker.objects.filter(name__startswith="only@", heartbeat_at__gt=back_at).exists(),
        within_s=10,
        what="the worker announcing itself again",
    )
    assert [name for name, program in processes.items() if not program.running] == []
    for name in ("dispatcher", "collector", "live", "load", "worker"):
        assert "Traceback" not in processes[name].said(), processes[name].said()[-3000:]


def test_a_postgres_that_answers_nothing_ends_a_build_before_its_lease_does(
    stands: Stage, processes: dict[str, Program], workshop: Workshop
) -> None:
    """The loop that renews the lease is stuck in its heartbeat, so it cannot end the build itself."""
    job = workshop.queue(SLOW, lines=400)
    jobs.says(job, "line 1")
    builders = builders_of(processes["worker"])
    assert builders
    with stands.postgres.frozen():
        assert_gone(builders, within_s=LEASE_S)
    jobs.says(job, "Attempt 2 started")
    (why,) = job.events.filter(kind="state", attempt=1, level="warning")
    assert re.search("could not renew its hold|fell silent", why.message), why
    services.cancel_job(workshop.actor, job)
    jobs.when(job, JobState.CANCELLED)


@pytest.mark.parametrize("name", ["live", "collector", "load", "dispatcher"])
def test_F44_a_process_told_to_stop_leaves_within_its_grace(
    stands: Stage, processes: dict[str, Program], name: str
) -> None:
    """The work of these is either short or somebody else's, so there is nothing to hand over."""
    try:
        processes[name].terminate(within_s=stands.rows[name].grace_s)
    finally:
        processes[name] = stands.start(name)


def test_F44_a_web_process_told_to_stop_answers_whatever_it_began(
    stands: Stage, processes: dict[str, Program], workshop: Workshop, api: Api
) -> None:
    """It says so in its log when there is no such model. A connection that nothing was read from is only closed. A
    worker that was still loading is killed after two seconds, so the end may take longer than that."""
    path = "/api/v1/models/no-such-model/"
    ask = Ask(url=f"{stands.web_url}{path}", headers={"Authorization": f"Bearer {api.token}"})
    web = processes["web"]
    try:
        with OpenLoop(asks=[ask], per_s=3 * PER_S, keep_alive=False) as load:
            load.more(PER_S)
            web.terminate(within_s=10)
            load.more(PER_S)
    finally:
        processes["web"] = stands.start("web")
    assert {one.status for one in load.answers} == {0, 404}
    assert sum(one.status == 404 for one in load.answers) == web.said().count(f"Not Found: {path}")

"""Each process of the table is killed in turn while an endpoint serves; then everything at once."""

import http.client
import json
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controlplane.embedded import edge, ports, procfs
from controlplane.embedded.home import Home
from controlplane.embedded.processes import Site, table
from tests.faults.house import MODEL, PER_S, House
from tests.faults.load import Answer, Ask, OpenLoop
from tests.faults.waiting import until

RESTARTED_WITHIN_S = 15
CROWD = 400
TABLE = (
    "postgres",
    "valkey",
    "node",
    "dispatcher",
    "collector",
    "load",
    "importer",
    "worker-optimize",
    "worker-rollouts",
    "live",
    "web",
    "edge",
)
ROWS = {
    row.name: row
    for row in table(
        Site(
            python="python",
            web="127.0.0.1:1",
            live="127.0.0.1:2",
            home=Home(root=Path("/nowhere")),
            embedded_postgres=True,
            embedded_valkey=True,
        )
    )
}
LOOKING = ("postgres", "node", "collector")
"""What the collector needs to see an endpoint, and itself."""


def test_these_are_all_processes_of_the_table(lived_in: House) -> None:
    assert set(lived_in.up.processes) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_killed_process_is_started_again_and_the_endpoint_goes_on(lived_in: House, name: str) -> None:
    before = dict(lived_in.up.processes)
    with lived_in.load() as load:
        load.more(PER_S)
        os.kill(before[name], signal.SIGKILL)
        until(
            lambda: lived_in.up.processes.get(name, before[name]) != before[name],
            within_s=RESTARTED_WITHIN_S,
            what=f"{name} being started again",
        )
        until(lambda: lived_in.page() == 200, within_s=RESTARTED_WITHIN_S, what="the page answering again")
        until(lambda: observed(lived_in), within_s=RESTARTED_WITHIN_S, what="the API answering again")
        if name in LOOKING:
            seen = observed(lived_in)
            until(
                lambda: observed(lived_in) not in ("", seen),
                within_s=RESTARTED_WITHIN_S,
                what="the collector looking again",
            )
        load.more(PER_S)
    assert load.failed() == []
    others = {key: pid for key, pid in lived_in.up.processes.items() if key != name}
    assert others == {key: pid for key, pid in before.items() if key != name}


def observed(house: House) -> str:
    """When the collector last saw the endpoint, as the API says; empty while it does not."""
    try:
        return str(house.api.get("deployments/tiny/replicas/")["observed_at"])
    except Exception:  # noqa: BLE001  the next look may succeed
        return ""


@contextmanager
def told_to_stop(house: House, name: str) -> Iterator[None]:
    """Begins with what the table stops a process with. AssertionError unless it leaves within its grace."""
    row = ROWS[name]
    pid = house.up.processes[name]
    told = procfs.look(pid)
    assert told is not None
    os.kill(pid, row.stop_signal)
    yield
    until(
        lambda: not procfs.lives(pid, started=told.started),
        within_s=row.grace_s,
        what=f"the end of {name} within its grace",
    )


def not_accepted(answer: Answer, failed: list[Answer]) -> bool:
    """Nothing was done: it was told to come back, found nobody, or came when no replica was left to do it."""
    empty_since = min((one.done for one in failed if "no_replica_ready" in one.detail), default=math.inf)
    told_to_wait = answer.status == 503 and answer.retry_after is not None
    found_nobody = answer.status == 0 and "Connect call failed" in answer.detail
    return told_to_wait or found_nobody or answer.due > empty_since


@pytest.mark.parametrize("name", ["postgres", "valkey", "worker-rollouts", "node"])
def test_F44_a_part_told_to_stop_leaves_within_its_grace_and_loses_nothing_that_it_accepted(
    lived_in: House, name: str
) -> None:
    """In the middle of a rollout, which must have its effect once."""
    before = dict(lived_in.up.processes)
    revision = lived_in.revision(replicas=2, threads=2)
    begun = lived_in.api.post("deployments/tiny/rollouts/", {"revision": revision}, If_Match="*")
    rollout = f"deployments/tiny/rollouts/{begun['id']}/"
    lived_in.api.wait(rollout, lambda seen: seen["state"] == "running", within_s=15)
    with lived_in.load(keep_alive=False) as load, lived_in.visits() as visits:
        load.more(PER_S // 2)
        visits.more(PER_S // 2)
        with told_to_stop(lived_in, name):
            pass
        until(
            lambda: lived_in.up.processes.get(name, before[name]) != before[name],
            within_s=RESTARTED_WITHIN_S,
            what=f"{name} being started again",
        )
        until(lambda: observed(lived_in), within_s=RESTARTED_WITHIN_S, what="the API answering again")
        until(lambda: lived_in.serving() == 2, within_s=30, what="two replicas ready")
        ended = lived_in.api.wait(rollout, lambda seen: seen["finished_at"] is not None, within_s=60)
    assert ended["state"] == "succeeded"
    assert {one["revision"] for one in lived_in.ready_replicas()} == {revision}
    assert [one for one in load.failed() if not (name == "node" and not_accepted(one, load.failed()))] == []
    assert [one for one in visits.failed() if not (name == "postgres" and not_accepted(one, []))] == []


def test_F44_an_edge_told_to_stop_takes_nothing_new_and_answers_what_it_took(lived_in: House) -> None:
    """Half of a body is on its way when the signal comes; its rest comes when nobody else gets in any more."""
    before, body = lived_in.up.processes["edge"], b'{"name": "half-way"}'
    address = urlsplit(lived_in.up.url).netloc
    client = http.client.HTTPConnection(address, timeout=20)
    with lived_in.load() as load, closing(client):
        client.putrequest("POST", "/api/v1/models/")
        client.putheader("Authorization", f"Bearer {lived_in.api.token}")
        client.putheader("Content-Type", "application/json")
        client.putheader("Content-Length", str(len(body)))
        client.endheaders(body[:5])
        until(lambda: edge.under_way(Home(root=lived_in.home)), within_s=10, what="the request being taken")
        with told_to_stop(lived_in, "edge"):
            until(
                lambda: ports.bind_error(*edge.split(address)) is None,
                within_s=1,
                what="nobody else getting in",
            )
            client.send(body[5:])
            answer = client.getresponse()
            assert (answer.status, json.loads(answer.read())["name"]) == (201, "half-way")
        until(
            lambda: lived_in.up.processes.get("edge", before) != before,
            within_s=RESTARTED_WITHIN_S,
            what="the edge being started again",
        )
        until(lambda: lived_in.page() == 200, within_s=RESTARTED_WITHIN_S, what="the page answering again")
    assert load.failed() == []
    assert lived_in.api.get("models/half-way/")["name"] == "half-way"


def test_a_killed_data_proxy_is_replaced_and_costs_only_what_it_held_and_what_comes_meanwhile(
    lived_in: House,
) -> None:
    """Nothing stands in front of it, so requests that arrive before its successor listens cannot be helped."""
    proxy = lived_in.node.get("health")["proxy_pid"]
    with lived_in.load() as load:
        load.more(PER_S)
        killed_at = time.monotonic()
        os.kill(proxy, signal.SIGKILL)
        until(
            lambda: lived_in.node.get("health")["proxy_pid"] not in (None, proxy),
            within_s=RESTARTED_WITHIN_S,
            what="another proxy",
        )
        load.more(PER_S)
        back_at = time.monotonic()
        load.more(2 * PER_S)
    assert load.failed(since=back_at) == []
    assert {one.status for one in load.failed()} <= {0}
    assert [one for one in load.failed() if one.done < killed_at] == []
    assert len(lived_in.ready_replicas()) == 2


@pytest.mark.parametrize("path", ["account/login/", "models/new/"])
def test_B20_forty_slow_bodies_without_a_login_leave_web_to_others(lived_in: House, path: str) -> None:
    """More than web has threads. What they hold it with would be the form, which is read before the login is."""
    host, csrf = urlsplit(lived_in.up.url).netloc, "a" * 32
    head = (
        f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nCookie: csrftoken={csrf}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    with ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(socket.create_connection(edge.split(host), timeout=20))
            slow.sendall(head.encode())
        assert [lived_in.page() for _ in range(20)] == [200] * 20
        assert lived_in.api.get("models/")["items"]


def test_a_crowd_waits_for_its_turn_and_leaves_nobody_waiting_behind_it(lived_in: House) -> None:
    """More at once than web has threads: what a worker does not accept waits until idle connections are closed."""
    with lived_in.visits(per_s=1000, count=CROWD) as crowd:
        crowd.more(CROWD)
    with lived_in.visits() as visits:
        visits.more(PER_S)
    assert crowd.failed() == []
    assert visits.failed() == []


def test_a_frozen_broker_stops_neither_pages_nor_the_endpoint(lived_in: House) -> None:
    valkey = lived_in.up.processes["valkey"]
    pages = [Ask(url=f"{lived_in.up.url}account/login/"), Ask(url=f"{lived_in.up.url}api/v1/models/")]
    pages[1] = Ask(url=pages[1].url, headers={"Authorization": f"Bearer {lived_in.api.token}"})
    with lived_in.load() as load, OpenLoop(asks=pages, per_s=5) as visits:
        os.kill(valkey, signal.SIGSTOP)
        try:
            frozen_until = time.monotonic() + 5  # longer than any call to the broker may take
            until(lambda: time.monotonic() > frozen_until, within_s=6, what="five seconds")
            visits.more(5)
        finally:
            os.kill(valkey, signal.SIGCONT)
        load.more(PER_S)
    assert load.failed() == []
    assert visits.failed() == []
    assert lived_in.up.processes["valkey"] == valkey


def test_everything_killed_continues_with_a_second_up_and_a_sigterm_leaves_nothing(lived_in: House) -> None:
    address, revision = lived_in.asking.url, lived_in.api.get("deployments/tiny/")["revision"]
    lived_in.kill_everything()
    lived_in.start()
    until(lambda: len(lived_in.ready_replicas()) == 2, within_s=30, what="both replicas serving again")
    assert lived_in.asking.url == address
    with lived_in.load() as load:
        load.more(PER_S)
    assert load.failed() == []
    assert lived_in.api.get("deployments/tiny/")["revision"] == revision
    wanted = {"model": MODEL, "version": 1, "recipe": [{"technique": "onnx-graph"}]}
    job = lived_in.api.post("jobs/", wanted)
    lived_in.api.wait(f"jobs/{job['id']}/", lambda seen: seen["state"] == "running", within_s=30)
    lived_in.stop()

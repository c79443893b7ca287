"""Each process of the table is killed in turn while an endpoint serves; then everything at once."""

import os
import signal
import time

import pytest

from tests.faults.house import MODEL, PER_S, House
from tests.faults.load import Ask, OpenLoop
from tests.faults.waiting import until

RESTARTED_WITHIN_S = 15
TABLE = (
    "postgres",
    "valkey",
    "node",
    "dispatcher",
    "collector",
    "load",
    "worker-optimize",
    "worker-rollouts",
    "live",
    "web",
    "edge",
)
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
    address = lived_in.asking.url
    lived_in.kill_everything()
    lived_in.start()
    until(lambda: len(lived_in.ready_replicas()) == 2, within_s=30, what="both replicas serving again")
    assert lived_in.asking.url == address
    with lived_in.load() as load:
        load.more(PER_S)
    assert load.failed() == []
    assert lived_in.api.get("deployments/tiny/")["revision"] == 1
    wanted = {"model": MODEL, "version": 1, "recipe": [{"technique": "onnx-graph"}]}
    job = lived_in.api.post("jobs/", wanted)
    lived_in.api.wait(f"jobs/{job['id']}/", lambda seen: seen["state"] == "running", within_s=30)
    lived_in.stop()

"""What is done to an endpoint through the whole product, or happens to it, costs no request."""

import os
import signal
import time

from tests.faults.house import PER_S, House
from tests.faults.waiting import until

GONE_WITHIN_S = 2


def test_a_rolling_update_and_a_rollback_cost_no_request(lived_in: House) -> None:
    first = lived_in.api.get("deployments/tiny/")["revision"]
    with lived_in.load() as load:
        load.more(PER_S)
        second = lived_in.revision(replicas=2, threads=2)
        lived_in.roll_out(second)
        assert {one["revision"] for one in lived_in.ready_replicas()} == {second}
        load.more(PER_S)
        lived_in.roll_out(first, by="rollback")
        until(
            lambda: {one["revision"] for one in lived_in.replicas()} == {first},
            within_s=20,
            what="only the first revision serving",
        )
        load.more(PER_S)
    assert load.failed() == []
    assert lived_in.api.get("deployments/tiny/")["revision"] == first


def test_a_killed_replica_gets_no_request_after_two_seconds_and_is_replaced(lived_in: House) -> None:
    victim = lived_in.ready_replicas()[0]
    port = int(victim["url"].rpartition(":")[2])
    assert port in lived_in.routed_ports()
    with lived_in.load() as load:
        load.more(PER_S)
        killed_at = time.monotonic()
        os.kill(victim["pid"], signal.SIGKILL)
        until(
            lambda: port not in lived_in.routed_ports(),
            within_s=GONE_WITHIN_S,
            what="the proxy dropping the dead replica",
        )
        assert time.monotonic() - killed_at <= GONE_WITHIN_S
        until(
            lambda: (
                [one["pid"] for one in lived_in.ready_replicas() if one["name"] == victim["name"]]
                not in ([], [victim["pid"]])
            ),
            within_s=20,
            what="its successor being ready",
        )
        load.more(PER_S)
    assert load.failed() == []
    replaced = next(one for one in lived_in.ready_replicas() if one["name"] == victim["name"])
    assert replaced["restarts"] == victim["restarts"] + 1
    assert "signal 9" in replaced["reason"]

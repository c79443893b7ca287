"""A deployment's load and its replicas' logs, on their pages."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from deployments import services
from deployments.models import Deployment, Load
from deployments.views.overview import HOLD
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
ONE = "/deployments/scorer/"


def test_the_load_is_started_doubled_up_to_the_cap_and_stopped(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    refused = client.post(f"{ONE}load/", {"rate_per_s": "500", "minutes": "5"})
    assert refused.status_code == 422
    assert "at most 200 requests per second" in refused.content.decode()
    client.post(f"{ONE}load/", {"rate_per_s": "80", "minutes": "5"})
    ends = Load.objects.get().until
    for expected in (160, 200, 200):
        client.post(f"{ONE}load/raise/")
        assert Load.objects.get().rate_per_s == expected
    assert abs((Load.objects.get().until - ends).total_seconds()) < 10, "raising does not prolong"
    client.post(f"{ONE}load/stop/")
    assert Load.objects.get().until <= datetime.now(UTC) + HOLD, "it ends, whether or not a page stays open"


def test_a_stop_of_the_load_can_be_taken_back_for_some_seconds(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    client.post(f"{ONE}load/", {"rate_per_s": "20", "minutes": "5"})
    ends = Load.objects.get().until
    held = client.post(f"{ONE}load/stop/")
    page = client.get(held.url).content.decode()  # type: ignore[attr-defined]
    assert "The load stops" in page
    until = f'name="until" value="{math.ceil(ends.timestamp())}"'
    assert until in page
    client.post(f"{ONE}load/keep/", {"until": math.ceil(ends.timestamp())})
    assert abs((Load.objects.get().until - ends).total_seconds()) < 2
    assert "The load stops" not in client.get(held.url).content.decode()  # type: ignore[attr-defined]


@pytest.mark.parametrize("until", ["", "x", "1", "9" * 11, "-5"])
def test_nothing_brings_an_ended_load_back_or_prolongs_it_beyond_the_cap(world: World, until: str) -> None:
    world.serve()
    client = world.browser(world.owner)
    client.post(f"{ONE}load/", {"rate_per_s": "20", "minutes": "5"})
    client.post(f"{ONE}load/keep/", {"until": until})
    cap = datetime.now(UTC) + timedelta(seconds=services.MAX_LOAD_S)
    assert Load.objects.get().until <= cap
    Load.objects.update(until=datetime.now(UTC) - timedelta(seconds=1))
    answer = client.post(f"{ONE}load/keep/", {"until": until}, follow=True)
    assert "had ended already" in answer.content.decode()
    assert Load.objects.get().until <= datetime.now(UTC)


def test_the_part_that_ticks_offers_the_load_again_once_it_has_ended(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    client.post(f"{ONE}load/", {"rate_per_s": "20", "minutes": "5"})
    assert "Start the load" not in client.get(f"{ONE}?part=load").content.decode()
    Load.objects.update(until=datetime.now(UTC) - timedelta(seconds=1))
    part = client.get(f"{ONE}?part=load").content.decode()
    assert "Start the load" in part
    assert 'hx-get="?part=load"' in part
    refused = client.post(f"{ONE}load/", {"rate_per_s": "500", "minutes": "5"}).content.decode()
    assert "at most 200 requests per second" in refused
    assert 'hx-get="?part=load"' not in refused, "a tick would take the refusal away"


def test_a_load_that_nobody_sends_is_not_silent_about_it(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    client.post(f"{ONE}load/", {"rate_per_s": "20", "minutes": "5"})
    assert "No process sends it here" not in client.get(f"{ONE}?part=load").content.decode()
    Load.objects.update(updated_at=datetime.now(UTC) - timedelta(minutes=1))
    assert "No process sends it here" in client.get(f"{ONE}?part=load").content.decode()
    Load.objects.update(sent=1)
    assert "No process sends it here" not in client.get(f"{ONE}?part=load").content.decode()


def test_a_protected_endpoint_s_load_is_refused_with_the_reason(world: World) -> None:
    world.serve()
    Deployment.objects.update(api_key_sha256="0" * 64)
    answer = world.browser(world.owner).post(f"{ONE}load/", {"rate_per_s": "5", "minutes": "1"})
    assert answer.status_code == 409
    assert "answers only with its API key" in answer.content.decode()


def test_logs_show_the_target_s_answer_or_its_silence(world: World) -> None:
    world.serve()
    client = world.browser(world.viewer)
    assert client.get(f"{ONE}logs/?replica=gone").status_code == 404
    world.target.reachable = False
    assert client.get(f"{ONE}logs/").status_code == 503


def test_a_page_of_logs_asks_only_for_what_came_since(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.serve()
    written = [
        '{"at": "2026-11-24T10:00:00.100+00:00", "level": "info", "event": "ready"}',
        "Traceback of a library",
        '{"at": "2026-11-24T10:00:00.100+00:00", "level": "error", "event": "refused", "rows": 9}',
    ]
    monkeypatch.setattr(world.target, "logs", lambda key, *, replica, tail: tuple(written[-tail:]))
    client = world.browser(world.viewer)
    lines = f"{ONE}logs/lines/?replica=r1"
    first = client.get(lines).json()["events"]
    assert [one["message"] for one in first] == ["ready", "Traceback of a library", "refused rows=9"]
    assert client.get(f"{lines}&after={first[-1]['id']}").json() == {"events": []}
    written.append('{"at": "2026-11-24T10:00:00.100+00:00", "level": "info", "event": "again"}')
    assert [one["message"] for one in client.get(f"{lines}&after={first[0]['id']}").json()["events"]] == [
        "Traceback of a library",
        "refused rows=9",
        "again",
    ]
    text = client.get(f"{ONE}logs/text/?replica=r1")
    assert text.content.decode().splitlines() == written
    assert "attachment" in text["Content-Disposition"]


def test_a_replica_that_is_gone_has_no_more_lines(world: World) -> None:
    world.serve()
    client = world.browser(world.viewer)
    for path in ("lines", "text"):
        assert client.get(f"{ONE}logs/{path}/?replica=gone").status_code == 404

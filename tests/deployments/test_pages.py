"""The pages of deployments, for their three people, with the sentences that they must say."""

import csv
import math
from datetime import UTC, datetime, timedelta

import pytest

from deployments import preview, services, specs
from deployments.forms import initial_of
from deployments.models import Decision, Deployment, Load, Rollout
from deployments.telemetry import store
from deployments.views.overview import HOLD
from tests.deployments.telemetry.windows import window
from tests.deployments.world import World, make

pytestmark = pytest.mark.django_db
LIST = "/deployments/"
ONE = "/deployments/scorer/"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return make(monkeypatch)


def _decide(world: World, *, at: datetime, before: int, after: int) -> None:
    signal = {"value": 21.0, "age_s": 1.2, "error": None, "recommendation": after}
    Decision.objects.create(
        deployment=world.row,
        at=at,
        last_at=at,
        current_replicas=before,
        desired_replicas=after,
        raw_recommendation=after,
        limited_by="none",
        signals={"inference_queue_depth": signal},
        sentence=f"Scaled {before} to {after}: inference_queue_depth 21 (1 s old) asks for {after}.",
    )


READS = (
    "",
    "series.csv?range=5m",
    "rollouts/",
    "rollouts/{rollout}/",
    "revisions/",
    "rollouts/?part=csv",
    "rollouts/?part=total",
    "revisions/?from=1&to=1",
    "revisions/?part=csv",
    "revisions/?part=total",
    "revisions/1/plan/",
    "scaling/",
    "scaling/?show=all",
    "scaling/?part=csv",
    "scaling/?part=total",
    "logs/",
    "settings/",
    "?part=now",
    "?part=replicas",
    "?part=load",
)


@pytest.mark.parametrize("path", READS)
def test_teammates_read_pages_and_strangers_find_none(world: World, path: str) -> None:
    world.serve()
    _decide(world, at=datetime.now(UTC), before=1, after=2)
    path = ONE + path.format(rollout=world.row.rollouts.get().pk)
    assert world.browser(world.owner).get(path).status_code == 200
    assert world.browser(world.viewer).get(path).status_code == 200
    assert world.browser(world.stranger).get(path).status_code == 404


POSTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("load/", {"rate_per_s": "5", "minutes": "1"}),
    ("load/raise/", {}),
    ("load/stop/", {}),
    ("load/keep/", {"until": "9999999999"}),
    ("scaling/scale/", {"replicas": "2"}),
    ("scaling/pause/", {"paused": "1"}),
    ("settings/remove/", {"confirm": "scorer"}),
    ("rollouts/{rollout}/cancel/", {}),
    ("revisions/1/plan/", {"etag": "x"}),
)


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_a_viewer_s_and_a_stranger_s_posts_change_nothing(
    world: World, path: str, body: dict[str, str]
) -> None:
    world.serve()
    services.start_load(world.owner, world.deployment, rate_per_s=5, duration_s=60)
    rollout = world.start(world.revision())
    path = ONE + path.format(rollout=rollout.pk)

    def state() -> object:
        rows = Deployment.objects.values_list("replicas", "autoscaling_paused", "removing")
        return (
            list(rows),
            list(Load.objects.values_list("rate_per_s", "until")),
            Rollout.objects.get(pk=rollout.pk).state,
        )

    before = state()
    answer = world.browser(world.viewer).post(path, body, follow=True)
    assert answer.status_code in {200, 403}
    assert b"needs the role engineer" in answer.content
    assert world.browser(world.stranger).post(path, body).status_code == 404
    assert state() == before


def test_a_viewer_is_offered_no_verbs(world: World) -> None:
    world.serve()
    for path in ("", "revisions/", "revisions/1/plan/", "scaling/", "settings/", "rollouts/"):
        page = world.browser(world.viewer).get(ONE + path).content.decode()
        main = page.partition("<main")[2].partition("</main>")[0]
        assert 'method="post"' not in main, path


def test_an_empty_list_teaches_and_a_filter_without_match_offers_to_clear(world: World) -> None:
    page = world.browser(world.stranger).get(LIST).content.decode()
    assert "No deployments yet" in page
    assert "curl" in page
    page = world.browser(world.owner).get(f"{LIST}?q=nothing-like-it").content.decode()
    assert "No deployment matches" in page
    assert "Clear the filters" in page


def test_the_list_shows_health_size_and_figures_and_costs_the_same_for_many(
    world: World, django_assert_max_num_queries: object
) -> None:
    world.serve()
    now = datetime.now(UTC).timestamp() // 10 * 10 - 10
    store.write([window(world.row.pk, ts=now, seconds=[0.02] * 100)], living=[world.row.pk])
    page = world.browser(world.viewer).get(LIST).content.decode()
    assert "Healthy" in page
    assert "1/1" in page
    assert "20.0" in page or "19.9" in page or "20.1" in page
    client = world.browser(world.owner)
    for number in range(12):
        services.create_deployment(world.owner, name=f"more-{number}", target=world.row.target)
    with django_assert_max_num_queries(9):  # type: ignore[operator]
        client.get(LIST)


def test_the_list_as_csv_is_safe_to_open(world: World) -> None:
    world.serve()
    answer = world.browser(world.viewer).get(f"{LIST}?part=csv")
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    rows = list(csv.DictReader(text.splitlines()))
    assert rows[0]["name"] == "scorer"
    assert rows[0]["health"] == "healthy"


def test_the_wizard_makes_deployment_and_revision_and_leads_to_the_plan(world: World) -> None:
    variant = world.revision().variant
    client = world.browser(world.owner)
    page = client.get(f"{LIST}new/?model=scorer&version=1&variant=0").content.decode()
    assert "Two signals" in page
    body = initial_of(specs.read_spec({})) | {
        "name": "fresh",
        "target": "memory",
        "variant": f"scorer/{variant.version.number}/0",
        "max_batch_size": 16,
        "in_flight_target": "12.5",
    }
    answer = client.post(f"{LIST}new/", body)
    assert answer.status_code == 302, answer.content.decode()[:3000]
    assert answer["Location"] == "/deployments/fresh/revisions/1/plan/"
    spec = Deployment.objects.get(name="fresh").revisions.get().spec
    assert spec["batching"]["max_batch_size"] == 16
    assert [one["external"]["target"]["averageValue"] for one in spec["autoscaling"]["metrics"]] == [
        "10",
        "12500m",
    ]


def test_the_wizard_shows_a_key_once(world: World) -> None:
    variant = world.revision().variant
    body = initial_of(specs.read_spec({})) | {
        "name": "locked",
        "target": "memory",
        "variant": f"scorer/{variant.version.number}/0",
        "protected": "on",
    }
    answer = world.browser(world.owner).post(f"{LIST}new/", body)
    assert answer.status_code == 201
    assert "It is shown once" in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "Not A Name", "lower-case letters"),
        ("name", "scorer", "This name is taken"),
        ("max_batch_size", "5000", "Must lie between 1 and 4,096"),
        ("max_batch_size", "2000", "less than or equal to 1024"),
        ("preferred_batch_size", "8, 4", "rising order"),
        ("preferred_batch_size", "four", "whole numbers"),
        ("threads", "65", "less than or equal to 64"),
        ("max_replicas", "300", "at most 256"),
        ("min_replicas", "5", "is more than maxReplicas"),
        ("progress_deadline_s", "1", "Must lie between 5 and 3,600"),
        ("max_queue_size", "", "This field is required"),
    ],
)
def test_the_wizard_refuses_beside_the_field_and_makes_nothing(
    world: World, field: str, value: str, words: str
) -> None:
    variant = world.revision().variant
    body = initial_of(specs.read_spec({})) | {
        "name": "fresh",
        "target": "memory",
        "variant": f"scorer/{variant.version.number}/0",
        field: value,
    }
    answer = world.browser(world.owner).post(f"{LIST}new/", body)
    page = answer.content.decode()
    assert answer.status_code in {400, 409, 422}
    assert words in page
    assert not Deployment.objects.filter(name="fresh").exists()


def test_the_plan_page_rolls_out_what_it_showed(world: World) -> None:
    world.serve()
    world.revision(batching={"max_batch_size": 16})
    client = world.browser(world.owner)
    page = client.get(f"{ONE}revisions/2/plan/")
    assert "Roll out revision 2" in page.content.decode()
    answer = client.post(f"{ONE}revisions/2/plan/", {"etag": page.context["preview"].etag})
    rollout = Rollout.objects.get(to_revision__number=2)
    assert answer["Location"] == f"{ONE}rollouts/{rollout.pk}/"
    assert rollout.kind == "update"


def test_going_back_is_one_button_from_a_revision_s_row(world: World) -> None:
    world.serve()
    world.serve(batching={"max_batch_size": 16})
    client = world.browser(world.owner)
    assert "Roll back to 1" in client.get(f"{ONE}revisions/").content.decode()
    page = client.get(f"{ONE}revisions/1/plan/")
    assert "What a rollback does not restore" in page.content.decode()
    client.post(f"{ONE}revisions/1/plan/", {"etag": page.context["preview"].etag})
    rollout = Rollout.objects.get(to_revision__number=1, kind="rollback")
    assert world.finish(rollout).state == "succeeded"
    assert world.deployment.live_revision.number == 1  # type: ignore[union-attr]


def test_a_plan_that_is_old_shows_why_and_the_new_plan_below(world: World) -> None:
    world.serve()
    world.revision()
    client = world.browser(world.owner)
    etag = client.get(f"{ONE}revisions/2/plan/").context["preview"].etag
    assert world.finish(world.start(world.revision())).state == "succeeded"
    answer = client.post(f"{ONE}revisions/2/plan/", {"etag": etag})
    page = answer.content.decode()
    assert answer.status_code == 412
    assert "What runs has moved since this plan was shown." in page
    assert answer.context["preview"].etag != etag
    assert "Roll back to 2" in page, "against what runs now, it is a way back"


def test_a_second_rollout_is_told_whose_is_under_way(world: World) -> None:
    world.start(world.revision())
    world.revision()
    client = world.browser(world.owner)
    etag = client.get(f"{ONE}revisions/2/plan/").context["preview"].etag
    answer = client.post(f"{ONE}revisions/2/plan/", {"etag": etag})
    assert answer.status_code == 409
    assert "is rolling out revision 1" in answer.content.decode()


def test_a_plan_without_its_target_says_so(world: World) -> None:
    world.serve()
    world.target.reachable = False
    answer = world.browser(world.viewer).get(f"{ONE}revisions/1/plan/")
    assert answer.status_code == 503
    assert "load this page again when the target answers" in answer.content.decode()


def test_a_failed_rollout_s_page_keeps_the_replica_s_own_words(world: World) -> None:
    world.serve()
    bad = world.revision()
    log = ('{"level":"error","event":"cannot_serve","error":"Missing operator <Foo>"}', "Traceback & more")
    world.target.fail(world.row.key, revision=bad.number, log=log)
    rollout = world.start(bad)
    for _ in range(4):
        world.step()
    page = world.browser(world.viewer).get(ONE).content.decode()
    assert "Missing operator &lt;Foo&gt;" in page
    world.make_late(rollout)
    world.finish(rollout)
    page = world.browser(world.viewer).get(f"{ONE}rollouts/{rollout.pk}/").content.decode()
    assert "Evidence" in page
    assert "Missing operator &lt;Foo&gt;" in page
    assert "Traceback &amp; more" in page
    assert "Cancel rollout" not in page


def test_cancelling_from_its_page_turns_the_rollout_round(world: World) -> None:
    world.serve()
    rollout = world.start(world.revision())
    world.step()
    client = world.browser(world.owner)
    assert "Cancel rollout" in client.get(f"{ONE}rollouts/{rollout.pk}/").content.decode()
    page = client.post(f"{ONE}rollouts/{rollout.pk}/cancel/", follow=True).content.decode()
    assert "going back" in page
    again = client.post(f"{ONE}rollouts/{rollout.pk}/cancel/", follow=True).content.decode()
    assert "This rollout is rolling back." in again


def test_the_overview_says_why_there_are_so_many_and_when_nobody_decides(world: World) -> None:
    world.serve()
    now = datetime.now(UTC)
    _decide(world, at=now, before=1, after=2)
    client = world.browser(world.viewer)
    page = client.get(ONE).content.decode()
    assert "Scaled 1 to 2: inference_queue_depth 21 (1 s old) asks for 2." in page
    assert "Nothing was decided since" not in page
    Decision.objects.update(last_at=now - timedelta(minutes=2))
    assert "Nothing was decided since" in client.get(ONE).content.decode()
    services.pause_autoscaling(world.owner, world.deployment, paused=True)
    assert "Autoscaling is paused: a person chose 1." in client.get(ONE).content.decode()


def test_the_overview_teaches_what_to_send(world: World) -> None:
    world.serve()
    page = world.browser(world.viewer).get(ONE).content.decode()
    assert f"http://memory.invalid/{world.owner.team.name}/scorer/v2/models/scorer/infer" in page
    assert "&quot;datatype&quot;: &quot;FP32&quot;" in page


def test_what_ticks_refresh_is_a_part_of_the_page(world: World) -> None:
    world.serve()
    client = world.browser(world.viewer)
    part = client.get(f"{ONE}?part=now").content.decode()
    assert part.lstrip().startswith('<div class="stack" id="now"')
    assert "<html" not in part


def test_scaling_by_hand_within_bounds_and_pausing(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    refused = client.post(f"{ONE}scaling/scale/", {"replicas": "9"})
    assert refused.status_code == 422
    assert "Use 1 to 8." in refused.content.decode()
    client.post(f"{ONE}scaling/scale/", {"replicas": "3"})
    world.until(lambda: world.seen.ready() == 3)
    client.post(f"{ONE}scaling/pause/", {"paused": "1"})
    assert "Resume autoscaling" in client.get(f"{ONE}scaling/").content.decode()
    client.post(f"{ONE}scaling/pause/", {"paused": "0"})
    assert not world.deployment.autoscaling_paused


def test_the_decision_log_tells_changes_from_holds(world: World) -> None:
    world.serve()
    now = datetime.now(UTC)
    _decide(world, at=now, before=1, after=2)
    _decide(world, at=now, before=3, after=3)
    client = world.browser(world.viewer)
    changes = client.get(f"{ONE}scaling/").context["decisions"]
    assert [one["row"].desired_replicas for one in changes] == [2]
    assert len(client.get(f"{ONE}scaling/?show=all").context["decisions"]) == 2


def test_removal_needs_the_name(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    client.post(f"{ONE}settings/remove/", {"confirm": "scorer2"})
    assert not world.deployment.removing
    client.post(f"{ONE}settings/remove/", {"confirm": "scorer"})
    assert world.deployment.removing
    assert "Removing" in client.get(LIST).content.decode()


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


def test_rollouts_and_revisions_are_files_too(world: World) -> None:
    world.serve()
    client = world.browser(world.viewer)
    for path, column, value in (("rollouts", "state", "succeeded"), ("revisions", "revision", "1")):
        answer = client.get(f"{ONE}{path}/?part=csv")
        text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
        assert [row[column] for row in csv.DictReader(text.splitlines())] == [value]


def test_a_list_counts_what_its_filter_leaves(world: World) -> None:
    world.serve()
    client = world.browser(world.viewer)
    assert client.get(f"{LIST}?q=nothing-like-it&part=total").content == b"of 0"
    assert client.get(f"{LIST}?part=total").content == b"of 1"
    services.create_deployment(world.owner, name="second", target=world.row.target)
    page = client.get(f"{LIST}?q=s&limit=1").content.decode()
    assert 'hx-get="?q=s&amp;limit=1&amp;part=total"' in page
    assert 'href="?q=s&amp;limit=25"' in page


def test_a_new_revision_begins_as_the_live_one(world: World) -> None:
    world.serve(batching={"max_batch_size": 32, "preferred_batch_size": [8, 16]}, threads=2)
    form = world.browser(world.owner).get(f"{ONE}settings/").context["form"]
    assert form.initial["max_batch_size"] == 32
    assert form.initial["preferred_batch_size"] == "8, 16"
    answer = world.browser(world.owner).post(f"{ONE}settings/", form.initial | {"threads": 1})
    assert answer["Location"] == f"{ONE}revisions/2/plan/"
    before, after = world.row.revisions.order_by("number")
    assert [change.path for change in preview.compare(before, after)] == ["threads"]

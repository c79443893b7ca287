"""The pages of deployments, for their three people, with the sentences that they must say."""

import csv
import re
from datetime import UTC, datetime, timedelta

import pytest

from deployments import services
from deployments.models import Decision, Deployment, Load, Rollout
from deployments.telemetry import store
from deployments.views import tables
from tests.deployments.telemetry.windows import window
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
LIST = "/deployments/"
ONE = "/deployments/scorer/"


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
    "?part=events",
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
    ("settings/key/", {"confirm": "scorer"}),
    ("settings/key/remove/", {"confirm": "scorer"}),
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
        rows = Deployment.objects.values_list("replicas", "autoscaling_paused", "removing", "api_key_sha256")
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
    assert f'data-live="deployments,metrics:{world.row.pk}"' in page
    assert ", every 15s" in page
    assert "1/1" in page
    assert "20.0" in page or "19.9" in page or "20.1" in page
    client = world.browser(world.owner)
    for number in range(12):
        services.create_deployment(world.owner, name=f"more-{number}", target=world.row.target)
    with django_assert_max_num_queries(9):  # type: ignore[operator]
        client.get(LIST)


def test_the_list_as_csv_is_safe_to_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK", 2)
    world.serve()
    for number in range(2):
        services.create_deployment(world.owner, name=f"more-{number}", target=world.row.target)
    answer = world.browser(world.viewer).get(f"{LIST}?part=csv")
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == ["more-1", "more-0", "scorer"]
    rows.reverse()
    assert rows[0]["health"] == "healthy"


def test_the_replicas_are_a_file_too(world: World) -> None:
    world.serve()
    answer = world.browser(world.viewer).get(f"{ONE}?part=csv")
    (row,) = csv.DictReader(b"".join(answer.streaming_content).decode().splitlines())  # type: ignore[attr-defined]
    assert (row["state"], row["revision"], row["restarts"]) == ("ready", "1", "0")


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
    assert part.lstrip().startswith('<section class="tiles" id="now"')
    assert "<html" not in part


def _live(page: str, part: str) -> str:
    """The part of that id, up to its end in the line, with the attributes that refresh it."""
    found = re.search(rf'<(\w+)[^>]* id="{part}"[^>]*hx-select="#{part}"[^>]*>.*?</\1>', page, re.DOTALL)
    assert found is not None, f"{part} does not refresh"
    return found[0]


def test_a_page_opened_before_anything_runs_comes_to_life_by_itself(world: World) -> None:
    client = world.browser(world.owner)
    assert "Nothing runs yet" in _live(client.get(ONE).content.decode(), "overview")
    assert "Nothing to scale yet" in _live(client.get(f"{ONE}scaling/").content.decode(), "scaling")
    assert "No replica runs" in _live(client.get(f"{ONE}logs/").content.decode(), "replica-log")
    rollout = world.start(world.revision())
    assert " hidden>" in _live(client.get(ONE).content.decode(), "ask"), "it has no address yet"
    path = f"{ONE}rollouts/{rollout.pk}/"
    assert "Cancel rollout" in _live(client.get(path).content.decode(), "rollout-verb")
    world.until(lambda: Rollout.objects.get().state == "succeeded")
    assert "curl" in _live(client.get(ONE).content.decode(), "ask")
    assert "Cancel rollout" not in _live(client.get(path).content.decode(), "rollout-verb")
    assert ">live<" in _live(client.get(f"{ONE}revisions/").content.decode(), "revision-list")


def test_the_overview_tells_what_happened_newest_first(world: World) -> None:
    world.serve()
    _decide(world, at=datetime.now(UTC), before=1, after=2)
    services.scale(world.owner, world.deployment, replicas=3)
    client = world.browser(world.viewer)
    said = re.sub(r"<[^>]+>|\s+", " ", client.get(f"{ONE}?part=events").content.decode())
    told = (
        f"{world.owner.user} </strong> scaled scorer from 1 to 3 replicas",
        "Scaled 1 to 2: inference_queue_depth 21",
        "Update to revision 1: succeeded.",
        "started a rollout of scorer, revision 1",
        "created scorer",
    )
    places = [said.index(re.sub(r"<[^>]+>", "", words)) for words in told]
    assert places == sorted(places)


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


def test_a_key_is_shown_once_and_a_reload_makes_no_other(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    form = {"confirm": "scorer", "seen": ""}
    assert (
        "Nothing was changed"
        in client.post(f"{ONE}settings/key/", {"seen": ""}, follow=True).content.decode()
    )
    shown = client.post(f"{ONE}settings/key/", form)
    assert (shown.status_code, shown["Cache-Control"]) == (201, "no-store")
    assert shown.context["key"] in shown.content.decode()
    first = world.deployment.api_key_sha256
    assert "was changed meanwhile" in client.post(f"{ONE}settings/key/", form, follow=True).content.decode()
    page = client.get(f"{ONE}settings/").content.decode()
    assert shown.context["key"] not in page
    assert f'name="seen" value="{first[:8]}"' in page
    client.post(f"{ONE}settings/key/", form | {"seen": first[:8]})
    second = world.deployment.api_key_sha256
    assert second not in ("", first)
    client.post(f"{ONE}settings/key/remove/", form | {"seen": second[:8]})
    assert not world.deployment.api_key_sha256


def test_removal_needs_the_name(world: World) -> None:
    world.serve()
    client = world.browser(world.owner)
    client.post(f"{ONE}settings/remove/", {"confirm": "scorer2"})
    assert not world.deployment.removing
    client.post(f"{ONE}settings/remove/", {"confirm": "scorer"})
    assert world.deployment.removing
    assert "Removing" in client.get(LIST).content.decode()


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

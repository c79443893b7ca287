"""The pages that look across all apps, seen by an owner, a teammate who only looks, and a stranger."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Team
from controlplane.registry.models import Alias, Artifact, Dataset
from deployments import specs
from deployments.models import Decision, Deployment, Revision, Rollout, Target
from optimizer.models import Job, Worker
from tests import factories

pytestmark = pytest.mark.django_db

type Look = Callable[[Actor, str], str]


@pytest.fixture
def look() -> Look:
    """The page as that person sees it, without the space between tags."""

    def get(actor: Actor, path: str) -> str:
        client = Client()
        assert actor.user is not None
        client.force_login(actor.user)
        answer = client.get(path)
        assert answer.status_code == 200, answer.content.decode()[:2000]
        return " ".join(answer.content.decode().split())

    return get


def a_job(team: Team, *, state: str = "queued", **fields: object) -> Job:
    version = factories.version(factories.model(team))
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    row = {"recipe": {}, "run_after": long_ago, "state": state} | fields
    return Job.objects.create(team=team, version=version, parent=version.variants.get(), **row)


def a_deployment(team: Team, name: str = "fraud-detector", *, ready: int = 0, wanted: int = 2) -> Deployment:
    """One that is live, with `ready` replicas last seen just now."""
    target = Target.objects.create(team=team, name=f"{name}-target", kind="memory")
    replicas: list[dict[str, object]] = [
        {
            "name": f"r{number}",
            "revision": 1,
            "state": "ready",
            "url": "",
            "pid": 1,
            "restarts": 0,
            "started_at": "2026-01-01T00:00:00+00:00",
            "ready_at": None,
            "reason": "",
            "log_tail": [],
        }
        for number in range(ready)
    ]
    made = Deployment.objects.create(team=team, name=name, target=target, replicas=wanted)
    made.observed = {
        "key": made.key,
        "generation": 1,
        "address": None,
        "replicas": replicas,
        "observed_at": "2026-01-01T00:00:00+00:00",
    }
    variant = factories.version(factories.model(team)).variants.get()
    made.live_revision = Revision.objects.create(deployment=made, number=1, variant=variant, spec={})
    made.observed_at = datetime.now(UTC)
    made.save()
    return made


def test_an_empty_team_is_told_where_to_begin(look: Look) -> None:
    owner, viewer, _ = factories.three_people(factories.team())
    assert 'href="/models/new/"' in look(owner, "/")
    assert "curl -X POST" in look(owner, "/")
    assert 'href="/models/new/"' not in look(viewer, "/")
    assert "Your role lets you look" in look(viewer, "/")


def test_what_needs_a_person_is_a_sentence_with_a_link(look: Look) -> None:
    team = factories.team()
    owner, viewer, stranger = factories.three_people(team)
    a_deployment(team, "degraded-one", ready=1, wanted=3)
    a_deployment(team, "broken-one", ready=0, wanted=2)
    failed = a_job(team, state="failed", finished_at=Now(), message="It ran out of memory at 3 GiB.")
    waiting = a_job(team, queue="optimize.gpu.sm_89")
    Artifact.objects.filter(sha256=failed.parent.artifact.sha256).update(state=Artifact.State.DAMAGED)
    for person in (owner, viewer):
        page = look(person, "/")
        assert "<strong>degraded-one</strong> serves with 1 of 3 replicas." in page
        assert "<strong>broken-one</strong> does not serve: none of its 2 replicas is ready." in page
        assert f"<strong>Job {failed.pk}</strong>" in page
        assert "failed: It ran out of memory at 3 GiB." in page
        assert f'href="/jobs/{failed.pk}/"' in page
        assert (
            "<strong>One job has</strong> waited for 5 min: no worker takes jobs of “optimize.gpu.sm_89” now."
            in page
        )
        assert f"<strong>{failed.parent}</strong> is damaged" in page
    unseen = look(stranger, "/")
    for name in ("degraded-one", "broken-one", str(failed.version), waiting.queue, str(failed.parent)):
        assert name not in unseen


def test_what_was_done_about_it_needs_nobody_any_more(look: Look) -> None:
    team = factories.team()
    owner = factories.member(team)
    failed = a_job(team, state="failed", finished_at=Now())
    a_job(team, queue="optimize.cpu")
    old = a_job(team, state="failed", finished_at=datetime.now(UTC) - timedelta(days=2))
    Worker.objects.create(name="w", queues=["optimize.cpu"], started_at=Now(), heartbeat_at=Now())
    page = look(owner, "/")
    assert f"Job {failed.pk}" in page
    assert f"Job {old.pk}" not in page
    assert "One job has" not in page
    a_job(team, state="succeeded", retry_of=failed)
    assert f"Job {failed.pk}" not in look(owner, "/")


def test_a_silent_or_drained_worker_serves_no_queue(look: Look) -> None:
    team = factories.team()
    a_job(team, queue="optimize.cpu")
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    Worker.objects.create(name="w", queues=["optimize.cpu"], started_at=long_ago, heartbeat_at=long_ago)
    now = datetime.now(UTC)
    Worker.objects.create(
        name="d", queues=["optimize.cpu"], started_at=now, heartbeat_at=now, drain_since=now
    )
    assert "no worker takes jobs of “optimize.cpu” now" in look(factories.member(team), "/")


def test_a_rollout_that_went_back_is_said_with_its_reason(look: Look) -> None:
    team = factories.team()
    live = a_deployment(team, ready=2)
    variant = factories.version(factories.model(team)).variants.get()
    second = Revision.objects.create(deployment=live, number=2, variant=variant, spec={})
    Rollout.objects.create(
        deployment=live,
        to_revision=second,
        state="rolled_back",
        message="No replica became ready within 60 s.",
        progressed_at=Now(),
        finished_at=Now(),
    )
    page = look(factories.member(team), "/")
    assert "did not take revision 2: No replica became ready within 60 s." in page


def test_what_was_last_seen_long_ago_is_called_old(look: Look) -> None:
    team = factories.team()
    live = a_deployment(team, ready=2)
    owner = factories.member(team)
    assert "what stands here is old" not in look(owner, "/")
    Deployment.objects.filter(pk=live.pk).update(observed_at=datetime.now(UTC) - timedelta(minutes=3))
    assert "was last looked at 3 min ago; what stands here is old." in look(owner, "/")


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("inference_queue_depth", "stays at 2 replicas: what it scales by is old (queue depth)."),
        ("inference_p99_latency", ""),
    ],
)
def test_only_a_signal_that_the_size_follows_is_missed(look: Look, old: str, said: str) -> None:
    """Of an endpoint that nobody asks, latency is old, and needs nobody."""
    team = factories.team()
    live = a_deployment(team, ready=2)
    Revision.objects.update(spec=specs.read_spec({}).to_json())
    now = datetime.now(UTC)
    names = ("inference_queue_depth", "inference_in_flight", "inference_p99_latency")
    Decision.objects.create(
        deployment=live,
        at=now,
        last_at=now,
        current_replicas=2,
        desired_replicas=2,
        limited_by="none",
        signals={name: {"value": 0.0, "error": "stale" if name == old else None} for name in names},
        sentence="Held at 2.",
    )
    page = look(factories.member(team), "/")
    assert said in page
    assert ("is old (" in page) is bool(said)


def test_the_overview_costs_no_query_per_row() -> None:
    team = factories.team()
    owner = factories.member(team)
    client = Client()
    assert owner.user is not None
    client.force_login(owner.user)
    counts = []
    for number in range(2):
        for more in range(3):
            a_deployment(team, f"d-{number}-{more}", ready=1)
            a_job(team, state="failed", finished_at=Now())
        with CaptureQueriesContext(connection) as queries:
            client.get("/")
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert counts[0] <= 20


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fraud", {"fraud-scorer", "fraud-endpoint"}),
        ("FRAUD-SC", {"fraud-scorer"}),
        ("fraud-scorer v1", {"fraud-scorer v1"}),
        ("model.onnx", {"fraud-scorer v1"}),
        ("champ", {"champion"}),
        ("HOLD", {"holdout"}),
        ("fraud-endpoint revision 1", {"fraud-endpoint revision 1"}),
        ("endpoint r1", {"fraud-endpoint revision 1"}),
        ("revision 1", {"fraud-endpoint revision 1"}),
        ("fraud-endpoint r2", set()),
        ("nothing of that name", set()),
        ("%", set()),
        ("_", set()),
        ("\\", set()),
        ("' OR 1=1--", set()),
        ("fraud%", set()),
    ],
)
def test_search_finds_names_literally_and_only_the_teams_own(look: Look, text: str, found: set[str]) -> None:
    team = factories.team()
    owner, viewer, stranger = factories.three_people(team)
    model = factories.model(team, "fraud-scorer")
    variant = factories.version(model).variants.get()
    Alias.objects.create(model=model, name="champion", variant=variant)
    Dataset.objects.create(model=model, name="holdout", artifact=variant.artifact, items=1)
    a_deployment(team, "fraud-endpoint")
    address = f"/search/?{urlencode({'q': text})}"
    known = {
        "fraud-scorer",
        "fraud-scorer v1",
        "fraud-endpoint",
        "champion",
        "holdout",
        "fraud-endpoint revision 1",
    }
    for person in (owner, viewer):
        page = look(person, address)
        assert {name for name in known if f">{name}</a>" in page} == found
        assert found or "Nothing is called that" in page
    assert not any(f">{name}</a>" in look(stranger, address) for name in known)


def test_a_job_is_found_by_its_number_and_a_version_by_its_digest(look: Look) -> None:
    team = factories.team()
    owner, _, stranger = factories.three_people(team)
    job = a_job(team)
    for text in (str(job.pk), f"job {job.pk}", f"%23{job.pk}"):
        assert f'href="/jobs/{job.pk}/"' in look(owner, f"/search/?q={text}")
        assert f'href="/jobs/{job.pk}/"' not in look(stranger, f"/search/?q={text}")
    assert f">{job.version}</a>" in look(owner, f"/search/?q={job.version.source_sha256}")


def test_a_box_that_asks_while_typing_gets_only_the_results() -> None:
    team = factories.team()
    owner = factories.member(team)
    factories.model(team, "fraud-scorer")
    client = Client()
    assert owner.user is not None
    client.force_login(owner.user)
    part = client.get("/search/?q=fraud", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert 'id="search-results"' in part
    assert "fraud-scorer" in part


@pytest.mark.parametrize("path", ["/", "/search/", "/activity/", "/settings/", "/settings/tokens/"])
def test_every_page_asks_a_visitor_to_log_in_and_leads_back(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 302
    assert answer["Location"] == f"/account/login/?next={path}"


def test_a_fragment_sends_a_logged_out_browser_to_the_login_page() -> None:
    answer = Client().get(
        "/", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/activity/?text=x"}
    )
    assert answer.status_code == 401
    assert answer["HX-Redirect"] == "/account/login/?next=%2Factivity%2F%3Ftext%3Dx"

"""From the form that makes a deployment over its plan to the rollout, and back."""

import html

import pytest

from deployments import preview, specs
from deployments.forms import initial_of
from deployments.models import Deployment, Rollout
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
LIST = "/deployments/"
ONE = "/deployments/scorer/"


def test_the_wizard_makes_deployment_and_revision_and_leads_to_the_plan(world: World) -> None:
    variant = world.revision().variant
    client = world.browser(world.owner)
    page = client.get(f"{LIST}new/?model=scorer&version=1&variant=0").content.decode()
    assert "Two signals" in page
    said = html.unescape(page)
    assert "curl -X POST http://testserver/api/v1/deployments/scorer/revisions/" in said, "the same by API"
    assert '{"model": "scorer", "version": 1, "variant": 0}' in said
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
        ("stack", "abacus", "Select a valid choice"),
        ("threads", "65", "less than or equal to 64"),
        ("max_replicas", "300", "at most 256"),
        ("min_replicas", "5", "is more than maxReplicas"),
        ("min_replicas", "0", "MinReplicas must be at least 1: without a replica nothing is measured"),
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


def test_the_stack_can_be_chosen_and_is_the_one_of_this_machine_unless_it_is(world: World) -> None:
    variant = world.revision().variant
    client = world.browser(world.owner)
    page = client.get(f"{LIST}new/").content.decode()
    assert '<option value="fastapi" selected>FastAPI</option>' in page
    assert '<option value="triton">Triton, on a Kubernetes cluster only</option>' in page
    body = initial_of(specs.read_spec({})) | {
        "target": "memory",
        "variant": f"scorer/{variant.version.number}/0",
    }
    for name, stack in (("small", ""), ("large", "triton")):
        assert client.post(f"{LIST}new/", body | {"name": name, "stack": stack}).status_code == 302
    made = {one.name: one.revisions.get().spec["stack"] for one in Deployment.objects.exclude(name="scorer")}
    assert made == {"small": "fastapi", "large": "triton"}
    assert '<option value="triton" selected>' in client.get(f"{LIST}large/settings/").content.decode()


def test_a_variant_that_the_chosen_stack_does_not_serve_is_refused_beside_the_stack(world: World) -> None:
    variant = world.revision().variant
    variant.format = "tensorrt"
    variant.save()
    body = initial_of(specs.read_spec({})) | {
        "name": "fresh",
        "target": "memory",
        "variant": f"scorer/{variant.version.number}/0",
    }
    answer = world.browser(world.owner).post(f"{LIST}new/", body)
    assert answer.status_code == 422
    assert answer.context["form"].errors == {
        "stack": ["Choose the stack triton. Triton serves it, on a Kubernetes cluster with a GPU."]
    }


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


def test_a_new_revision_begins_as_the_live_one(world: World) -> None:
    world.serve(batching={"max_batch_size": 32, "preferred_batch_size": [8, 16]}, threads=2)
    form = world.browser(world.owner).get(f"{ONE}settings/").context["form"]
    assert form.initial["max_batch_size"] == 32
    assert form.initial["preferred_batch_size"] == "8, 16"
    answer = world.browser(world.owner).post(f"{ONE}settings/", form.initial | {"threads": 1})
    assert answer["Location"] == f"{ONE}revisions/2/plan/"
    before, after = world.row.revisions.order_by("number")
    assert [change.path for change in preview.compare(before, after)] == ["threads"]

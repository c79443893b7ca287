"""What the verbs promise beyond the pages: guarded sizes, targets, plans against what really runs."""

import pytest
from django.test import Client

from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict, PreconditionFailed, Unprocessable
from controlplane.registry import usage
from controlplane.registry.models import Artifact, Variant
from deployments import preview, services, specs
from deployments.domain.cluster_strategy import Part
from deployments.models import Deployment, Target
from deployments.wishes import wish
from tests import factories
from tests.deployments.world import World

pytestmark = pytest.mark.django_db


def test_a_size_is_written_only_from_the_size_it_was_decided_on(world: World) -> None:
    world.serve()
    stale = world.deployment
    assert services.set_replicas(world.deployment, replicas=3)
    assert not services.set_replicas(stale, replicas=2)
    with pytest.raises(Conflict, match="moved while you chose"):
        services.scale(world.owner, stale, replicas=2)
    assert world.deployment.replicas == 3
    assert not AuditEvent.objects.filter(verb="scaled").exists(), "what did not happen is not in the audit"


def test_a_team_has_this_machine_from_its_beginning_and_looking_makes_nothing(world: World) -> None:
    team = world.stranger.team
    assert [(one.name, one.kind) for one in team.targets.all()] == [("this-machine", "local")]
    Target.objects.filter(team=team).delete()
    answer = Client().get(
        "/api/v1/targets/", headers={"Authorization": f"Bearer {factories.token(world.stranger)}"}
    )
    assert (answer.status_code, answer.json()["items"]) == (200, [])
    assert world.browser(world.stranger).get("/deployments/new/").status_code == 200
    assert not Target.objects.filter(team=team).exists()


def test_deployment_and_first_revision_are_made_together_or_not_at_all(world: World) -> None:
    variant = factories.version(factories.model(world.stranger.team)).variants.get(number=0)
    with pytest.raises(Unprocessable):
        services.create_with_revision(
            world.owner,
            name="half",
            target=world.row.target,
            protected=False,
            variant=variant,
            spec=specs.read_spec({}),
        )
    assert not Deployment.objects.filter(name="half").exists()


def test_pausing_twice_is_audited_once(world: World) -> None:
    for _ in range(2):
        services.pause_autoscaling(world.owner, world.deployment, paused=True)
    assert AuditEvent.objects.filter(verb="paused autoscaling of").count() == 1


def test_what_no_stack_serves_cannot_become_a_revision_and_says_how_it_can(world: World) -> None:
    revision = world.revision()
    revision.variant.format = "torch"
    with pytest.raises(Unprocessable, match="onnx-export") as error:
        specs.refuse_unusable(world.deployment, revision.variant, specs.read_spec({}))
    assert error.value.code == "format_not_served"
    assert "PyTorch program" in error.value.title


def test_a_quarantined_version_cannot_become_a_revision(world: World) -> None:
    revision = world.revision()
    version = revision.variant.version
    version.quarantined_reason = "It crashed at its cap."
    version.save()
    with pytest.raises(Conflict, match="quarantined"):
        services.add_revision(world.owner, world.row, variant=revision.variant, spec=specs.read_spec({}))


def test_a_metric_that_nobody_measures_is_refused_with_the_two_that_are(world: World) -> None:
    autoscaling = specs.read_spec({}).autoscaling
    autoscaling["metrics"][0]["external"]["metric"]["name"] = "inference_queue_dept"
    with pytest.raises(Unprocessable) as caught:
        world.revision(autoscaling=autoscaling)
    assert caught.value.detail == (
        "“inference_queue_dept” is not measured here; use inference_queue_depth or inference_in_flight."
    )


def test_damaged_bytes_block_a_plan(world: World) -> None:
    revision = world.revision()
    Artifact.objects.filter(pk=revision.variant.artifact_id).update(state=Artifact.State.DAMAGED)
    fresh = world.row.revisions.get()
    shown = preview.preview(world.deployment, fresh)
    assert shown.blocked
    with pytest.raises(Conflict, match="damaged"):
        services.roll_out(world.owner, world.deployment, fresh, etag=shown.etag)


def test_a_variant_that_has_not_passed_its_gate_is_warned_of_and_may_be_tried_out(world: World) -> None:
    revision = world.revision()
    Variant.objects.filter(pk=revision.variant_id).update(technique="int8-dynamic", verdict="not_faster")
    fresh = world.row.revisions.get()
    shown = preview.preview(world.deployment, fresh)
    (warning,) = [found for found in shown.findings if found.code == "gate_failed"]
    assert (warning.severity, warning.evidence) == ("warning", "It was never measured.")
    assert not shown.blocked
    services.roll_out(world.owner, world.deployment, fresh, etag=shown.etag)


def test_missing_bytes_are_said_and_do_not_stop_what_runs(world: World) -> None:
    world.serve(replicas=2)
    Artifact.objects.filter(pk=world.deployment.live_revision.variant.artifact_id).update(sha256="f" * 64)  # type: ignore[union-attr]
    with pytest.raises(Conflict, match="are missing"):
        preview.preview(world.deployment, world.row.revisions.get())
    world.step()
    assert world.seen.ready() == 2


def test_the_target_is_told_the_format_of_the_artifact_and_what_no_stack_serves_is_refused(
    world: World,
) -> None:
    revision = world.revision()
    Variant.objects.filter(pk=revision.variant_id).update(format="openvino")
    told = wish(world.row, [Part(revision=revision.number, replicas=1)], generation=1).workloads[0]
    assert told.artifact_format == "openvino"
    revision.variant.format = "abacus"
    with pytest.raises(Unprocessable, match="does not serve the format ABACUS"):
        services.add_revision(world.owner, world.row, variant=revision.variant, spec=specs.read_spec({}))


ENGINE = {
    "label": "TensorRT for RTX",
    "version": "1.7.1.116",
    "capabilities": ["8.6", "8.9"],
    "flags": [],
    "workspace_mib": 4096,
    "profiles": [],
    "layers": 2,
    "size_bytes": 147_308,
    "build_s": 0.06,
    "source_sha256": "ab" * 32,
    "log_tail": [],
}


def test_an_engine_asks_for_the_stack_that_loads_it_and_says_where_that_runs(world: World) -> None:
    variant = world.revision().variant
    variant.format, variant.provenance = "tensorrt", {"steps": [{"engine": ENGINE}]}
    variant.save()
    with pytest.raises(Unprocessable) as refused:
        services.add_revision(world.owner, world.row, variant=variant, spec=specs.read_spec({}))
    todo = (
        "Choose the stack triton. Triton serves it, on a Kubernetes cluster with a GPU of compute capability 8.6 or "
        "8.9."
    )
    assert (refused.value.code, refused.value.detail) == ("format_not_served", todo)
    assert refused.value.fields == {"spec.stack": [todo]}


@pytest.mark.parametrize(
    ("builder", "warned"), [("TensorRT for RTX", True), ("TensorRT", False)], ids=["rtx", "tensorrt"]
)
def test_an_engine_of_a_product_that_the_stack_does_not_load_is_warned_of(
    world: World, builder: str, warned: bool
) -> None:
    variant = world.revision().variant
    variant.format, variant.provenance = "tensorrt", {"steps": [{"engine": ENGINE | {"label": builder}}]}
    variant.save()
    revision = services.add_revision(
        world.owner, world.row, variant=variant, spec=specs.read_spec({"stack": "triton"})
    )
    found = {one.code: one for one in preview.preview(world.deployment, revision).findings}
    assert ("engine_of_another_builder" in found) == warned
    if warned:
        assert found["engine_of_another_builder"].severity == "warning"


def test_the_plan_is_against_what_runs_not_against_what_was_meant_to(world: World) -> None:
    live = world.serve(replicas=2)
    wish = world.target.desired(world.row.key)
    assert wish is not None
    world.target.scale(world.row.key, revision=1, replicas=5, generation=wish.generation + 1)
    changes = {
        change.path: (change.before, change.after) for change in preview.preview(world.deployment, live).diff
    }
    assert changes == {"replicas": (5, 2)}


def test_an_etag_moves_with_what_runs(world: World) -> None:
    world.serve()
    second = world.revision()
    before = preview.preview(world.deployment, second).etag
    assert preview.preview(world.deployment, second).etag == before
    services.scale(world.owner, world.deployment, replicas=2)
    world.step()
    assert preview.preview(world.deployment, second).etag != before
    with pytest.raises(
        PreconditionFailed, match=r"Its size or its API key changed; nothing was rolled out\."
    ):
        services.roll_out(world.owner, world.deployment, second, etag=before)


def test_a_variant_in_use_names_its_revisions(world: World) -> None:
    revision = world.revision()
    assert usage.of([revision.variant]) == ["revision 1 of deployment “scorer” uses it"]

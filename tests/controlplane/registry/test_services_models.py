"""Models, aliases, data sets and deletions: the verbs with three people, and what stands in their way."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.db.models.signals import pre_delete

from controlplane.accounts.models import AuditEvent, Role
from controlplane.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unprocessable
from controlplane.registry import services, usage
from controlplane.registry.models import Alias, Dataset, Model, Report, Variant, Verdict, Version
from optimizer.models import Job
from tests import factories
from tests.optimizer.jobs import queued

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "name",
    ["", "  ", "A", "a_b", "-a", "a-", "a.b", "x" * 64, "а", "a\u202eb", "a\nb", "../x", "default", "new"],
)
def test_a_name_that_breaks_the_rules_is_refused_with_the_rule(three, name):
    owner, _, _ = three
    with pytest.raises(InvalidInput) as error:
        services.register_model(owner.actor, name=name)
    assert "name" in error.value.fields
    assert not Model.objects.exists()


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\x00b", "a\x9bb", "x" * 2001, "\ud800"])
def test_a_description_that_cannot_be_read_is_refused_by_page_and_api(three, text):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    with pytest.raises(InvalidInput) as error:
        services.register_model(owner.actor, name="fraud", description=text)
    assert "description" in error.value.fields
    sent = text.encode(errors="replace").decode()
    page = owner.browser.post(f"{model.get_absolute_url()}edit/", {"description": sent})
    api = owner.api("PATCH", f"models/{model.name}/", {"description": sent})
    assert {page.status_code, api.status_code} == ({400} if sent == text else {302, 200})
    assert not Model.objects.filter(name="fraud").exists()


def test_a_description_is_kept_composed_with_its_lines(three):
    owner, _, _ = three
    made = services.register_model(owner.actor, name="fraud", description=" e\u0301\n\tעברית ")
    assert made.description == "\xe9\n\tעברית"


@pytest.mark.parametrize("name", ["null", "true", "yes", "1e3", "0x10", "2026-01-01", "x" * 63])
def test_a_name_that_only_looks_special_is_a_name(three, name):
    owner, _, _ = three
    assert services.register_model(owner.actor, name=name).name == name


def test_a_name_is_taken_within_its_team_only(three):
    owner, _, stranger = three
    services.register_model(owner.actor, name="fraud")
    with pytest.raises(Conflict):
        services.register_model(owner.actor, name="fraud")
    services.register_model(stranger.actor, name="fraud")


def test_a_viewer_changes_nothing(three):
    owner, viewer, _ = three
    version = factories.version(factories.model(owner.actor.team))
    model, variant = version.model, version.variants.get()
    alias = services.move_alias(owner.actor, model, name="champion", variant=variant)
    verbs = [
        lambda: services.register_model(viewer.actor, name="x"),
        lambda: services.register_with_version(viewer.actor, name="x", chunks=[b""]),
        lambda: services.describe_model(viewer.actor, model, description="x"),
        lambda: services.upload_version(viewer.actor, model, chunks=[b""]),
        lambda: services.move_alias(viewer.actor, model, name="x", variant=variant),
        lambda: services.remove_alias(viewer.actor, alias),
        lambda: services.delete_version(viewer.actor, version),
        lambda: services.delete_model(viewer.actor, model),
        lambda: services.add_dataset(
            viewer.actor, model, name="x", role="evaluation", version=version, chunks=[b""]
        ),
    ]
    for verb in verbs:
        with pytest.raises(Forbidden):
            verb()
    with pytest.raises(Forbidden):  # an engineer deletes versions, an admin models
        services.delete_model(owner.actor, model)


def test_every_change_is_audited_with_who_and_what(three):
    owner, _, _ = three
    model = services.register_model(owner.actor, name="fraud")
    services.describe_model(owner.actor, model, description=" scores ")
    version = factories.version(model)
    services.move_alias(owner.actor, model, name="champion", variant=version.variants.get())
    services.remove_alias(owner.actor, Alias.objects.get())
    services.delete_version(owner.actor, version)
    verbs = list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))
    assert verbs == ["registered", "described", "moved alias of", "removed alias of", "deleted"]
    assert set(AuditEvent.objects.values_list("user", "team")) == {(owner.actor.user.pk, owner.actor.team.pk)}
    moved = AuditEvent.objects.get(verb="moved alias of")
    assert moved.details == {"alias": "champion", "from": None, "to": f"{version} original"}


def test_an_alias_moves_and_remembers_from_where(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    first, second = factories.version(model), factories.version(model)
    services.move_alias(owner.actor, model, name="champion", variant=first.variants.get())
    services.move_alias(owner.actor, model, name="champion", variant=second.variants.get())
    assert Alias.objects.get().variant == second.variants.get()
    assert AuditEvent.objects.first().details["from"] == f"{first} original"


def test_an_alias_points_inside_its_model_and_not_to_quarantine(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    version, elsewhere = factories.version(model), factories.version(factories.model(owner.actor.team))
    with pytest.raises(Unprocessable):
        services.move_alias(owner.actor, model, name="champion", variant=elsewhere.variants.get())
    services.quarantine(version, reason="It crashed its worker twice.")
    version.refresh_from_db()
    with pytest.raises(Conflict, match="quarantined"):
        services.move_alias(owner.actor, model, name="champion", variant=version.variants.get())


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict != Verdict.BETTER])
def test_an_alias_does_not_point_to_what_has_not_passed_unless_somebody_says_why(three, verdict):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    variant = factories.variant(version, verdict=verdict)
    Report.objects.create(variant=variant, verdict=verdict, sentence="0.31x at batch 1.", data={})
    with pytest.raises(Conflict, match="has not passed its gate") as refused:
        services.move_alias(owner.actor, version.model, name="champion", variant=variant, override="  ")
    assert (refused.value.code, list(refused.value.fields)) == ("gate_failed", ["override"])
    assert refused.value.detail.startswith("0.31x at batch 1.")
    assert not Alias.objects.exists()
    services.move_alias(
        owner.actor, version.model, name="champion", variant=variant, override=" It is small. "
    )
    assert Alias.objects.get().variant == variant
    details = AuditEvent.objects.get(verb="moved alias of").details
    assert (details["override"], details["not passed"]) == ("It is small.", ["0.31x at batch 1."])


def test_what_is_better_needs_no_reason_and_keeps_none(three):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    variant = factories.variant(version, verdict="better")
    services.move_alias(owner.actor, version.model, name="champion", variant=variant, override="Just so.")
    assert "override" not in AuditEvent.objects.get(verb="moved alias of").details


def test_a_version_in_use_is_not_deleted_and_its_users_are_named(three):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    services.move_alias(owner.actor, version.model, name="champion", variant=version.variants.get())
    job = queued(owner.actor, version)
    with pytest.raises(Conflict) as error:
        services.delete_version(owner.actor, version)
    assert error.value.code == "in_use"
    assert "champion" in error.value.detail
    assert f"job {job.pk} is queued" in error.value.detail
    assert Version.objects.filter(pk=version.pk).exists()


def test_what_begins_to_use_a_version_while_it_is_deleted_wins(three, monkeypatch):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    Alias.objects.create(model=version.model, name="late", variant=version.variants.get())
    monkeypatch.setattr(usage, "of", lambda variants: [])
    with pytest.raises(Conflict) as error:
        services.delete_version(owner.actor, version)
    assert error.value.code == "in_use"
    assert Version.objects.filter(pk=version.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_what_begins_to_use_a_version_at_the_very_last_moment_wins_too(three):
    """The rows are looked through already; only the end of the transaction can tell."""
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))

    def point() -> None:
        try:
            Alias.objects.create(model=version.model, name="late", variant=version.variants.get())
        finally:
            connection.close()

    def elsewhere(**_: object) -> None:
        with ThreadPoolExecutor(1) as other:
            other.submit(point).result()

    page = f"{version.get_absolute_url()}delete/"
    pre_delete.connect(elsewhere, sender=Variant)
    try:
        answer = owner.browser.post(page, {"confirm": f"{version.model.name}/{version.number}"})
    finally:
        pre_delete.disconnect(elsewhere, sender=Variant)
    assert answer.status_code == 409
    assert "is in use and cannot be deleted" in answer.content.decode()
    assert Version.objects.filter(pk=version.pk).exists()
    assert not AuditEvent.objects.exists()


def test_what_somebody_else_removed_a_moment_ago_is_not_found_and_leaves_no_trace(three, npz):
    owner, _, _ = three
    boss = factories.member(owner.actor.team, role=Role.ADMIN)
    version = factories.version(factories.model(owner.actor.team))
    model, variant = version.model, version.variants.get()
    alias = services.move_alias(owner.actor, model, name="champion", variant=variant)
    dataset = services.add_dataset(
        owner.actor, model, name="held", role="evaluation", version=version, chunks=[npz()]
    )
    services.remove_alias(owner.actor, Alias.objects.get())
    services.delete_model(boss, Model.objects.get())
    before = AuditEvent.objects.count()
    verbs = [
        lambda: services.describe_model(owner.actor, model, description="x"),
        lambda: services.move_alias(owner.actor, model, name="x", variant=variant),
        lambda: services.remove_alias(owner.actor, alias),
        lambda: services.delete_version(owner.actor, version),
        lambda: services.delete_model(boss, model),
        lambda: services.delete_dataset(owner.actor, dataset),
        lambda: services.add_dataset(
            owner.actor, model, name="x", role="evaluation", version=version, chunks=[npz()]
        ),
    ]
    for verb in verbs:
        with pytest.raises(NotFound, match="removed in the meantime"):
            verb()
    assert AuditEvent.objects.count() == before


def test_a_version_goes_with_its_variants_reports_and_finished_jobs(three):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    variant = factories.variant(version)
    Report.objects.create(variant=variant, verdict="better", sentence="Better.", data={})
    job = queued(owner.actor, version)
    Job.objects.filter(pk=job.pk).update(state="failed")
    services.delete_version(owner.actor, version)
    assert not any(rows.objects.exists() for rows in (Version, Variant, Report, Job))


def test_a_model_goes_with_everything_below_it(three, npz):
    owner, _, _ = three
    boss = factories.member(owner.actor.team, role=Role.ADMIN)
    model = factories.model(owner.actor.team)
    for _ in range(2):
        factories.variant(factories.version(model))
    version = model.versions.first()
    services.add_dataset(owner.actor, model, name="held", role="evaluation", version=version, chunks=[npz()])
    services.delete_model(boss, model)
    assert not any(rows.objects.exists() for rows in (Model, Dataset, Version, Variant))


def test_a_data_set_fits_the_signature_and_has_a_name_of_its_own(three, npz):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))

    def add(name: str, body: bytes) -> Dataset:
        return services.add_dataset(
            owner.actor, version.model, name=name, role="evaluation", version=version, chunks=[body]
        )

    made = add("held", npz(items=16))
    assert (made.items, made.has_labels) == (16, True)
    with pytest.raises(Conflict) as error:
        add("held", npz(items=17))
    assert "name" in error.value.fields
    with pytest.raises(Unprocessable):
        add("wide", npz(width=5))
    assert Dataset.objects.count() == 1


def test_a_data_set_that_a_job_still_needs_is_not_deleted(three, npz):
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    dataset = services.add_dataset(
        owner.actor, version.model, name="held", role="evaluation", version=version, chunks=[npz()]
    )
    job = queued(owner.actor, version, evaluation_set=dataset)
    with pytest.raises(Conflict) as error:
        services.delete_dataset(owner.actor, dataset)
    assert f"job {job.pk}" in error.value.detail
    Job.objects.filter(pk=job.pk).update(state="succeeded")
    services.delete_dataset(owner.actor, dataset)
    assert not Dataset.objects.exists()

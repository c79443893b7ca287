"""Queries about the registry, each deciding once what it fetches. All start from the actor's team."""

from django.db.models import Case, Count, Exists, OuterRef, Prefetch, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.shortcuts import get_object_or_404

from controlplane.accounts.access import Actor
from controlplane.accounts.models import AuditEvent
from controlplane.core.errors import Conflict
from controlplane.registry.answers import Answers
from controlplane.registry.models import Alias, Dataset, Import, Model, Report, Variant, Verdict, Version


def models(actor: Actor) -> QuerySet[Model]:
    """With the latest version's number and creation time, and the aliases."""
    latest = Version.objects.filter(model=OuterRef("pk")).order_by("-number")
    aliases = Alias.objects.select_related("variant__version__model")
    return (
        Model.objects.in_team(actor.team)
        .annotate(
            latest_number=Subquery(latest.values("number")[:1]),
            latest_at=Subquery(latest.values("created_at")[:1]),
        )
        .prefetch_related(Prefetch("aliases", queryset=aliases))
    )


def search_models(rows: QuerySet[Model], text: str) -> QuerySet[Model]:
    """Literal match in name or description, whatever the characters mean to SQL."""
    return rows.filter(Q(name__icontains=text) | Q(description__icontains=text)) if text else rows


BEST_FIRST = tuple(Verdict)
"""A verdict's place says how good it is; see `Verdict`."""


def with_findings(rows: QuerySet[Model]) -> QuerySet[Model]:
    """For the list: the best verdict of any variant ("" without one) and the number of versions."""
    ranked = Case(*(When(verdict=word, then=rank) for rank, word in enumerate(BEST_FIRST)))
    judged = Variant.objects.filter(version__model=OuterRef("pk")).exclude(verdict="").order_by(ranked)
    kept = Version.objects.filter(model=OuterRef("pk")).order_by().values("model").annotate(kept=Count("pk"))
    return rows.annotate(
        best_verdict=Coalesce(Subquery(judged.values("verdict")[:1]), Value("")),
        versions_kept=Coalesce(Subquery(kept.values("kept")), 0),
    )


def filtered_models(
    rows: QuerySet[Model], *, text: str = "", verdict: str = "", alias: str = "", alias_part: str = ""
) -> QuerySet[Model]:
    """What the list's address asks for. `verdict`: some variant has it; `alias`: the model has one of that name, or
    with that part in its name."""
    rows = search_models(rows, text)
    if verdict:
        rows = rows.filter(Exists(Variant.objects.filter(version__model=OuterRef("pk"), verdict=verdict)))
    if alias or alias_part:
        wanted = {"name": alias} if alias else {"name__icontains": alias_part}
        rows = rows.filter(Exists(Alias.objects.filter(model=OuterRef("pk"), **wanted)))
    return rows


MODEL_SORTS = {"name": "name", "versions": "versions_kept", "uploaded": "latest_at"}
"""Of `with_findings`."""
VERSION_SORTS = {"number": "number", "size": "source_bytes"}


def model(actor: Actor, name: str) -> Model:
    return get_object_or_404(models(actor), name=name)


def versions(actor: Actor) -> QuerySet[Version]:
    return Version.objects.in_team(actor.team).select_related("model", "artifact", "created_by", "trusted_by")


def version(actor: Actor, name: str, number: int) -> Version:
    return get_object_or_404(versions(actor), model__name=name, number=number)


def variants(actor: Actor) -> QuerySet[Variant]:
    return Variant.objects.in_team(actor.team).select_related("version__model", "parent", "artifact")


def variant(actor: Actor, name: str, number: int, variant_number: int) -> Variant:
    return get_object_or_404(
        variants(actor), version__model__name=name, version__number=number, number=variant_number
    )


def variants_with_reports(version: Version) -> list[Variant]:
    """The version's variants, its own bytes first; each with `latest`, its newest report or None. Two queries."""
    rows = list(version.variants.select_related("version__model", "parent", "artifact").order_by("number"))
    newest: dict[int, Report] = {}
    for found in Report.objects.filter(variant__in=rows).order_by("pk"):
        newest[found.variant_id] = found
    for row in rows:
        row.latest = newest.get(row.pk)  # type: ignore[attr-defined]
    return rows


def servable(model: Model) -> QuerySet[Variant]:
    """What an alias of the model may point to: newest version first, its own bytes before what was made of them."""
    rows = Variant.objects.filter(version__model=model, version__quarantined_reason="")
    return rows.select_related("version__model").order_by("-version__number", "number")


def activity(actor: Actor, model: Model, *, limit: int = 20) -> list[AuditEvent]:
    """What happened to the model and its versions, newest first. Index scan on the team's events."""
    about = Q(object_type="model", object_id=model.pk) | Q(
        object_type="version", object_id__in=Version.objects.filter(model=model).values("pk")
    )
    return list(AuditEvent.objects.in_team(actor.team).filter(about).select_related("user")[:limit])


def latest_report(variant: Variant) -> Report | None:
    return variant.reports.first()


def report(variant: Variant, pk: int) -> Report:
    return get_object_or_404(variant.reports, pk=pk)


def aliases(actor: Actor, name: str) -> QuerySet[Alias]:
    return (
        Alias.objects.in_team(actor.team).filter(model__name=name).select_related("variant__version__model")
    )


def datasets(actor: Actor, name: str) -> QuerySet[Dataset]:
    return Dataset.objects.in_team(actor.team).filter(model__name=name).select_related("artifact", "model")


def imports(actor: Actor, name: str) -> QuerySet[Import]:
    rows = Import.objects.in_team(actor.team).filter(model__name=name)
    return rows.select_related("model", "version", "created_by")


def one_import(actor: Actor, name: str, pk: int) -> Import:
    return get_object_or_404(imports(actor, name), pk=pk)


def alias(actor: Actor, name: str, alias_name: str) -> Alias:
    return get_object_or_404(aliases(actor, name), name=alias_name)


def dataset(actor: Actor, name: str, dataset_name: str) -> Dataset:
    return get_object_or_404(datasets(actor, name), name=dataset_name)


def newest(actor: Actor, model: Model) -> Version | None:
    return versions(actor).filter(model=model).first()


def answers_in_words(actor: Actor, model: Model) -> list[str]:
    """How answers of its newest version are compared; nothing while it has none. One query."""
    version = newest(actor, model)
    return Answers.from_json(model.answers).in_words(version.signature) if version else []


def latest_version(actor: Actor, model: Model) -> Version:
    """Raises Conflict while the model has none."""
    found = newest(actor, model)
    if found is None:
        raise Conflict("no_version", f"“{model.name}” has no version yet.", "Upload a version first.")
    return found

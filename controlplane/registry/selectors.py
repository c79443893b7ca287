"""Queries about the registry, each deciding once what it fetches. All start from the actor's team."""

from django.db.models import OuterRef, Prefetch, Q, QuerySet, Subquery
from django.shortcuts import get_object_or_404

from controlplane.accounts.access import Actor
from controlplane.core.errors import Conflict
from controlplane.registry.models import Alias, Dataset, Model, Report, Variant, Version


def models(actor: Actor) -> QuerySet[Model]:
    """With the latest version's number and creation time, and the aliases."""
    latest = Version.objects.filter(model=OuterRef("pk")).order_by("-number")
    aliases = Alias.objects.select_related("variant__version")
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


def model(actor: Actor, name: str) -> Model:
    return get_object_or_404(models(actor), name=name)


def versions(actor: Actor) -> QuerySet[Version]:
    return Version.objects.in_team(actor.team).select_related("model", "artifact", "created_by")


def version(actor: Actor, name: str, number: int) -> Version:
    return get_object_or_404(versions(actor), model__name=name, number=number)


def variants(actor: Actor) -> QuerySet[Variant]:
    return Variant.objects.in_team(actor.team).select_related("version__model", "parent", "artifact")


def variant(actor: Actor, name: str, number: int, variant_number: int) -> Variant:
    return get_object_or_404(
        variants(actor), version__model__name=name, version__number=number, number=variant_number
    )


def latest_report(variant: Variant) -> Report | None:
    return variant.reports.first()


def aliases(actor: Actor, name: str) -> QuerySet[Alias]:
    return (
        Alias.objects.in_team(actor.team).filter(model__name=name).select_related("variant__version__model")
    )


def datasets(actor: Actor, name: str) -> QuerySet[Dataset]:
    return Dataset.objects.in_team(actor.team).filter(model__name=name).select_related("artifact", "model")


def alias(actor: Actor, name: str, alias_name: str) -> Alias:
    return get_object_or_404(aliases(actor, name), name=alias_name)


def dataset(actor: Actor, name: str, dataset_name: str) -> Dataset:
    return get_object_or_404(datasets(actor, name), name=dataset_name)


def latest_version(actor: Actor, model: Model) -> Version:
    """Raises Conflict while the model has none."""
    found = versions(actor).filter(model=model).first()
    if found is None:
        raise Conflict("no_version", f"“{model.name}” has no version yet.", "Upload a version first.")
    return found
